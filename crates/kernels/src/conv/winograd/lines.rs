//! The one-dimensional algorithms F(m, 3) of Winograd for m = 2, 3, 4 (Lavin & Gray 2016, arXiv:1509.09308), which make m outputs of a filter of
//! three taps with m + 2 multiplications: `y = A^T [(G w) * (B^T d)]`.
//!
//! By Toom and Cook: the polynomials of filter and signal are evaluated at m + 1 points and at infinity, multiplied there, and the product is
//! read off again. The input passes through the columns of `B`, the products of all points but one, so that with points in pairs
//! `p, -p` even and odd powers are shared.

use crate::Real;
use crate::simd::Simd;

/// A linear map of `FROM` registers to `TO`, lane by lane; one side of a transform `L x L^T`.
pub(super) trait Line<const FROM: usize, const TO: usize> {
    /// Applies the map.
    fn apply<T: Real, S: Simd>(simd: S, x: [T::Reg<S>; FROM]) -> [T::Reg<S>; TO];
}

/// `B^T`: m + 2 pixels of the input to m + 2 values.
pub(super) struct Input;
/// `A^T`: m + 2 products to m pixels of the result.
pub(super) struct Output;
/// `A`, the adjoint of [`Output`]: m pixels of a gradient to m + 2 values.
pub(super) struct Spread;
/// `G`: three taps to m + 2 values.
pub(super) struct Weights;
/// `G^T`, the adjoint of [`Weights`]: m + 2 sums to the gradient of three taps.
pub(super) struct Collect;

/// The points of F(4, 3) are 0, `A, -A, B, -B` and infinity. With 1 and 2, those of the paper, the largest error in f32 is four times as large:
/// products of nearer points differ less in magnitude.
const A: f64 = 0.75;
const B: f64 = 1.5;
/// The points of F(3, 3) are 0, `A, -A, C` and infinity; with 1 and 2 the largest error is twice as large.
const C: f64 = 2.0;

/// `G` for the points `P` and infinity.
const fn weights<const N: usize>(points: &[f64]) -> [[f64; 3]; N] {
    let mut rows = [[0.0, 0.0, 1.0]; N];
    let mut i = 0;
    while i + 1 < N {
        let p = points[i];
        let mut scale = 1.0;
        let mut j = 0;
        while j + 1 < N {
            if j != i {
                scale *= p - points[j];
            }
            j += 1;
        }
        rows[i] = [1.0 / scale, p / scale, p * p / scale];
        i += 1;
    }
    rows
}

const G2: [[f64; 3]; 4] = weights(&[0.0, 1.0, -1.0]);
const G3: [[f64; 3]; 5] = weights(&[0.0, A, -A, C]);
const G4: [[f64; 3]; 6] = weights(&[0.0, A, -A, B, -B]);

/// Arithmetic on registers, to write the maps as formulas.
#[derive(Clone, Copy)]
struct Calc<S>(S);

impl<S: Simd> Calc<S> {
    #[inline(always)]
    fn add<T: Real>(self, a: T::Reg<S>, b: T::Reg<S>) -> T::Reg<S> {
        T::vadd(self.0, a, b)
    }
    #[inline(always)]
    fn sub<T: Real>(self, a: T::Reg<S>, b: T::Reg<S>) -> T::Reg<S> {
        T::vsub(self.0, a, b)
    }
    /// `c a`.
    #[inline(always)]
    fn mul<T: Real>(self, c: f64, a: T::Reg<S>) -> T::Reg<S> {
        T::vmul(self.0, T::splat(self.0, T::from_f64(c)), a)
    }
    /// `a + c b`.
    #[inline(always)]
    fn fma<T: Real>(self, a: T::Reg<S>, c: f64, b: T::Reg<S>) -> T::Reg<S> {
        T::vfma(self.0, b, T::splat(self.0, T::from_f64(c)), a)
    }
}

impl Line<4, 4> for Input {
    #[inline(always)]
    fn apply<T: Real, S: Simd>(simd: S, [x0, x1, x2, x3]: [T::Reg<S>; 4]) -> [T::Reg<S>; 4] {
        let c = Calc(simd);
        [c.sub::<T>(x2, x0), c.add::<T>(x2, x1), c.sub::<T>(x2, x1), c.sub::<T>(x3, x1)]
    }
}

impl Line<4, 2> for Output {
    #[inline(always)]
    fn apply<T: Real, S: Simd>(simd: S, [z0, z1, z2, z3]: [T::Reg<S>; 4]) -> [T::Reg<S>; 2] {
        let c = Calc(simd);
        [c.add::<T>(c.add::<T>(z0, z1), z2), c.add::<T>(c.sub::<T>(z1, z2), z3)]
    }
}

impl Line<2, 4> for Spread {
    #[inline(always)]
    fn apply<T: Real, S: Simd>(simd: S, [y0, y1]: [T::Reg<S>; 2]) -> [T::Reg<S>; 4] {
        let c = Calc(simd);
        [y0, c.add::<T>(y0, y1), c.sub::<T>(y0, y1), y1]
    }
}

impl Line<5, 5> for Input {
    #[inline(always)]
    fn apply<T: Real, S: Simd>(simd: S, [x0, x1, x2, x3, x4]: [T::Reg<S>; 5]) -> [T::Reg<S>; 5] {
        let c = Calc(simd);
        // x - C and x^2 - A^2, shifted.
        let (c1, c2) = (c.fma::<T>(x2, -C, x1), c.fma::<T>(x3, -C, x2));
        let (a0, a1, a2) = (c.fma::<T>(x2, -A * A, x0), c.fma::<T>(x3, -A * A, x1), c.fma::<T>(x4, -A * A, x2));
        [c.fma::<T>(a1, -C, a0), c.fma::<T>(c2, A, c1), c.fma::<T>(c2, -A, c1), a1, c.fma::<T>(a2, -C, a1)]
    }
}

