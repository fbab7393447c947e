//! The roofs that the benchmarks are measured against, and a benchmark that tells how near it comes.

pub mod limits;

use criterion::{BenchmarkGroup, Throughput, measurement::WallTime};

use std::time::{Duration, Instant};

/// Benchmarks `f`, which does `work` floating-point operations: criterion's elements are FLOP, and the fastest sample is set against what a
/// core can multiply and add.
#[allow(dead_code, reason = "each benchmark takes one of the two roofs")]
pub fn bench(group: &mut BenchmarkGroup<WallTime>, name: &str, work: f64, f: impl FnMut()) {
    group.throughput(Throughput::Elements(work as u64));
    let (rate, peak) = (work / fastest(group, name, f) / 1e9, limits::peak());
    println!("{name}: {rate:.1} GFLOP/s, {:.0} % of one core's {peak:.0}", 100.0 * rate / peak);
}

/// Benchmarks `f`, which reads and writes `bytes` in all: the fastest sample is set against a copy that moves as many.
#[allow(dead_code, reason = "each benchmark takes one of the two roofs")]
pub fn bench_bytes(group: &mut BenchmarkGroup<WallTime>, name: &str, bytes: usize, f: impl FnMut()) {
    let (rate, roof) = (bytes as f64 / fastest(group, name, f) / 1e9, limits::bandwidth(bytes));
    println!("{name}: {rate:.1} GB/s, {:.0} % of a copy's {roof:.0} at this size", 100.0 * rate / roof);
}

/// Benchmarks `f` and gives the seconds of a call in the fastest sample.
fn fastest(group: &mut BenchmarkGroup<WallTime>, name: &str, mut f: impl FnMut()) -> f64 {
    let mut best = Duration::MAX;
    group.bench_function(name, |bencher| {
        bencher.iter_custom(|times| {
            let start = Instant::now();
            for _ in 0..times {
                f();
            }
            let total = start.elapsed();
            best = best.min(total / times as u32);
            total
        });
    });
    best.as_secs_f64()
}
