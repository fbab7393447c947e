//! The roof that the benchmarks are measured against: how many multiply-adds a core does when nothing else holds it up.

use criterion::{BenchmarkGroup, Throughput, measurement::WallTime};
use metaforge_kernels::Real;
use metaforge_kernels::simd::{Kernel, Simd, dispatch};
use std::hint::black_box;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Independent chains: more than the latency of a multiply-add times the number that start in a cycle.
const CHAINS: usize = 12;

struct Chains(usize);

impl Kernel for Chains {
    /// Floating-point operations.
    type Output = f64;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> f64 {
        let factor = f32::splat(simd, 0.999);
        let mut sums = [f32::splat(simd, 1.0); CHAINS];
        for _ in 0..self.0 {
            for sum in &mut sums {
                *sum = f32::vfma(simd, *sum, factor, factor);
            }
        }
        black_box(sums);
        (self.0 * CHAINS * f32::lanes::<S>() * 2) as f64
    }
}

/// GFLOP/s of one core in f32, multiply-adds counted as two.
pub fn peak() -> f64 {
    static PEAK: OnceLock<f64> = OnceLock::new();
    *PEAK.get_or_init(|| {
        let rate = |_| {
            let start = Instant::now();
            let work = dispatch(Chains(black_box(1_000_000)));
            work / start.elapsed().as_secs_f64() / 1e9
        };
        (0..20).map(rate).fold(0.0, f64::max)
    })
}

/// Benchmarks `f`, which does `work` floating-point operations: criterion's elements are FLOP, and the fastest sample is set against the roof.
pub fn bench(group: &mut BenchmarkGroup<WallTime>, name: &str, work: f64, mut f: impl FnMut()) {
    let mut best = Duration::MAX;
    group.throughput(Throughput::Elements(work as u64));
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
    let rate = work / best.as_secs_f64() / 1e9;
    println!("{name}: {rate:.1} GFLOP/s, {:.0} % of one core's {:.0}", 100.0 * rate / peak(), peak());
}

/// Numbers in [-1, 1).
pub fn noise(len: usize) -> Vec<f32> {
    (0..len).map(|i| (i * 7919 % 1021) as f32 / 512.0 - 1.0).collect()
}
