//! The weight gradient, the adjoint of the same algorithm in the weights: `dw = G^T [sum over tiles of (B^T x B) * (A g A^T)] G`.
//!
//! The tiles are summed in blocks, one block after the other, as the direct way sums its pixels.

use std::marker::PhantomData;

use super::lines::{Collect, Input, Line, Spread};
use super::transform::{Gather, Grid, Planes};
use super::{Phase, Points, for_each_piece, gap, tile_block};
use crate::Real;
use crate::conv::window::Images;
use crate::microkernel::{Kernels, ROWS, Segment, Tile};
use crate::par::{Par, SendPtr, for_each_range};
use crate::prefetch::prefetch;
use crate::scratch::{self, Slot};

/// Elements of a block of transformed tiles: with f32 half of the second-level cache. The larger it is, the seldomer the sums are read and
/// written, which are as large.
const BLOCK: usize = 1 << 17;
/// Elements of the blocks that are transformed before their products are added, where there are threads: they wait for each other twice in
/// so many.
const ROUND: usize = 8 * BLOCK;
/// Parts that the transforms of a round are cut into for threads.
const PARTS: usize = 8;
/// Rows of a plane of products that a task has at least.
const ROW_GRAIN: usize = 16 * ROWS;

/// `dw[tap + (a, b) stride, c, o]` is for each phase the sum over pixels p of `x[origin + (p + (a, b)) stride, c] g[p, o]`; x is zero outside.
pub(in crate::conv) struct WeightGrad<'a, T: 'static> {
    pub(in crate::conv) kernels: &'static Kernels<T>,
    pub(in crate::conv) n: usize,
    pub(in crate::conv) x: Images<'a, T>,
    pub(in crate::conv) phases: &'a [Phase],
    pub(in crate::conv) stride: usize,
    pub(in crate::conv) g: Images<'a, T>,
}

