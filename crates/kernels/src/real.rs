//! The two element types that kernels compute with, `f32` and `f64`, behind one sealed trait: constants, scalar functions, and
//! the vector registers of an instruction set.

use std::fmt::{Debug, Display};
use std::ops::{Add, AddAssign, Div, DivAssign, Mul, MulAssign, Neg, Sub, SubAssign};

use bytemuck::Pod;

use crate::math;
use crate::simd::Simd;

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for f64 {}
}

/// `f32` or `f64`.
///
/// Functions with a parameter `S` are for use inside a [`crate::simd::Kernel`]: they vectorise when inlined there. Their error bounds stand in
/// [`crate::math`].
pub trait Real:
    sealed::Sealed
    + crate::Instances<Self>
    + Copy
    + Default
    + PartialOrd
    + Send
    + Sync
    + Pod
    + Debug
    + Display
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + AddAssign
    + SubAssign
    + MulAssign
    + DivAssign
    + 'static
{
    /// 0.
    const ZERO: Self;
    /// 1.
    const ONE: Self;
    /// Positive infinity.
    const INFINITY: Self;
    /// Negative infinity.
    const NEG_INFINITY: Self;
    /// The distance from 1 to the next larger number.
    const EPSILON: Self;
    /// Whether this is `f32`.
    const IS_F32: bool;
    /// Above this magnitude [`Real::sin_near`] and [`Real::cos_near`] are not valid.
    const SIN_LIMIT: Self;

    /// A vector register of the instruction set `S`.
    type Reg<S: Simd>: Copy + Send + Sync + Debug + Pod;

    /// The nearest value of this type.
    fn from_f64(x: f64) -> Self;
    /// The value, exactly.
    fn to_f64(self) -> f64;

    /// A number in [0, 1) from random words: 24 bits for `f32`, 53 for `f64`.
    fn from_random(words: [u32; 2]) -> Self;

    /// Absolute value.
    fn abs(self) -> Self;
    /// Square root, correctly rounded.
    fn sqrt(self) -> Self;
    /// Whether it is NaN.
    fn is_nan(self) -> bool;
    /// `self^p` for any `p` (the system's function, scalar).
    fn powf(self, p: Self) -> Self;
    /// `self * b + c`: fused where `S` has the instruction, else rounded twice.
    fn fma<S: Simd>(self, b: Self, c: Self) -> Self;

    /// e^x.
    fn exp<S: Simd>(self) -> Self;
    /// Natural logarithm.
    fn ln<S: Simd>(self) -> Self;
    /// Hyperbolic tangent.
    fn tanh<S: Simd>(self) -> Self;
    /// 1 / (1 + e^-x).
    fn sigmoid<S: Simd>(self) -> Self;
    /// ln(1 + e^x).
    fn softplus<S: Simd>(self) -> Self;
    /// Sine where `|x| <= SIN_LIMIT`.
    fn sin_near<S: Simd>(self) -> Self;
    /// Cosine where `|x| <= SIN_LIMIT`.
    fn cos_near<S: Simd>(self) -> Self;
    /// Sine of any number (scalar).
    fn sin_far(self) -> Self;
    /// Cosine of any number (scalar).
    fn cos_far(self) -> Self;

    /// How many elements a register has.
    fn lanes<S: Simd>() -> usize;
    /// A register with `x` in every lane.
    fn splat<S: Simd>(simd: S, x: Self) -> Self::Reg<S>;
    /// Loads `lanes` elements; no alignment needed.
    ///
    /// # Safety
    /// `src` is valid for reading [`Real::lanes`] elements.
    #[inline(always)]
    unsafe fn load<S: Simd>(_simd: S, src: *const Self) -> Self::Reg<S> {
        // SAFETY: the caller vouches for the range; the register is plain data of just that size.
        unsafe { src.cast::<Self::Reg<S>>().read_unaligned() }
    }
    /// Stores `lanes` elements; no alignment needed.
    ///
    /// # Safety
    /// `dst` is valid for writing [`Real::lanes`] elements.
    #[inline(always)]
    unsafe fn store<S: Simd>(_simd: S, dst: *mut Self, x: Self::Reg<S>) {
        // SAFETY: the caller vouches for the range; the register is plain data of just that size.
        unsafe { dst.cast::<Self::Reg<S>>().write_unaligned(x) }
    }
    /// Loads at most `lanes` elements; the lanes beyond are 0.
    fn load_partial<S: Simd>(simd: S, src: &[Self]) -> Self::Reg<S>;
    /// Lane by lane `a + b`.
    fn vadd<S: Simd>(simd: S, a: Self::Reg<S>, b: Self::Reg<S>) -> Self::Reg<S>;
    /// Lane by lane `a - b`.
    fn vsub<S: Simd>(simd: S, a: Self::Reg<S>, b: Self::Reg<S>) -> Self::Reg<S>;
    /// Lane by lane `a * b`.
    fn vmul<S: Simd>(simd: S, a: Self::Reg<S>, b: Self::Reg<S>) -> Self::Reg<S>;
    /// Lane by lane `a * b + c`, fused where `S` has the instruction (the same bits as [`Real::fma`]).
    fn vfma<S: Simd>(simd: S, a: Self::Reg<S>, b: Self::Reg<S>, c: Self::Reg<S>) -> Self::Reg<S>;
    /// Lane by lane `if a <= 0 { 0 } else { a }`.
    fn vrelu<S: Simd>(simd: S, a: Self::Reg<S>) -> Self::Reg<S>;
}

