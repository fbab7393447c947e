//! Sums of columns from tiles that come one after the other, in the order of addition of [`crate::fold`]: blocks of rows, in them
//! runs of [`RUN`] rows, narrow rows side by side.

use crate::fold::{BLOCK, FEW, RUN, join};
use crate::par::SendPtr;
use crate::real::Real;
use crate::simd::Simd;
use crate::term::{MAX_WIDTH, width};

/// How rows are cut into blocks, by shape alone.
pub(super) struct Partition {
    /// Rows of a block; the last may have fewer.
    pub(super) rows: usize,
    pub(super) blocks: usize,
    pub(super) columns: usize,
    /// Rows that stand side by side in the accumulators.
    beside: usize,
    /// Accumulators.
    pub(super) lanes: usize,
}

impl Partition {
    pub(super) fn new<T>(rows: usize, columns: usize) -> Partition {
        let beside = if columns * 2 <= width::<T>() { width::<T>() / columns } else { 1 };
        let block = if rows * columns <= BLOCK { rows } else { (BLOCK / columns).max(RUN) };
        Partition { rows: block, blocks: rows.div_ceil(block), columns, beside, lanes: beside * columns }
    }
}

/// What is summed of some rows.
#[derive(Clone, Copy)]
pub(super) struct Summed<'a, T> {
    pub(super) of: &'a [T],
    pub(super) times: Times<'a, T>,
}

/// What it is multiplied by.
#[derive(Clone, Copy)]
pub(super) enum Times<'a, T> {
    One,
    Value(&'a [T]),
    /// `(x - mean) * rstd`; a mean and an rstd for each accumulator.
    Normalized {
        x: &'a [T],
        mean: &'a [T],
        rstd: &'a [T],
    },
}

impl<'a, T: Real> Summed<'a, T> {
    /// Elements `[first, last)` of it.
    #[inline(always)]
    fn range(self, first: usize, last: usize) -> Self {
        let times = match self.times {
            Times::One => Times::One,
            Times::Value(x) => Times::Value(&x[first..last]),
            Times::Normalized { x, mean, rstd } => Times::Normalized { x: &x[first..last], mean, rstd },
        };
        Summed { of: &self.of[first..last], times }
    }

    #[inline(always)]
    fn from(self, first: usize) -> Self {
        self.range(first, self.of.len())
    }

    /// The term of element `i`, which is added to an accumulator.
    #[inline(always)]
    fn term(&self, i: usize, lane: usize) -> T {
        match self.times {
            Times::One => self.of[i],
            Times::Value(x) => self.of[i] * x[i],
            Times::Normalized { x, mean, rstd } => self.of[i] * ((x[i] - mean[lane]) * rstd[lane]),
        }
    }
}

/// The running sums of a range of rows, which begins with a block.
pub(super) struct ColumnSums<'a, T> {
    partition: &'a Partition,
    /// Rows to sum.
    range: [usize; 2],
    /// For each sum, the accumulators of a run and those of the block.
    lanes: &'a mut [T],
    /// Where sum n has its blocks' results, `[blocks, columns]`.
    into: &'a dyn Fn(usize) -> SendPtr<T>,
}

impl<'a, T: Real> ColumnSums<'a, T> {
    pub(super) fn new(
        partition: &'a Partition,
        range: [usize; 2],
        lanes: &'a mut [T],
        into: &'a dyn Fn(usize) -> SendPtr<T>,
    ) -> Self {
        lanes.fill(T::ZERO);
        Self { partition, range, lanes, into }
    }

