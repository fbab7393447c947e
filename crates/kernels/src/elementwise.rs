//! Elementwise functions of one, two and three operands, with broadcasting by strides.
//!
//! The value of an element depends on its operands alone: not on its place in a slice, not on the thread, not on how a caller cuts
//! the work into tiles. Error bounds of the functions stand in [`crate::math`]; the others are correctly rounded.

use crate::broadcast::{Operands, Rows};
use crate::par::{self, Par};
use crate::real::Real;
use crate::simd::{Kernel, Simd, dispatch};

/// A function of one element.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Unary {
    /// -x
    Neg,
    /// |x|
    Abs,
    /// 1 where x > 0, -1 where x < 0, else x itself (a zero or NaN)
    Sign,
    /// 1 where x > 0, else 0
    Step,
    /// e^x
    Exp,
    /// Natural logarithm
    Log,
    /// Square root
    Sqrt,
    /// 1 / sqrt(x)
    Rsqrt,
    /// 1 / x
    Recip,
    /// Hyperbolic tangent
    Tanh,
    /// 1 / (1 + e^-x)
    Sigmoid,
    /// ln(1 + e^x)
    Softplus,
    /// Sine
    Sin,
    /// Cosine
    Cos,
    /// max(x, 0); NaN stays NaN
    Relu,
    /// x where x > 0, else slope * x
    LeakyRelu(f64),
    /// x^p; p of 0, 1, 2, 3, -1, 1/2 and -1/2 are products and roots, others take the system's function
    Powf(f64),
    /// scale * x + shift
    Affine {
        /// Factor
        scale: f64,
        /// Summand
        shift: f64,
    },
}

impl Unary {
    /// Whether an element takes tens of operations, so that a smaller piece is worth a thread.
    fn is_costly(self) -> bool {
        matches!(
            self,
            Unary::Exp
                | Unary::Log
                | Unary::Tanh
                | Unary::Sigmoid
                | Unary::Softplus
                | Unary::Sin
                | Unary::Cos
                | Unary::Powf(_)
        )
    }

    /// Elements per task.
    fn grain<T: Real>(self) -> usize {
        let bytes = if self.is_costly() {
            par::COSTLY_GRAIN_BYTES
        } else {
            par::CHEAP_GRAIN_BYTES
        };
        bytes / size_of::<T>()
    }
}

/// A function of two elements. Comparisons give 1 or 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Binary {
    /// a + b
    Add,
    /// a - b
    Sub,
    /// a * b
    Mul,
    /// a / b
    Div,
    /// The larger; `a` when equal, NaN if either is NaN
    Max,
    /// The smaller; `a` when equal, NaN if either is NaN
    Min,
    /// a > b
    Greater,
    /// a >= b
    GreaterEqual,
    /// a == b
    Equal,
    /// a where b > 0, else slope * a: the gradient of a (leaky) rectifier
    Gate(f64),
}

/// `out[i] = op(x[i])`. Panics if the lengths differ.
#[track_caller]
pub(crate) fn unary<T: Real>(par: Par, op: Unary, x: &[T], out: &mut [T]) {
    assert_eq!(x.len(), out.len(), "unary {op:?}: input and output differ in length");
    par::for_each_chunk(par, out, op.grain::<T>(), |start, out| {
        let x = &x[start..start + out.len()];
        dispatch(UnaryKernel { op, sink: Apart { x, out } });
    });
}

/// `x[i] = op(x[i])`, the same bits as [`unary`].
pub(crate) fn unary_assign<T: Real>(par: Par, op: Unary, x: &mut [T]) {
    par::for_each_chunk(par, x, op.grain::<T>(), |_, x| {
        dispatch(UnaryKernel { op, sink: InPlace { x } });
    });
}

/// Where a unary function reads and writes.
trait Sink<T: Real> {
    fn map(self, f: impl Fn(T) -> T);
    /// Maps by `near`, and by `far` what `near` does not serve: blocks without such elements, the rule, stay free of branches.
    fn map_limited(self, near: impl Fn(T) -> T, far: impl Fn(T) -> T);
}

struct Apart<'a, T> {
    x: &'a [T],
    out: &'a mut [T],
}

/// Elements per block of [`Sink::map_limited`].
const BLOCK: usize = 64;

#[inline(always)]
fn map_block<T: Real>(x: &[T], out: &mut [T], near: impl Fn(T) -> T, far: impl Fn(T) -> T) {
    let mut beyond = false;
    for (o, &x) in out.iter_mut().zip(x) {
        *o = near(x);
        beyond |= x.abs() > T::SIN_LIMIT;
    }
    if beyond {
        for (o, &x) in out.iter_mut().zip(x) {
            if x.abs() > T::SIN_LIMIT {
                *o = far(x);
            }
        }
    }
}

