//! The one-dimensional algorithms F(m, k) of Winograd (Lavin & Gray 2016, arXiv:1509.09308), which make m outputs of a filter of k taps with
//! n = m + k - 1 multiplications: `y = A^T [(G w) * (B^T d)]`; here n is 4, 5 or 6.
//!
//! By Toom and Cook: the polynomials of filter and signal are evaluated at n - 1 points and at infinity, multiplied there, and the product is
//! read off again. Only the points tell the algorithms of one n apart from those of another: filters of all lengths share them, and `B`
//! with them. The input passes through the columns of `B`, the products of all points but one, so that with points in pairs `p, -p` even and
//! odd powers are shared.

use std::marker::PhantomData;

use crate::Real;
use crate::simd::Simd;

/// A linear map of `FROM` registers to `TO`, lane by lane; one side of a transform `L x L^T`.
pub(super) trait Line<const FROM: usize, const TO: usize> {
    /// Applies the map.
    fn apply<T: Real, S: Simd>(simd: S, x: [T::Reg<S>; FROM]) -> [T::Reg<S>; TO];
}

/// `B^T`: n pixels of the input to n values.
pub(super) struct Input;
/// `A^T`: n products to m pixels of the result.
pub(super) struct Output;
/// `A`, the adjoint of [`Output`]: m pixels of a gradient to n values.
pub(super) struct Spread;
/// `G`: k taps to n values.
pub(super) struct Weights;
/// `G^T`, the adjoint of [`Weights`]: n sums to the gradient of k taps.
pub(super) struct Collect;

/// Some of the `N` results of another map, from `FIRST` on; what they do not need is not computed.
pub(super) struct Part<L, const N: usize, const FIRST: usize>(PhantomData<L>);

impl<L: Line<FROM, N>, const FROM: usize, const N: usize, const FIRST: usize, const TO: usize> Line<FROM, TO>
    for Part<L, N, FIRST>
{
    #[inline(always)]
    fn apply<T: Real, S: Simd>(simd: S, x: [T::Reg<S>; FROM]) -> [T::Reg<S>; TO] {
        let all = L::apply::<T, S>(simd, x);
        std::array::from_fn(|i| all[FIRST + i])
    }
}

/// With n = 6 the points are 0, `A, -A, B, -B` and infinity. With 1 and 2, those of the paper, the largest error of F(4, 3) in f32 is four times as
/// large: products of nearer points differ less in magnitude.
pub(super) const A: f64 = 0.75;
const B: f64 = 1.5;
/// With n = 5 the points are 0, `A, -A, C` and infinity; with 1 and 2 the largest error of F(3, 3) is twice as large.
pub(super) const C: f64 = 2.0;

/// `[i][j]` is the j-th power of the i-th point; the last point is infinity, whose only power is the highest one that is asked for.
const fn powers<const N: usize, const J: usize>() -> [[f64; J]; N] {
    let points: &[f64] = match N {
        4 => &[0.0, 1.0, -1.0],
        5 => &[0.0, A, -A, C],
        6 => &[0.0, A, -A, B, -B],
        _ => panic!("no points"),
    };
    let mut rows = [[0.0; J]; N];
    rows[N - 1][J - 1] = 1.0;
    let mut i = 0;
    while i + 1 < N {
        let (mut j, mut power) = (0, 1.0);
        while j < J {
            rows[i][j] = power;
            power *= points[i];
            j += 1;
        }
        i += 1;
    }
    rows
}

/// `G`: the powers of each point over its distances to the others.
const fn weights<const K: usize, const N: usize>() -> [[f64; K]; N] {
    let points = powers::<N, 2>();
    let mut rows = powers::<N, K>();
    let mut i = 0;
    while i + 1 < N {
        let (mut j, mut scale) = (0, 1.0);
        while j + 1 < N {
            if j != i {
                scale *= points[i][1] - points[j][1];
            }
            j += 1;
        }
        let mut k = 0;
        while k < K {
            rows[i][k] /= scale;
            k += 1;
        }
        i += 1;
    }
    rows
}

/// Arithmetic on registers, to write the maps as formulas.
#[derive(Clone, Copy)]
pub(super) struct Calc<S>(pub(super) S);

