//! The forward pass, and the input gradient, which is the forward pass of turned weights: `y = A^T [(G w G^T) * (B^T x B)] A`, a block of tiles
//! at a time, so that their values stay in the second-level cache between the transforms and the products.
//!
//! Where a result sums over several phases, they are so many times as many channels of the products. Transformed weights that would not stay in
//! that cache are made anew by every block, some channels at a time: that costs less than to read them, or the tiles, from further away.

use super::lines::{Input, Line, Output, Weights};
use super::tiles::{Block, Grid, Tiling};
use super::transform::{Emit, Gather, Planes, transform};
use super::{LARGE, Phase, Points, for_each_piece, gap, tile_block};
use crate::Real;
use crate::conv::window::Images;
use crate::conv::{Taker, Then};
use crate::microkernel::{Kernels, ROWS, Segment, Strip};
use crate::par::{Par, SendPtr, for_each_range};
use crate::prefetch::prefetch;
use crate::scratch::{self, Slot};

/// Elements of a block of transformed tiles and their products: with f32 a quarter of the second-level cache, because the transformed weights
/// pass through it too.
const BLOCK: usize = 1 << 16;
/// Blocks that a call is cut into for threads, if it is large enough.
const BLOCKS: usize = 16;
/// Elements of a panel of transformed weights, of some channels, where each block of tiles makes them for itself; with f32 half of a second-level cache of
/// 2 MB.
const CHUNK: usize = 1 << 18;
/// Channels that it then takes at most: the more, the fewer tiles there is room for.
const CHANNELS: usize = 128;
/// Elements of such a block's transformed tiles and of their products: the other half.
const BESIDE: usize = 1 << 18;

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
    /// What becomes of y, if all of it is written.
    pub(in crate::conv) then: Then<'a, T>,
}

