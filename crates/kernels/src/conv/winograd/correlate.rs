//! The forward pass, and the input gradient, which is the forward pass of turned weights: `y = A^T [(G w G^T) * (B^T x B)] A`, a block of tiles
//! at a time, so that their values stay in the second-level cache between the transforms and the products.
//!
//! Where a result sums over several phases, they are so many times as many channels of the products.

use super::lines::{Input, Line, Output, Weights};
use super::tiles::{Block, Grid, Tiling};
use super::transform::{Emit, Gather, Planes};
use super::{Phase, Points, for_each_piece, gap, tile_block};
use crate::Real;
use crate::conv::window::Images;
use crate::microkernel::{Kernels, ROWS, Segment, Tile};
use crate::par::{Par, SendPtr, for_each_range};
use crate::prefetch::prefetch;
use crate::scratch::{self, Slot};

/// Elements of a block of transformed tiles and their products: with f32 a quarter of the second-level cache, because the transformed weights
/// pass through it too.
const BLOCK: usize = 1 << 16;
/// Blocks that a call is cut into for threads, if it is large enough.
const BLOCKS: usize = 16;
/// Transformed weights, in elements, that a block of tiles no longer finds in the second-level cache: they are then read plane by plane, each once.
const LARGE: usize = 3 << 18;
/// Elements of the tiles, and of their products, that are then in memory at a time.
const ROUND: usize = 1 << 22;
/// Tiles that a thread then transforms at a time.
const TILES: usize = 8;

/// `y[first + (i, j) y_stride, o]` is the sum over phases, taps a, b and channels of
/// `x[origin + (i + a, j + b) x_stride, c] w[tap + (a, b) stride, c, o]`; x is zero outside.
pub(in crate::conv) struct Correlation<'a, T: 'static> {
    pub(in crate::conv) kernels: &'static Kernels<T>,
    pub(in crate::conv) n: usize,
    pub(in crate::conv) x: Images<'a, T>,
    pub(in crate::conv) x_stride: usize,
    pub(in crate::conv) phases: &'a [Phase],
    /// All taps, `[taps * stride, taps * stride, c, cols]`.
    pub(in crate::conv) w: &'a [T],
    pub(in crate::conv) stride: usize,
    /// The first pixel of y that is written, and the distance to the next.
    pub(in crate::conv) first: [usize; 2],
    pub(in crate::conv) y_stride: usize,
    /// Size and channels of y.
    pub(in crate::conv) out: [usize; 2],
    pub(in crate::conv) cols: usize,
    pub(in crate::conv) y: SendPtr<T>,
}

