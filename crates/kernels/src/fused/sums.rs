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

    /// Adds rows `row..` to sum `n`; rows outside the range are left out. Rows come in order.
    #[inline(always)]
    pub(super) fn add<S: Simd>(&mut self, simd: S, n: usize, mut row: usize, mut x: &[T]) {
        let c = self.partition.columns;
        if row < self.range[0] {
            let skip = (self.range[0] - row).min(x.len() / c);
            (row, x) = (row + skip, &x[skip * c..]);
        }
        while !x.is_empty() && row < self.range[1] {
            let block = row / self.partition.rows;
            let first = block * self.partition.rows;
            let end = (first + self.partition.rows).min(self.range[1]);
            let count = (end - row).min(x.len() / c);
            self.add_in_block(simd, n, [row - first, end - first], &x[..count * c]);
            (row, x) = (row + count, &x[count * c..]);
            if row == end {
                self.close(n, block, end - first);
            }
        }
    }

    /// Adds rows of one block, of `rows` in all.
    #[inline(always)]
    fn add_in_block<S: Simd>(&mut self, simd: S, n: usize, [row, rows]: [usize; 2], mut x: &[T]) {
        let &Partition { columns: c, lanes, .. } = self.partition;
        let (run, total) = self.lanes[2 * n * lanes..][..2 * lanes].split_at_mut(lanes);
        if rows * c <= FEW {
            for (i, x) in x.chunks_exact(c).enumerate() {
                for (sum, &x) in run.iter_mut().zip(x) {
                    *sum = if row + i == 0 { x } else { *sum + x };
                }
            }
            return;
        }
        let mut at = row * c;
        while !x.is_empty() {
            let (line, lane) = (at / lanes, at % lanes);
            let step = if lane == 0 && x.len() >= lanes {
                // Whole lines up to the end of the run.
                let lines = (RUN - line % RUN).min(x.len() / lanes);
                add_lines(simd, run, &x[..lines * lanes]);
                lines * lanes
            } else {
                let step = (lanes - lane).min(x.len());
                for (sum, &x) in run[lane..].iter_mut().zip(&x[..step]) {
                    *sum += x;
                }
                step
            };
            (at, x) = (at + step, &x[step..]);
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

/// Adds lines as long as `sums`, one after the other, some registers of each at a time.
#[inline(always)]
fn add_lines<S: Simd, T: Real>(simd: S, sums: &mut [T], x: &[T]) {
    let (lanes, width) = (T::lanes::<S>(), sums.len());
    let group = 4 * lanes;
    let mut at = 0;
    while at + group <= width {
        // SAFETY: `at + group` lies within `sums` and within every line of x.
        unsafe {
            let to = sums.as_mut_ptr().add(at);
            let mut acc: [T::Reg<S>; 4] = std::array::from_fn(|i| T::load(simd, to.add(i * lanes)));
            for line in x.chunks_exact(width) {
                let from = line.as_ptr().add(at);
                for i in 0..4 {
                    acc[i] = T::vadd(simd, acc[i], T::load(simd, from.add(i * lanes)));
                }
            }
            for i in 0..4 {
                T::store(simd, to.add(i * lanes), acc[i]);
            }
        }
        at += group;
    }
    if at < width {
        for line in x.chunks_exact(width) {
            for (sum, &x) in sums[at..].iter_mut().zip(&line[at..]) {
                *sum += x;
            }
        }
    }
}
