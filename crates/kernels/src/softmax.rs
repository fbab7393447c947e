//! Log-softmax of rows, shifted by the row's maximum so that nothing overflows.

use crate::par::{self, Par};
use crate::real::Real;
use crate::simd::{Kernel, Simd, dispatch};

/// `out[r, c] = x[r, c] - ln(sum over c of e^x[r, c])` for `x` and `out` of `[rows, cols]`. Panics if lengths do not fit.
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

/// Sums side by side.
const LANES: usize = 16;

struct LogSoftmax<'a, T> {
    x: &'a [T],
    cols: usize,
    out: &'a mut [T],
}

impl<T: Real> Kernel for LogSoftmax<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let rows = self.out.chunks_exact_mut(self.cols).zip(self.x.chunks_exact(self.cols));
        for (out, x) in rows {
            let mut max = T::NEG_INFINITY;
            for &x in x {
                max = if x > max { x } else { max };
            }
            // A row of nothing but -infinity stays NaN-free only in its maximum; its result is NaN, as it is mathematically undefined.
            for (o, &x) in out.iter_mut().zip(x) {
                *o = (x - max).exp::<S>();
            }
            let mut sums = [T::ZERO; LANES];
            let mut blocks = out.chunks_exact(LANES);
            for block in &mut blocks {
                for (sum, &e) in sums.iter_mut().zip(block) {
                    *sum += e;
                }
            }
            for (sum, &e) in sums.iter_mut().zip(blocks.remainder()) {
                *sum += e;
            }
            let mut half = LANES / 2;
            while half > 0 {
                for i in 0..half {
                    sums[i] += sums[i + half];
                }
                half /= 2;
            }
            let shift = sums[0].ln::<S>();
            for (o, &x) in out.iter_mut().zip(x) {
                *o = (x - max) - shift;
            }
        }
    }
}