impl<S: Simd> Calc<S> {
    #[inline(always)]
    pub(super) fn add<T: Real>(self, a: T::Reg<S>, b: T::Reg<S>) -> T::Reg<S> {
        T::vadd(self.0, a, b)
    }
    #[inline(always)]
    pub(super) fn sub<T: Real>(self, a: T::Reg<S>, b: T::Reg<S>) -> T::Reg<S> {
        T::vsub(self.0, a, b)
    }
    /// `c a`.
    #[inline(always)]
    pub(super) fn mul<T: Real>(self, c: f64, a: T::Reg<S>) -> T::Reg<S> {
        T::vmul(self.0, T::splat(self.0, T::from_f64(c)), a)
    }
    /// `a + c b`.
    #[inline(always)]
    pub(super) fn fma<T: Real>(self, a: T::Reg<S>, c: f64, b: T::Reg<S>) -> T::Reg<S> {
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

impl<const M: usize, const N: usize> Line<N, M> for Output {
    /// `y[k]` is the sum over points p of `p^k z`.
    #[inline(always)]
    fn apply<T: Real, S: Simd>(simd: S, z: [T::Reg<S>; N]) -> [T::Reg<S>; M] {
        let (c, powers) = (Calc(simd), const { powers::<N, M>() });
        // A pair of points is taken as one, with the sum of its products in even powers and the difference in odd ones.
        let (mut even, mut odd) = (z, z);
        for h in 0..(N - 2) / 2 {
            let i = 2 * h + 1;
            (even[i], odd[i]) = (c.add::<T>(z[i], z[i + 1]), c.sub::<T>(z[i], z[i + 1]));
        }
        let mut y = [z[0]; M];
        for k in 0..M {
            let terms = if k % 2 == 0 { even } else { odd };
            y[k] = if k == 0 {
                c.add::<T>(z[0], terms[1])
            } else if k + 1 == M {
                c.fma::<T>(z[N - 1], powers[1][k], terms[1])
            } else {
                c.mul::<T>(powers[1][k], terms[1])
            };
            if N > 4 {
                y[k] = c.fma::<T>(y[k], powers[3][k], terms[3]);
            }
        }
        y
    }
}

impl<const M: usize, const N: usize> Line<M, N> for Spread {
    /// The values of the polynomial with coefficients `y` at the points, by Horner's rule.
    #[inline(always)]
    fn apply<T: Real, S: Simd>(simd: S, y: [T::Reg<S>; M]) -> [T::Reg<S>; N] {
        let (c, powers) = (Calc(simd), const { powers::<N, 3>() });
        let mut z = [y[0]; N];
        z[N - 1] = y[M - 1];
        for h in 0..(N - 1) / 2 {
            let i = 2 * h + 1;
            let (point, square) = (powers[i][1], powers[i][2]);
            // The two highest coefficients, of an even and an odd power, and then those below each.
            let (mut even, mut odd) = if M.is_multiple_of(2) { (y[M - 2], y[M - 1]) } else { (y[M - 1], y[M - 2]) };
            for k in (0..M - 2).rev() {
                if k % 2 == 0 {
                    even = c.fma::<T>(y[k], square, even);
                } else {
                    odd = c.fma::<T>(y[k], square, odd);
                }
            }
            z[i] = c.fma::<T>(even, point, odd);
            if i + 1 < N - 1 {
                z[i + 1] = c.fma::<T>(even, -point, odd);
            }
        }
        z
    }
}

impl<const K: usize, const N: usize> Line<K, N> for Weights {
    #[inline(always)]
    fn apply<T: Real, S: Simd>(simd: S, w: [T::Reg<S>; K]) -> [T::Reg<S>; N] {
        let (c, g) = (Calc(simd), const { weights::<K, N>() });
        let mut u = [w[K - 1]; N];
        // The point 0 has no other power than the first.
        u[0] = c.mul::<T>(g[0][0], w[0]);
        for i in 1..N - 1 {
            u[i] = c.mul::<T>(g[i][0], w[0]);
            for k in 1..K {
                u[i] = c.fma::<T>(u[i], g[i][k], w[k]);
            }
        }
        u
    }
}

impl<const K: usize, const N: usize> Line<N, K> for Collect {
    #[inline(always)]
    fn apply<T: Real, S: Simd>(simd: S, u: [T::Reg<S>; N]) -> [T::Reg<S>; K] {
        let (c, g) = (Calc(simd), const { weights::<K, N>() });
        let mut w = [u[0]; K];
        for k in 0..K {
            w[k] = c.mul::<T>(g[1][k], u[1]);
            for i in 2..N - 1 {
                w[k] = c.fma::<T>(w[k], g[i][k], u[i]);
            }
        }
        w[0] = c.fma::<T>(w[0], g[0][0], u[0]);
        w[K - 1] = c.add::<T>(w[K - 1], u[N - 1]);
        w
    }
}