impl Real for f32 {
    const ZERO: f32 = 0.0;
    const ONE: f32 = 1.0;
    const INFINITY: f32 = f32::INFINITY;
    const NEG_INFINITY: f32 = f32::NEG_INFINITY;
    const EPSILON: f32 = f32::EPSILON;
    const IS_F32: bool = true;
    const SIN_LIMIT: f32 = math::SIN_LIMIT;

    type Reg<S: Simd> = S::f32s;

    #[inline(always)]
    fn from_f64(x: f64) -> f32 {
        x as f32
    }
    #[inline(always)]
    fn to_f64(self) -> f64 {
        self.into()
    }

    #[inline(always)]
    fn from_random([x, _]: [u32; 2]) -> f32 {
        (x >> 8) as i32 as f32 * (1.0 / 16_777_216.0)
    }

    #[inline(always)]
    fn abs(self) -> f32 {
        f32::abs(self)
    }
    #[inline(always)]
    fn sqrt(self) -> f32 {
        f32::sqrt(self)
    }
    #[inline(always)]
    fn is_nan(self) -> bool {
        f32::is_nan(self)
    }
    #[inline(always)]
    fn powf(self, p: f32) -> f32 {
        f32::powf(self, p)
    }
    #[inline(always)]
    fn fma<S: Simd>(self, b: f32, c: f32) -> f32 {
        if S::FMA { f32::mul_add(self, b, c) } else { self * b + c }
    }

    #[inline(always)]
    fn exp<S: Simd>(self) -> f32 {
        math::exp::<S>(self)
    }
    #[inline(always)]
    fn ln<S: Simd>(self) -> f32 {
        math::ln::<S>(self)
    }
    #[inline(always)]
    fn tanh<S: Simd>(self) -> f32 {
        math::tanh::<S>(self)
    }
    #[inline(always)]
    fn sigmoid<S: Simd>(self) -> f32 {
        math::sigmoid::<S>(self)
    }
    #[inline(always)]
    fn softplus<S: Simd>(self) -> f32 {
        math::softplus::<S>(self)
    }
    #[inline(always)]
    fn sin_near<S: Simd>(self) -> f32 {
        math::sin::<S>(self)
    }
    #[inline(always)]
    fn cos_near<S: Simd>(self) -> f32 {
        math::cos::<S>(self)
    }
    fn sin_far(self) -> f32 {
        f64::from(self).sin() as f32
    }
    fn cos_far(self) -> f32 {
        f64::from(self).cos() as f32
    }

    #[inline(always)]
    fn lanes<S: Simd>() -> usize {
        S::F32_LANES
    }
    #[inline(always)]
    fn splat<S: Simd>(simd: S, x: f32) -> S::f32s {
        simd.splat_f32s(x)
    }
    #[inline(always)]
    fn load_partial<S: Simd>(simd: S, src: &[f32]) -> S::f32s {
        simd.partial_load_f32s(src)
    }
    #[inline(always)]
    fn vadd<S: Simd>(simd: S, a: S::f32s, b: S::f32s) -> S::f32s {
        simd.add_f32s(a, b)
    }
    #[inline(always)]
    fn vsub<S: Simd>(simd: S, a: S::f32s, b: S::f32s) -> S::f32s {
        simd.sub_f32s(a, b)
    }
    #[inline(always)]
    fn vmul<S: Simd>(simd: S, a: S::f32s, b: S::f32s) -> S::f32s {
        simd.mul_f32s(a, b)
    }
    #[inline(always)]
    fn vfma<S: Simd>(simd: S, a: S::f32s, b: S::f32s, c: S::f32s) -> S::f32s {
        if S::FMA { simd.mul_add_f32s(a, b, c) } else { simd.add_f32s(simd.mul_f32s(a, b), c) }
    }
    #[inline(always)]
    fn vrelu<S: Simd>(simd: S, a: S::f32s) -> S::f32s {
        let zero = simd.splat_f32s(0.0);
        simd.select_f32s(simd.less_than_or_equal_f32s(a, zero), zero, a)
    }
}