impl<T: Real> Correlation<'_, T> {
    /// # Safety
    /// y addresses `[n, out, cols]` writable elements, and nobody else uses those of the pixels that are written meanwhile.
    pub(in crate::conv) unsafe fn run(&self, taps: usize, points: Points, par: Par) {
        // SAFETY: passed on.
        unsafe {
            match (taps, points) {
                (3, Points::Four) => self.tiles::<3, 2, 4>(par),
                (3, Points::Five) => self.tiles::<3, 3, 5>(par),
                (3, Points::Six) => self.tiles::<3, 4, 6>(par),
                (2, Points::Four) => self.tiles::<2, 3, 4>(par),
                (2, Points::Five) => self.tiles::<2, 4, 5>(par),
                (2, Points::Six) => self.tiles::<2, 5, 6>(par),
                _ => unreachable!("phases have two or three taps"),
            }
        }
    }

    /// Channels that are summed.
    fn depth(&self) -> usize {
        self.phases.len() * self.x.c
    }

    /// Columns of the transformed weights that lie side by side, as many as a tile of the products reads; what goes beyond lies in a panel of its own.
    fn row(&self) -> usize {
        self.cols.min(self.kernels.wide)
    }

    fn panels(&self) -> usize {
        self.cols.div_ceil(self.row())
    }

    /// With tiles of `M x M` pixels, `N` = M + K - 1, for `K x K` taps.
    ///
    /// # Safety
    /// See [`Correlation::run`].
    unsafe fn tiles<const K: usize, const M: usize, const N: usize>(&self, par: Par)
    where
        Input: Line<N, N>,
    {
        let plane = self.depth() * self.panels() * self.row() + gap::<T>();
        let tiling = Tiling::new([0, 1].map(|i| (self.out[i] - self.first[i]).div_ceil(self.y_stride)), M);
        let total = self.n * tiling.count();
        // So many tiles are as large as half of the weights, which every block reads.
        let balanced = self.depth() * self.cols / (self.depth() + self.cols) / 2;
        let mut block = tile_block(BLOCK, N * N * (self.depth() + self.cols.min(self.kernels.wide))).max(balanced);
        if par == Par::Rayon {
            block = block.min(total.div_ceil(BLOCKS).max(balanced / 2));
        }
        let block = block.next_multiple_of(ROWS);
        scratch::with::<T, _>(Slot::Weights, N * N * plane, |u| {
            self.weights::<K, N>(par, u, plane);
            let u = &*u;
            if N * N * self.depth() * self.cols > LARGE {
                // SAFETY: passed on.
                return unsafe { self.by_planes::<M, N>(par, tiling, u, plane) };
            }
            for_each_range(par, total.div_ceil(block), 1, |first, last| {
                for i in first..last {
                    let [first, last, next] =
                        [i, i + 1, if i + 1 < last { i + 2 } else { i + 1 }].map(|i| (i * block).min(total));
                    // SAFETY: tiles are disjoint parts of y; the rest is the caller's word.
                    unsafe { self.block::<M, N>(tiling, [first, last, next], u, plane) }
                }
            });
        });
    }

    /// The transformed weights, a plane `[panel, phase, c, row]` for each of the `N x N` values.
    fn weights<const K: usize, const N: usize>(&self, par: Par, u: &mut [T], plane: usize) {
        let len = self.x.c * self.cols;
        let side = K * self.stride;
        assert!(self.w.len() == side * side * len && u.len() == N * N * plane);
        assert!(self.depth() * self.panels() * self.row() <= plane);
        assert!(self.phases.iter().all(|phase| phase.tap.iter().all(|&tap| tap < self.stride)));
        let to = SendPtr::new(u);
        for_each_piece(par, self.phases.len(), len, |phase, first, count| {
            let [top, left] = self.phases[phase].tap;
            let mut at = first;
            while at < first + count {
                // As far as the weights lie side by side on both sides.
                let (c, col) = (at / self.cols, at % self.cols);
                let (panel, within) = (col / self.row(), col % self.row());
                let (run, rest) = (self.row().min(self.cols - panel * self.row()) - within, first + count - at);
                let run = if self.panels() == 1 { rest } else { run.min(rest) };
                let row = panel * self.depth() + phase * self.x.c + c;
                let job = Planes {
                    from: self.w[(top * side + left) * len + at..].as_ptr(),
                    from_step: [self.stride * side * len, self.stride * len],
                    to: to.get().wrapping_add(row * self.row() + within),
                    to_step: [N * plane, plane],
                    len: run,
                    rows: 1,
                    row: [0, 0],
                };
                // SAFETY: elements of K^2 taps and of N^2 planes, whose sizes were checked; pieces are disjoint.
                unsafe { job.run::<Weights, Weights, K, K, N, N>(self.kernels.isa) }
                at += run;
            }
        });
    }

    /// All tiles where the transformed weights are large: those of one plane after the other stay in the cache while all tiles are multiplied with
    /// them, at the price of tiles and products that lie in memory meanwhile.
    ///
    /// # Safety
    /// See [`Correlation::run`].
    unsafe fn by_planes<const M: usize, const N: usize>(&self, par: Par, tiling: Tiling, u: &[T], u_plane: usize)
    where
        Input: Line<N, N>,
    {
        let (depth, cols, total) = (self.depth(), self.cols, self.n * tiling.count());
        let rounds = (total * N * N * (depth + cols)).div_ceil(ROUND).clamp(1, total);
        let round = total.div_ceil(rounds);
        let (v_plane, z_plane) = (round * depth + gap::<T>(), round * cols + gap::<T>());
        scratch::with::<T, _>(Slot::Window, N * N * v_plane + self.x.c, |v| {
            let (v, zeros) = v.split_at_mut(N * N * v_plane);
            zeros.fill(T::ZERO);
            let zeros = &*zeros;
            scratch::with::<T, _>(Slot::Panels, N * N * z_plane, |z| {
                for start in (0..total).step_by(round) {
                    let block = Block::new(tiling, [start, (start + round).min(total)]);
                    let (v_to, z_to) = (SendPtr::new(v), SendPtr::new(z));
                    for_each_range(par, block.len(), TILES, |first, last| {
                        let tiles = [start + first, start + last];
                        // SAFETY: the planes have a row of `depth` elements for each tile of a round, and ranges are disjoint.
                        unsafe { self.gather::<M, N>(&block, tiles, zeros, v_to.get(), v_plane) }
                    });
                    let v = &*v;
                    for_each_range(par, N * N * self.panels(), 1, |low, high| {
                        for piece in low..high {
                            let (p, panel) = (piece / self.panels(), piece % self.panels());
                            let channels = (cols - panel * self.row()).min(self.row());
                            let u = &u[p * u_plane + panel * depth * self.row()..];
                            let [first, last] = block.having([p / N == N - 1, p % N == N - 1]);
                            let v = &v[p * v_plane..][first * depth..last * depth];
                            let z = z_to.get().wrapping_add(p * z_plane + first * cols + panel * self.row());
                            // SAFETY: each piece is some columns of a plane of the products, which has a row for each tile.
                            unsafe { self.product(v, u, channels, z, cols) }
                        }
                    });
                    let z = &*z;
                    for_each_range(par, block.len(), TILES, |first, last| {
                        let tiles = [start + first, start + last];
                        scratch::with::<T, _>(Slot::Spare, cols, |spill| {
                            // SAFETY: these tiles are ours, by the caller's word, and ranges are disjoint.
                            unsafe { self.emit::<M, N>(&block, tiles, z, z_plane, [0, cols], spill) }
                        });
                    });
                }
            });
        });
    }

    /// The transformed pixels of some tiles of a block, all phases, to its planes with a row of `depth` elements for each tile.
    ///
    /// # Safety
    /// These rows are writable, and nobody else uses them meanwhile.
    unsafe fn gather<const M: usize, const N: usize>(
        &self,
        block: &Block,
        tiles: [usize; 2],
        zeros: &[T],
        to: *mut T,
        plane: usize,
    ) where
        Input: Line<N, N>,
    {
        scratch::with::<T, _>(Slot::Spare, self.x.c, |spill| {
            for (i, phase) in self.phases.iter().enumerate() {
                let job = Gather {
                    images: self.x,
                    grid: self.source::<M>(block.tiling, phase),
                    block: *block,
                    tiles,
                    infinity: [true, true],
                    channels: [0, self.x.c],
                    zeros,
                    spill: &mut *spill,
                    to: to.wrapping_add(i * self.x.c),
                    row: self.depth(),
                    plane: [N * plane, plane],
                };
                // SAFETY: passed on; each phase has its own part of a row.
                unsafe { job.run::<Input, Input, N, N, N, N>(self.kernels.isa) }
            }
        });
    }

    /// So many columns of y, from `col` on, for some tiles of a block, from its planes of products with a row of these columns for each tile.
    ///
    /// # Safety
    /// Nobody else uses these pixels meanwhile.
    unsafe fn emit<const M: usize, const N: usize>(
        &self,
        block: &Block,
        tiles: [usize; 2],
        z: &[T],
        plane: usize,
        [col, channels]: [usize; 2],
        spill: &mut [T],
    ) {
        let job = Emit {
            from: z,
            plane: [N * plane, plane],
            grid: self.result::<M>(block.tiling),
            block: *block,
            tiles,
            channels,
            to: self.y.get().wrapping_add(col),
            c: self.cols,
            overlap: None,
            spill,
        };
        // SAFETY: passed on.
        unsafe { job.run::<Output, Output, N, N, M, M>(self.kernels.isa) }
    }

    /// The tiles of the image that a phase reads.
    fn source<const M: usize>(&self, tiling: Tiling, phase: &Phase) -> Grid {
        Grid { tiling, step: [M, M], stride: self.x_stride, origin: phase.origin, hw: self.x.hw }
    }

    /// The tiles that it writes.
    fn result<const M: usize>(&self, tiling: Tiling) -> Grid {
        let origin = self.first.map(|x| x as isize);
        Grid { tiling, step: [M, M], stride: self.y_stride, origin, hw: self.out }
    }

    /// The first tile, the last, and the last of the block that comes after.
    ///
    /// # Safety
    /// See [`Correlation::run`].
    unsafe fn block<const M: usize, const N: usize>(
        &self,
        tiling: Tiling,
        [first, last, next]: [usize; 3],
        u: &[T],
        u_plane: usize,
    ) where
        Input: Line<N, N>,
    {
        let block = Block::new(tiling, [first, last]);
        let (count, depth, wide) = (block.len(), self.depth(), self.row());
        let (v_plane, z_plane) = (count * depth + gap::<T>(), count * wide + gap::<T>());
        // What comes after the products, asked for while they are computed.
        let ahead = self.source::<M>(tiling, &self.phases[0]).span([last, next], N).map(|p| p * self.x.c);
        let below = self.result::<M>(tiling).span(block.range, M).map(|p| p * self.cols);
        scratch::with::<T, _>(Slot::Window, N * N * v_plane + self.x.c, |v| {
            let (v, zeros) = v.split_at_mut(N * N * v_plane);
            zeros.fill(T::ZERO);
            // SAFETY: the planes have `count` rows of `depth` elements.
            unsafe { self.gather::<M, N>(&block, block.range, zeros, v.as_mut_ptr(), v_plane) }
            scratch::with::<T, _>(Slot::Panels, N * N * z_plane + wide, |z| {
                let (z, spill) = z.split_at_mut(N * N * z_plane);
                for col in (0..self.cols).step_by(wide) {
                    let channels = (self.cols - col).min(wide);
                    for i in 0..N * N {
                        if col == 0 {
                            prefetch(self.x.data.as_ptr(), ahead, [i, N * N]);
                        }
                        // Of pixels that stand apart too many would come that are not wanted.
                        if col == 0 && self.y_stride == 1 {
                            prefetch(self.y.get(), below, [i, N * N]);
                        }
                        let u = &u[i * u_plane + col * depth..];
                        let [first, last] = block.having([i / N == N - 1, i % N == N - 1]);
                        let z = z[i * z_plane..][first * channels..last * channels].as_mut_ptr();
                        let v = &v[i * v_plane..][first * depth..last * depth];
                        // SAFETY: a plane of z has a row of so many channels for each tile.
                        unsafe { self.product(v, u, channels, z, channels) }
                    }
                    // SAFETY: these tiles are ours, by the caller's word.
                    unsafe { self.emit::<M, N>(&block, block.range, z, z_plane, [col, channels], spill) }
                }
            });
        });
    }

    /// `z[t, o] = sum v[t, c] u[c, o]` for the tiles of v and so many columns, of a panel of u.
    ///
    /// # Safety
    /// z has so many writable elements for each tile, `row` from one to the next, and nobody else uses them meanwhile.
    unsafe fn product(&self, v: &[T], u: &[T], cols: usize, z: *mut T, row: usize) {
        let depth = self.depth();
        let count = v.len() / depth;
        assert!(cols <= self.row() && u.len() >= (depth - 1) * self.row() + cols);
        let segments = [Segment { a: 0, b: 0, len: depth }];
        for t in (0..count).step_by(ROWS) {
            let rows = (count - t).min(ROWS);
            let tile = Tile {
                a: std::array::from_fn(|i| v.as_ptr().wrapping_add((t + i.min(rows - 1)) * depth)),
                a_step: 1,
                b: u.as_ptr(),
                b_step: self.row() as isize,
                segments: &segments,
                c: std::array::from_fn(|i| z.wrapping_add((t + i.min(rows - 1)) * row)),
                add: false,
            };
            // SAFETY: `count` rows of v and `depth` rows of u (checked above); the caller vouches for z.
            unsafe { self.kernels.tile(rows, cols, &tile) }
        }
    }
}
