//! The forward pass, and the input gradient, which is the forward pass of turned weights: `y = A^T [(G w G^T) * (B^T x B)] A`, a block of tiles
//! at a time, so that their values stay in the second-level cache between the transforms and the products.

use std::marker::PhantomData;

use super::lines::{Input, Line, Output, Weights};
use super::transform::{Emit, Gather, Grid, Planes};
use super::{gap, tile_block};
use crate::Real;
use crate::conv::window::Images;
use crate::microkernel::{Kernels, ROWS, Segment, Tile};
use crate::par::{Par, SendPtr, for_each_range};
use crate::prefetch::prefetch;
use crate::scratch::{self, Slot};
use crate::simd::dispatch_on;

/// Elements of a block of transformed tiles and their products: with f32 a quarter of the second-level cache, because the transformed weights
/// pass through it too.
const BLOCK: usize = 1 << 16;
/// Weights of a tap that a task transforms at least.
const WEIGHTS_GRAIN: usize = 1 << 13;
/// Blocks that a call is cut into for threads, if it is large enough.
const BLOCKS: usize = 16;

/// `y[i, j, o] = sum x[origin + (i + a, j + b), c] w[a, b, c, o]` for taps a, b < 3; x is zero outside.
pub(in crate::conv) struct Correlation<'a, T: 'static> {
    pub(in crate::conv) kernels: &'static Kernels<T>,
    pub(in crate::conv) n: usize,
    pub(in crate::conv) x: Images<'a, T>,
    pub(in crate::conv) origin: [isize; 2],
    /// Size and channels of y.
    pub(in crate::conv) out: [usize; 2],
    pub(in crate::conv) cols: usize,
    pub(in crate::conv) y: SendPtr<T>,
}

impl<T: Real> Correlation<'_, T> {
    /// With tiles of `M x M` pixels, `N` = M + 2; w is `[3, 3, c, cols]`.
    ///
    /// # Safety
    /// y addresses `[n, out, cols]` writable elements, and nobody else uses them meanwhile.
    pub(super) unsafe fn run<const M: usize, const N: usize>(&self, par: Par, w: &[T])
    where
        Weights: Line<3, N>,
        Input: Line<N, N>,
        Output: Line<N, M>,
    {
        let len = self.x.c * self.cols;
        assert_eq!(w.len(), 9 * len);
        let plane = len + gap::<T>();
        let tiles = self.out.map(|x| x.div_ceil(M));
        let total = self.n * tiles[0] * tiles[1];
        let mut block = tile_block(BLOCK, N * N * (self.x.c + self.cols.min(self.kernels.wide)));
        if par == Par::Rayon {
            block = block.min(total.div_ceil(BLOCKS)).next_multiple_of(ROWS);
        }
        scratch::with::<T, _>(Slot::Weights, N * N * plane, |u| {
            let to = SendPtr::new(u);
            for_each_range(par, len, WEIGHTS_GRAIN, |first, last| {
                let job = Planes::<T, Weights, 3, N> {
                    line: PhantomData,
                    from: w[first..].as_ptr(),
                    from_plane: len,
                    to: to.get().wrapping_add(first),
                    to_plane: plane,
                    len: last - first,
                };
                // SAFETY: elements first..last of nine and of N^2 planes, whose sizes were checked; ranges are disjoint.
                unsafe { job.run(self.kernels.isa) }
            });
            let u = &*u;
            for_each_range(par, total.div_ceil(block), 1, |first, last| {
                for i in first..last {
                    let [first, last, next] =
                        [i, i + 1, if i + 1 < last { i + 2 } else { i + 1 }].map(|i| (i * block).min(total));
                    // SAFETY: tiles are disjoint parts of y; the rest is the caller's word.
                    unsafe { self.block::<M, N>(tiles, [first, last, next], u, plane) }
                }
            });
        });
    }

    /// The first tile, the last, and the last of the block that comes after.
    ///
    /// # Safety
    /// See [`Correlation::run`].
    unsafe fn block<const M: usize, const N: usize>(
        &self,
        grid: [usize; 2],
        [first, last, next]: [usize; 3],
        u: &[T],
        u_plane: usize,
    ) where
        Input: Line<N, N>,
        Output: Line<N, M>,
    {
        let tiles = [first, last];
        let (count, depth, wide) = (last - first, self.x.c, self.cols.min(self.kernels.wide));
        let (v_plane, z_plane) = (count * depth + gap::<T>(), count * wide + gap::<T>());
        let source = Grid { tiles: grid, step: M, origin: self.origin, hw: self.x.hw };
        let result = Grid { tiles: grid, step: M, origin: [0, 0], hw: self.out };
        // What comes after the products, asked for while they are computed.
        let ahead = source.span([last, next], N).map(|p| p * depth);
        let below = result.span(tiles, M).map(|p| p * self.cols);
        scratch::with::<T, _>(Slot::Window, N * N * v_plane + depth, |v| {
            let (v, zeros) = v.split_at_mut(N * N * v_plane);
            zeros.fill(T::ZERO);
            let line = PhantomData::<Input>;
            let job = Gather { line, images: self.x, grid: source, tiles, zeros, to: &mut *v, plane: v_plane };
            dispatch_on(self.kernels.isa, job);
            scratch::with::<T, _>(Slot::Panels, N * N * z_plane + wide, |z| {
                let (z, spill) = z.split_at_mut(N * N * z_plane);
                for col in (0..self.cols).step_by(wide) {
                    let channels = (self.cols - col).min(wide);
                    for i in 0..N * N {
                        if col == 0 {
                            prefetch(self.x.data.as_ptr(), ahead, [i, N * N]);
                            prefetch(self.y.get(), below, [i, N * N]);
                        }
                        let b = &u[i * u_plane + col..];
                        self.product(
                            &v[i * v_plane..],
                            &b[..(depth - 1) * self.cols + channels],
                            channels,
                            &mut z[i * z_plane..][..count * channels],
                        );
                    }
                    let job = Emit::<T, Output, N, M> {
                        line: PhantomData,
                        from: z,
                        plane: z_plane,
                        grid: result,
                        tiles,
                        channels,
                        to: self.y.get().wrapping_add(col),
                        c: self.cols,
                        spill: &mut *spill,
                    };
                    // SAFETY: these tiles are ours, by the caller's word.
                    unsafe { job.run(self.kernels.isa) }
                }
            });
        });
    }

    /// `z[t, o] = sum v[t, c] u[c, o]`.
    fn product(&self, v: &[T], u: &[T], cols: usize, z: &mut [T]) {
        let depth = self.x.c;
        let count = z.len() / cols;
        assert!(v.len() >= count * depth && u.len() == (depth - 1) * self.cols + cols);
        let segments = [Segment { a: 0, b: 0, len: depth }];
        for t in (0..count).step_by(ROWS) {
            let rows = (count - t).min(ROWS);
            let tile = Tile {
                a: std::array::from_fn(|i| v.as_ptr().wrapping_add((t + i.min(rows - 1)) * depth)),
                a_step: 1,
                b: u.as_ptr(),
                b_step: self.cols as isize,
                segments: &segments,
                c: std::array::from_fn(|i| z.as_mut_ptr().wrapping_add((t + i.min(rows - 1)) * cols)),
                add: false,
            };
            // SAFETY: `count` rows of v and z and `depth` rows of u (checked above).
            unsafe { self.kernels.tile(rows, cols, &tile) }
        }
    }
}
