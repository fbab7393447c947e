//! Log-softmax of rows, shifted by the row's maximum so that nothing overflows.

use crate::par::{self, Par};
use crate::real::Real;
use crate::simd::{Kernel, Simd, dispatch};
use crate::term::{Plain, line};

/// `out[r, c] = x[r, c] - ln(sum over c of e^x[r, c])` for `x` and `out` of `[rows, cols]`. Panics if lengths do not fit.
///
/// A row with a NaN, with infinity, or of nothing but -infinity becomes NaN.
#[track_caller]
pub(crate) fn log_softmax_rows<T: Real>(par: Par, x: &[T], rows: usize, cols: usize, out: &mut [T]) {
    assert_eq!(x.len(), rows * cols, "log_softmax: input of [{rows}, {cols}]");
    assert_eq!(out.len(), x.len(), "log_softmax: output of [{rows}, {cols}]");
    let grain = (par::COSTLY_GRAIN_BYTES / size_of::<T>()).div_ceil(cols.max(1)) * cols;
    par::for_each_chunk(par, out, grain, |start, out| {
        let x = &x[start..start + out.len()];
        dispatch(LogSoftmax { x, cols, out });
    });
}

/// Elements whose exponentials are taken at a time: many short rows, or a part of a long one.
const TILE: usize = 256;

/// Rows of at least this length are compared in [`LANES`] lanes; elements of a block that is mapped at once, a divisor of [`TILE`].
const WIDE: usize = 32;

/// Maxima side by side.
const LANES: usize = 16;

struct LogSoftmax<'a, T> {
    x: &'a [T],
    cols: usize,
    out: &'a mut [T],
}

impl<T: Real> Kernel for LogSoftmax<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let cols = self.cols;
        let mut exps = [T::ZERO; TILE];
        // The logarithms of the sums, one a row.
        let mut logs = [T::ZERO; TILE];
        let beside = (TILE / cols).max(1);
        let tile = beside * cols;
        for (out, x) in self.out.chunks_mut(tile).zip(self.x.chunks(tile)) {
            for (out, x) in out.chunks_exact_mut(cols).zip(x.chunks_exact(cols)) {
                let max = maximum(x);
                for (o, &x) in out.iter_mut().zip(x) {
                    *o = x - max;
                }
            }
            let rows = out.len() / cols;
            logs[..rows].fill(T::ZERO);
            for part in out.chunks(TILE) {
                exps[..part.len()].copy_from_slice(part);
                map_blocks(&mut exps, part.len(), |x| x.exp::<S>());
                let cols = cols.min(part.len());
                for (row, sum) in logs[..rows].iter_mut().enumerate() {
                    let [part] = line(simd, Plain(&exps), row * cols, cols, T::ZERO);
                    *sum += part;
                }
            }
            map_blocks(&mut logs, rows, |x| x.ln::<S>());
            for (out, &log) in out.chunks_exact_mut(cols).zip(&logs) {
                for o in out {
                    *o -= log;
                }
            }
        }
    }
}

/// Maps the first `len` elements, and those up to a whole number of blocks: a scalar tail would take longer.
#[inline(always)]
fn map_blocks<T: Real>(tile: &mut [T; TILE], len: usize, f: impl Fn(T) -> T) {
    let (blocks, _) = tile.as_chunks_mut::<WIDE>();
    for block in &mut blocks[..len.div_ceil(WIDE)] {
        for x in block {
            *x = f(*x);
        }
    }
}

/// The largest element; a NaN may be passed over.
#[inline(always)]
pub(crate) fn maximum<T: Real>(x: &[T]) -> T {
    let larger = |a: T, b: T| if b > a { b } else { a };
    let mut max = T::NEG_INFINITY;
    let mut rest = x;
    if x.len() >= WIDE {
        let (blocks, tail) = x.as_chunks::<LANES>();
        let mut maxima = blocks[0];
        for block in &blocks[1..] {
            for (m, &x) in maxima.iter_mut().zip(block) {
                *m = larger(*m, x);
            }
        }
        max = maxima.into_iter().fold(max, larger);
        rest = tail;
    }
    rest.iter().copied().fold(max, larger)
}