    /// Adds rows `row..` to sum `n`; rows outside the range are left out. Rows come in order. `beside` is told of the terms that are added.
    #[inline(always)]
    pub(super) fn add<S: Simd>(
        &mut self,
        simd: S,
        n: usize,
        mut row: usize,
        mut x: Summed<'_, T>,
        beside: &mut impl FnMut(usize),
    ) {
        let c = self.partition.columns;
        if row < self.range[0] {
            let skip = (self.range[0] - row).min(x.of.len() / c);
            (row, x) = (row + skip, x.from(skip * c));
        }
        while !x.of.is_empty() && row < self.range[1] {
            let block = row / self.partition.rows;
            let first = block * self.partition.rows;
            let end = (first + self.partition.rows).min(self.range[1]);
            let count = (end - row).min(x.of.len() / c);
            self.add_in_block(simd, n, [row - first, end - first], x.range(0, count * c), beside);
            (row, x) = (row + count, x.from(count * c));
            if row == end {
                self.close(n, block, end - first);
            }
        }
    }

    /// Adds rows of one block, of `rows` in all.
    #[inline(always)]
    fn add_in_block<S: Simd>(
        &mut self,
        simd: S,
        n: usize,
        [row, rows]: [usize; 2],
        mut x: Summed<'_, T>,
        beside: &mut impl FnMut(usize),
    ) {
        let &Partition { columns: c, lanes, .. } = self.partition;
        let (run, total) = self.lanes[2 * n * lanes..][..2 * lanes].split_at_mut(lanes);
        if rows * c <= FEW {
            beside(x.of.len());
            for i in 0..x.of.len() / c {
                for (j, sum) in run[..c].iter_mut().enumerate() {
                    let term = x.term(i * c + j, j);
                    *sum = if row + i == 0 { term } else { *sum + term };
                }
            }
            return;
        }
        let mut at = row * c;
        while !x.of.is_empty() {
            let (line, lane) = (at / lanes, at % lanes);
            let step = if lane == 0 && x.of.len() >= lanes {
                // Whole lines up to the end of the run.
                let lines = (RUN - line % RUN).min(x.of.len() / lanes);
                add_lines(simd, run, x.range(0, lines * lanes), beside);
                lines * lanes
            } else {
                let step = (lanes - lane).min(x.of.len());
                beside(step);
                for (i, sum) in run[lane..lane + step].iter_mut().enumerate() {
                    *sum += x.term(i, lane + i);
                }
                step
            };
            (at, x) = (at + step, x.from(step));
            if at % (RUN * lanes) == 0 {
                flush(run, total);
            }
        }
    }

    /// Ends a block of `rows` rows.
    #[inline(always)]
    fn close(&mut self, n: usize, block: usize, rows: usize) {
        let &Partition { columns: c, lanes, beside, .. } = self.partition;
        // SAFETY: blocks of a range belong to one thread, and there are `columns` numbers for each.
        let out = unsafe { std::slice::from_raw_parts_mut((self.into)(n).get().add(block * c), c) };
        let (run, total) = self.lanes[2 * n * lanes..][..2 * lanes].split_at_mut(lanes);
        if rows * c <= FEW {
            out.copy_from_slice(&run[..c]);
        } else {
            if !(rows * c).is_multiple_of(RUN * lanes) {
                flush(run, total);
            }
            if beside > 1 {
                let mut wide = [T::ZERO; MAX_WIDTH];
                wide[..lanes].copy_from_slice(total);
                join(&mut wide, beside, c);
                out.copy_from_slice(&wide[..c]);
            } else {
                out.copy_from_slice(total);
            }
        }
        run.fill(T::ZERO);
        total.fill(T::ZERO);
    }
}

/// Adds a run's sums to those of the block and begins the next.
#[inline(always)]
fn flush<T: Real>(run: &mut [T], total: &mut [T]) {
    for (total, run) in total.iter_mut().zip(run) {
        *total += *run;
        *run = T::ZERO;
    }
}

/// Registers of accumulators that lines are added to at a time: with as many of means and of deviations they stay in sixteen.
const GROUP: usize = 4;

