//! Where the time of a workload goes, by primitive and by instruction.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::workloads::Work;

/// Instructions that are listed one by one.
const LISTED: usize = 12;

/// Profiles the work again and again for about so long and prints what its instructions took on one thread at their fastest: what the machine
/// does beside it counts least.
pub fn print(name: &str, work: &mut dyn Work, time: Duration) -> Result<(), String> {
    work.step()?;
    let start = Instant::now();
    let (what, mut least) = work.profile();
    while start.elapsed() < time {
        for (least, new) in least.iter_mut().zip(work.profile().1) {
            least.1 = least.1.min(new.1);
        }
    }
    let total: Duration = least.iter().map(|(_, d)| *d).sum();
    println!("\n{name}: {:.3} ms for {what} on one thread, {} instructions", ms(total), least.len());
    for (primitive, time, count) in by_primitive(&least) {
        println!("  {primitive:<16} {:>9.3} ms  {:>5.1} %  in {count}", ms(time), 100.0 * ms(time) / ms(total));
    }
    least.sort_by_key(|(_, time)| Reverse(*time));
    for (instruction, time) in least.iter().take(LISTED) {
        println!("    {:>9.3} ms  {instruction}", ms(*time));
    }
    Ok(())
}

/// Time and number of the instructions of each primitive, the costliest first.
fn by_primitive(told: &[(String, Duration)]) -> Vec<(&str, Duration, usize)> {
    let mut sums: BTreeMap<&str, (Duration, usize)> = BTreeMap::new();
    for (instruction, time) in told {
        // An instruction reads `Conv(Conv { stride: .. }) f32[..]`.
        let primitive = instruction.split([' ', '(', '{']).next().unwrap_or_default();
        let sum = sums.entry(primitive).or_default();
        *sum = (sum.0 + *time, sum.1 + 1);
    }
    let mut rows: Vec<_> = sums.into_iter().map(|(name, (time, count))| (name, time, count)).collect();
    rows.sort_by_key(|&(_, time, _)| Reverse(time));
    rows
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_are_added_by_primitive() {
        let us = Duration::from_micros;
        let told = [
            ("Conv(Conv { stride: [1, 1] }) f32[2]".to_string(), us(5)),
            ("MatMul { ta: true, tb: false } f32[2, 2]".into(), us(6)),
            ("Conv(Conv { stride: [2, 2] }) f32[2]".into(), us(4)),
            ("Add f32[2]".into(), us(1)),
        ];
        assert_eq!(by_primitive(&told), [("Conv", us(9), 2), ("MatMul", us(6), 1), ("Add", us(1), 1)]);
    }
}