impl Line<5, 3> for Output {
    #[inline(always)]
    fn apply<T: Real, S: Simd>(simd: S, [z0, z1, z2, z3, z4]: [T::Reg<S>; 5]) -> [T::Reg<S>; 3] {
        let c = Calc(simd);
        let (even, odd) = (c.add::<T>(z1, z2), c.sub::<T>(z1, z2));
        [
            c.add::<T>(c.add::<T>(z0, even), z3),
            c.fma::<T>(c.mul::<T>(A, odd), C, z3),
            c.fma::<T>(c.fma::<T>(z4, A * A, even), C * C, z3),
        ]
    }
}

impl Line<3, 5> for Spread {
    #[inline(always)]
    fn apply<T: Real, S: Simd>(simd: S, [y0, y1, y2]: [T::Reg<S>; 3]) -> [T::Reg<S>; 5] {
        let c = Calc(simd);
        let even = c.fma::<T>(y0, A * A, y2);
        [y0, c.fma::<T>(even, A, y1), c.fma::<T>(even, -A, y1), c.fma::<T>(c.fma::<T>(y0, C, y1), C * C, y2), y2]
    }
}

impl Line<6, 6> for Input {
    #[inline(always)]
    fn apply<T: Real, S: Simd>(simd: S, [x0, x1, x2, x3, x4, x5]: [T::Reg<S>; 6]) -> [T::Reg<S>; 6] {
        let c = Calc(simd);
        // x^2 - B^2 and x^2 - A^2, shifted.
        let (b1, b2) = (c.fma::<T>(x3, -B * B, x1), c.fma::<T>(x4, -B * B, x2));
        let (a0, a1) = (c.fma::<T>(x2, -A * A, x0), c.fma::<T>(x3, -A * A, x1));
        let (a2, a3) = (c.fma::<T>(x4, -A * A, x2), c.fma::<T>(x5, -A * A, x3));
        [
            c.fma::<T>(a2, -B * B, a0),
            c.fma::<T>(b2, A, b1),
            c.fma::<T>(b2, -A, b1),
            c.fma::<T>(a2, B, a1),
            c.fma::<T>(a2, -B, a1),
            c.fma::<T>(a3, -B * B, a1),
        ]
    }
}

impl Line<6, 4> for Output {
    #[inline(always)]
    fn apply<T: Real, S: Simd>(simd: S, [z0, z1, z2, z3, z4, z5]: [T::Reg<S>; 6]) -> [T::Reg<S>; 4] {
        let c = Calc(simd);
        let (even_a, odd_a) = (c.add::<T>(z1, z2), c.sub::<T>(z1, z2));
        let (even_b, odd_b) = (c.add::<T>(z3, z4), c.sub::<T>(z3, z4));
        [
            c.add::<T>(c.add::<T>(z0, even_a), even_b),
            c.fma::<T>(c.mul::<T>(A, odd_a), B, odd_b),
            c.fma::<T>(c.mul::<T>(A * A, even_a), B * B, even_b),
            c.fma::<T>(c.fma::<T>(z5, A * A * A, odd_a), B * B * B, odd_b),
        ]
    }
}

impl Line<4, 6> for Spread {
    #[inline(always)]
    fn apply<T: Real, S: Simd>(simd: S, [y0, y1, y2, y3]: [T::Reg<S>; 4]) -> [T::Reg<S>; 6] {
        let c = Calc(simd);
        let (even_a, odd_a) = (c.fma::<T>(y0, A * A, y2), c.fma::<T>(y1, A * A, y3));
        let (even_b, odd_b) = (c.fma::<T>(y0, B * B, y2), c.fma::<T>(y1, B * B, y3));
        [
            y0,
            c.fma::<T>(even_a, A, odd_a),
            c.fma::<T>(even_a, -A, odd_a),
            c.fma::<T>(even_b, B, odd_b),
            c.fma::<T>(even_b, -B, odd_b),
            y3,
        ]
    }
}

/// `G w` for one of the matrices, and its adjoint: these run over the weights only, so they are plain products.
macro_rules! weight_lines {
    ($($n:literal $g:ident),*) => { $(
        impl Line<3, $n> for Weights {
            #[inline(always)]
            fn apply<T: Real, S: Simd>(simd: S, [w0, w1, w2]: [T::Reg<S>; 3]) -> [T::Reg<S>; $n] {
                let c = Calc(simd);
                let mut u = [w2; $n];
                for i in 0..$n - 1 {
                    let [g0, g1, g2] = $g[i];
                    u[i] = c.mul::<T>(g0, w0);
                    if i > 0 {
                        u[i] = c.fma::<T>(c.fma::<T>(u[i], g1, w1), g2, w2);
                    }
                }
                u
            }
        }

        impl Line<$n, 3> for Collect {
            #[inline(always)]
            fn apply<T: Real, S: Simd>(simd: S, u: [T::Reg<S>; $n]) -> [T::Reg<S>; 3] {
                let c = Calc(simd);
                let mut w = [c.mul::<T>($g[1][0], u[1]), c.mul::<T>($g[1][1], u[1]), c.fma::<T>(u[$n - 1], $g[1][2], u[1])];
                w[0] = c.fma::<T>(w[0], $g[0][0], u[0]);
                for i in 2..$n - 1 {
                    for j in 0..3 {
                        w[j] = c.fma::<T>(w[j], $g[i][j], u[i]);
                    }
                }
                w
            }
        }
    )* };
}

weight_lines!(4 G2, 5 G3, 6 G4);
