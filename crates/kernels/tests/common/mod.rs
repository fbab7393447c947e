//! Numbers to compute with and their bits, for the tests that compare one way of computing with another.
#![allow(dead_code)]

use std::sync::{Mutex, MutexGuard, PoisonError};

use metaforge_kernels::Real;
use metaforge_kernels::fused::{Place, Step, StepOp};

/// Held by a test while it forces an instruction set or compares bits.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Numbers in [-1, 1).
pub(crate) fn noise<T: Real>(len: usize, seed: u64) -> Vec<T> {
    let number = |i: u64| (i * 7919 + seed * 104_729) % 1021;
    (0..len as u64).map(|i| T::from_f64(number(i) as f64 / 510.5 - 1.0)).collect()
}

/// The bits of the same numbers in f64.
pub(crate) fn bits<T: Real>(x: &[T]) -> Vec<u64> {
    x.iter().map(|x| x.to_f64().to_bits()).collect()
}

/// A step over pixels.
pub(crate) fn step(op: StepOp, args: &[Place], out: Place) -> Step {
    Step { op, args: args.to_vec(), out, pooled: false }
}
