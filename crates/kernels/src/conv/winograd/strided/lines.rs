//! The one-dimensional algorithms for a filter of three taps that moves by two pixels, `y[i] = w0 x[2i] + w1 x[2i + 1] + w2 x[2i + 2]`.
//!
//! The outer taps meet every second pixel, the middle one the others: m outputs are those of a filter of two taps over m + 1 pixels and of a filter of one tap
//! over m. Both are done at the same points, so that their products add up before the result is read off: 2 m + 1 multiplications instead of 3 m. The
//! middle tap is itself at every point, and at infinity, whose power it does not have, it takes no part.
//!
//! Where the first and the last of the m + 1 pixels lie on padding, two taps over m - 1 pixels make m outputs: polynomials whose product has m coefficients,
//! which take m points, at all of which, infinity included, the middle tap's m pixels take part. They are evaluated instead of passing through the columns of `B`, the highest coefficient first, so that the taps are at
//! the points what they are otherwise; 2 m multiplications.
//!
//! Values of an axis stand in the order of [`super::VALUES`]. A tile is told by its size: 9 pixels to 9 values make 4 outputs at the points 0, `A`, `-A`,
//! infinity and `C`; 7 pixels to 7 values make 3 at the first four of these; 7 pixels to 8 values make 4 between paddings at the same four.

use crate::Real;
use crate::conv::winograd::lines::{A, C, Calc, Line};
use crate::simd::Simd;

/// Pixels of x to values.
pub(super) struct Input;
/// The adjoint of [`Input`]: values to pixels of a gradient.
pub(super) struct Scatter;
/// Products at the points to pixels of y.
pub(super) struct Output;
/// The adjoint of [`Output`]: pixels of a gradient to the points.
pub(super) struct Spread;
/// Three taps to the middle one and the two outer ones at each point.
pub(super) struct Weights;
/// The adjoint of [`Weights`].
pub(super) struct Collect;

/// Another map of what stands in reverse order.
pub(super) struct Backwards<L>(std::marker::PhantomData<L>);

impl<L: Line<FROM, TO>, const FROM: usize, const TO: usize> Line<FROM, TO> for Backwards<L> {
    #[inline(always)]
    fn apply<T: Real, S: Simd>(simd: S, mut x: [T::Reg<S>; FROM]) -> [T::Reg<S>; TO] {
        x.reverse();
        L::apply::<T, S>(simd, x)
    }
}

impl<S: Simd> Calc<S> {
    /// The products of all of the points 0, `A`, `-A` but one.
    #[inline(always)]
    fn three<T: Real>(self, [x0, x1, x2]: [T::Reg<S>; 3]) -> [T::Reg<S>; 3] {
        [self.fma::<T>(x2, -A * A, x0), self.fma::<T>(x2, A, x1), self.fma::<T>(x2, -A, x1)]
    }

    /// The adjoint of [`Calc::three`].
    #[inline(always)]
    fn three_back<T: Real>(self, [z, plus, minus]: [T::Reg<S>; 3]) -> [T::Reg<S>; 3] {
        let (even, odd) = (self.add::<T>(plus, minus), self.sub::<T>(plus, minus));
        [self.mul::<T>(-A * A, z), self.mul::<T>(A, odd), self.add::<T>(z, even)]
    }

    /// The products of all of the points 0, `A`, `-A`, `C` but one.
    #[inline(always)]
    fn four<T: Real>(self, [x0, x1, x2, x3]: [T::Reg<S>; 4]) -> [T::Reg<S>; 4] {
        // x - C and x^2 - A^2, shifted.
        let (c1, c2) = (self.fma::<T>(x2, -C, x1), self.fma::<T>(x3, -C, x2));
        let (a0, a1) = (self.fma::<T>(x2, -A * A, x0), self.fma::<T>(x3, -A * A, x1));
        [self.fma::<T>(a1, -C, a0), self.fma::<T>(c2, A, c1), self.fma::<T>(c2, -A, c1), a1]
    }

    /// The adjoint of [`Calc::four`].
    #[inline(always)]
    fn four_back<T: Real>(self, [z, plus, minus, c]: [T::Reg<S>; 4]) -> [T::Reg<S>; 4] {
        let (even, odd) = (self.add::<T>(plus, minus), self.sub::<T>(plus, minus));
        let (high, low) = (self.add::<T>(z, even), self.add::<T>(z, c));
        [
            self.mul::<T>(A * A * C, z),
            self.fma::<T>(self.mul::<T>(-A * A, low), -A * C, odd),
            self.fma::<T>(self.mul::<T>(-C, high), A, odd),
            self.add::<T>(high, c),
        ]
    }
}

impl Line<9, 9> for Input {
    #[inline(always)]
    fn apply<T: Real, S: Simd>(simd: S, x: [T::Reg<S>; 9]) -> [T::Reg<S>; 9] {
        let c = Calc(simd);
        let [a0, ap, am, ac] = c.four::<T>([x[0], x[2], x[4], x[6]]);
        let [b0, bp, bm, bc] = c.four::<T>([x[1], x[3], x[5], x[7]]);
        // As at 0, one pixel on.
        let all = c.fma::<T>(c.fma::<T>(x[8], -A * A, x[4]), -C, c.fma::<T>(x[6], -A * A, x[2]));
        [a0, ap, am, all, b0, bp, bm, ac, bc]
    }
}

