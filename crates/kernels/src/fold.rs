//! Sums over the middle axis of `[A, R, K]`, which every reduction and every normalisation is made of.
//!
//! One order of addition for all instruction sets and threads, fixed by the shape: 256 bytes of accumulators side by side, at most
//! [`RUN`] terms added in a row before the accumulators are added to a second level, and blocks of a bounded size whose
//! results are summed again. The error of a sum of n terms is therefore at most about `(RUN + 64 + 2 log2 n)` units of
//! roundoff times the sum of magnitudes (a plain loop: n units).

use crate::par::{self, Par};
use crate::real::Real;
use crate::scratch::{self, Slot};
use crate::simd::{Kernel, Simd, dispatch};

/// Rows that are added in a row into one set of accumulators.
const RUN: usize = 64;

/// Elements of a block: blocks are summed apart (each by any thread) and their sums summed again.
const BLOCK: usize = 1 << 16;

/// Columns that a task takes at least when there are more of them than of anything else.
const COLUMN_GRAIN: usize = 2048;

/// Up to this many rows are added one after the other, without accumulators.
const FEW: usize = 8;

/// Room for the accumulators of either type.
const MAX_WIDTH: usize = 64;

/// Accumulators side by side: 256 bytes of them (four AVX-512 registers, eight of AVX2, sixteen of SSE).
#[inline(always)]
const fn width<T>() -> usize {
    256 / size_of::<T>()
}

/// A term of `N` sums: what is to be added for an element.
pub(crate) trait Term<T: Real, const N: usize>: Copy + Send + Sync {
    /// The terms of the `lanes` elements that start at `offset` of the inputs, of which the first `count` exist (the others count as 0);
    /// `param` points to the lanes' parameters.
    ///
    /// # Safety
    /// The inputs have `count.min(lanes)` elements at `offset`, and so has `param`.
    unsafe fn vector<S: Simd>(self, simd: S, offset: usize, count: usize, param: *const T) -> [T::Reg<S>; N];
    /// The terms of one element, the same bits as in a vector.
    fn scalar<S: Simd>(self, offset: usize, param: T) -> [T; N];
}

/// Loads a register of which the first `count` elements exist; the others are 0.
///
/// # Safety
/// `src` is valid for reading `count.min(lanes)` elements.
#[inline(always)]
unsafe fn load<S: Simd, T: Real>(simd: S, src: *const T, count: usize) -> T::Reg<S> {
    if count >= T::lanes::<S>() {
        // SAFETY: the caller vouches for as many elements.
        unsafe { T::load(simd, src) }
    } else {
        let mut buffer = [T::ZERO; 16];
        // SAFETY: `count` is less than the lanes of a register, which has at most 16, and the caller vouches for the source.
        unsafe {
            std::ptr::copy_nonoverlapping(src, buffer.as_mut_ptr(), count);
            T::load(simd, buffer.as_ptr())
        }
    }
}

/// The elements themselves.
#[derive(Clone, Copy)]
pub(crate) struct Plain<'a, T>(pub(crate) &'a [T]);

impl<T: Real> Term<T, 1> for Plain<'_, T> {
    #[inline(always)]
    unsafe fn vector<S: Simd>(self, simd: S, offset: usize, count: usize, _: *const T) -> [T::Reg<S>; 1] {
        // SAFETY: passed on to the caller.
        [unsafe { load(simd, self.0.as_ptr().add(offset), count) }]
    }
    #[inline(always)]
    fn scalar<S: Simd>(self, offset: usize, _: T) -> [T; 1] {
        [self.0[offset]]
    }
}

/// Squared distances from the parameter.
#[derive(Clone, Copy)]
pub(crate) struct Centered<'a, T>(pub(crate) &'a [T]);