impl<T: Real> Sink<T> for Apart<'_, T> {
    #[inline(always)]
    fn map(self, f: impl Fn(T) -> T) {
        for (o, &x) in self.out.iter_mut().zip(self.x) {
            *o = f(x);
        }
    }
    #[inline(always)]
    fn map_limited(self, near: impl Fn(T) -> T, far: impl Fn(T) -> T) {
        for (out, x) in self.out.chunks_mut(BLOCK).zip(self.x.chunks(BLOCK)) {
            map_block(x, out, &near, &far);
        }
    }
}

struct InPlace<'a, T> {
    x: &'a mut [T],
}

impl<T: Real> Sink<T> for InPlace<'_, T> {
    #[inline(always)]
    fn map(self, f: impl Fn(T) -> T) {
        for x in self.x.iter_mut() {
            *x = f(*x);
        }
    }
    #[inline(always)]
    fn map_limited(self, near: impl Fn(T) -> T, far: impl Fn(T) -> T) {
        let mut copy = [T::ZERO; BLOCK];
        for out in self.x.chunks_mut(BLOCK) {
            let copy = &mut copy[..out.len()];
            copy.copy_from_slice(out);
            map_block(copy, out, &near, &far);
        }
    }
}

struct UnaryKernel<K> {
    op: Unary,
    sink: K,
}

impl<T: Real> Kernel for UnaryKernel<Apart<'_, T>> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        apply_unary::<S, T>(self.op, self.sink);
    }
}

impl<T: Real> Kernel for UnaryKernel<InPlace<'_, T>> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        apply_unary::<S, T>(self.op, self.sink);
    }
}

#[inline(always)]
fn apply_unary<S: Simd, T: Real>(op: Unary, sink: impl Sink<T>) {
    match op {
        Unary::Neg => sink.map(|x| -x),
        Unary::Abs => sink.map(|x| x.abs()),
        Unary::Sign => sink.map(|x| {
            let y = if x > T::ZERO { T::ONE } else { x };
            if x < T::ZERO { -T::ONE } else { y }
        }),
        Unary::Step => sink.map(|x| if x > T::ZERO { T::ONE } else { T::ZERO }),
        Unary::Exp => sink.map(|x| x.exp::<S>()),
        Unary::Log => sink.map(|x| x.ln::<S>()),
        Unary::Sqrt => sink.map(|x| x.sqrt()),
        Unary::Rsqrt => sink.map(|x| T::ONE / x.sqrt()),
        Unary::Recip => sink.map(|x| T::ONE / x),
        Unary::Tanh => sink.map(|x| x.tanh::<S>()),
        Unary::Sigmoid => sink.map(|x| x.sigmoid::<S>()),
        Unary::Softplus => sink.map(|x| x.softplus::<S>()),
        Unary::Sin => sink.map_limited(|x| x.sin_near::<S>(), |x| x.sin_far()),
        Unary::Cos => sink.map_limited(|x| x.cos_near::<S>(), |x| x.cos_far()),
        Unary::Relu => sink.map(|x| if x <= T::ZERO { T::ZERO } else { x }),
        Unary::LeakyRelu(slope) => {
            let slope = T::from_f64(slope);
            sink.map(|x| if x > T::ZERO { x } else { slope * x });
        }
        Unary::Powf(p) => apply_powf(p, sink),
        Unary::Affine { scale, shift } => {
            let (scale, shift) = (T::from_f64(scale), T::from_f64(shift));
            sink.map(|x| scale.fma::<S>(x, shift));
        }
    }
}

#[inline(always)]
fn apply_powf<T: Real>(p: f64, sink: impl Sink<T>) {
    if p == 2.0 {
        sink.map(|x| x * x);
    } else if p == 3.0 {
        sink.map(|x| x * x * x);
    } else if p == 1.0 {
        sink.map(|x| x);
    } else if p == 0.0 {
        sink.map(|_| T::ONE);
    } else if p == -1.0 {
        sink.map(|x| T::ONE / x);
    } else if p == 0.5 {
        sink.map(|x| x.sqrt());
    } else if p == -0.5 {
        sink.map(|x| T::ONE / x.sqrt());
    } else {
        let p = T::from_f64(p);
        sink.map(|x| x.powf(p));
    }
}