impl<T: Real> Correlation<'_, T> {
    /// # Safety
    /// Unless it is given away, y addresses `[n, out, cols]` writable elements, and nobody else uses those of the pixels that are written meanwhile, but for a
    /// listener those that it heard of.
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
        let tiling = Tiling::new([0, 1].map(|i| (self.out[i] - self.first[i]).div_ceil(self.y_stride)), M);
        if N * N * self.depth() * self.cols > LARGE {
            // SAFETY: passed on.
            return unsafe { self.by_chunks::<K, M, N>(par, tiling) };
        }
        let plane = self.depth() * self.panels() * self.row() + gap::<T>();
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
            let Then::Give(take) = self.then else {
                return for_each_range(par, total.div_ceil(block), 1, |first, last| {
                    let tiles = [first, last].map(|i| (i * block).min(total));
                    // SAFETY: tiles are disjoint parts of y; the rest is the caller's word.
                    unsafe { self.blocks::<M, N>(tiling, tiles, block, u, plane) }
                });
            };
            // Whole tiles of the products, and about a block of ours, as far as the images stay in the cache.
            let (count, image) = (tiling.count(), self.out[0] * self.out[1] * self.cols);
            let even = (1..ROWS).find(|images| (images * count).is_multiple_of(ROWS)).unwrap_or(ROWS);
            let images = block.div_ceil(count).next_multiple_of(even).min((BLOCK / image).max(1));
            self.by_images(par, [1, images], take, |job, images| {
                let tiles = images.map(|n| n * count);
                let len = tiles[1] - tiles[0];
                let block = len.div_ceil(len.div_ceil(block)).next_multiple_of(ROWS);
                // SAFETY: these images of the result are ours alone.
                unsafe { job.blocks::<M, N>(tiling, tiles, block, u, plane) }
            });
        });
    }

    /// Some images at a time, at least and at most so many: `compute` is given which, and a job that writes these to memory of the thread's own, which then goes
    /// to `take`.
    fn by_images(
        &self,
        par: Par,
        [fewest, most]: [usize; 2],
        take: Taker<T>,
        compute: impl Fn(&Correlation<T>, [usize; 2]) + Sync,
    ) {
        debug_assert!(self.y_stride == 1 && self.first == [0, 0]);
        let image = self.out[0] * self.out[1] * self.cols;
        let pieces = self.n.div_ceil(most).next_multiple_of(par.threads()).min(self.n.div_ceil(fewest));
        for_each_range(par, pieces, 1, |first, last| {
            for piece in first..last {
                let [n0, n1] = [piece, piece + 1].map(|i| i * self.n / pieces);
                scratch::with::<T, _>(Slot::Images, (n1 - n0) * image, |y| {
                    // Where image 0 would lie.
                    let all = SendPtr::from_raw(y.as_mut_ptr().wrapping_sub(n0 * image));
                    compute(&Correlation { y: all, then: Then::Stay, ..*self }, [n0, n1]);
                    take([n0, n1], y);
                });
            }
        });
    }

    /// So many tiles after the other, from the first to the last of these.
    ///
    /// # Safety
    /// See [`Correlation::run`].
    unsafe fn blocks<const M: usize, const N: usize>(
        &self,
        tiling: Tiling,
        [mut first, end]: [usize; 2],
        block: usize,
        u: &[T],
        u_plane: usize,
    ) where
        Input: Line<N, N>,
    {
        while first < end {
            let last = (first + block).min(end);
            // What comes after the end is likely to be this thread's as well.
            let next = (last + block).min(self.n * tiling.count());
            // SAFETY: passed on.
            unsafe { self.block::<M, N>(tiling, [first, last, next], u, u_plane) }
            self.tell::<M>(&Block::new(tiling, [first, last]));
            first = last;
        }
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
                unsafe { transform::<_, Weights, Weights, K, K, N, N>(self.kernels.isa, job) }
                at += run;
            }
        });
    }

    /// All tiles where the transformed weights are large: each block of them transforms for itself the weights of some channels after the other, which go no
    /// further than the second-level cache.
    ///
    /// # Safety
    /// See [`Correlation::run`].
    unsafe fn by_chunks<const K: usize, const M: usize, const N: usize>(&self, par: Par, tiling: Tiling)
    where
        Input: Line<N, N>,
    {
        let (c, total) = (self.x.c, self.n * tiling.count());
        let chunks = c.div_ceil(CHANNELS.min(CHUNK / (N * N * self.row())));
        let chunk = c.div_ceil(chunks).next_multiple_of(self.kernels.lanes).min(c);
        let most = tile_block(BESIDE, N * N * (chunk + self.cols));
        if let Then::Give(take) = self.then {
            let (images, fewest) = ((most / tiling.count()).max(1), (2 * ROWS).div_ceil(tiling.count()));
            return self.by_images(par, [fewest, images], take, |job, images| {
                let [first, last] = images.map(|n| n * tiling.count());
                let blocks = (last - first).div_ceil(most);
                for i in 0..blocks {
                    let range = [i, i + 1].map(|i| first + i * (last - first) / blocks);
                    // SAFETY: these images of the result are ours alone.
                    unsafe { job.large_block::<K, M, N>(&Block::new(tiling, range), chunk) }
                }
            });
        }
        // As many for each thread, but none so small that weights are all it does.
        let blocks = total.div_ceil(most).next_multiple_of(par.threads()).min(total.div_ceil(2 * ROWS));
        for_each_range(par, blocks, 1, |low, high| {
            for i in low..high {
                let block = Block::new(tiling, [i, i + 1].map(|i| i * total / blocks));
                // SAFETY: tiles are disjoint parts of y; the rest is the caller's word.
                unsafe { self.large_block::<K, M, N>(&block, chunk) }
                self.tell::<M>(&block);
            }
        });
    }

    /// A block of tiles, so many channels of a phase after the other.
    ///
    /// # Safety
    /// See [`Correlation::run`].
    unsafe fn large_block<const K: usize, const M: usize, const N: usize>(&self, block: &Block, chunk: usize)
    where
        Input: Line<N, N>,
    {
        let (count, wide) = (block.len(), self.row());
        let [u_plane, v_plane, z_plane] = [chunk * wide, count * chunk, count * wide].map(|len| len + gap::<T>());
        let col = |panel: usize| [panel * wide, wide.min(self.cols - panel * wide)];
        scratch::with::<T, _>(Slot::Weights, N * N * u_plane, |u| {
            scratch::with::<T, _>(Slot::Window, N * N * v_plane + chunk, |v| {
                let (v, zeros) = v.split_at_mut(N * N * v_plane);
                zeros.fill(T::ZERO);
                scratch::with::<T, _>(Slot::Panels, self.panels() * N * N * z_plane, |z| {
                    let chunks = (0..self.x.c).step_by(chunk).map(|first| [first, (first + chunk).min(self.x.c)]);
                    let mut is_first = true;
                    for (phase, channels) in
                        self.phases.iter().flat_map(|phase| chunks.clone().map(move |c| (phase, c)))
                    {
                        // SAFETY: the planes of v have a row of `chunk` elements for each tile.
                        unsafe { self.gather::<M, N>(block, phase, channels, zeros, v.as_mut_ptr(), [chunk, v_plane]) }
                        for (panel, z) in z.chunks_exact_mut(N * N * z_plane).enumerate() {
                            let [_, cols] = col(panel);
                            self.panel::<K, N>(phase, channels, col(panel), u, u_plane);
                            for p in 0..N * N {
                                let [first, last] = block.having([p / N == N - 1, p % N == N - 1]);
                                let z = z[p * z_plane..][first * cols..last * cols].as_mut_ptr();
                                let v = &v[p * v_plane..][first * chunk..last * chunk];
                                let depth = [chunk, channels[1] - channels[0]];
                                // SAFETY: a plane of z has a row of these columns for each tile, which the first channels set.
                                unsafe { self.product(v, depth, &u[p * u_plane..], cols, z, !is_first) }
                            }
                        }
                        is_first = false;
                    }
                    for (panel, z) in z.chunks_exact(N * N * z_plane).enumerate() {
                        // SAFETY: these tiles are ours, by the caller's word.
                        unsafe { self.emit::<M, N>(block, z, z_plane, col(panel)) }
                    }
                });
            });
        });
    }

    /// The transformed weights of a phase from some channels to some columns, a plane `[channel, row]` for each value.
    fn panel<const K: usize, const N: usize>(
        &self,
        phase: &Phase,
        [c0, c1]: [usize; 2],
        [col, width]: [usize; 2],
        u: &mut [T],
        plane: usize,
    ) {
        let (len, side, [top, left]) = (self.x.c * self.cols, K * self.stride, phase.tap);
        assert!(self.w.len() == side * side * len && u.len() >= N * N * plane && (c1 - c0) * self.row() <= plane);
        assert!(c0 < c1 && c1 <= self.x.c && width <= self.row() && col + width <= self.cols);
        assert!(top < self.stride && left < self.stride);
        let job = Planes {
            from: self.w[(top * side + left) * len + c0 * self.cols + col..].as_ptr(),
            from_step: [self.stride * side * len, self.stride * len],
            to: u.as_mut_ptr(),
            to_step: [N * plane, plane],
            len: width,
            rows: c1 - c0,
            row: [self.cols, self.row()],
        };
        // SAFETY: elements of K^2 taps and of N^2 planes, whose sizes were checked.
        unsafe { transform::<_, Weights, Weights, K, K, N, N>(self.kernels.isa, job) }
    }

    /// Some channels of the transformed pixels that a phase meets, to planes with a row for each tile of a block.
    ///
    /// # Safety
    /// These channels are writable in each row, and nobody else uses them meanwhile.
    unsafe fn gather<const M: usize, const N: usize>(
        &self,
        block: &Block,
        phase: &Phase,
        channels: [usize; 2],
        zeros: &[T],
        to: *mut T,
        [row, plane]: [usize; 2],
    ) where
        Input: Line<N, N>,
    {
        let job: Gather<T, false> = Gather {
            images: self.x,
            grid: self.source::<M>(phase),
            block: *block,
            infinity: true,
            channels,
            zeros,
            to,
            row,
            plane: [N * plane, plane],
        };
        // SAFETY: passed on.
        unsafe { transform::<_, Input, Input, N, N, N, N>(self.kernels.isa, job) }
    }

    /// So many columns of y, from `col` on, for the tiles of a block, from its planes of products with a row of these columns for each tile.
    ///
    /// # Safety
    /// Nobody else uses these pixels meanwhile.
    unsafe fn emit<const M: usize, const N: usize>(
        &self,
        block: &Block,
        z: &[T],
        plane: usize,
        [col, channels]: [usize; 2],
    ) {
        let job: Emit<T, false> = Emit {
            from: z,
            plane: [N * plane, plane],
            grid: self.result::<M>(),
            block: *block,
            channels,
            to: self.y.get().wrapping_add(col),
            c: self.cols,
        };
        // SAFETY: passed on.
        unsafe {
            if self.y_stride == 1 {
                transform::<_, Output, Output, N, N, M, M>(self.kernels.isa, job);
            } else {
                transform::<_, Output, Output, N, N, M, M>(self.kernels.isa, job.asking());
            }
        }
    }

    /// That the pixels of a block are written.
    fn tell<const M: usize>(&self, block: &Block) {
        if let Then::Tell(listener) = self.then {
            debug_assert!(self.y_stride == 1 && self.first == [0, 0]);
            self.result::<M>().runs(block, |pixels| listener(self.y, pixels));
        }
    }

    /// The tiles of the image that a phase reads.
    fn source<const M: usize>(&self, phase: &Phase) -> Grid {
        Grid { step: [M, M], stride: self.x_stride, origin: phase.origin, hw: self.x.hw }
    }

    /// The tiles that it writes.
    fn result<const M: usize>(&self) -> Grid {
        let origin = self.first.map(|x| x as isize);
        Grid { step: [M, M], stride: self.y_stride, origin, hw: self.out }
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
        let ahead = self.source::<M>(&self.phases[0]).span(&Block::new(tiling, [last, next]), N).map(|p| p * self.x.c);
        let below = self.result::<M>().span(&block, M).map(|p| p * self.cols);
        scratch::with::<T, _>(Slot::Window, N * N * v_plane + self.x.c, |v| {
            let (v, zeros) = v.split_at_mut(N * N * v_plane);
            zeros.fill(T::ZERO);
            for (i, phase) in self.phases.iter().enumerate() {
                let to = v[i * self.x.c..].as_mut_ptr();
                // SAFETY: the planes have `count` rows of `depth` elements, a part of each for this phase.
                unsafe { self.gather::<M, N>(&block, phase, [0, self.x.c], zeros, to, [depth, v_plane]) }
            }
            scratch::with::<T, _>(Slot::Panels, N * N * z_plane, |z| {
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
                        unsafe { self.product(v, [depth, depth], u, channels, z, false) }
                    }
                    // SAFETY: these tiles are ours, by the caller's word.
                    unsafe { self.emit::<M, N>(&block, z, z_plane, [col, channels]) }
                }
            });
        });
    }

    /// `z[t, o] (+)= sum v[t, c] u[c, o]` for the tiles of v, `row` elements from one to the next, `depth` channels and so many columns of a panel of u.
    ///
    /// # Safety
    /// z has so many writable elements for each tile, as far apart, initialised when adding; nobody else uses them meanwhile.
    unsafe fn product(&self, v: &[T], [row, depth]: [usize; 2], u: &[T], cols: usize, z: *mut T, add: bool) {
        let count = v.len() / row;
        assert!(v.len() == count * row && depth <= row);
        assert!(cols <= self.row() && u.len() >= (depth - 1) * self.row() + cols);
        let strip = Strip {
            a: v.as_ptr(),
            a_row: row,
            a_tile: ROWS * row,
            a_step: 1,
            b: u.as_ptr(),
            b_step: self.row() as isize,
            segments: &[Segment { a: 0, b: 0, len: depth }],
            c: z,
            c_row: cols,
            add,
        };
        // SAFETY: `count` rows of v and `depth` rows of u (checked above); the caller vouches for z.
        unsafe { self.kernels.strip(count, cols, &strip) }
    }
}
