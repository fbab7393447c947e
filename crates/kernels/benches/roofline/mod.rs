//! The roofs that the benchmarks are measured against, and a benchmark that tells how near it comes.

pub mod limits;

use criterion::{BenchmarkGroup, Throughput, measurement::WallTime};

use std::time::Instant;

/// Benchmarks `f`, which does `work` floating-point operations: criterion's elements are FLOP, and the fastest sample is set against what a
/// core can multiply and add.
#[allow(dead_code, reason = "each benchmark takes one of the two roofs")]
pub fn bench(group: &mut BenchmarkGroup<WallTime>, name: &str, work: f64, f: impl FnMut()) {
    group.throughput(Throughput::Elements(work as u64));
    let Some(seconds) = fastest(group, name, f) else { return };
    let (rate, peak) = (work / seconds / 1e9, limits::peak());
    println!("{name}: {rate:.1} GFLOP/s, {:.0} % of one core's {peak:.0}", 100.0 * rate / peak);
}

/// Benchmarks `f`, which reads and writes `bytes` in all: the fastest sample is set against a copy that moves as many.
#[allow(dead_code, reason = "each benchmark takes one of the two roofs")]
pub fn bench_bytes(group: &mut BenchmarkGroup<WallTime>, name: &str, bytes: usize, f: impl FnMut()) {
    let Some(seconds) = fastest(group, name, f) else { return };
    let (rate, roof) = (bytes as f64 / seconds / 1e9, limits::bandwidth(bytes));
    println!("{name}: {rate:.1} GB/s, {:.0} % of a copy's {roof:.0} at this size", 100.0 * rate / roof);
}

/// Benchmarks `f` and gives the seconds of a call in the fastest sample; None if a filter left it out.
fn fastest(group: &mut BenchmarkGroup<WallTime>, name: &str, mut f: impl FnMut()) -> Option<f64> {
    // Not a Duration, which would round short calls to a nanosecond.
    let mut best = f64::INFINITY;
    group.bench_function(name, |bencher| {
        bencher.iter_custom(|times| {
            let start = Instant::now();
            for _ in 0..times {
                f();
            }
            let total = start.elapsed();
            best = best.min(total.as_secs_f64() / times as f64);
            total
        });
    });
    best.is_finite().then_some(best)
}
