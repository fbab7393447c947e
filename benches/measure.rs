//! Timing of repeated work, and the memory of this process.

use std::time::{Duration, Instant};

use serde::Serialize;

use crate::workloads::{Work, Workload};

/// A sample lasts at least this long: many short steps are timed together, so that reading the clock counts for nothing.
const SHORTEST: Duration = Duration::from_micros(200);

/// Samples that are taken however long they last.
const FEWEST: usize = 3;

/// One line of the results.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// Name of the workload.
    pub name: String,
    /// Threads that it could use.
    pub threads: usize,
    /// Median time of a step, in milliseconds.
    pub median_ms: f64,
    /// Shortest time of a step, in milliseconds.
    pub min_ms: f64,
    /// Samples taken.
    pub samples: usize,
    /// Multiply-adds of products and convolutions, counted as two and as if done densely, over the median time: 1e9 a second.
    pub gflops: f64,
    /// Most memory of the process that was resident while the workload ran, in units of 1e6 bytes; None where it cannot be told.
    pub peak_mb: Option<f64>,
    /// What others took, if they were asked.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<PeerRow>,
}

/// Another library's time for the same work.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PeerRow {
    /// What it calls itself, with its version.
    pub peer: String,
    /// Median time of a step, in milliseconds.
    pub median_ms: f64,
    /// Shortest time of a step, in milliseconds.
    pub min_ms: f64,
    /// Samples taken.
    pub samples: usize,
    /// Its median over ours: above 1 where ours is faster.
    pub ratio: f64,
}

/// Steps of a workload, warmed up and ready to be timed.
pub struct Timer {
    work: Box<dyn Work>,
    /// Steps of a sample.
    repeat: usize,
    /// Milliseconds a step, one for each sample.
    times: Vec<f64>,
}

impl Timer {
    /// Sets the workload up and runs it until it is warm: twice, and for half a second if it is short.
    pub fn warm(workload: &Workload) -> Result<Timer, String> {
        let mut work = (workload.start)();
        let start = Instant::now();
        let mut fastest = Duration::MAX;
        for step in 0.. {
            let before = Instant::now();
            work.step()?;
            fastest = fastest.min(before.elapsed());
            if step > 0 && start.elapsed() > Duration::from_millis(500) {
                break;
            }
        }
        let repeat = SHORTEST.as_nanos().div_ceil(fastest.as_nanos().max(1)) as usize;
        Ok(Timer { work, repeat, times: Vec::new() })
    }

    /// Takes samples for so long, three at least.
    pub fn run(&mut self, time: Duration) -> Result<(), String> {
        let start = Instant::now();
        for sample in 0.. {
            if sample >= FEWEST && start.elapsed() >= time {
                break;
            }
            let before = Instant::now();
            for _ in 0..self.repeat {
                self.work.step()?;
            }
            self.times.push(before.elapsed().as_secs_f64() * 1e3 / self.repeat as f64);
        }
        Ok(())
    }

    /// The results so far, without memory and peers.
    pub fn row(&self, name: &str, threads: usize) -> Row {
        let median_ms = median(&self.times);
        Row {
            name: name.into(),
            threads,
            median_ms,
            min_ms: least(&self.times),
            samples: self.times.len(),
            gflops: self.work.flops() as f64 / median_ms / 1e6,
            peak_mb: None,
            peers: Vec::new(),
        }
    }
}

impl PeerRow {
    /// From the milliseconds of its steps, beside our median.
    pub fn new(peer: &str, times: &[f64], ours: f64) -> PeerRow {
        let median_ms = median(times);
        PeerRow { peer: peer.into(), median_ms, min_ms: least(times), samples: times.len(), ratio: median_ms / ours }
    }
}

/// The middle of the values, or the mean of the two that are; NaN of none.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0,
    }
}

fn least(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::INFINITY, f64::min)
}

/// Forgets the peak of the resident memory, so that [`peak_mb`] tells that of what follows. Does nothing where there is no `/proc`.
pub fn forget_peak() {
    // 5 is "reset the peak" (proc(5)). Where it may not be written, the peak is that of the whole run.
    _ = std::fs::write("/proc/self/clear_refs", "5");
}

/// The most memory that was resident since [`forget_peak`], in units of 1e6 bytes; None where there is no `/proc`.
pub fn peak_mb() -> Option<f64> {
    peak_of(&std::fs::read_to_string("/proc/self/status").ok()?)
}

fn peak_of(status: &str) -> Option<f64> {
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024.0 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn the_peak_is_read_from_the_status() {
        assert_eq!(peak_of("VmPeak:\t  99 kB\nVmHWM:\t   1000 kB\n"), Some(1.024));
        assert_eq!(peak_of("VmPeak:\t  99 kB\n"), None);
    }

    #[test]
    fn a_row_has_the_seven_fields_and_peers_when_asked() {
        let mut row = Row {
            name: "a/b".into(),
            threads: 2,
            median_ms: 2.0,
            min_ms: 1.5,
            samples: 3,
            gflops: 10.0,
            peak_mb: None,
            peers: Vec::new(),
        };
        let keys = |row: &Row| {
            let value = serde_json::to_value(row).unwrap();
            value.as_object().unwrap().keys().cloned().collect::<Vec<_>>()
        };
        assert_eq!(keys(&row), ["gflops", "median_ms", "min_ms", "name", "peak_mb", "samples", "threads"]);
        row.peers.push(PeerRow::new("torch", &[3.0, 5.0, 4.0], 2.0));
        assert_eq!((row.peers[0].median_ms, row.peers[0].min_ms, row.peers[0].ratio), (4.0, 3.0, 2.0));
        assert!(keys(&row).contains(&"peers".to_string()));
    }

    #[test]
    fn short_steps_are_timed_together() {
        struct Count(usize);
        impl Work for Count {
            fn step(&mut self) -> Result<(), String> {
                self.0 += 1;
                if self.0 == usize::MAX { Err("far".into()) } else { Ok(()) }
            }
            fn flops(&self) -> u64 {
                0
            }
            fn profile(&mut self) -> (String, Vec<(String, Duration)>) {
                ("a step".into(), Vec::new())
            }
        }
        let workload = Workload { name: "count", peers: &[], start: || Box::new(Count(0)) };
        let mut timer = Timer::warm(&workload).unwrap();
        assert!(timer.repeat > 10);
        timer.run(Duration::ZERO).unwrap();
        assert_eq!(timer.row("count", 1).samples, FEWEST);
    }
}
