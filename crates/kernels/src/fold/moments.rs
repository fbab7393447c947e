//! Means and variances over the middle axis of `[A, R, K]`: of numbers in memory, of a convolution that is not, and of numbers that are just being
//! written.

use std::sync::atomic::{AtomicU32, Ordering};

use super::{Blocks, Job, Slab};
use crate::conv::OnDemand;
use crate::par::{Par, SendPtr};
use crate::real::Real;
use crate::scratch::{self, Slot};
use crate::simd::{Kernel, Simd, dispatch};
use crate::term::{Centered, Plain, line};

/// The means over r and the biased variances around them, both `[A, K]`; NaN where R is 0.
///
/// Blocks look at their data twice, while it is in the cache, and are joined by the formula of Chan, Golub and LeVeque ("Updating formulae and a pairwise
/// algorithm for computing sample variances", 1979), so that a large mean costs no accuracy.
pub(crate) fn moments<T: Real>(par: Par, x: &[T], [a, r, k]: [usize; 3], mean: &mut [T], variance: &mut [T]) {
    if r == 0 {
        mean.fill(T::from_f64(f64::NAN));
        variance.fill(T::from_f64(f64::NAN));
        return;
    }
    if a == 0 || k == 0 {
        return;
    }
    moments_by(par, Moments(x), &Blocks::new(a, r, k), mean, variance);
}

/// [`moments`] over all pixels of a convolution, each block of which is computed where it is looked at.
pub(crate) fn moments_of<T: Real>(par: Par, x: &OnDemand<'_, T>, mean: &mut [T], variance: &mut [T]) {
    let blocks = Blocks::new(1, x.pixels(), x.channels());
    moments_by(par, MomentsOf(x), &blocks, mean, variance);
}

fn moments_by<T: Real>(par: Par, job: impl Job<T, 2>, blocks: &Blocks, mean: &mut [T], variance: &mut [T]) {
    if blocks.per_a == 1 {
        return blocks.run(par, job, [mean, variance]);
    }
    let partial = blocks.a * blocks.per_a * blocks.k;
    scratch::with(Slot::Spare, 2 * partial, |scratch| {
        let (means, variances) = scratch.split_at_mut(partial);
        blocks.run(par, job, [&mut *means, &mut *variances]);
        blocks.join(means, variances, mean, variance);
    });
}

/// Whether [`moments_behind`] can take those of a matrix `[R, K]`: it has several blocks, and more than one column.
pub(crate) fn has_blocks([r, k]: [usize; 2]) -> bool {
    k > 1 && Blocks::new(1, r, k).per_a > 1
}

/// [`moments`] of a matrix `[R, K]`, while `write` writes it and tells [`Behind`] which rows are done: the same bits.
///
/// # Panics
/// If the matrix is too small for that, or not all of its rows were told.
pub(crate) fn moments_behind<T: Real>(
    [r, k]: [usize; 2],
    mean: &mut [T],
    variance: &mut [T],
    write: impl FnOnce(&Behind<T>),
) {
    assert!(has_blocks([r, k]), "moments behind [{r}, {k}]");
    let blocks = Blocks::new(1, r, k);
    let count = blocks.per_a;
    scratch::with::<u32, _>(Slot::Index, count, |missing| {
        for (i, missing) in missing.iter_mut().enumerate() {
            *missing = blocks.rows_of(i) as u32;
        }
        // SAFETY: an atomic number lies in memory as a plain one, and nobody uses these as plain ones meanwhile.
        let missing = unsafe { &*(std::ptr::from_mut(missing) as *const [AtomicU32]) };
        scratch::with(Slot::Spare, 2 * count * k, |scratch| {
            let (means, variances) = scratch.split_at_mut(count * k);
            let outs = [&mut *means, &mut *variances].map(SendPtr::new);
            write(&Behind { blocks: &blocks, missing, outs });
            // What other threads computed is here once `write` has waited for them.
            assert!(
                missing.iter().all(|rows| rows.load(Ordering::Relaxed) == 0),
                "moments behind: rows without a word"
            );
            blocks.join(means, variances, mean, variance);
        });
    });
}

/// The moments of a matrix's blocks, each taken by whoever writes the last row of the block, while it lies in the cache.
pub(crate) struct Behind<'a, T> {
    blocks: &'a Blocks,
    /// Rows of each block of which nothing was heard.
    missing: &'a [AtomicU32],
    /// Means and variances of the blocks, `[blocks, K]`.
    outs: [SendPtr<T>; 2],
}

impl<T: Real> Behind<'_, T> {
    /// Rows `[first, last)` of x are written.
    ///
    /// # Panics
    /// If there are no such rows.
    ///
    /// # Safety
    /// x addresses the matrix; no row is told twice, and nobody writes to one that was told.
    pub(crate) unsafe fn rows(&self, x: SendPtr<T>, [mut first, last]: [usize; 2]) {
        assert!(last <= self.blocks.r, "rows {first} to {last} of {}", self.blocks.r);
        while first < last {
            let block = first / self.blocks.rows;
            let some = last.min((block + 1) * self.blocks.rows) - first;
            // Who comes last has to see what the others wrote.
            if self.missing[block].fetch_sub(some as u32, Ordering::AcqRel) == some as u32 {
                // SAFETY: passed on; all rows of the block are written.
                unsafe { self.look(x, block) }
            }
            first += some;
        }
    }

    /// # Safety
    /// x addresses the matrix, whose rows of this block nobody writes to, and no other thread comes here with the same block.
    unsafe fn look(&self, x: SendPtr<T>, block: usize) {
        let (k, rows) = (self.blocks.k, self.blocks.rows_of(block));
        // SAFETY: the block's rows by the caller's word, and its part of the results, which are as long as blocks are many.
        let (x, outs) = unsafe {
            let x = std::slice::from_raw_parts(x.get().add(block * self.blocks.rows * k), rows * k);
            (x, self.outs.map(|out| std::slice::from_raw_parts_mut(out.get().add(block * k), k)))
        };
        dispatch(SlabMoments { rows: x, slab: Slab { offset: 0, rows, cols: k, stride: k }, outs });
    }
}

