//! Sums over the middle axis of `[A, R, K]`, which every reduction and every normalisation is made of.
//!
//! The order of addition is fixed by the shape, for all instruction sets and threads: 256 bytes of accumulators side by side, at most
//! [`RUN`] terms added in a row before the accumulators are added to a second level, and blocks of a bounded size whose
//! results are summed again. The error of a sum of n terms is therefore at most about `RUN + 64 + 2 log2 n` units of
//! roundoff times the sum of magnitudes (a plain loop: n units).

use crate::par::{self, Par, SendPtr};
use crate::real::Real;
use crate::scratch::{self, Slot};
use crate::simd::{Kernel, Simd, dispatch};
use crate::term::{MAX_WIDTH, Params, Plain, Term, line, width};

mod moments;

pub(crate) use moments::{has_blocks, line_moments, moments, moments_behind, moments_of};

/// Rows that are added in a row into one set of accumulators.
pub(crate) const RUN: usize = 64;

/// Elements of a block: blocks are summed apart (each by any thread) and their sums summed again. A quarter of a megabyte is large beside the cost
/// of a task and stays in the second-level cache for a second look.
pub(crate) const BLOCK: usize = 1 << 16;

/// Columns that a task takes at least when there are more of them than of anything else; a multiple of the accumulators' width.
const COLUMN_GRAIN: usize = 2048;

/// So few terms in all are added without accumulators.
pub(crate) const FEW: usize = 128;

/// `outs[n][a, k]` = the sum over r of the n-th term of element `[a, r, k]`.
pub(crate) fn fold<T: Real, P: Term<T, N>, const N: usize>(
    par: Par,
    term: P,
    [a, r, k]: [usize; 3],
    mut outs: [&mut [T]; N],
) {
    if r == 0 {
        outs.iter_mut().for_each(|out| out.fill(T::ZERO));
        return;
    }
    if a == 0 || k == 0 {
        return;
    }
    let blocks = Blocks::new(a, r, k);
    if blocks.per_a == 1 {
        return blocks.run(par, Sums(term), outs);
    }
    let partial = a * blocks.per_a * k;
    scratch::with(Slot::Spare, N * partial, |scratch| {
        let mut pieces = scratch.chunks_exact_mut(partial);
        let partials: [&mut [T]; N] = std::array::from_fn(|_| pieces.next().unwrap_or_default());
        blocks.run(par, Sums(term), partials);
        for (out, partial) in outs.into_iter().zip(scratch.chunks_exact(partial)) {
            fold(par, Plain(partial), [a, blocks.per_a, k], [out]);
        }
    });
}

/// What is computed of a block of rows.
trait Job<T: Real, const N: usize>: Copy + Send + Sync {
    fn slab<S: Simd>(self, simd: S, slab: &Slab, outs: [&mut [T]; N]);
    /// The same of `len` contiguous elements.
    fn line<S: Simd>(self, simd: S, offset: usize, len: usize) -> [T; N];
}

#[derive(Clone, Copy)]
struct Sums<P>(P);

impl<T: Real, P: Term<T, N>, const N: usize> Job<T, N> for Sums<P> {
    #[inline(always)]
    fn slab<S: Simd>(self, simd: S, slab: &Slab, outs: [&mut [T]; N]) {
        slab.sum(simd, self.0, &[], outs);
    }
    #[inline(always)]
    fn line<S: Simd>(self, simd: S, offset: usize, len: usize) -> [T; N] {
        line(simd, self.0, offset, len, T::ZERO)
    }
}

/// `[A, R, K]` cut into blocks of at most `rows` rows.
struct Blocks {
    a: usize,
    r: usize,
    k: usize,
    rows: usize,
    per_a: usize,
}

impl Blocks {
    fn new(a: usize, r: usize, k: usize) -> Self {
        if r * k <= BLOCK {
            return Self { a, r, k, rows: r, per_a: 1 };
        }
        let rows = (BLOCK / k).max(RUN);
        Self { a, r, k, rows, per_a: r.div_ceil(rows) }
    }

    /// Rows of a block; the last may have fewer.
    fn rows_of(&self, block: usize) -> usize {
        self.rows.min(self.r - block * self.rows)
    }

