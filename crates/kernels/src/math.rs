//! Elementary functions of `f32` as straight-line scalar code (selects, no branches, no tables), which the compiler vectorises when they are inlined
//! into a loop. Range reductions and polynomials after Cephes (S. L. Moshier), `expf`, `logf`, `sinf`.
//!
//! Largest errors in units of the last place of the exact result, tested against `f64` over the whole range with subnormals:
//! `exp` and `ln` 1.5, `sin` and `cos` 2, `tanh`, `sigmoid` and `softplus` 3. Infinities, NaN and saturation are exact; the sign of a zero is kept by
//! `tanh` alone. `f64` takes the system's functions.

use crate::real::Real;
use crate::simd::Simd;

/// Up to this magnitude the reduction of [`sin`] and [`cos`] is exact enough; beyond, callers use the system's function.
pub const SIN_LIMIT: f32 = 1e6;

/// Adding and subtracting 1.5 * 2^23 rounds to the nearest integer, which then stands in the low bits.
const ROUND: f32 = 12_582_912.0;

#[inline(always)]
fn poly<S: Simd, const N: usize>(x: f32, c: [f32; N]) -> f32 {
    let mut y = c[0];
    let mut i = 1;
    while i < N {
        y = y.fma::<S>(x, c[i]);
        i += 1;
    }
    y
}

/// 2^n for -126 <= n <= 127.
#[inline(always)]
fn pow2(n: i32) -> f32 {
    f32::from_bits((n.wrapping_add(127) as u32) << 23)
}

/// Splits x = n ln 2 + r with |r| <= ln 2 / 2 and gives (n, e^r - 1).
#[inline(always)]
fn reduce_exp<S: Simd>(x: f32) -> (i32, f32) {
    let rounded = x * std::f32::consts::LOG2_E + ROUND;
    let n = rounded.to_bits().wrapping_sub(ROUND.to_bits()) as i32;
    let k = rounded - ROUND;
    // ln 2 in two parts; k times the first is exact.
    let r = k.fma::<S>(-0.693_359_375, x);
    let r = k.fma::<S>(2.121_944_4e-4, r);
    let p = poly::<S, 6>(r, [1.987_569_1e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 5e-1]);
    (n, p.fma::<S>(r * r, r))
}

/// e^x; 0 below -104, infinity above 88.73.
#[inline(always)]
pub fn exp<S: Simd>(x: f32) -> f32 {
    // Written so that NaN passes through both comparisons.
    let x = if x < -104.5 { -104.5 } else { x };
    let x = if x > 89.0 { 89.0 } else { x };
    let (n, m) = reduce_exp::<S>(x);
    // Two factors: n reaches from -151 to 128, and only the last product may round.
    let half = n >> 1;
    (m + 1.0) * pow2(half) * pow2(n.wrapping_sub(half))
}

/// ln(1 + f) for 1 + f in [sqrt(1/2), sqrt(2)], plus e ln 2.
#[inline(always)]
fn ln_core<S: Simd>(f: f32, e: f32) -> f32 {
    let z = f * f;
    let p = poly::<S, 9>(
        f,
        [
            7.037_683_6e-2,
            -1.151_461e-1,
            1.167_699_9e-1,
            -1.242_014_1e-1,
            1.424_932_3e-1,
            -1.666_805_8e-1,
            2.000_071_5e-1,
            -2.499_999_4e-1,
            3.333_333e-1,
        ],
    );
    let y = p * (f * z);
    let y = e.fma::<S>(-2.121_944_4e-4, y);
    let y = z.fma::<S>(-0.5, y);
    e.fma::<S>(0.693_359_375, f + y)
}