impl<T: Real> Term<T, 1> for Centered<'_, T> {
    #[inline(always)]
    unsafe fn vector<S: Simd>(self, simd: S, offset: usize, count: usize, param: *const T) -> [T::Reg<S>; 1] {
        // SAFETY: passed on to the caller.
        let (x, p) = unsafe { (load(simd, self.0.as_ptr().add(offset), count), load(simd, param, count)) };
        let d = T::vsub(simd, x, p);
        [T::vmul(simd, d, d)]
    }
    #[inline(always)]
    fn scalar<S: Simd>(self, offset: usize, param: T) -> [T; 1] {
        let d = self.0[offset] - param;
        [d * d]
    }
}

/// The elements of the first input, and their products with the second's.
#[derive(Clone, Copy)]
pub(crate) struct PlainAndProduct<'a, T>(pub(crate) &'a [T], pub(crate) &'a [T]);

impl<T: Real> Term<T, 2> for PlainAndProduct<'_, T> {
    #[inline(always)]
    unsafe fn vector<S: Simd>(self, simd: S, offset: usize, count: usize, _: *const T) -> [T::Reg<S>; 2] {
        // SAFETY: passed on to the caller.
        let (g, h) = unsafe {
            (
                load(simd, self.0.as_ptr().add(offset), count),
                load(simd, self.1.as_ptr().add(offset), count),
            )
        };
        [g, T::vmul(simd, g, h)]
    }
    #[inline(always)]
    fn scalar<S: Simd>(self, offset: usize, _: T) -> [T; 2] {
        [self.0[offset], self.0[offset] * self.1[offset]]
    }
}

/// `outs[n][a, k]` = the sum over r of the n-th term of element `[a, r, k]`. `params` is `[A, K]`, or empty if the term has none.
pub(crate) fn fold<T: Real, P: Term<T, N>, const N: usize>(
    par: Par,
    term: P,
    [a, r, k]: [usize; 3],
    params: &[T],
    mut outs: [&mut [T]; N],
) {
    if r == 0 {
        outs.iter_mut().for_each(|out| out.fill(T::ZERO));
        return;
    }
    if a == 0 || k == 0 {
        return;
    }
    let rows = (BLOCK / k).max(RUN);
    if r <= rows {
        return fold_blocks(par, term, &Blocks { a, r, k, rows }, params, outs);
    }
    let blocks = Blocks { a, r, k, rows };
    let partial = a * blocks.per_a() * k;
    scratch::with(Slot::Spare, N * partial, |scratch| {
        let mut pieces = scratch.chunks_exact_mut(partial);
        let partials: [&mut [T]; N] = std::array::from_fn(|_| pieces.next().unwrap_or_default());
        fold_blocks(par, term, &blocks, params, partials);
        for (out, partial) in outs.into_iter().zip(scratch.chunks_exact(partial)) {
            fold(par, Plain(partial), [a, blocks.per_a(), k], &[], [out]);
        }
    });
}

/// `[A, R, K]` cut into blocks of at most `rows` rows.
struct Blocks {
    a: usize,
    r: usize,
    k: usize,
    rows: usize,
}

impl Blocks {
    fn per_a(&self) -> usize {
        self.r.div_ceil(self.rows)
    }
}

/// Sums each block apart: `outs` are `[A, blocks, K]`.
fn fold_blocks<T: Real, P: Term<T, N>, const N: usize>(
    par: Par,
    term: P,
    blocks: &Blocks,
    params: &[T],
    mut outs: [&mut [T]; N],
) {
    let &Blocks { a, r, k, rows } = blocks;
    let tasks = a * blocks.per_a();
    let pointers = outs.each_mut().map(|out| {
        assert_eq!(out.len(), tasks * k);
        par::SendPtr::new(out)
    });
    // Several small blocks make a task, or a large one is cut along its columns.
    let grain = BLOCK.div_ceil(rows.min(r) * k);
    let columns = if tasks == 1 { COLUMN_GRAIN } else { k };
    let column_pieces = k.div_ceil(columns);
    par::for_each_range(par, tasks * column_pieces, grain, |start, end| {
        dispatch(FoldKernel {
            start,
            end,
            column_pieces,
            columns,
            term,
            blocks,
            params,
            pointers,
        });
    });
}