    /// Does the job on each block; `outs` are `[A, blocks, K]`.
    fn run<T: Real, J: Job<T, N>, const N: usize>(&self, par: Par, job: J, mut outs: [&mut [T]; N]) {
        let tasks = self.a * self.per_a;
        let pointers = outs.each_mut().map(|out| {
            assert_eq!(out.len(), tasks * self.k);
            SendPtr::new(out)
        });
        if self.a * self.r * self.k <= BLOCK {
            let kernel =
                BlockKernel { start: 0, end: tasks, per_block: 1, columns: self.k, job, blocks: self, pointers };
            return dispatch(kernel);
        }
        // Several small blocks make a task, or a single large one is cut along its columns.
        let grain = BLOCK.div_ceil(self.rows.min(self.r) * self.k);
        let columns = if tasks == 1 { COLUMN_GRAIN } else { self.k };
        let per_block = self.k.div_ceil(columns);
        par::for_each_range(par, tasks * per_block, grain, |start, end| {
            dispatch(BlockKernel { start, end, per_block, columns, job, blocks: self, pointers });
        });
    }
}

struct BlockKernel<'a, T, J, const N: usize> {
    start: usize,
    end: usize,
    per_block: usize,
    columns: usize,
    job: J,
    blocks: &'a Blocks,
    pointers: [SendPtr<T>; N],
}

impl<T: Real, J: Job<T, N>, const N: usize> Kernel for BlockKernel<'_, T, J, N> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let &Blocks { r, k, rows, per_a, .. } = self.blocks;
        let mut place = [0; 3];
        if self.start > 0 {
            let block = self.start / self.per_block;
            place = [block / per_a, block % per_a, self.start % self.per_block];
        }
        for _ in self.start..self.end {
            let [a, block, piece] = place;
            let (first, task) = (block * rows, a * per_a + block);
            let rows = self.blocks.rows_of(block);
            if k == 1 {
                let results = self.job.line(simd, a * r + first, rows);
                for (pointer, result) in self.pointers.iter().zip(results) {
                    // SAFETY: each task has an element of its own in `[A, blocks, 1]`, which `Blocks::run` checked.
                    unsafe { *pointer.get().add(task) = result }
                }
            } else {
                let column = piece * self.columns;
                let cols = self.columns.min(k - column);
                let slab = Slab { offset: (a * r + first) * k + column, rows, cols, stride: k };
                // SAFETY: each task writes its own columns of its own block, and no two tasks share them.
                let outs = self
                    .pointers
                    .map(|p| unsafe { std::slice::from_raw_parts_mut(p.get().add(task * k + column), cols) });
                self.job.slab(simd, &slab, outs);
            }
            place[2] += 1;
            if place[2] == self.per_block {
                place = if block + 1 == per_a { [a + 1, 0, 0] } else { [a, block + 1, 0] };
            }
        }
    }
}

/// `rows` rows of `cols` elements, `stride` apart, from `offset` of the inputs.
struct Slab {
    offset: usize,
    rows: usize,
    cols: usize,
    stride: usize,
}

impl Slab {
    /// The sums of the columns. `params` has one for each column, or none.
    ///
    /// Contiguous rows of less than half the accumulators' width are put side by side, as many as fit, and the sums of those that belong to one
    /// column added in pairs; wider rows are summed by as many columns as there are accumulators.
    #[inline(always)]
    fn sum<S: Simd, T: Real, P: Term<T, N>, const N: usize>(
        &self,
        simd: S,
        term: P,
        params: &[T],
        mut outs: [&mut [T]; N],
    ) {
        if self.rows * self.cols <= FEW {
            return self.sum_few::<S, T, P, N>(term, params, outs);
        }
        let is_narrow = self.cols * 2 <= width::<T>() && self.cols == self.stride;
        let beside = if is_narrow { width::<T>() / self.cols } else { 1 };
        let mut column = 0;
        while column < self.cols {
            let cols = (self.cols - column).min(width::<T>());
            let rows = Lanes {
                offset: self.offset + column,
                stride: beside * self.stride,
                rows: self.rows / beside,
                count: beside * cols,
                rest: self.rows % beside * cols,
            };
            let mut lanes = [T::ZERO; MAX_WIDTH];
            if P::HAS_PARAMS {
                let params = &params[column..column + cols];
                lanes[..beside * cols].chunks_exact_mut(cols).for_each(|row| row.copy_from_slice(params));
            }
            let mut total = rows.sum(simd, term, &lanes);
            for (out, total) in outs.iter_mut().zip(&mut total) {
                join(total, beside, cols);
                out[column..column + cols].copy_from_slice(&total[..cols]);
            }
            column += cols;
        }
    }