/// Natural logarithm; -infinity at 0, NaN below.
#[inline(always)]
pub fn ln<S: Simd>(x: f32) -> f32 {
    const SQRT_HALF: u32 = 0x3f35_04f3;
    let tiny = x < f32::MIN_POSITIVE;
    let scaled = if tiny { x * 33_554_432.0 } else { x };
    let shift = if tiny { 25.0 } else { 0.0 };
    let bits = scaled.to_bits().wrapping_sub(SQRT_HALF);
    let e = ((bits as i32) >> 23) as f32 - shift;
    let m = f32::from_bits((bits & 0x007f_ffff).wrapping_add(SQRT_HALF));
    let y = ln_core::<S>(m - 1.0, e);
    let y = if x < f32::INFINITY { y } else { x };
    let y = if x > 0.0 { y } else { f32::NAN };
    if x == 0.0 { f32::NEG_INFINITY } else { y }
}

/// Hyperbolic tangent, odd to the bit.
#[inline(always)]
pub fn tanh<S: Simd>(x: f32) -> f32 {
    // tanh a = -q / (2 + q), q = e^(-2a) - 1, which keeps its relative accuracy near 0.
    let a = x.abs();
    let a = if a > 10.0 { 10.0 } else { a };
    let (n, m) = reduce_exp::<S>(-2.0 * a);
    let s = pow2(n);
    let q = s.fma::<S>(m, s - 1.0);
    (-q / (2.0 + q)).copysign(x)
}

/// 1 / (1 + e^-x); small values keep their relative accuracy.
#[inline(always)]
pub fn sigmoid<S: Simd>(x: f32) -> f32 {
    let e = exp::<S>(-x.abs());
    let top = if x < 0.0 { e } else { 1.0 };
    top / (1.0 + e)
}

/// ln(1 + e^x), without overflow; small values keep their relative accuracy.
#[inline(always)]
pub fn softplus<S: Simd>(x: f32) -> f32 {
    let u = exp::<S>(-x.abs());
    // ln(1 + u) for 0 <= u <= 1 with the rounding of 1 + u avoided.
    let upper = u > 0.414_213_57;
    let f = if upper { u * 0.5 - 0.5 } else { u };
    let e = if upper { 1.0 } else { 0.0 };
    let positive = if x < 0.0 { 0.0 } else { x };
    positive + ln_core::<S>(f, e)
}

/// The quadrant of x and its distance r from the nearest multiple of pi / 2; reduced in `f64`, so that r is right to its last place.
#[inline(always)]
fn reduce_trig(x: f32) -> (u32, f32) {
    const ROUND: f64 = 6_755_399_441_055_744.0; // 1.5 * 2^52
    // The first 33 bits of pi / 2 (products with n < 2^20 are exact), and the rest (fdlibm).
    const PIO2_HI: f64 = 1.570_796_326_734_125_614_17;
    const PIO2_LO: f64 = 6.077_100_506_506_192_249_32e-11;
    let x = f64::from(x);
    let rounded = x * std::f64::consts::FRAC_2_PI + ROUND;
    let n = rounded - ROUND;
    let r = (x - n * PIO2_HI) - n * PIO2_LO;
    (rounded.to_bits() as u32, r as f32)
}

/// sin or cos of r in [-pi/4, pi/4], by the low bits of the quadrant.
#[inline(always)]
fn trig_core<S: Simd>(quadrant: u32, r: f32) -> f32 {
    let z = r * r;
    let s = poly::<S, 3>(z, [-1.951_529_6e-4, 8.332_161e-3, -1.666_665_5e-1]);
    let s = s.fma::<S>(z * r, r);
    let c = poly::<S, 3>(z, [2.443_315_7e-5, -1.388_731_6e-3, 4.166_664_6e-2]);
    let c = c.fma::<S>(z * z, z.fma::<S>(-0.5, 1.0));
    let y = if quadrant & 1 == 0 { s } else { c };
    f32::from_bits(y.to_bits() ^ ((quadrant & 2) << 30))
}

/// Sine for `|x| <= SIN_LIMIT`.
#[inline(always)]
pub fn sin<S: Simd>(x: f32) -> f32 {
    let (quadrant, r) = reduce_trig(x);
    trig_core::<S>(quadrant, r)
}

/// Cosine for `|x| <= SIN_LIMIT`.
#[inline(always)]
pub fn cos<S: Simd>(x: f32) -> f32 {
    let (quadrant, r) = reduce_trig(x);
    trig_core::<S>(quadrant.wrapping_add(1), r)
}
