//! What the machine can do when nothing else holds it up: multiply-adds of a core, and bytes that a core copies.

use metaforge_kernels::simd::{Kernel, Simd, dispatch};
use metaforge_kernels::{Buffer, Real};
use std::collections::BTreeMap;
use std::hint::black_box;
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Instant;

/// Independent chains: more than the latency of a multiply-add times the number that start in a cycle.
const CHAINS: usize = 12;

/// Rounds of the chains in one trial: a few milliseconds of arithmetic.
const ROUNDS: usize = 1_000_000;

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

/// Does multiply-adds alone for a few milliseconds; gives how many floating-point operations they were.
pub fn multiply_adds() -> f64 {
    dispatch(Chains(black_box(ROUNDS)))
}

/// GFLOP/s of one core in f32, multiply-adds counted as two: the best of twenty trials.
#[allow(dead_code, reason = "shared by benchmarks of which each takes a part")]
pub fn peak() -> f64 {
    static PEAK: OnceLock<f64> = OnceLock::new();
    *PEAK.get_or_init(|| {
        let rate = |_| {
            let start = Instant::now();
            let work = multiply_adds();
            work / start.elapsed().as_secs_f64() / 1e9
        };
        (0..20).map(rate).fold(0.0, f64::max)
    })
}

/// GB/s (1e9 bytes, read and written) at which one core copies numbers, when half of `bytes` is read and half is written: the limit of the
/// cache that they fit in, or of memory. The best of many trials.
#[allow(dead_code, reason = "shared by benchmarks of which each takes a part")]
pub fn bandwidth(bytes: usize) -> f64 {
    static KNOWN: Mutex<BTreeMap<usize, f64>> = Mutex::new(BTreeMap::new());
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    *known.entry(bytes).or_insert_with(|| {
        let from = noise((bytes / 8).max(1));
        let mut to = from.clone();
        // A trial moves a few megabytes, so that reading the clock counts for nothing.
        let times = (1 << 23) / bytes.max(8) + 1;
        let rate = |_| {
            let start = Instant::now();
            for _ in 0..times {
                to.copy_from_slice(black_box(&from));
                black_box(&mut to);
            }
            (times * from.len() * 8) as f64 / start.elapsed().as_secs_f64() / 1e9
        };
        (0..20).map(rate).fold(0.0, f64::max)
    })
}

/// Numbers that begin on a cache line, as those of a tensor do.
#[derive(Clone)]
pub struct Numbers(Buffer);

impl Deref for Numbers {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        self.0.as_slice()
    }
}

impl DerefMut for Numbers {
    fn deref_mut(&mut self) -> &mut [f32] {
        self.0.as_mut_slice()
    }
}

/// Numbers in [-1, 1).
pub fn noise(len: usize) -> Numbers {
    let mut numbers = Numbers(Buffer::zeroed(len * size_of::<f32>()));
    numbers.iter_mut().enumerate().for_each(|(i, x)| *x = (i * 7919 % 1021) as f32 / 512.0 - 1.0);
    numbers
}