    /// A few terms, added row by row.
    #[inline(always)]
    fn sum_few<S: Simd, T: Real, P: Term<T, N>, const N: usize>(&self, term: P, params: &[T], mut outs: [&mut [T]; N]) {
        for column in 0..self.cols {
            let param = if P::HAS_PARAMS { params[column] } else { T::ZERO };
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
}

/// Adds in pairs the sums of `rows` rows of `cols` that stand side by side, into the first.
#[inline(never)]
pub(crate) fn join<T: Real>(total: &mut [T; MAX_WIDTH], mut rows: usize, cols: usize) {
    while rows > 1 {
        let upper = rows.div_ceil(2);
        let (low, high) = total.split_at_mut(upper * cols);
        for (low, high) in low.iter_mut().zip(&high[..(rows - upper) * cols]) {
            *low += *high;
        }
        rows = upper;
    }
}

/// Rows of `count <= width` lanes, `stride` apart, from `offset` on, and one more of which only `rest` lanes exist.
struct Lanes {
    offset: usize,
    stride: usize,
    rows: usize,
    count: usize,
    rest: usize,
}

impl Lanes {
    /// The sums of the first `count` lanes; what stands in the others means nothing.
    #[inline(always)]
    fn sum<S: Simd, T: Real, P: Term<T, N>, const N: usize>(
        &self,
        simd: S,
        term: P,
        params: &Params<T>,
    ) -> [[T; MAX_WIDTH]; N] {
        let mut total = [[T::ZERO; MAX_WIDTH]; N];
        // Whole registers may be read where the inputs go on, even if their last lanes belong to the next row and are ignored; only the
        // last rows of the inputs must be read in part. The sums of the lanes that count are the same.
        let whole = match term.len().checked_sub(self.offset + width::<T>()) {
            Some(room) => self.rows.min(room / self.stride + 1),
            None => 0,
        };
        let end = self.rows + usize::from(self.rest > 0);
        let mut row = 0;
        while row < end {
            let run = (end - row).min(RUN);
            let whole = whole.saturating_sub(row).min(run);
            self.run(simd, term, params, [row, row + whole, row + run], &mut total);
            row += run;
        }
        total
    }

    /// Adds rows `first..end` in registers, a group of them at a time, and their sums to `total`; rows from `whole` on are read in part.
    #[inline(always)]
    fn run<S: Simd, T: Real, P: Term<T, N>, const N: usize>(
        &self,
        simd: S,
        term: P,
        params: &Params<T>,
        [first, whole, end]: [usize; 3],
        total: &mut [[T; MAX_WIDTH]; N],
    ) {
        let lanes = T::lanes::<S>();
        // Registers per sum that are in flight: enough to hide the latency of an addition, few enough for sixteen registers.
        let group = (if N == 1 { 8 } else { 4 }).min(width::<T>() / lanes);
        for from in (0..width::<T>()).step_by(group * lanes) {
            if from >= self.count {
                break;
            }
            let mut sums = [[T::splat(simd, T::ZERO); 8]; N];
            for row in first..whole {
                for i in 0..group {
                    let at = from + i * lanes;
                    // SAFETY: `Lanes::sum` found that all lanes of this row exist; `params` has as many.
                    let terms =
                        unsafe { term.vector(simd, self.offset + row * self.stride + at, params.as_ptr().add(at)) };
                    for (sum, term) in sums.iter_mut().zip(terms) {
                        sum[i] = T::vadd(simd, sum[i], term);
                    }
                }
            }
            for row in whole..end {
                let count = if row < self.rows { self.count } else { self.rest };
                for i in 0..group {
                    let at = from + i * lanes;
                    let left = count.saturating_sub(at).min(lanes);
                    let terms = term.partial(simd, self.offset + row * self.stride + at, left, &params[at..]);
                    for (sum, term) in sums.iter_mut().zip(terms) {
                        sum[i] = T::vadd(simd, sum[i], term);
                    }
                }
            }
            for (total, sums) in total.iter_mut().zip(sums) {
                for (i, sum) in sums.into_iter().enumerate().take(group) {
                    let at = from + i * lanes;
                    // SAFETY: `at + lanes <= width <= MAX_WIDTH`.
                    unsafe {
                        let slot = total.as_mut_ptr().add(at);
                        T::store(simd, slot, T::vadd(simd, T::load(simd, slot), sum));
                    }
                }
            }
        }
    }
}