impl<T: Real> WeightGrad<'_, T> {
    /// dw is `[taps * stride, taps * stride, c of x, c of g]`, and there is at least one tile.
    pub(in crate::conv) fn run(&self, taps: usize, points: Points, par: Par, dw: &mut [T]) {
        match (taps, points) {
            (3, Points::Four) => self.tiles::<3, 2, 4>(par, dw),
            (3, Points::Five) => self.tiles::<3, 3, 5>(par, dw),
            (3, Points::Six) => self.tiles::<3, 4, 6>(par, dw),
            (2, Points::Four) => self.tiles::<2, 3, 4>(par, dw),
            (2, Points::Five) => self.tiles::<2, 4, 5>(par, dw),
            (2, Points::Six) => self.tiles::<2, 5, 6>(par, dw),
            _ => unreachable!("phases have two or three taps"),
        }
    }

    /// Rows of a plane of products: the channels of x in each phase.
    fn rows(&self) -> usize {
        self.phases.len() * self.x.c
    }

    /// With tiles of `M x M` pixels of g, `N` = M + K - 1, for `K x K` taps.
    fn tiles<const K: usize, const M: usize, const N: usize>(&self, par: Par, dw: &mut [T])
    where
        Input: Line<N, N>,
    {
        let (ci, rows, co) = (self.x.c, self.rows(), self.g.c);
        let tiles = self.g.hw.map(|x| x.div_ceil(M));
        let total = self.n * tiles[0] * tiles[1];
        // With many channels the sums outgrow the cache first.
        let count = tile_block(BLOCK, N * N * (rows + co)).max(rows * co / (rows + co)).min(total);
        let round = if par == Par::Rayon { (ROUND / (N * N * (rows + co)) / count).max(1) * count } else { count };
        let round = round.min(total);
        let (v_plane, q_plane, plane) = (round * rows + gap::<T>(), round * co + gap::<T>(), rows * co + gap::<T>());
        let x_grid = |phase: &Phase| Grid { tiles, step: M, stride: self.stride, origin: phase.origin, hw: self.x.hw };
        let g_grid = Grid { tiles, step: M, stride: 1, origin: [0, 0], hw: self.g.hw };
        scratch::with::<T, _>(Slot::Spare, N * N * plane, |sums| {
            scratch::with::<T, _>(Slot::Window, N * N * (v_plane + q_plane) + ci.max(co), |values| {
                let (v, rest) = values.split_at_mut(N * N * v_plane);
                let (q, zeros) = rest.split_at_mut(N * N * q_plane);
                zeros.fill(T::ZERO);
                let zeros = &*zeros;
                for start in (0..total).step_by(round) {
                    let here = round.min(total - start);
                    let (v_to, q_to) = (SendPtr::new(v), SendPtr::new(q));
                    for_each_range(par, here, here.div_ceil(PARTS), |first, last| {
                        let tiles = [start + first, start + last];
                        for (i, phase) in self.phases.iter().enumerate() {
                            let job = Gather::<T, Input, N, N> {
                                line: PhantomData,
                                images: self.x,
                                grid: x_grid(phase),
                                tiles,
                                zeros,
                                to: v_to.get().wrapping_add(first * rows + i * ci),
                                row: rows,
                                plane: v_plane,
                            };
                            // SAFETY: planes of v have rows for `round` tiles, a part of each for this phase; ranges are disjoint.
                            unsafe { job.run(self.kernels.isa) }
                        }
                        let job = Gather::<T, Spread, M, N> {
                            line: PhantomData,
                            images: self.g,
                            grid: g_grid,
                            tiles,
                            zeros,
                            to: q_to.get().wrapping_add(first * co),
                            row: co,
                            plane: q_plane,
                        };
                        // SAFETY: as above.
                        unsafe { job.run(self.kernels.isa) }
                    });
                    let (v, q, to) = (&*v, &*q, SendPtr::new(sums));
                    let pieces = rows.div_ceil(ROW_GRAIN);
                    for_each_range(par, N * N * pieces, 1, |low, high| {
                        for first in (0..here).step_by(count) {
                            let last = (first + count).min(here);
                            // The same tiles of the next round.
                            let ahead = [first, last].map(|t| (start + round + t).min(total));
                            let [x_ahead, g_ahead] = [x_grid(&self.phases[0]).span(ahead, N), g_grid.span(ahead, M)];
                            for piece in low..high {
                                prefetch(self.x.data.as_ptr(), x_ahead.map(|p| p * ci), [piece, N * N * pieces]);
                                prefetch(self.g.data.as_ptr(), g_ahead.map(|p| p * co), [piece, N * N * pieces]);
                                let (p, row) = (piece / pieces, piece % pieces * ROW_GRAIN);
                                let range = [row, (row + ROW_GRAIN).min(rows)];
                                let v = &v[p * v_plane..][first * rows..last * rows];
                                let q = &q[p * q_plane..][first * co..last * co];
                                let sum = to.get().wrapping_add(p * plane);
                                // SAFETY: each piece is some rows of a plane of the sums, set by the first block.
                                unsafe { self.product(v, q, range, sum, start + first > 0) }
                            }
                        }
                    });
                }
            });
            self.collect::<K, N>(par, sums, plane, dw);
        });
    }

    /// The gradient of the weights from that of the transformed weights.
    fn collect<const K: usize, const N: usize>(&self, par: Par, sums: &[T], plane: usize, dw: &mut [T]) {
        let len = self.x.c * self.g.c;
        let side = K * self.stride;
        assert!(dw.len() == side * side * len && sums.len() == N * N * plane && self.phases.len() * len <= plane);
        assert!(self.phases.iter().all(|phase| phase.tap.iter().all(|&tap| tap < self.stride)));
        let to = SendPtr::new(dw);
        for_each_piece(par, self.phases.len(), len, |phase, first, count| {
            let [top, left] = self.phases[phase].tap;
            let job = Planes::<T, Collect, N, K> {
                line: PhantomData,
                from: sums[phase * len + first..].as_ptr(),
                from_step: [N * plane, plane],
                to: to.get().wrapping_add((top * side + left) * len + first),
                to_step: [self.stride * side * len, self.stride * len],
                len: count,
            };
            // SAFETY: elements of N^2 planes and of K^2 taps, whose sizes were checked; pieces are disjoint.
            unsafe { job.run(self.kernels.isa) }
        });
    }

    /// `sum[c, o] (+)= sum over tiles of v[t, c] q[t, o]` for a range of c.
    ///
    /// # Safety
    /// These rows of the sum are writable, and initialised when adding; nobody else uses them meanwhile.
    unsafe fn product(&self, v: &[T], q: &[T], [first, last]: [usize; 2], sum: *mut T, add: bool) {
        let (rows, co) = (self.rows(), self.g.c);
        let len = v.len() / rows;
        assert!(last <= rows && v.len() == len * rows && q.len() == len * co);
        let segments = [Segment { a: 0, b: 0, len }];
        for col in (0..co).step_by(self.kernels.wide) {
            for row in (first..last).step_by(ROWS) {
                let count = (last - row).min(ROWS);
                let tile = Tile {
                    a: std::array::from_fn(|i| v.as_ptr().wrapping_add(row + i.min(count - 1))),
                    a_step: rows as isize,
                    b: q.as_ptr().wrapping_add(col),
                    b_step: co as isize,
                    segments: &segments,
                    c: std::array::from_fn(|i| sum.wrapping_add((row + i.min(count - 1)) * co + col)),
                    add,
                };
                // SAFETY: `len` tiles of v and q (checked above); the caller vouches for the rows of the sum.
                unsafe { self.kernels.tile(count, (co - col).min(self.kernels.wide), &tile) }
            }
        }
    }
}