impl Real for f64 {
    const ZERO: f64 = 0.0;
    const ONE: f64 = 1.0;
    const INFINITY: f64 = f64::INFINITY;
    const NEG_INFINITY: f64 = f64::NEG_INFINITY;
    const EPSILON: f64 = f64::EPSILON;
    const IS_F32: bool = false;
    const SIN_LIMIT: f64 = f64::INFINITY;

    type Reg<S: Simd> = S::f64s;

    #[inline(always)]
    fn from_f64(x: f64) -> f64 {
        x
    }
    #[inline(always)]
    fn to_f64(self) -> f64 {
        self
    }

    #[inline(always)]
    fn from_random([x, y]: [u32; 2]) -> f64 {
        let bits = (u64::from(x) << 32 | u64::from(y)) >> 11;
        bits as i64 as f64 * (1.0 / 9_007_199_254_740_992.0)
    }

    #[inline(always)]
    fn abs(self) -> f64 {
        f64::abs(self)
    }
    #[inline(always)]
    fn sqrt(self) -> f64 {
        f64::sqrt(self)
    }
    #[inline(always)]
    fn is_nan(self) -> bool {
        f64::is_nan(self)
    }
    #[inline(always)]
    fn powf(self, p: f64) -> f64 {
        f64::powf(self, p)
    }
    #[inline(always)]
    fn fma<S: Simd>(self, b: f64, c: f64) -> f64 {
        if S::FMA { f64::mul_add(self, b, c) } else { self * b + c }
    }

    #[inline(always)]
    fn exp<S: Simd>(self) -> f64 {
        f64::exp(self)
    }
    #[inline(always)]
    fn ln<S: Simd>(self) -> f64 {
        f64::ln(self)
    }
    #[inline(always)]
    fn tanh<S: Simd>(self) -> f64 {
        f64::tanh(self)
    }
    #[inline(always)]
    fn sigmoid<S: Simd>(self) -> f64 {
        let e = f64::exp(-f64::abs(self));
        if self < 0.0 { e / (1.0 + e) } else { 1.0 / (1.0 + e) }
    }
    #[inline(always)]
    fn softplus<S: Simd>(self) -> f64 {
        let positive = if self < 0.0 { 0.0 } else { self };
        positive + f64::ln_1p(f64::exp(-f64::abs(self)))
    }
    #[inline(always)]
    fn sin_near<S: Simd>(self) -> f64 {
        f64::sin(self)
    }
    #[inline(always)]
    fn cos_near<S: Simd>(self) -> f64 {
        f64::cos(self)
    }
    fn sin_far(self) -> f64 {
        f64::sin(self)
    }
    fn cos_far(self) -> f64 {
        f64::cos(self)
    }

    #[inline(always)]
    fn lanes<S: Simd>() -> usize {
        S::F64_LANES
    }
    #[inline(always)]
    fn splat<S: Simd>(simd: S, x: f64) -> S::f64s {
        simd.splat_f64s(x)
    }
    #[inline(always)]
    fn load_partial<S: Simd>(simd: S, src: &[f64]) -> S::f64s {
        simd.partial_load_f64s(src)
    }
    #[inline(always)]
    fn vadd<S: Simd>(simd: S, a: S::f64s, b: S::f64s) -> S::f64s {
        simd.add_f64s(a, b)
    }
    #[inline(always)]
    fn vsub<S: Simd>(simd: S, a: S::f64s, b: S::f64s) -> S::f64s {
        simd.sub_f64s(a, b)
    }
    #[inline(always)]
    fn vmul<S: Simd>(simd: S, a: S::f64s, b: S::f64s) -> S::f64s {
        simd.mul_f64s(a, b)
    }
    #[inline(always)]
    fn vfma<S: Simd>(simd: S, a: S::f64s, b: S::f64s, c: S::f64s) -> S::f64s {
        if S::FMA { simd.mul_add_f64s(a, b, c) } else { simd.add_f64s(simd.mul_f64s(a, b), c) }
    }
    #[inline(always)]
    fn vrelu<S: Simd>(simd: S, a: S::f64s) -> S::f64s {
        let zero = simd.splat_f64s(0.0);
        simd.select_f64s(simd.less_than_or_equal_f64s(a, zero), zero, a)
    }
}
