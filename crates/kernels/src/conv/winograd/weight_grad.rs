//! The weight gradient, the adjoint of the same algorithm in the weights: `dw = G^T [sum over tiles of (B^T x B) * (A g A^T)] G`.
//!
//! The tiles are summed in blocks, one block after the other, as the direct way sums its pixels. Threads share neither tiles nor sums: each has some
//! columns of the `n x n` planes, of which a tile's transform makes only these, and some channels of x.

use super::lines::{Collect, Input, Line, Part, Spread};
use super::tiles::{Block, Grid, Tiling};
use super::transform::{Gather, Planes, transform};
use super::{Phase, Points, for_each_piece, gap, tile_block};
use crate::Real;
use crate::conv::window::Images;
use crate::microkernel::{Kernels, ROWS, Segment, Strip};
use crate::par::{Par, SendPtr, for_each_range};
use crate::prefetch::prefetch;
use crate::scratch::{self, Slot};

/// Elements of a block of transformed tiles: with f32 half of the second-level cache. The larger it is, the seldomer the sums are read and
/// written, which are as large.
const BLOCK: usize = 1 << 17;

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
            (3, Points::Four) => self.tiles::<3, 2, 4, 2>(par, dw),
            (3, Points::Five) => self.tiles::<3, 3, 5, 2>(par, dw),
            (3, Points::Six) => self.tiles::<3, 4, 6, 3>(par, dw),
            (2, Points::Four) => self.tiles::<2, 3, 4, 2>(par, dw),
            (2, Points::Five) => self.tiles::<2, 4, 5, 2>(par, dw),
            (2, Points::Six) => self.tiles::<2, 5, 6, 3>(par, dw),
            _ => unreachable!("phases have two or three taps"),
        }
    }

    /// Rows of a plane of products: the channels of x in each phase.
    fn rows(&self) -> usize {
        self.phases.len() * self.x.c
    }

    /// With tiles of `M x M` pixels of g, `N` = M + K - 1, for `K x K` taps; `HALF` = N / 2.
    fn tiles<const K: usize, const M: usize, const N: usize, const HALF: usize>(&self, par: Par, dw: &mut [T])
    where
        Input: Line<N, N>,
    {
        let (ci, rows, co) = (self.x.c, self.rows(), self.g.c);
        let tiling = Tiling::new(self.g.hw, M);
        let total = self.n * tiling.count();
        // With many channels the sums outgrow the cache first.
        let block = tile_block(BLOCK, N * N * (rows + co)).max(rows * co / (rows + co)).min(total);
        let plane = rows * co + gap::<T>();
        scratch::with::<T, _>(Slot::Spare, N * N * plane, |sums| {
            let sums_of = Sums { tiling, total, block, to: SendPtr::new(sums), plane };
            // A thread by itself takes everything; an odd number of columns has no equal halves. Of an even number the second half has less to do where tiles are
            // short, but pieces of channels instead would each transform all of g.
            let threads = par.threads();
            let halves = if threads > 1 && N == 2 * HALF { 2 } else { 1 };
            let registers = [ci, co].map(|c| c.div_ceil(self.kernels.lanes));
            let cuts = cuts(threads, halves, registers);
            for_each_range(par, halves * cuts[0] * cuts[1], 1, |low, high| {
                for piece in low..high {
                    let (half, place) = (piece % halves, [piece / halves % cuts[0], piece / halves / cuts[0]]);
                    let channels = [0, 1].map(|i| {
                        let bound = |cut: usize| (cut * registers[i] / cuts[i] * self.kernels.lanes).min([ci, co][i]);
                        [bound(place[i]), bound(place[i] + 1)]
                    });
                    // SAFETY: pieces are disjoint parts of the sums, which are ours.
                    unsafe {
                        match (halves, half) {
                            (1, _) => self.columns::<M, N, 0, N>(&sums_of, channels),
                            (_, 0) => self.columns::<M, N, 0, HALF>(&sums_of, channels),
                            _ => self.columns::<M, N, HALF, HALF>(&sums_of, channels),
                        }
                    }
                }
            });
            self.collect::<K, N>(par, sums, plane, dw);
        });
    }

    /// Sums over all tiles for `J` columns of the planes, from `FIRST` on, and some channels of x and of g. Beside the sums a thread needs nothing
    /// of another's: it transforms for itself what it multiplies, which stays in its cache.
    ///
    /// # Safety
    /// These parts of the sums are writable and nobody else uses them meanwhile.
    unsafe fn columns<const M: usize, const N: usize, const FIRST: usize, const J: usize>(
        &self,
        &Sums { tiling, total, block, to, plane }: &Sums<T>,
        [[c0, c1], [g0, g1]]: [[usize; 2]; 2],
    ) where
        Input: Line<N, N>,
    {
        let (ci, co) = (self.x.c, self.g.c);
        let (channels, cols) = (c1 - c0, g1 - g0);
        let rows = self.phases.len() * channels;
        let (v_plane, q_plane) = (block * rows + gap::<T>(), block * cols + gap::<T>());
        let x_grid = |phase: &Phase| Grid { step: [M, M], stride: self.stride, origin: phase.origin, hw: self.x.hw };
        let g_grid = Grid { step: [M, M], stride: 1, origin: [0, 0], hw: self.g.hw };
        scratch::with::<T, _>(Slot::Window, N * J * (v_plane + q_plane) + channels.max(cols), |values| {
            let (v, rest) = values.split_at_mut(N * J * v_plane);
            let (q, zeros) = rest.split_at_mut(N * J * q_plane);
            zeros.fill(T::ZERO);
            let zeros = &*zeros;
            for start in (0..total).step_by(block) {
                let [end, next] = [1, 2].map(|i| (start + i * block).min(total));
                let tiles = Block::new(tiling, [start, end]);
                let infinity = FIRST + J == N;
                for (i, phase) in self.phases.iter().enumerate() {
                    let job: Gather<T, false> = Gather {
                        images: self.x,
                        grid: x_grid(phase),
                        block: tiles,
                        infinity,
                        channels: [c0, c1],
                        zeros,
                        to: v[i * channels..].as_mut_ptr(),
                        row: rows,
                        plane: [J * v_plane, v_plane],
                    };
                    // SAFETY: planes of v have rows for `block` tiles, a part of each for this phase.
                    unsafe { transform::<_, Input, Part<Input, N, FIRST>, N, N, N, J>(self.kernels.isa, job) }
                }
                let job: Gather<T, false> = Gather {
                    images: self.g,
                    grid: g_grid,
                    block: tiles,
                    infinity,
                    channels: [g0, g1],
                    zeros,
                    to: q.as_mut_ptr(),
                    row: cols,
                    plane: [J * q_plane, q_plane],
                };
                // SAFETY: planes of q have rows for `block` tiles.
                unsafe { transform::<_, Spread, Part<Spread, N, FIRST>, M, M, N, J>(self.kernels.isa, job) }
                // What comes after the products, asked for while they are computed.
                let ahead = Block::new(tiling, [end, next]);
                let [x_ahead, g_ahead] = [x_grid(&self.phases[0]).span(&ahead, N), g_grid.span(&ahead, M)];
                for p in 0..N * J {
                    prefetch(self.x.data.as_ptr(), x_ahead.map(|p| p * ci), [p, N * J]);
                    prefetch(self.g.data.as_ptr(), g_ahead.map(|p| p * co), [p, N * J]);
                    let (row, col) = (p / J, FIRST + p % J);
                    let [first, last] = tiles.having([row == N - 1, col == N - 1]);
                    if first == last && start > 0 {
                        continue;
                    }
                    let v = &v[p * v_plane..][first * rows..last * rows];
                    let q = &q[p * q_plane..][first * cols..last * cols];
                    let sum = to.get().wrapping_add((row * N + col) * plane + c0 * co + g0);
                    // SAFETY: the caller vouches for this part of a plane, which the first block set, to zeros where no tile has a value.
                    unsafe { self.product(v, q, [channels, cols], sum, start > 0) }
                }
            }
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
            let job = Planes {
                from: sums[phase * len + first..].as_ptr(),
                from_step: [N * plane, plane],
                to: to.get().wrapping_add((top * side + left) * len + first),
                to_step: [self.stride * side * len, self.stride * len],
                len: count,
                rows: 1,
                row: [0, 0],
            };
            // SAFETY: elements of N^2 planes and of K^2 taps, whose sizes were checked; pieces are disjoint.
            unsafe { transform::<_, Collect, Collect, N, N, K, K>(self.kernels.isa, job) }
        });
    }

    /// `sum[phase, c, o] (+)= sum over tiles of v[t, phase, c] q[t, o]` for so many channels c and o of all that there are.
    ///
    /// # Safety
    /// These numbers of the sum are writable, and initialised when adding; nobody else uses them meanwhile.
    unsafe fn product(&self, v: &[T], q: &[T], [channels, cols]: [usize; 2], sum: *mut T, add: bool) {
        let rows = self.phases.len() * channels;
        let len = v.len() / rows;
        assert!(v.len() == len * rows && q.len() == len * cols);
        let segments = [Segment { a: 0, b: 0, len }];
        for col in (0..cols).step_by(self.kernels.wide) {
            for phase in 0..self.phases.len() {
                let strip = Strip {
                    a: v.as_ptr().wrapping_add(phase * channels),
                    a_row: 1,
                    a_tile: ROWS,
                    a_step: rows as isize,
                    b: q.as_ptr().wrapping_add(col),
                    b_step: cols as isize,
                    segments: &segments,
                    c: sum.wrapping_add(phase * self.x.c * self.g.c + col),
                    c_row: self.g.c,
                    add,
                };
                // SAFETY: `len` tiles of v and q (checked above); the caller vouches for the sum.
                unsafe { self.kernels.strip(channels, (cols - col).min(self.kernels.wide), &strip) }
            }
        }
    }
}

/// Where the sums over tiles are, and over which.
struct Sums<T> {
    /// Tiles of an image, of all images, and of a block.
    tiling: Tiling,
    total: usize,
    block: usize,
    /// `N x N` planes `[phase, c of x, c of g]`, and from one to the next.
    to: SendPtr<T>,
    plane: usize,
}

/// Into how many pieces the channels of x and of g are cut, of so many registers, each piece in so many halves. Those of x alone where all threads
/// then have as much to do, because every piece transforms all of its channels of g; where there are too few, those of g too.
pub(super) fn cuts(threads: usize, halves: usize, registers: [usize; 2]) -> [usize; 2] {
    let is_fair = |cuts: &usize| (halves * cuts).is_multiple_of(threads) && registers[0].is_multiple_of(*cuts);
    if let Some(cuts) = (1..=registers[0]).find(is_fair) {
        return [cuts, 1];
    }
    let of_x = registers[0].min(threads.div_ceil(halves));
    [of_x, threads.div_ceil(halves * of_x).min(registers[1])]
}
