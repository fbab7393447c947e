//! Where the time of a workload goes, by primitive and by instruction.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::workloads::Work;

/// Instructions that are listed one by one.
const LISTED: usize = 12;

/// Profiles the work again and again for about so long and prints what its instructions took at their fastest (what the machine does beside it
/// counts least): on one thread, and on all threads of the current pool if it has more.
pub fn print(name: &str, work: &mut dyn Work, time: Duration) -> Result<(), String> {
    work.step()?;
    let threads = rayon::current_num_threads();
    let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().map_err(|e| e.to_string())?;
    let (what, alone) = one.install(|| fastest(work, time));
    let together = if threads > 1 { fastest(work, time).1 } else { alone.clone() };
    let names = alone.iter().map(|(name, _)| name.as_str());
    let mut times: Vec<Line<'_>> =
        names.zip(alone.iter().zip(&together)).map(|(name, (a, b))| (name, [a.1, b.1])).collect();
    let total = sum(&times);
    println!("\n{name}: {what}, {} instructions; ms on 1 thread, share, ms on {threads}, times as fast", times.len());
    if what.contains("task") {
        println!(
            "  (where tasks are at least as many as threads, each runs on one: its instructions take as long on {threads})"
        );
    }
    println!("  {:<16} {}", "all", figures(total, total));
    for (primitive, time, count) in by_primitive(&times) {
        println!("  {primitive:<16} {}  in {count}", figures(time, total));
    }
    times.sort_by_key(|(_, time)| Reverse(time[1]));
    for (instruction, time) in times.iter().take(LISTED) {
        println!("  {:<16} {}  {instruction}", "", figures(*time, total));
    }
    Ok(())
}

/// An instruction, and what it takes on one thread and on all.
type Line<'a> = (&'a str, [Duration; 2]);

/// What is profiled, and the least that each instruction took.
fn fastest(work: &mut dyn Work, time: Duration) -> (String, Vec<(String, Duration)>) {
    let start = Instant::now();
    let (what, mut least) = work.profile();
    while start.elapsed() < time {
        for (least, new) in least.iter_mut().zip(work.profile().1) {
            least.1 = least.1.min(new.1);
        }
    }
    (what, least)
}

fn sum(lines: &[Line<'_>]) -> [Duration; 2] {
    [0, 1].map(|i| lines.iter().map(|(_, time)| time[i]).sum())
}

fn figures([one, all]: [Duration; 2], total: [Duration; 2]) -> String {
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let share = 100.0 * ms(one) / ms(total[0]);
    format!("{:>9.3}  {share:>5.1} %  {:>9.3}  {:>5.2}x", ms(one), ms(all), ms(one) / ms(all))
}

/// Time and number of the instructions of each primitive, the costliest first.
fn by_primitive<'a>(lines: &[Line<'a>]) -> Vec<(&'a str, [Duration; 2], usize)> {
    let mut sums: BTreeMap<&str, Vec<Line<'a>>> = BTreeMap::new();
    for line in lines {
        // An instruction reads `Conv(Conv { stride: .. }) f32[..]`.
        sums.entry(line.0.split([' ', '(', '{']).next().unwrap_or_default()).or_default().push(*line);
    }
    let mut rows: Vec<_> = sums.into_iter().map(|(name, lines)| (name, sum(&lines), lines.len())).collect();
    rows.sort_by_key(|&(_, time, _)| Reverse(time));
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_are_added_by_primitive() {
        let us = |one, all| [one, all].map(Duration::from_micros);
        let lines = [
            ("Conv(Conv { stride: [1, 1] }) f32[2]", us(5, 3)),
            ("MatMul { ta: true, tb: false } f32[2, 2]", us(6, 6)),
            ("Conv(Conv { stride: [2, 2] }) f32[2]", us(4, 2)),
            ("Add f32[2]", us(1, 1)),
        ];
        assert_eq!(by_primitive(&lines), [("Conv", us(9, 5), 2), ("MatMul", us(6, 6), 1), ("Add", us(1, 1), 1)]);
    }
}