/// Adds lines as long as `sums`, one after the other, some registers of each at a time.
#[inline(always)]
fn add_lines<S: Simd, T: Real>(simd: S, sums: &mut [T], x: Summed<'_, T>, beside: &mut impl FnMut(usize)) {
    let (lanes, width) = (T::lanes::<S>(), sums.len());
    let lines = x.of.len() / width;
    let mut at = 0;
    while at + GROUP * lanes <= width {
        beside(lines * GROUP * lanes);
        add_columns::<S, T, GROUP>(simd, sums, x, at);
        at += GROUP * lanes;
    }
    beside(lines * (width - at));
    while at + lanes <= width {
        add_columns::<S, T, 1>(simd, sums, x, at);
        at += lanes;
    }
    if at < width {
        for line in 0..lines {
            for (lane, sum) in sums.iter_mut().enumerate().skip(at) {
                *sum += x.term(line * width + lane, lane);
            }
        }
    }
}

/// Adds to `G` registers of accumulators from `at` on.
#[inline(always)]
fn add_columns<S: Simd, T: Real, const G: usize>(simd: S, sums: &mut [T], x: Summed<'_, T>, at: usize) {
    let (lanes, width) = (T::lanes::<S>(), sums.len());
    let lines = x.of.len() / width;
    assert!(at + G * lanes <= width);
    if let Times::Normalized { mean, rstd, .. } = x.times {
        assert!(mean.len() >= width && rstd.len() >= width);
    }
    // The registers lie within the accumulators and, as asserted, within every line of what is summed and of what it is multiplied by, which are as long
    // (`Summed::range`).
    let to = sums.as_mut_ptr().wrapping_add(at);
    let of = x.of.as_ptr().wrapping_add(at);
    // SAFETY: see above.
    let mut acc: [T::Reg<S>; G] = unsafe { load(simd, to) };
    match x.times {
        Times::One => {
            for line in 0..lines {
                // SAFETY: see above.
                let x = unsafe { load::<S, T, G>(simd, of.wrapping_add(line * width)) };
                for i in 0..G {
                    acc[i] = T::vadd(simd, acc[i], x[i]);
                }
            }
        }
        Times::Value(by) => {
            let by = by.as_ptr().wrapping_add(at);
            for line in 0..lines {
                let line = line * width;
                // SAFETY: see above.
                let (x, by) = unsafe {
                    (load::<S, T, G>(simd, of.wrapping_add(line)), load::<S, T, G>(simd, by.wrapping_add(line)))
                };
                for i in 0..G {
                    acc[i] = T::vadd(simd, acc[i], T::vmul(simd, x[i], by[i]));
                }
            }
        }
        Times::Normalized { x: by, mean, rstd } => {
            let by = by.as_ptr().wrapping_add(at);
            // SAFETY: parameters are as long as the accumulators (asserted above).
            let (mean, rstd) =
                unsafe { (load::<S, T, G>(simd, mean.as_ptr().add(at)), load::<S, T, G>(simd, rstd.as_ptr().add(at))) };
            for line in 0..lines {
                let line = line * width;
                // SAFETY: see above.
                let (x, by) = unsafe {
                    (load::<S, T, G>(simd, of.wrapping_add(line)), load::<S, T, G>(simd, by.wrapping_add(line)))
                };
                for i in 0..G {
                    let by = T::vmul(simd, T::vsub(simd, by[i], mean[i]), rstd[i]);
                    acc[i] = T::vadd(simd, acc[i], T::vmul(simd, x[i], by));
                }
            }
        }
    }
    for i in 0..G {
        // SAFETY: see above.
        unsafe { T::store(simd, to.wrapping_add(i * lanes), acc[i]) };
    }
}

/// Registers that follow each other.
///
/// # Safety
/// `from` is valid for reading `G` registers.
#[inline(always)]
unsafe fn load<S: Simd, T: Real, const G: usize>(simd: S, from: *const T) -> [T::Reg<S>; G] {
    // SAFETY: the caller vouches for the range.
    std::array::from_fn(|i| unsafe { T::load(simd, from.add(i * T::lanes::<S>())) })
}
