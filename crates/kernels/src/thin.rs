//! Batches of small matrix products with a side of one, whose rows lie side by side: what a layer with one input or one output is
//! for the tasks of a group, each with weights of its own. To begin one of them takes longer than its arithmetic, so that a kernel does
//! all of a batch. An element is computed as it is one product at a time, to the bit.

use crate::Real;
use crate::matmul::MatMulDims;
use crate::microkernel::{Mask, lane_sum};
use crate::scratch::{self, Slot};
use crate::simd::{Isa, Kernel, Simd, dispatch_on};
use crate::transpose::transpose;

/// Multiply-adds of the largest products: about as long as the beginning of one.
const SMALL: usize = 1 << 12;
/// Terms of the longest sums. A sum waits for each of its terms, and with longer ones the processor does not find others to compute meanwhile.
const SHORT: usize = 128;

/// Whether [`product`] is for such a batch.
pub(crate) fn is_thin(dims: &MatMulDims) -> bool {
    let MatMulDims { batch, m, n, k, tb, a_shared, b_shared, interleaved, .. } = *dims;
    let is_batch = batch > 1 && interleaved && !a_shared && !b_shared;
    is_batch && m * n * k <= SMALL && k <= SHORT && (k == 1 || n == 1 || m == 1 && !tb)
}

/// See [`crate::matmul`]; no size is 0, and the lengths fit.
pub(crate) fn product<T: Real>(isa: Isa, dims: &MatMulDims, a: &[T], b: &[T], out: &mut [T]) {
    let MatMulDims { batch, m, n, k, ta, tb, .. } = *dims;
    if k == 1 {
        turned(ta, a, [batch, m], Slot::Weights, |x| {
            turned(tb, b, [n, batch], Slot::Spare, |y| dispatch_on(isa, Outer { cols: n, x, y, out }));
        });
    } else if n > 1 {
        turned(!ta, a, [batch, k], Slot::Weights, |x| dispatch_on(isa, ColumnSums { cols: n, x, y: b, out }));
    } else if ta {
        turned(tb, b, [batch, k], Slot::Weights, |x| {
            scratch::with(Slot::Spare, batch * m, |sums| {
                dispatch_on(isa, ColumnSums { cols: m, x, y: a, out: sums });
                transpose(sums, batch, m, out);
            });
        });
    } else {
        turned(!tb, b, [k, batch], Slot::Weights, |x| dispatch_on(isa, RowSums { len: k, x, y: a, out }));
    }
}

/// Calls `f` with x, or with the transpose of x `[rows, cols]` if it is to be turned.
fn turned<T: Real>(is_turned: bool, x: &[T], [rows, cols]: [usize; 2], slot: Slot, f: impl FnOnce(&[T])) {
    if !is_turned || rows == 1 || cols == 1 {
        return f(x);
    }
    scratch::with(slot, rows * cols, |to| {
        transpose(x, rows, cols, to);
        f(to);
    });
}

/// `out[i, b, j] = x[i, b] y[b, j]`.
struct Outer<'a, T> {
    cols: usize,
    x: &'a [T],
    y: &'a [T],
    out: &'a mut [T],
}

impl<T: Real> Kernel for Outer<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { cols, x, y, out } = self;
        let batch = y.len() / cols;
        let (lanes, zero) = (T::lanes::<S>(), T::splat(simd, T::ZERO));
        let whole = cols - cols % lanes;
        let rest = Mask::first(simd, cols % lanes);
        for (x, out) in x.chunks_exact(batch).zip(out.chunks_exact_mut(batch * cols)) {
            for ((&x, y), out) in x.iter().zip(y.chunks_exact(cols)).zip(out.chunks_exact_mut(cols)) {
                let x = T::splat(simd, x);
                let (y, out) = (y.as_ptr(), out.as_mut_ptr());
                for j in (0..whole).step_by(lanes) {
                    // SAFETY: j + lanes <= cols, which both have.
                    unsafe { T::store(simd, out.add(j), T::vfma(simd, x, T::load(simd, y.add(j)), zero)) }
                }
                if whole < cols {
                    // SAFETY: the mask ends at cols.
                    unsafe { rest.store(simd, out.add(whole), T::vfma(simd, x, rest.load(simd, y.add(whole)), zero)) }
                }
            }
        }
    }
}

/// `out[b, j] = sum over i of x[i, b] y[i, b, j]`, in ascending order.
struct ColumnSums<'a, T> {
    cols: usize,
    x: &'a [T],
    y: &'a [T],
    out: &'a mut [T],
}

impl<T: Real> Kernel for ColumnSums<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { cols, x, y, out } = self;
        let batch = out.len() / cols;
        let lanes = T::lanes::<S>();
        let whole = cols - cols % lanes;
        let rest = Mask::first(simd, cols % lanes);
        assert_eq!(x.len() * cols, y.len());
        for (b, out) in out.chunks_exact_mut(cols).enumerate() {
            for j in (0..cols).step_by(lanes) {
                let mut sum = T::splat(simd, T::ZERO);
                for (i, x) in x.chunks_exact(batch).enumerate() {
                    let x = T::splat(simd, x[b]);
                    // SAFETY: row (i, b) of y has cols elements, and the mask ends there.
                    let y = unsafe {
                        let y = y.as_ptr().add((i * batch + b) * cols + j);
                        if j < whole { T::load(simd, y) } else { rest.load(simd, y) }
                    };
                    sum = T::vfma(simd, x, y, sum);
                }
                // SAFETY: so has this row of the result.
                unsafe {
                    let out = out.as_mut_ptr().add(j);
                    if j < whole { T::store(simd, out, sum) } else { rest.store(simd, out, sum) }
                }
            }
        }
    }
}

/// `out[i, b] = sum over p of x[b, p] y[i, b, p]`, the lanes running over p.
struct RowSums<'a, T> {
    len: usize,
    x: &'a [T],
    y: &'a [T],
    out: &'a mut [T],
}

impl<T: Real> Kernel for RowSums<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { len, x, y, out } = self;
        let lanes = T::lanes::<S>();
        let whole = len - len % lanes;
        let rest = Mask::first(simd, len % lanes);
        for (y, out) in y.chunks_exact(x.len()).zip(out.chunks_exact_mut(x.len() / len)) {
            for ((x, y), out) in x.chunks_exact(len).zip(y.chunks_exact(len)).zip(out) {
                let (x, y) = (x.as_ptr(), y.as_ptr());
                let mut sum = T::splat(simd, T::ZERO);
                for p in (0..whole).step_by(lanes) {
                    // SAFETY: p + lanes <= len, which both have.
                    sum = unsafe { T::vfma(simd, T::load(simd, y.add(p)), T::load(simd, x.add(p)), sum) };
                }
                if whole < len {
                    // SAFETY: the mask ends at len.
                    sum = unsafe { T::vfma(simd, rest.load(simd, y.add(whole)), rest.load(simd, x.add(whole)), sum) };
                }
                *out = lane_sum::<T, S>(simd, sum);
            }
        }
    }
}