struct FoldKernel<'a, T, P, const N: usize> {
    start: usize,
    end: usize,
    column_pieces: usize,
    columns: usize,
    term: P,
    blocks: &'a Blocks,
    params: &'a [T],
    pointers: [par::SendPtr<T>; N],
}

impl<T: Real, P: Term<T, N>, const N: usize> Kernel for FoldKernel<'_, T, P, N> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let &Blocks { r, k, rows, .. } = self.blocks;
        let per_a = self.blocks.per_a();
        for piece in self.start..self.end {
            let (task, column) = (piece / self.column_pieces, piece % self.column_pieces * self.columns);
            let (a, first) = (task / per_a, task % per_a * rows);
            let cols = self.columns.min(k - column);
            let params = if self.params.is_empty() {
                self.params
            } else {
                &self.params[a * k + column..][..cols]
            };
            let slab = Slab {
                offset: (a * r + first) * k + column,
                rows: rows.min(r - first),
                cols,
                stride: k,
            };
            // SAFETY: each task writes its own columns of its own block, and no two tasks share them.
            let outs = self
                .pointers
                .map(|p| unsafe { std::slice::from_raw_parts_mut(p.get().add(task * k + column), cols) });
            slab.sum(simd, self.term, params, outs);
        }
    }
}

/// `rows` rows of `cols` elements, `stride` apart, from `offset` of the inputs.
pub(crate) struct Slab {
    pub(crate) offset: usize,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) stride: usize,
}

/// One set of accumulators for each sum.
type Accumulators<T, const N: usize> = [[T; MAX_WIDTH]; N];

impl Slab {
    /// The sums of the columns.
    #[inline(always)]
    pub(crate) fn sum<S: Simd, T: Real, P: Term<T, N>, const N: usize>(
        &self,
        simd: S,
        term: P,
        params: &[T],
        mut outs: [&mut [T]; N],
    ) {
        if self.rows <= FEW {
            self.sum_few::<S, T, P, N>(term, params, outs);
        } else if self.cols * 2 <= width::<T>() && self.cols == self.stride {
            self.sum_narrow(simd, term, params, outs);
        } else {
            let mut column = 0;
            while column < self.cols {
                let count = (self.cols - column).min(width::<T>());
                let lane_params = padded(params, column, count);
                let mut total = [[T::ZERO; MAX_WIDTH]; N];
                let offset = self.offset + column;
                accumulate(simd, term, offset, self.stride, self.rows, count, &lane_params, &mut total);
                for (out, total) in outs.iter_mut().zip(&total) {
                    out[column..column + count].copy_from_slice(&total[..count]);
                }
                column += count;
            }
        }
    }

    /// A few rows, added one after the other.
    #[inline(always)]
    fn sum_few<S: Simd, T: Real, P: Term<T, N>, const N: usize>(
        &self,
        term: P,
        params: &[T],
        mut outs: [&mut [T]; N],
    ) {
        for column in 0..self.cols {
            let param = params.get(column).copied().unwrap_or_default();
            let mut sum = term.scalar::<S>(self.offset + column, param);
            for row in 1..self.rows {
                let terms = term.scalar::<S>(self.offset + row * self.stride + column, param);
                for (sum, term) in sum.iter_mut().zip(terms) {
                    *sum += term;
                }
            }
            for (out, sum) in outs.iter_mut().zip(sum) {
                out[column] = sum;
            }
        }
    }