impl Line<9, 9> for Scatter {
    #[inline(always)]
    fn apply<T: Real, S: Simd>(simd: S, [a0, ap, am, all, b0, bp, bm, ac, bc]: [T::Reg<S>; 9]) -> [T::Reg<S>; 9] {
        let c = Calc(simd);
        let [x0, x2, x4, x6] = c.four_back::<T>([a0, ap, am, ac]);
        let [x1, x3, x5, x7] = c.four_back::<T>([b0, bp, bm, bc]);
        let (x2, x4, x6) = (c.fma::<T>(x2, A * A * C, all), c.fma::<T>(x4, -A * A, all), c.fma::<T>(x6, -C, all));
        [x0, x1, x2, x3, x4, x5, x6, x7, all]
    }
}

impl Line<7, 7> for Input {
    #[inline(always)]
    fn apply<T: Real, S: Simd>(simd: S, x: [T::Reg<S>; 7]) -> [T::Reg<S>; 7] {
        let c = Calc(simd);
        let [a0, ap, am] = c.three::<T>([x[0], x[2], x[4]]);
        let [b0, bp, bm] = c.three::<T>([x[1], x[3], x[5]]);
        [a0, ap, am, c.fma::<T>(x[6], -A * A, x[2]), b0, bp, bm]
    }
}

impl Line<7, 7> for Scatter {
    #[inline(always)]
    fn apply<T: Real, S: Simd>(simd: S, [a0, ap, am, all, b0, bp, bm]: [T::Reg<S>; 7]) -> [T::Reg<S>; 7] {
        let c = Calc(simd);
        let [x0, x2, x4] = c.three_back::<T>([a0, ap, am]);
        let [x1, x3, x5] = c.three_back::<T>([b0, bp, bm]);
        [x0, x1, c.fma::<T>(x2, -A * A, all), x3, x4, x5, all]
    }
}

impl Line<7, 8> for Input {
    #[inline(always)]
    fn apply<T: Real, S: Simd>(simd: S, [x0, x1, x2, x3, x4, x5, x6]: [T::Reg<S>; 7]) -> [T::Reg<S>; 8] {
        let c = Calc(simd);
        let a = c.fma::<T>(x5, A * A, x1);
        let (even, odd) = (c.fma::<T>(x6, A * A, x2), c.fma::<T>(x4, A * A, x0));
        [
            x5,
            c.fma::<T>(a, A, x3),
            c.fma::<T>(a, -A, x3),
            x1,
            x6,
            c.fma::<T>(even, A, odd),
            c.fma::<T>(even, -A, odd),
            x0,
        ]
    }
}

impl Line<8, 7> for Scatter {
    #[inline(always)]
    fn apply<T: Real, S: Simd>(simd: S, [a0, ap, am, ai, b0, bp, bm, bi]: [T::Reg<S>; 8]) -> [T::Reg<S>; 7] {
        let c = Calc(simd);
        let (a_even, a_odd) = (c.add::<T>(ap, am), c.sub::<T>(ap, am));
        let (b_even, b_odd) = (c.add::<T>(bp, bm), c.sub::<T>(bp, bm));
        [
            c.fma::<T>(bi, A * A * A, b_odd),
            c.fma::<T>(ai, A * A, a_even),
            c.mul::<T>(A * A, b_even),
            c.mul::<T>(A, a_odd),
            c.mul::<T>(A, b_odd),
            c.add::<T>(a0, a_even),
            c.add::<T>(b0, b_even),
        ]
    }
}

/// One over the product of a point's distances to the others: of four finite points, and of three.
const FOUR: [f64; 4] =
    [1.0 / (A * A * C), 1.0 / (2.0 * A * A * (A - C)), -1.0 / (2.0 * A * A * (A + C)), 1.0 / (C * (C * C - A * A))];
const THREE: [f64; 2] = [-1.0 / (A * A), 1.0 / (2.0 * A * A)];

impl Line<5, 4> for Output {
    #[inline(always)]
    fn apply<T: Real, S: Simd>(simd: S, [z0, zp, zm, zi, zc]: [T::Reg<S>; 5]) -> [T::Reg<S>; 4] {
        let c = Calc(simd);
        let (zp, zm, zc) = (c.mul::<T>(FOUR[1], zp), c.mul::<T>(FOUR[2], zm), c.mul::<T>(FOUR[3], zc));
        let (even, odd) = (c.add::<T>(zp, zm), c.sub::<T>(zp, zm));
        [
            c.fma::<T>(c.add::<T>(even, zc), FOUR[0], z0),
            c.fma::<T>(c.mul::<T>(A, odd), C, zc),
            c.fma::<T>(c.mul::<T>(A * A, even), C * C, zc),
            c.fma::<T>(c.fma::<T>(zi, A * A * A, odd), C * C * C, zc),
        ]
    }
}

