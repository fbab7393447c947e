//! How far training is: a bar with figures, rate and time left on a terminal, plain lines elsewhere. Both on stderr.

use std::io::{IsTerminal, Write, stderr};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::metrics::{Metrics, short};

/// Figures that fit on a line.
const SHOWN: usize = 4;
/// The bar reads figures that change at every step; more often than this they cannot be read.
const REFRESH: Duration = Duration::from_millis(200);
/// Off a terminal, a line is written at least this often (and at every tenth of the way).
const PATIENCE: Duration = Duration::from_secs(10);

/// Shows the progress of one run.
#[derive(Debug)]
pub struct Progress {
    label: String,
    first: u64,
    last: u64,
    began: Instant,
    shown: Instant,
    way: Way,
}

#[derive(Debug)]
enum Way {
    Bar(ProgressBar),
    Lines,
    Silent,
}

impl Progress {
    /// Progress of the steps after `done` up to `steps`, under a label.
    pub fn new(label: &str, done: u64, steps: u64) -> Progress {
        let way = if stderr().is_terminal() { Way::Bar(bar(label, done, steps)) } else { Way::Lines };
        Progress { label: label.into(), first: done, last: steps, began: Instant::now(), shown: Instant::now(), way }
    }

    /// Shows nothing.
    pub fn silent() -> Progress {
        let now = Instant::now();
        Progress { label: String::new(), first: 0, last: 0, began: now, shown: now, way: Way::Silent }
    }

    /// Step `step` gave these figures.
    pub fn update(&mut self, step: u64, metrics: &Metrics) {
        match &self.way {
            Way::Bar(bar) => {
                bar.set_position(step);
                if self.shown.elapsed() >= REFRESH || step == self.first + 1 {
                    bar.set_message(figures(metrics));
                    self.shown = Instant::now();
                }
            }
            Way::Lines => {
                let tenth = |step: u64| step * 10 / self.last.max(1);
                if tenth(step) > tenth(step - 1) || self.shown.elapsed() >= PATIENCE {
                    self.shown = Instant::now();
                    let rate = (step - self.first) as f64 / self.began.elapsed().as_secs_f64().max(1e-9);
                    let left = (self.last - step) as f64 / rate;
                    line(&format!(
                        "{}  step {step}/{}  {}  {} steps/s  {} left",
                        self.label,
                        self.last,
                        figures(metrics),
                        short(rate),
                        duration(left)
                    ));
                }
            }
            Way::Silent => {}
        }
    }

    /// Says something beside the bar.
    pub fn note(&self, text: &str) {
        match &self.way {
            Way::Bar(bar) => bar.suspend(|| line(&format!("{}  {text}", self.label))),
            Way::Lines => line(&format!("{}  {text}", self.label)),
            Way::Silent => {}
        }
    }

    /// Takes the bar away.
    pub fn finish(self) {
        if let Way::Bar(bar) = self.way {
            bar.finish_and_clear();
        }
    }
}

/// Shows how many tasks of an evaluation are done, on a terminal only: elsewhere a few minutes need no lines.
#[derive(Debug)]
pub struct Tasks {
    label: String,
    bar: OnceLock<ProgressBar>,
    shows: bool,
}

impl Tasks {
    /// Under a label, unless `quiet`. There is no bar before the first task.
    pub fn new(label: &str, quiet: bool) -> Tasks {
        Tasks { label: label.into(), bar: OnceLock::new(), shows: !quiet && stderr().is_terminal() }
    }

    /// `done` of `count` tasks are done; may be called from any thread.
    pub fn update(&self, done: usize, count: usize) {
        if self.shows {
            self.bar.get_or_init(|| bar(&self.label, 0, count as u64)).set_position(done as u64);
        }
    }

    /// Takes the bar away.
    pub fn finish(self) {
        if let Some(bar) = self.bar.get() {
            bar.finish_and_clear();
        }
    }
}

fn bar(label: &str, done: u64, steps: u64) -> ProgressBar {
    let style = ProgressStyle::with_template(
        "{prefix:.bold} {bar:14.cyan/dim} {pos}/{len} {eta} left {per_sec:.dim}  {wide_msg}",
    )
    .expect("the template is well-formed")
    .progress_chars("━╸─");
    let bar = ProgressBar::new(steps).with_style(style).with_prefix(label.to_owned()).with_position(done);
    // Without this the time that the steps before took would count into the rate.
    bar.reset_eta();
    bar
}

fn figures(metrics: &Metrics) -> String {
    let shown = metrics.iter().take(SHOWN).map(|(name, value)| format!("{} {}", name.replace('/', " "), short(value)));
    shown.collect::<Vec<_>>().join("  ")
}

fn line(text: &str) {
    // A closed stderr is no reason to stop training.
    let _ = writeln!(stderr(), "{text}");
}

/// Seconds for people: `7.6 s`, `48 s`, `2 min 05 s`, `3 h 20 min`.
pub fn duration(seconds: f64) -> String {
    if !seconds.is_finite() {
        return "?".into();
    }
    if seconds < 9.95 {
        return format!("{:.1} s", seconds.max(0.0));
    }
    let s = seconds.round() as u64;
    match s {
        0..60 => format!("{s} s"),
        60..3600 => format!("{} min {:02} s", s / 60, s % 60),
        _ => format!("{} h {:02} min", s / 3600, s % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_well() {
        assert_eq!(
            [0.04, 7.6, 48.2, 125.0, 12_000.0, f64::INFINITY].map(duration),
            ["0.0 s", "7.6 s", "48 s", "2 min 05 s", "3 h 20 min", "?"]
        );
    }
}