/// `out = op(a, b)` with broadcasting.
///
/// `out` is contiguous with `shape`; `a` and `b` are read with the given strides, one an axis, 0 where they are broadcast. Panics if a
/// length or a rank does not fit.
#[allow(clippy::too_many_arguments)]
#[track_caller]
pub(crate) fn binary<T: Real>(
    par: Par,
    op: Binary,
    a: &[T],
    a_strides: &[usize],
    b: &[T],
    b_strides: &[usize],
    shape: &[usize],
    out: &mut [T],
) {
    let operands = Operands::new([a, b], [a_strides, b_strides], shape, out.len());
    operands.run(par, out, |rows| dispatch(BinaryKernel { op, rows }));
}

/// `out = cond != 0 ? a : b` with broadcasting, as [`binary`].
#[allow(clippy::too_many_arguments)]
#[track_caller]
pub(crate) fn select<T: Real>(
    par: Par,
    cond: &[T],
    cond_strides: &[usize],
    a: &[T],
    a_strides: &[usize],
    b: &[T],
    b_strides: &[usize],
    shape: &[usize],
    out: &mut [T],
) {
    let strides = [cond_strides, a_strides, b_strides];
    let operands = Operands::new([cond, a, b], strides, shape, out.len());
    operands.run(par, out, |rows| dispatch(SelectKernel { rows }));
}

struct BinaryKernel<'a, T> {
    op: Binary,
    rows: Rows<'a, T, 2>,
}

impl<T: Real> Kernel for BinaryKernel<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let rows = self.rows;
        let truth = |x: bool| if x { T::ONE } else { T::ZERO };
        match self.op {
            Binary::Add => map2(rows, |a, b| a + b),
            Binary::Sub => map2(rows, |a, b| a - b),
            Binary::Mul => map2(rows, |a, b| a * b),
            Binary::Div => map2(rows, |a, b| a / b),
            Binary::Max => map2(rows, |a, b| if b > a || b.is_nan() { b } else { a }),
            Binary::Min => map2(rows, |a, b| if b < a || b.is_nan() { b } else { a }),
            Binary::Greater => map2(rows, |a, b| truth(a > b)),
            Binary::GreaterEqual => map2(rows, |a, b| truth(a >= b)),
            Binary::Equal => map2(rows, |a, b| truth(a == b)),
            // A closed gate stops infinities too.
            Binary::Gate(0.0) => map2(rows, |a, b| if b > T::ZERO { a } else { T::ZERO }),
            Binary::Gate(slope) => {
                let slope = T::from_f64(slope);
                map2(rows, |a, b| if b > T::ZERO { a } else { slope * a });
            }
        }
    }
}

#[inline(always)]
fn map2<T: Real>(rows: Rows<'_, T, 2>, f: impl Fn(T, T) -> T) {
    match rows.steps() {
        [1, 1] => rows.for_each(|[a, b], out| {
            for ((o, &a), &b) in out.iter_mut().zip(a).zip(b) {
                *o = f(a, b);
            }
        }),
        [1, 0] => rows.for_each(|[a, b], out| {
            let b = b[0];
            for (o, &a) in out.iter_mut().zip(a) {
                *o = f(a, b);
            }
        }),
        [0, 1] => rows.for_each(|[a, b], out| {
            let a = a[0];
            for (o, &b) in out.iter_mut().zip(b) {
                *o = f(a, b);
            }
        }),
        [step_a, step_b] => rows.for_each(|[a, b], out| {
            for (j, o) in out.iter_mut().enumerate() {
                *o = f(a[j * step_a], b[j * step_b]);
            }
        }),
    }
}

struct SelectKernel<'a, T> {
    rows: Rows<'a, T, 3>,
}

impl<T: Real> Kernel for SelectKernel<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let pick = |c: T, a: T, b: T| if c != T::ZERO { a } else { b };
        match self.rows.steps() {
            [1, 1, 1] => self.rows.for_each(|[c, a, b], out| {
                for (((o, &c), &a), &b) in out.iter_mut().zip(c).zip(a).zip(b) {
                    *o = pick(c, a, b);
                }
            }),
            [1, 1, 0] => self.rows.for_each(|[c, a, b], out| {
                let b = b[0];
                for ((o, &c), &a) in out.iter_mut().zip(c).zip(a) {
                    *o = pick(c, a, b);
                }
            }),
            [1, 0, 1] => self.rows.for_each(|[c, a, b], out| {
                let a = a[0];
                for ((o, &c), &b) in out.iter_mut().zip(c).zip(b) {
                    *o = pick(c, a, b);
                }
            }),
            [c_step, a_step, b_step] => self.rows.for_each(|[c, a, b], out| {
                for (j, o) in out.iter_mut().enumerate() {
                    *o = pick(
                        c[j * c_step],
                        a[j * a_step],
                        b[j * b_step],
                    );
                }
            }),
        }
    }
}

#[cfg(test)]
#[path = "elementwise_tests.rs"]
mod tests;