impl Line<4, 5> for Spread {
    #[inline(always)]
    fn apply<T: Real, S: Simd>(simd: S, [y0, y1, y2, y3]: [T::Reg<S>; 4]) -> [T::Reg<S>; 5] {
        let c = Calc(simd);
        let (even, odd) = (c.fma::<T>(y0, A * A, y2), c.fma::<T>(y1, A * A, y3));
        let at_c = c.fma::<T>(c.fma::<T>(y0, C * C, y2), C, c.fma::<T>(y1, C * C, y3));
        [
            c.mul::<T>(FOUR[0], y0),
            c.mul::<T>(FOUR[1], c.fma::<T>(even, A, odd)),
            c.mul::<T>(FOUR[2], c.fma::<T>(even, -A, odd)),
            y3,
            c.mul::<T>(FOUR[3], at_c),
        ]
    }
}

impl Line<4, 3> for Output {
    #[inline(always)]
    fn apply<T: Real, S: Simd>(simd: S, [z0, zp, zm, zi]: [T::Reg<S>; 4]) -> [T::Reg<S>; 3] {
        let c = Calc(simd);
        let (even, odd) = (c.add::<T>(zp, zm), c.sub::<T>(zp, zm));
        [
            c.fma::<T>(c.mul::<T>(THREE[0], z0), THREE[1], even),
            c.mul::<T>(THREE[1] * A, odd),
            c.fma::<T>(zi, THREE[1] * A * A, even),
        ]
    }
}

impl Line<3, 4> for Spread {
    #[inline(always)]
    fn apply<T: Real, S: Simd>(simd: S, [y0, y1, y2]: [T::Reg<S>; 3]) -> [T::Reg<S>; 4] {
        let c = Calc(simd);
        let even = c.mul::<T>(THREE[1], c.fma::<T>(y0, A * A, y2));
        [c.mul::<T>(THREE[0], y0), c.fma::<T>(even, THREE[1] * A, y1), c.fma::<T>(even, -THREE[1] * A, y1), y2]
    }
}

impl Line<4, 4> for Output {
    #[inline(always)]
    fn apply<T: Real, S: Simd>(simd: S, [z0, zp, zm, zi]: [T::Reg<S>; 4]) -> [T::Reg<S>; 4] {
        let c = Calc(simd);
        let (even, odd) = (c.add::<T>(zp, zm), c.sub::<T>(zp, zm));
        [
            zi,
            c.fma::<T>(c.mul::<T>(THREE[0], z0), THREE[1], even),
            c.fma::<T>(c.mul::<T>(THREE[1] * A, odd), -A * A, zi),
            z0,
        ]
    }
}

impl Line<4, 4> for Spread {
    #[inline(always)]
    fn apply<T: Real, S: Simd>(simd: S, [y0, y1, y2, y3]: [T::Reg<S>; 4]) -> [T::Reg<S>; 4] {
        let c = Calc(simd);
        let even = c.mul::<T>(THREE[1], y1);
        [
            c.fma::<T>(y3, THREE[0], y1),
            c.fma::<T>(even, THREE[1] * A, y2),
            c.fma::<T>(even, -THREE[1] * A, y2),
            c.fma::<T>(y0, -A * A, y2),
        ]
    }
}

impl Line<3, 5> for Weights {
    #[inline(always)]
    fn apply<T: Real, S: Simd>(simd: S, [w0, w1, w2]: [T::Reg<S>; 3]) -> [T::Reg<S>; 5] {
        let c = Calc(simd);
        [w1, w0, c.fma::<T>(w0, A, w2), c.fma::<T>(w0, -A, w2), w2]
    }
}

impl Line<3, 6> for Weights {
    #[inline(always)]
    fn apply<T: Real, S: Simd>(simd: S, w: [T::Reg<S>; 3]) -> [T::Reg<S>; 6] {
        let [mid, zero, plus, minus, all] = <Weights as Line<3, 5>>::apply::<T, S>(simd, w);
        [mid, zero, plus, minus, all, Calc(simd).fma::<T>(w[0], C, w[2])]
    }
}

impl Line<5, 3> for Collect {
    #[inline(always)]
    fn apply<T: Real, S: Simd>(simd: S, [mid, zero, plus, minus, all]: [T::Reg<S>; 5]) -> [T::Reg<S>; 3] {
        let c = Calc(simd);
        let (even, odd) = (c.add::<T>(plus, minus), c.sub::<T>(plus, minus));
        [c.add::<T>(zero, even), mid, c.fma::<T>(all, A, odd)]
    }
}

impl Line<6, 3> for Collect {
    #[inline(always)]
    fn apply<T: Real, S: Simd>(simd: S, [mid, zero, plus, minus, all, at_c]: [T::Reg<S>; 6]) -> [T::Reg<S>; 3] {
        let c = Calc(simd);
        let [w0, w1, w2] = <Collect as Line<5, 3>>::apply::<T, S>(simd, [mid, zero, plus, minus, all]);
        [c.add::<T>(w0, at_c), w1, c.fma::<T>(w2, C, at_c)]
    }
}
