//! The weight gradient, the adjoint of the same algorithm in the weights: `dw = G^T [sum over tiles of (B^T x B) * (A g A^T)] G`.
//!
//! The tiles are summed in blocks whose values stay in the second-level cache, one block after the other, as the direct way sums its
//! pixels.

use std::marker::PhantomData;

use super::lines::{Collect, Input, Line, Spread};
use super::transform::{Gather, Grid, Planes};
use super::{gap, tile_block};
use crate::Real;
use crate::conv::window::Images;
use crate::microkernel::{Kernels, ROWS, Segment, Tile};
use crate::par::{Par, SendPtr, for_each_chunk, for_each_range};
use crate::prefetch::prefetch;
use crate::scratch::{self, Slot};
use crate::simd::dispatch_on;

/// Elements of a block of transformed tiles: with f32 half of the second-level cache. The larger it is, the seldomer the sums are read and
/// written, which are as large.
const BLOCK: usize = 1 << 17;
/// Blocks that are transformed before their products are added, where there are threads: each of them then has a block of its own, and
/// they wait for each other once in so many.
const TOGETHER: usize = 8;
/// Rows of a plane of products that a task has at least.
const ROW_GRAIN: usize = 16 * ROWS;

/// `dw[a, b, c, o] = sum over pixels p of x[origin + p + (a, b), c] g[p, o]` for taps a, b < 3; x is zero outside.
pub(in crate::conv) struct WeightGrad<'a, T: 'static> {
    pub(in crate::conv) kernels: &'static Kernels<T>,
    pub(in crate::conv) n: usize,
    pub(in crate::conv) x: Images<'a, T>,
    pub(in crate::conv) origin: [isize; 2],
    pub(in crate::conv) g: Images<'a, T>,
}

impl<T: Real> WeightGrad<'_, T> {
    /// With tiles of `M x M` pixels of g, `N` = M + 2; dw is `[3, 3, c of x, c of g]`, and there is at least one tile.
    pub(super) fn run<const M: usize, const N: usize>(&self, par: Par, dw: &mut [T])
    where
        Input: Line<N, N>,
        Spread: Line<M, N>,
        Collect: Line<N, 3>,
    {
        let (ci, co) = (self.x.c, self.g.c);
        assert_eq!(dw.len(), 9 * ci * co);
        let tiles = self.g.hw.map(|x| x.div_ceil(M));
        let total = self.n * tiles[0] * tiles[1];
        let count = tile_block(BLOCK, N * N * (ci + co)).min(total);
        let (v_plane, q_plane, plane) = (count * ci + gap::<T>(), count * co + gap::<T>(), ci * co + gap::<T>());
        let block = N * N * (v_plane + q_plane) + ci.max(co);
        let x_grid = Grid { tiles, step: M, origin: self.origin, hw: self.x.hw };
        let g_grid = Grid { tiles, step: M, origin: [0, 0], hw: self.g.hw };
        let blocks = total.div_ceil(count);
        let together = if par == Par::Rayon { TOGETHER.min(blocks) } else { 1 };
        scratch::with::<T, _>(Slot::Spare, N * N * plane, |sums| {
            for first in (0..blocks).step_by(together) {
                let here = together.min(blocks - first);
                scratch::with::<T, _>(Slot::Window, here * block, |values| {
                    for_each_chunk(par, values, block, |at, values| {
                        for (i, values) in values.chunks_exact_mut(block).enumerate() {
                            let t0 = (first + at / block + i) * count;
                            let tiles = [t0, (t0 + count).min(total)];
                            let (v, rest) = values.split_at_mut(N * N * v_plane);
                            let (q, zeros) = rest.split_at_mut(N * N * q_plane);
                            zeros.fill(T::ZERO);
                            let line = PhantomData::<Input>;
                            let job =
                                Gather { line, images: self.x, grid: x_grid, tiles, zeros, to: v, plane: v_plane };
                            dispatch_on(self.kernels.isa, job);
                            let line = PhantomData::<Spread>;
                            let job =
                                Gather { line, images: self.g, grid: g_grid, tiles, zeros, to: q, plane: q_plane };
                            dispatch_on(self.kernels.isa, job);
                        }
                    });
                    let values = &*values;
                    let to = SendPtr::new(sums);
                    let pieces = ci.div_ceil(ROW_GRAIN);
                    for_each_range(par, N * N * pieces, 1, |low, high| {
                        for (i, values) in values.chunks_exact(block).enumerate() {
                            let tiles = count.min(total - (first + i) * count);
                            let ahead = [0, 1].map(|j| ((first + here + i + j) * count).min(total));
                            let [x_ahead, g_ahead] = [x_grid.span(ahead, N), g_grid.span(ahead, M)];
                            for piece in low..high {
                                prefetch(self.x.data.as_ptr(), x_ahead.map(|p| p * ci), [piece, N * N * pieces]);
                                prefetch(self.g.data.as_ptr(), g_ahead.map(|p| p * co), [piece, N * N * pieces]);
                                let (p, row) = (piece / pieces, piece % pieces * ROW_GRAIN);
                                let rows = [row, (row + ROW_GRAIN).min(ci)];
                                let v = &values[p * v_plane..][..tiles * ci];
                                let q = &values[N * N * v_plane + p * q_plane..][..tiles * co];
                                let sum = to.get().wrapping_add(p * plane);
                                // SAFETY: each piece is some rows of a plane of the sums, set by the first block.
                                unsafe { self.product(v, q, rows, sum, first + i > 0) }
                            }
                        }
                    });
                });
            }
            let job = Planes::<T, Collect, N, 3> {
                line: PhantomData,
                from: sums.as_ptr(),
                from_plane: plane,
                to: dw.as_mut_ptr(),
                to_plane: ci * co,
                len: ci * co,
            };
            // SAFETY: the planes of the sums are longer than that, dw is nine planes of that size.
            unsafe { job.run(self.kernels.isa) }
        });
    }

    /// `sum[c, o] (+)= sum over tiles of v[t, c] q[t, o]` for a range of c.
    ///
    /// # Safety
    /// These rows of the sum are writable, and initialised when adding; nobody else uses them meanwhile.
    unsafe fn product(&self, v: &[T], q: &[T], [first, last]: [usize; 2], sum: *mut T, add: bool) {
        let (ci, co) = (self.x.c, self.g.c);
        let len = v.len() / ci;
        assert!(last <= ci && v.len() == len * ci && q.len() == len * co);
        let segments = [Segment { a: 0, b: 0, len }];
        for col in (0..co).step_by(self.kernels.wide) {
            for row in (first..last).step_by(ROWS) {
                let rows = (last - row).min(ROWS);
                let tile = Tile {
                    a: std::array::from_fn(|i| v.as_ptr().wrapping_add(row + i.min(rows - 1))),
                    a_step: ci as isize,
                    b: q.as_ptr().wrapping_add(col),
                    b_step: co as isize,
                    segments: &segments,
                    c: std::array::from_fn(|i| sum.wrapping_add((row + i.min(rows - 1)) * co + col)),
                    add,
                };
                // SAFETY: `len` tiles of v and q (checked above); the caller vouches for the rows of the sum.
                unsafe { self.kernels.tile(rows, (co - col).min(self.kernels.wide), &tile) }
            }
        }
    }
}