    /// Contiguous narrow rows: several of them fill the accumulators side by side, whose sums are then added in pairs.
    #[inline(always)]
    fn sum_narrow<S: Simd, T: Real, P: Term<T, N>, const N: usize>(
        &self,
        simd: S,
        term: P,
        params: &[T],
        mut outs: [&mut [T]; N],
    ) {
        let cols = self.cols;
        let beside = width::<T>() / cols;
        let groups = self.rows / beside;
        let wide = beside * cols;
        let mut lane_params = [T::ZERO; MAX_WIDTH];
        if !params.is_empty() {
            for row in lane_params[..wide].chunks_exact_mut(cols) {
                row.copy_from_slice(params);
            }
        }
        let mut total = [[T::ZERO; MAX_WIDTH]; N];
        accumulate(simd, term, self.offset, wide, groups, wide, &lane_params, &mut total);
        let rest = (self.rows - groups * beside) * cols;
        if rest > 0 {
            let offset = self.offset + groups * wide;
            accumulate(simd, term, offset, wide, 1, rest, &lane_params, &mut total);
        }
        for (out, total) in outs.iter_mut().zip(&mut total) {
            let mut lanes = wide;
            let mut rows = beside;
            while rows > 1 {
                let upper = rows.div_ceil(2);
                for i in 0..lanes - upper * cols {
                    total[i] += total[upper * cols + i];
                }
                rows = upper;
                lanes = upper * cols;
            }
            out.copy_from_slice(&total[..cols]);
        }
    }
}

/// `count` parameters from `start` on, as lanes.
#[inline(always)]
fn padded<T: Real>(params: &[T], start: usize, count: usize) -> [T; MAX_WIDTH] {
    let mut lanes = [T::ZERO; MAX_WIDTH];
    if !params.is_empty() {
        lanes[..count].copy_from_slice(&params[start..start + count]);
    }
    lanes
}

/// Adds to `total` the terms of `rows` rows of `count <= width` lanes, in runs of [`RUN`].
#[allow(clippy::too_many_arguments)]
#[inline(always)]
fn accumulate<S: Simd, T: Real, P: Term<T, N>, const N: usize>(
    simd: S,
    term: P,
    offset: usize,
    stride: usize,
    rows: usize,
    count: usize,
    params: &[T; MAX_WIDTH],
    total: &mut Accumulators<T, N>,
) {
    let mut row = 0;
    while row < rows {
        let run = (rows - row).min(RUN);
        if count == width::<T>() {
            run_lanes::<S, T, P, N, true>(simd, term, offset + row * stride, stride, run, count, params, total);
        } else {
            run_lanes::<S, T, P, N, false>(simd, term, offset + row * stride, stride, run, count, params, total);
        }
        row += run;
    }
}

/// Sums one run in registers, a group of them at a time, and adds it to `total`.
#[allow(clippy::too_many_arguments)]
#[inline(always)]
fn run_lanes<S: Simd, T: Real, P: Term<T, N>, const N: usize, const FULL: bool>(
    simd: S,
    term: P,
    offset: usize,
    stride: usize,
    rows: usize,
    count: usize,
    params: &[T; MAX_WIDTH],
    total: &mut Accumulators<T, N>,
) {
    let lanes = T::lanes::<S>();
    // Registers per sum that are in flight: enough to hide the latency of an addition, few enough for sixteen registers.
    let group = (if N == 1 { 8 } else { 4 }).min(width::<T>() / lanes);
    let mut lane = 0;
    while lane < count {
        let mut sums = [[T::splat(simd, T::ZERO); 8]; N];
        for row in 0..rows {
            for i in 0..group {
                let at = lane + i * lanes;
                let left = if FULL { lanes } else { count.saturating_sub(at) };
                if left > 0 {
                    // SAFETY: `left` elements of the row from `at` on exist, and `params` has MAX_WIDTH elements.
                    let terms = unsafe { term.vector(simd, offset + row * stride + at, left, params.as_ptr().add(at)) };
                    for (sum, term) in sums.iter_mut().zip(terms) {
                        sum[i] = T::vadd(simd, sum[i], term);
                    }
                }
            }
        }
        for (total, sums) in total.iter_mut().zip(sums) {
            for (i, sum) in sums.into_iter().enumerate().take(group) {
                let at = lane + i * lanes;
                // SAFETY: `at + lanes <= width <= MAX_WIDTH`.
                unsafe {
                    let slot = total.as_mut_ptr().add(at);
                    T::store(simd, slot, T::vadd(simd, T::load(simd, slot), sum));
                }
            }
        }
        lane += group * lanes;
    }
}
