//! Steps of a normalisation, whose parameters are one number for each column: some columns at a time, with their parameters in registers.

use crate::real::Real;
use crate::simd::Simd;

/// Registers of columns at a time: with up to five parameters each they stay in sixteen.
const GROUP: usize = 2;

/// A function of `D` elements and of `P` parameters of their column.
pub(super) trait Columns<T: Real, const D: usize, const P: usize> {
    fn apply<S: Simd>(simd: S, x: [T::Reg<S>; D], params: [T::Reg<S>; P]) -> T::Reg<S>;
}

/// [`super::StepOp::Normalize`].
pub(super) struct Normalize;

impl<T: Real> Columns<T, 1, 2> for Normalize {
    #[inline(always)]
    fn apply<S: Simd>(simd: S, [x]: [T::Reg<S>; 1], [mean, rstd]: [T::Reg<S>; 2]) -> T::Reg<S> {
        T::vmul(simd, T::vsub(simd, x, mean), rstd)
    }
}

/// [`super::StepOp::NormalizeMulAdd`].
pub(super) struct NormalizeMulAdd;

impl<T: Real> Columns<T, 1, 4> for NormalizeMulAdd {
    #[inline(always)]
    fn apply<S: Simd>(simd: S, x: [T::Reg<S>; 1], [mean, rstd, scale, shift]: [T::Reg<S>; 4]) -> T::Reg<S> {
        let xhat = <Normalize as Columns<T, 1, 2>>::apply(simd, x, [mean, rstd]);
        T::vadd(simd, T::vmul(simd, xhat, scale), shift)
    }
}

/// [`super::StepOp::NormalizeGrad`].
pub(super) struct NormalizeGrad;

impl<T: Real> Columns<T, 2, 3> for NormalizeGrad {
    #[inline(always)]
    fn apply<S: Simd>(simd: S, [xhat, g]: [T::Reg<S>; 2], [rstd, slope, shift]: [T::Reg<S>; 3]) -> T::Reg<S> {
        T::vfma(simd, rstd, g, T::vfma(simd, slope, xhat, shift))
    }
}

/// [`super::StepOp::NormalizeThenGrad`].
pub(super) struct NormalizeThenGrad;

impl<T: Real> Columns<T, 2, 5> for NormalizeThenGrad {
    #[inline(always)]
    fn apply<S: Simd>(
        simd: S,
        [x, g]: [T::Reg<S>; 2],
        [mean, rstd, factor, slope, shift]: [T::Reg<S>; 5],
    ) -> T::Reg<S> {
        let xhat = <Normalize as Columns<T, 1, 2>>::apply(simd, [x], [mean, rstd]);
        <NormalizeGrad as Columns<T, 2, 3>>::apply(simd, [xhat, g], [factor, slope, shift])
    }
}

/// Whether rows of so many columns are whole groups.
#[inline(always)]
pub(super) fn are_whole<S: Simd, T: Real>(columns: usize) -> bool {
    columns.is_multiple_of(GROUP * T::lanes::<S>())
}

/// `out = F(x, params)` over rows of `columns` columns, which [`are_whole`] groups; `beside` is told of the elements of each.
#[inline(always)]
pub(super) fn map<S: Simd, T: Real, F: Columns<T, D, P>, const D: usize, const P: usize>(
    simd: S,
    columns: usize,
    x: [&[T]; D],
    params: [&[T]; P],
    out: &mut [T],
    beside: &mut impl FnMut(usize),
) {
    let lanes = T::lanes::<S>();
    let rows = out.len() / columns;
    assert!(are_whole::<S, T>(columns));
    for x in x {
        assert!(x.len() >= rows * columns);
    }
    for param in params {
        assert!(param.len() >= columns);
    }
    let out = out.as_mut_ptr();
    for column in (0..columns).step_by(GROUP * lanes) {
        beside(rows * GROUP * lanes);
        let mut group = [[T::splat(simd, T::ZERO); P]; GROUP];
        for i in 0..GROUP {
            for p in 0..P {
                // SAFETY: a group of columns lies within a row, and a parameter has one number for each column.
                group[i][p] = unsafe { T::load(simd, params[p].as_ptr().add(column + i * lanes)) };
            }
        }
        for row in 0..rows {
            for i in 0..GROUP {
                let at = row * columns + column + i * lanes;
                let mut elements = [T::splat(simd, T::ZERO); D];
                for d in 0..D {
                    // SAFETY: a group of columns lies within a row, and all of them have `rows` rows.
                    elements[d] = unsafe { T::load(simd, x[d].as_ptr().add(at)) };
                }
                // SAFETY: the same.
                unsafe { T::store(simd, out.add(at), F::apply(simd, elements, group[i])) };
            }
        }
    }
}
