//! Sums over axes and the index of the maximum of a row.

use crate::fold::fold;
use crate::layout::MAX_RANK;
use crate::par::{self, Par};
use crate::real::Real;
use crate::scratch::{self, Slot};
use crate::simd::{Kernel, Simd, dispatch};
use crate::softmax::maximum;
use crate::term::Plain;

/// `out` = the sums of `x` (contiguous, of `shape`) over the axes with `reduced`; the other axes stay in order.
///
/// The order of addition is fixed by the shape, and the error grows with the logarithm of the number of terms, not with the number. Panics if
/// lengths do not fit the shape.
#[track_caller]
pub(crate) fn sum_axes<T: Real>(par: Par, x: &[T], shape: &[usize], reduced: &[bool], out: &mut [T]) {
    assert_eq!(shape.len(), reduced.len(), "sum_axes: one flag for each axis of {shape:?}");
    assert!(shape.len() <= MAX_RANK, "sum_axes: at most {MAX_RANK} axes, got {shape:?}");
    assert_eq!(shape.iter().product::<usize>(), x.len(), "sum_axes: input and shape {shape:?}");
    let kept: usize = shape.iter().zip(reduced).map(|(&n, &r)| if r { 1 } else { n }).product();
    assert_eq!(kept, out.len(), "sum_axes: output for shape {shape:?} reduced over {reduced:?}");
    if x.is_empty() {
        out.fill(T::ZERO);
        return;
    }
    // Neighbouring axes of one kind are one axis; sizes 1 are of either kind.
    let mut groups = [(0usize, false); MAX_RANK];
    let mut count = 0;
    for (&size, &flag) in shape.iter().zip(reduced) {
        if size == 1 {
            continue;
        }
        if count > 0 && groups[count - 1].1 == flag {
            groups[count - 1].0 *= size;
        } else {
            groups[count] = (size, flag);
            count += 1;
        }
    }
    sum_groups(par, x, &groups[..count], out);
}

/// Sums one group at a time, the last first.
fn sum_groups<T: Real>(par: Par, x: &[T], groups: &[(usize, bool)], out: &mut [T]) {
    let Some(last) = groups.iter().rposition(|g| g.1) else {
        out.copy_from_slice(x);
        return;
    };
    let size = |groups: &[(usize, bool)]| groups.iter().map(|g| g.0).product::<usize>();
    let (before, after) = (size(&groups[..last]), size(&groups[last + 1..]));
    let dims = [before, groups[last].0, after];
    if groups[..last].iter().any(|g| g.1) {
        scratch::with(Slot::Spare, before * after, |partial| {
            fold(par, Plain(x), dims, [&mut *partial]);
            let mut rest = [(0, false); MAX_RANK];
            rest[..last].copy_from_slice(&groups[..last]);
            rest[last] = (after, false);
            sum_groups(par, partial, &rest[..=last], out);
        });
    } else {
        fold(par, Plain(x), dims, [out]);
    }
}

/// `out[r]` = the index of the first maximum of row r of `x` `[rows, cols]`. A NaN counts as the maximum. Panics if `cols` is 0
/// and there are rows, or if lengths do not fit.
#[track_caller]
pub(crate) fn argmax_rows<T: Real>(par: Par, x: &[T], rows: usize, cols: usize, out: &mut [u32]) {
    assert_eq!(x.len(), rows * cols, "argmax_rows: input of [{rows}, {cols}]");
    assert_eq!(out.len(), rows, "argmax_rows: output of [{rows}]");
    assert!(cols > 0 || rows == 0, "argmax_rows: rows of no elements");
    let grain = (par::COSTLY_GRAIN_BYTES / size_of::<T>()).div_ceil(cols.max(1));
    par::for_each_chunk(par, out, grain, |start, out| {
        let x = &x[start * cols..][..out.len() * cols];
        dispatch(ArgMax { x, cols, out });
    });
}

struct ArgMax<'a, T> {
    x: &'a [T],
    cols: usize,
    out: &'a mut [u32],
}

impl<T: Real> Kernel for ArgMax<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        for (o, row) in self.out.iter_mut().zip(self.x.chunks_exact(self.cols)) {
            let mut has_nan = false;
            for &x in row {
                has_nan |= x.is_nan();
            }
            let max = maximum(row);
            let at = if has_nan { row.iter().position(|x| x.is_nan()) } else { row.iter().position(|&x| x == max) };
            *o = at.unwrap_or_default() as u32;
        }
    }
}
