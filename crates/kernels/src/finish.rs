//! What is done with a matrix product as soon as it is there: bias and activation of a layer, or a step of gradient descent. A small product is still in the
//! first-level cache then, and a pass of its own would take longer to begin.

use crate::Real;
use crate::matmul::MatMulDims;
use crate::microkernel::Mask;
use crate::par::{Par, SendPtr, for_each_range};
use crate::simd::{Isa, Kernel, Simd, dispatch_on};

/// Steps in this order, each with the bits of the elementwise kernel of that name, but for which NaN it is where two meet.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Finish<'a, T> {
    /// `scale * x + shift` of scale and shift.
    pub affine: Option<[T; 2]>,
    /// What is added, or subtracted from.
    pub base: Option<Base<'a, T>>,
    /// `if x <= 0 { 0 } else { x }`.
    pub relu: bool,
}

/// What each element is added to, or subtracted from.
#[derive(Clone, Copy, PartialEq)]
pub struct Base<'a, T> {
    /// The numbers of a row lie side by side.
    pub data: &'a [T],
    /// `data - x` instead of `data + x`.
    pub minus: bool,
    /// From the numbers for a row of the result to those for the next; 0 if they are the same.
    pub row: usize,
    /// And from one product of the batch to the next.
    pub batch: usize,
}

impl<T> std::fmt::Debug for Base<'_, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Base { data, minus, row, batch } = self;
        write!(f, "Base {{ {} numbers, minus: {minus}, row: {row}, batch: {batch} }}", data.len())
    }
}

/// Elements that a thread takes at a time, at least.
const GRAIN: usize = 1 << 16;

impl<T: Real> Finish<'_, T> {
    /// # Panics
    /// If there are too few numbers to add to.
    #[track_caller]
    pub(crate) fn check(&self, dims: &MatMulDims) {
        let MatMulDims { batch, m, n, .. } = *dims;
        let Some(base) = self.base.filter(|_| batch * m * n > 0) else { return };
        let last = |count: usize, step: usize| (count - 1).checked_mul(step);
        let len = last(m, base.row).zip(last(batch, base.batch)).and_then(|(a, b)| a.checked_add(b)?.checked_add(n));
        let given = base.data.len();
        assert!(len.is_some_and(|len| len <= given), "matmul: {given} numbers to add to, for {base:?} and {dims:?}");
    }

    /// Finishes all products of a batch, as the rows of one if what they are added to is evenly spaced.
    pub(crate) fn all(&self, isa: Isa, par: Par, dims: &MatMulDims, out: &mut [T]) {
        if out.is_empty() {
            return;
        }
        let MatMulDims { batch, m, n, interleaved, .. } = *dims;
        let len = out.len();
        let (cols, step) = match self.base {
            // Each element has a number of its own, or none.
            None => (len, 0),
            Some(base) if interleaved && base.batch == n => (batch * n, base.row),
            Some(base) if interleaved && base.row == batch * base.batch => (n, base.batch),
            Some(base) if !interleaved && (batch == 1 || base.batch == m * base.row) => (n, base.row),
            Some(_) => {
                let out = SendPtr::new(out);
                // SAFETY: out is borrowed mutably.
                return (0..batch).for_each(|i| unsafe { self.product(isa, par, dims, i, out) });
            }
        };
        // Rows that follow each other on either side are one.
        let (cols, rows) = if step == cols { (len, 1) } else { (cols, len / cols) };
        let out = SendPtr::new(out);
        if rows == 1 {
            return for_each_range(par, len, GRAIN, |first, last| {
                let all = Rows { finish: self, base: first, rows: 1, cols: last - first, out: out.add(first), row: 0 };
                dispatch_on(isa, all);
            });
        }
        for_each_range(par, rows, GRAIN.div_ceil(cols), |first, last| {
            let (base, out) = (first * step, out.add(first * cols));
            dispatch_on(isa, Rows { finish: self, base, rows: last - first, cols, out, row: cols });
        });
    }

    /// Finishes product `i`; `out` has the results of the batch.
    ///
    /// # Safety
    /// Nobody else uses those of this product meanwhile.
    #[inline]
    pub(crate) unsafe fn product(&self, isa: Isa, par: Par, dims: &MatMulDims, i: usize, out: SendPtr<T>) {
        let &MatMulDims { batch, m, n, interleaved, .. } = dims;
        let (at, row) = if interleaved { (i * n, batch * n) } else { (i * m * n, n) };
        let [step, next] = self.base.map_or([0; 2], |base| [base.row, base.batch]);
        for_each_range(par, m, GRAIN.div_ceil(n), |first, last| {
            let (base, out) = (i * next + first * step, out.add(at + first * row));
            dispatch_on(isa, Rows { finish: self, base, rows: last - first, cols: n, out, row });
        });
    }
}

/// Some rows of a product, one at least, which are in memory and ours.
struct Rows<'a, T> {
    finish: &'a Finish<'a, T>,
    /// Where the numbers begin that they are added to.
    base: usize,
    rows: usize,
    cols: usize,
    /// Where they begin, and from one to the next.
    out: SendPtr<T>,
    row: usize,
}

impl<T: Real> Kernel for Rows<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { finish: Finish { affine, base, relu }, .. } = self;
        let [scale, shift] = affine.unwrap_or([T::ONE, T::ZERO]).map(|x| T::splat(simd, x));
        // What layers and steps of gradient descent have, and everything else.
        match (affine, base, relu) {
            (None, Some(Base { minus: false, .. }), true) => {
                self.each(simd, |x, base| T::vrelu(simd, T::vadd(simd, base, x)));
            }
            (Some(_), Some(Base { minus: true, .. }), false) => {
                self.each(simd, |x, base| T::vsub(simd, base, T::vfma(simd, scale, x, shift)));
            }
            _ => self.each(simd, |mut x, y| {
                if affine.is_some() {
                    x = T::vfma(simd, scale, x, shift);
                }
                if let Some(Base { minus, .. }) = base {
                    x = if *minus { T::vsub(simd, y, x) } else { T::vadd(simd, y, x) };
                }
                if *relu { T::vrelu(simd, x) } else { x }
            }),
        }
    }
}

impl<T: Real> Rows<'_, T> {
    /// Replaces each element by `f` of it and of what it is added to, if that is anything.
    #[inline(always)]
    fn each<S: Simd>(&self, simd: S, f: impl Fn(T::Reg<S>, T::Reg<S>) -> T::Reg<S>) {
        let &Self { finish, base, rows, cols, out, row } = self;
        let lanes = T::lanes::<S>();
        let whole = cols - cols % lanes;
        let rest = Mask::first(simd, cols % lanes);
        // The elements by themselves, if they are added to nothing.
        let (mut out, mut data, step) = match &finish.base {
            Some(given) => {
                let len = (rows - 1) * given.row + cols;
                (out.get(), given.data[base..][..len].as_ptr(), given.row)
            }
            None => (out.get(), out.get().cast_const(), row),
        };
        for _ in 0..rows {
            for j in (0..cols).step_by(lanes) {
                let (x, y) = (out.wrapping_add(j), data.wrapping_add(j));
                // SAFETY: a row has `cols` elements and is ours, and so many numbers are there, as checked; the mask ends there.
                unsafe {
                    match j < whole {
                        true => T::store(simd, x, f(T::load(simd, x), T::load(simd, y))),
                        false => rest.store(simd, x, f(rest.load(simd, x), rest.load(simd, y))),
                    }
                }
            }
            (out, data) = (out.wrapping_add(row), data.wrapping_add(step));
        }
    }
}