#[derive(Clone, Copy)]
struct Moments<'a, T>(&'a [T]);

impl<T: Real> Job<T, 2> for Moments<'_, T> {
    #[inline(always)]
    fn slab<S: Simd>(self, simd: S, slab: &Slab, [mean, variance]: [&mut [T]; 2]) {
        let factor = T::from_f64(1.0 / slab.rows as f64);
        slab.sum(simd, Plain(self.0), &[], [&mut *mean]);
        mean.iter_mut().for_each(|x| *x *= factor);
        slab.sum(simd, Centered(self.0), mean, [&mut *variance]);
        variance.iter_mut().for_each(|x| *x *= factor);
    }
    #[inline(always)]
    fn line<S: Simd>(self, simd: S, offset: usize, len: usize) -> [T; 2] {
        line_moments(simd, self.0, offset, len, T::from_f64(1.0 / len as f64))
    }
}

#[derive(Clone, Copy)]
struct MomentsOf<'a, T>(&'a OnDemand<'a, T>);

impl<T: Real> MomentsOf<'_, T> {
    /// Calls `f` with some rows, computed for it.
    fn rows<R>(&self, [first, last]: [usize; 2], f: impl FnOnce(&[T]) -> R) -> R {
        let len = (last - first) * self.0.channels();
        scratch::with(Slot::Images, len + self.0.room(), |scratch| {
            let (rows, room) = scratch.split_at_mut(len);
            self.0.reader(room).read([first, last], rows);
            f(rows)
        })
    }
}

impl<T: Real> Job<T, 2> for MomentsOf<'_, T> {
    #[inline(always)]
    fn slab<S: Simd>(self, _: S, slab: &Slab, outs: [&mut [T]; 2]) {
        let (first, column) = (slab.offset / slab.stride, slab.offset % slab.stride);
        // A closure is compiled for the baseline instruction set.
        self.rows([first, first + slab.rows], |rows| {
            dispatch(SlabMoments { rows, slab: Slab { offset: column, ..*slab }, outs });
        });
    }
    #[inline(always)]
    fn line<S: Simd>(self, _: S, offset: usize, len: usize) -> [T; 2] {
        self.rows([offset, offset + len], |rows| dispatch(LineMoments(rows)))
    }
}

struct LineMoments<'a, T>(&'a [T]);

impl<T: Real> Kernel for LineMoments<'_, T> {
    type Output = [T; 2];
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> [T; 2] {
        Moments(self.0).line(simd, 0, self.0.len())
    }
}

struct SlabMoments<'a, T> {
    rows: &'a [T],
    slab: Slab,
    outs: [&'a mut [T]; 2],
}

impl<T: Real> Kernel for SlabMoments<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        Moments(self.rows).slab(simd, &self.slab, self.outs);
    }
}

/// Mean and biased variance of `len` contiguous elements, where `factor` is 1 / `len`.
#[inline(always)]
pub(crate) fn line_moments<S: Simd, T: Real>(simd: S, x: &[T], offset: usize, len: usize, factor: T) -> [T; 2] {
    let [sum] = line(simd, Plain(x), offset, len, T::ZERO);
    let mean = sum * factor;
    let [squares] = line(simd, Centered(x), offset, len, mean);
    [mean, squares * factor]
}

impl Blocks {
    /// Joins the blocks' means and variances, each `[A, blocks, K]`, into those of all rows.
    fn join<T: Real>(&self, means: &[T], variances: &[T], mean: &mut [T], variance: &mut [T]) {
        let (k, per_a) = (self.k, self.per_a);
        for a in 0..self.a {
            let (mean, variance) = (&mut mean[a * k..][..k], &mut variance[a * k..][..k]);
            mean.fill(T::ZERO);
            variance.fill(T::ZERO);
            let block = |block: usize| {
                let weight = self.rows_of(block) as f64 / self.r as f64;
                (T::from_f64(weight), (a * per_a + block) * k)
            };
            for (weight, at) in (0..per_a).map(block) {
                for (mean, &part) in mean.iter_mut().zip(&means[at..at + k]) {
                    *mean += weight * part;
                }
            }
            for (weight, at) in (0..per_a).map(block) {
                for j in 0..k {
                    let d = means[at + j] - mean[j];
                    variance[j] += weight * (variances[at + j] + d * d);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "without a word")]
    fn rows_that_nobody_told_are_no_moments() {
        let mut x = vec![1.0f64; 3000 * 64];
        let [mut mean, mut variance] = [[0.0; 64]; 2];
        // SAFETY: all of x is written.
        moments_behind([3000, 64], &mut mean, &mut variance, |behind| unsafe {
            behind.rows(SendPtr::new(&mut x), [0, 2999]);
        });
    }
}
