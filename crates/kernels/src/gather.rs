//! Rows picked by index, and the adjoint: rows added by index.

use crate::par::{self, Par};
use crate::real::Real;
use crate::simd::{Kernel, Simd, dispatch};

/// `out[b, i, :] = x[b, idx[b, i], :]` with `x` `[B, R, W]`, `idx` `[B, I]`, `out` `[B, I, W]`. Panics on an index that is not below R, or
/// if lengths do not fit.
#[allow(clippy::too_many_arguments)]
#[track_caller]
pub fn gather<T: Copy + Send + Sync>(
    par: Par,
    x: &[T],
    idx: &[u32],
    b: usize,
    r: usize,
    i: usize,
    w: usize,
    out: &mut [T],
) {
    assert_eq!(x.len(), b * r * w, "gather: input of [{b}, {r}, {w}]");
    assert_eq!(idx.len(), b * i, "gather: indices of [{b}, {i}]");
    assert_eq!(out.len(), b * i * w, "gather: output of [{b}, {i}, {w}]");
    check(idx, r, "gather");
    if w == 0 {
        return;
    }
    let grain = (par::CHEAP_GRAIN_BYTES / size_of::<T>().max(1)).div_ceil(w) * w;
    par::for_each_chunk(par, out, grain, |start, out| {
        let (mut row, mut done) = (start / w, 0);
        // One batch at a time, so that the batch's base is found once.
        while done < out.len() {
            let batch = row / i;
            let rows = ((batch + 1) * i - row).min((out.len() - done) / w);
            let from = &x[batch * r * w..][..r * w];
            let (idx, to) = (&idx[row..row + rows], &mut out[done..done + rows * w]);
            if w == 1 {
                for (o, &at) in to.iter_mut().zip(idx) {
                    *o = from[at as usize];
                }
            } else {
                for (o, &at) in to.chunks_exact_mut(w).zip(idx) {
                    o.copy_from_slice(&from[at as usize * w..][..w]);
                }
            }
            row += rows;
            done += rows * w;
        }
    });
}

#[track_caller]
fn check(idx: &[u32], r: usize, what: &str) {
    let largest = idx.iter().copied().fold(0, u32::max);
    assert!(idx.is_empty() || (largest as usize) < r, "{what}: index {largest} into {r} rows");
}

/// `out[b, idx[b, i], :] += g[b, i, :]` into zeros, in order of i, with `g` `[B, I, W]`, `idx` `[B, I]`, `out` `[B, R, W]`. Panics on
/// an index that is not below R, or if lengths do not fit.
#[allow(clippy::too_many_arguments)]
#[track_caller]
pub(crate) fn scatter_add<T: Real>(
    par: Par,
    g: &[T],
    idx: &[u32],
    b: usize,
    i: usize,
    r: usize,
    w: usize,
    out: &mut [T],
) {
    assert_eq!(g.len(), b * i * w, "scatter_add: input of [{b}, {i}, {w}]");
    assert_eq!(idx.len(), b * i, "scatter_add: indices of [{b}, {i}]");
    assert_eq!(out.len(), b * r * w, "scatter_add: output of [{b}, {r}, {w}]");
    check(idx, r, "scatter_add");
    let plane = r * w;
    if plane == 0 {
        return;
    }
    // Whole batches: the additions to a row stay on one thread, in order.
    let grain = (par::CHEAP_GRAIN_BYTES / size_of::<T>()).div_ceil(plane.max(i * w)) * plane;
    par::for_each_chunk(par, out, grain, |start, out| {
        let batch = start / plane;
        let batches = out.len() / plane;
        dispatch(Scatter {
            g: &g[batch * i * w..][..batches * i * w],
            idx: &idx[batch * i..][..batches * i],
            dims: [i, r, w],
            out,
        });
    });
}

struct Scatter<'a, T> {
    g: &'a [T],
    idx: &'a [u32],
    dims: [usize; 3],
    out: &'a mut [T],
}

impl<T: Real> Kernel for Scatter<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let [i, r, w] = self.dims;
        self.out.fill(T::ZERO);
        for (batch, out) in self.out.chunks_exact_mut(r * w).enumerate() {
            let g = &self.g[batch * i * w..][..i * w];
            let idx = &self.idx[batch * i..][..i];
            if w == 1 {
                for (&g, &at) in g.iter().zip(idx) {
                    out[at as usize] += g;
                }
            } else {
                for (g, &at) in g.chunks_exact(w).zip(idx) {
                    for (o, &g) in out[at as usize * w..][..w].iter_mut().zip(g) {
                        *o += g;
                    }
                }
            }
        }
    }
}
