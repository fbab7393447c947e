//! Elementwise functions of one, two and three operands, with broadcasting by strides.
//!
//! The value of an element depends on its operands alone: not on its place in a slice, not on the thread, not on how a caller cuts
//! the work into tiles. Error bounds of the functions stand in [`crate::math`]; the others are correctly rounded.

use crate::broadcast::{Operands, Run, Runs, line_steps};
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
        match self {
            Unary::Exp | Unary::Log | Unary::Tanh | Unary::Sigmoid | Unary::Softplus | Unary::Sin | Unary::Cos => true,
            Unary::Powf(p) => ![0.0, 1.0, 2.0, 3.0].contains(&p),
            _ => false,
        }
    }

    /// The same function without a power, where there is one.
    fn simplified(self) -> Self {
        match self {
            Unary::Powf(-1.0) => Unary::Recip,
            Unary::Powf(0.5) => Unary::Sqrt,
            Unary::Powf(-0.5) => Unary::Rsqrt,
            op => op,
        }
    }

    /// Elements per task.
    fn grain<T: Real>(self) -> usize {
        let bytes = if self.is_costly() { par::COSTLY_GRAIN_BYTES } else { par::CHEAP_GRAIN_BYTES };
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
    let op = op.simplified();
    par::for_each_chunk(par, out, op.grain::<T>(), |start, out| {
        let x = &x[start..start + out.len()];
        if op.is_costly() {
            dispatch(Costly { op, source: Some(x), out });
        } else {
            dispatch(Cheap { op, sink: Apart { x, out } });
        }
    });
}

/// `x[i] = op(x[i])`, the same bits as [`unary`].
pub(crate) fn unary_assign<T: Real>(par: Par, op: Unary, x: &mut [T]) {
    let op = op.simplified();
    par::for_each_chunk(par, x, op.grain::<T>(), |_, x| {
        if op.is_costly() {
            dispatch(Costly { op, source: None, out: x });
        } else {
            dispatch(Cheap { op, sink: InPlace { x } });
        }
    });
}

/// Elements of a block of [`Costly`].
const BLOCK: usize = 32;

/// A function of tens of operations, from `source` or in place.
///
/// It works on blocks of one size, the last one filled up, because a scalar tail would take as long as some hundred elements.
struct Costly<'a, T> {
    op: Unary,
    source: Option<&'a [T]>,
    out: &'a mut [T],
}

impl<T: Real> Costly<'_, T> {
    #[inline(always)]
    fn map(self, f: impl Fn(&[T; BLOCK], &mut [T; BLOCK])) {
        let (mut filled, mut spare) = ([T::ONE; BLOCK], [T::ZERO; BLOCK]);
        for (i, out) in self.out.chunks_mut(BLOCK).enumerate() {
            let len = out.len();
            let x = match self.source.map(|x| &x[i * BLOCK..][..len]) {
                Some(x) if len == BLOCK => x,
                other => {
                    filled[..len].copy_from_slice(other.unwrap_or(out));
                    &filled
                }
            };
            let Some(x) = x.first_chunk() else { return };
            f(x, out.first_chunk_mut().unwrap_or(&mut spare));
            if len < BLOCK {
                out.copy_from_slice(&spare[..len]);
            }
        }
    }

    #[inline(always)]
    fn map_each(self, f: impl Fn(T) -> T) {
        self.map(|x, y| {
            for (y, &x) in y.iter_mut().zip(x) {
                *y = f(x);
            }
        });
    }

    /// By `near`, and by `far` what `near` does not serve.
    #[inline(always)]
    fn map_limited(self, near: impl Fn(T) -> T, far: impl Fn(T) -> T) {
        self.map(|x, y| {
            let mut beyond = false;
            for (y, &x) in y.iter_mut().zip(x) {
                *y = near(x);
                beyond |= x.abs() > T::SIN_LIMIT;
            }
            if beyond {
                for (y, &x) in y.iter_mut().zip(x) {
                    if x.abs() > T::SIN_LIMIT {
                        *y = far(x);
                    }
                }
            }
        });
    }
}

impl<T: Real> Kernel for Costly<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        self.apply::<S>();
    }
}

impl<T: Real> Costly<'_, T> {
    #[inline(always)]
    fn apply<S: Simd>(self) {
        match self.op {
            Unary::Exp => self.map_each(|x| x.exp::<S>()),
            Unary::Log => self.map_each(|x| x.ln::<S>()),
            Unary::Tanh => self.map_each(|x| x.tanh::<S>()),
            Unary::Sigmoid => self.map_each(|x| x.sigmoid::<S>()),
            Unary::Softplus => self.map_each(|x| x.softplus::<S>()),
            Unary::Sin => self.map_limited(|x| x.sin_near::<S>(), |x| x.sin_far()),
            Unary::Cos => self.map_limited(|x| x.cos_near::<S>(), |x| x.cos_far()),
            Unary::Powf(p) => {
                let p = T::from_f64(p);
                self.map_each(|x| x.powf(p));
            }
            op => unreachable!("{op:?} is not costly"),
        }
    }
}

/// Where a function of a few operations reads and writes.
trait Sink<T: Real> {
    fn map(self, f: impl Fn(T) -> T);
}

struct Apart<'a, T> {
    x: &'a [T],
    out: &'a mut [T],
}

impl<T: Real> Sink<T> for Apart<'_, T> {
    #[inline(always)]
    fn map(self, f: impl Fn(T) -> T) {
        for (o, &x) in self.out.iter_mut().zip(self.x) {
            *o = f(x);
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
}

struct Cheap<K> {
    op: Unary,
    sink: K,
}

impl<T: Real> Kernel for Cheap<Apart<'_, T>> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        apply_cheap::<S, T>(self.op, self.sink);
    }
}

impl<T: Real> Kernel for Cheap<InPlace<'_, T>> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        apply_cheap::<S, T>(self.op, self.sink);
    }
}

#[inline(always)]
fn apply_cheap<S: Simd, T: Real>(op: Unary, sink: impl Sink<T>) {
    match op {
        Unary::Neg => sink.map(|x| -x),
        Unary::Abs => sink.map(|x| x.abs()),
        Unary::Sign => sink.map(|x| {
            let y = if x > T::ZERO { T::ONE } else { x };
            if x < T::ZERO { -T::ONE } else { y }
        }),
        Unary::Step => sink.map(|x| if x > T::ZERO { T::ONE } else { T::ZERO }),
        Unary::Sqrt => sink.map(|x| x.sqrt()),
        Unary::Rsqrt => sink.map(|x| T::ONE / x.sqrt()),
        Unary::Recip => sink.map(|x| T::ONE / x),
        Unary::Relu => sink.map(|x| if x <= T::ZERO { T::ZERO } else { x }),
        Unary::LeakyRelu(slope) => {
            let slope = T::from_f64(slope);
            sink.map(|x| if x > T::ZERO { x } else { slope * x });
        }
        Unary::Affine { scale, shift } => {
            let (scale, shift) = (T::from_f64(scale), T::from_f64(shift));
            sink.map(|x| scale.fma::<S>(x, shift));
        }
        Unary::Powf(2.0) => sink.map(|x| x * x),
        Unary::Powf(3.0) => sink.map(|x| x * x * x),
        Unary::Powf(1.0) => sink.map(|x| x),
        Unary::Powf(0.0) => sink.map(|_| T::ONE),
        op => unreachable!("{op:?} is not cheap"),
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
    let grain = par::CHEAP_GRAIN_BYTES / size_of::<T>();
    // The common case by the shortest way: small networks have many small operands.
    if (par == Par::Seq || out.len() <= grain)
        && let Some(steps) = line_steps([a_strides, b_strides], shape)
        && shape.iter().product::<usize>() == out.len()
        && a.len() > steps[0] * out.len().saturating_sub(1)
        && b.len() > steps[1] * out.len().saturating_sub(1)
    {
        let [a, b] = [(a, steps[0]), (b, steps[1])].map(|(x, step)| if step == 1 { &x[..out.len()] } else { &x[..1] });
        let is_scalar = steps.map(|step| step == 0);
        return dispatch(BinaryKernel { op, is_scalar, first: Some(([a, b], out)), more: None });
    }
    let operands = Operands::new([a, b], [a_strides, b_strides], shape, out.len(), true);
    operands.run(par, out, |runs| {
        let is_scalar = [runs.is_scalar(0), runs.is_scalar(1)];
        dispatch(BinaryKernel { op, is_scalar, first: None, more: Some(runs) });
    });
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
    let operands = Operands::new([cond, a, b], strides, shape, out.len(), false);
    operands.run(par, out, |runs| dispatch(SelectKernel { runs }));
}

struct BinaryKernel<'k, 'a, T> {
    op: Binary,
    /// Whether an operand is the same element in all runs; not both are.
    is_scalar: [bool; 2],
    first: Option<Run<'k, T, 2>>,
    more: Option<&'k mut Runs<'a, T, 2>>,
}

impl<T: Real> Kernel for BinaryKernel<'_, '_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        with_function(self.op, self);
    }
}

impl<T: Real> BinaryKernel<'_, '_, T> {
    /// Calls `f` for each run.
    #[inline(always)]
    fn for_each(self, mut f: impl FnMut([&[T]; 2], &mut [T])) {
        let Self { first, mut more, .. } = self;
        let mut run = first;
        loop {
            if let Some((operands, out)) = run {
                f(operands, out);
            }
            run = more.as_mut().and_then(|more| more.next());
            if run.is_none() {
                return;
            }
        }
    }
}

impl<T: Real> Pairs<T> for BinaryKernel<'_, '_, T> {
    #[inline(always)]
    fn map(self, f: impl Fn(T, T) -> T) {
        match self.is_scalar {
            [_, true] => self.for_each(|[a, b], out| {
                let b = b[0];
                for (o, &a) in out.iter_mut().zip(a) {
                    *o = f(a, b);
                }
            }),
            [true, _] => self.for_each(|[a, b], out| {
                let a = a[0];
                for (o, &b) in out.iter_mut().zip(b) {
                    *o = f(a, b);
                }
            }),
            _ => self.for_each(|[a, b], out| {
                for ((o, &a), &b) in out.iter_mut().zip(a).zip(b) {
                    *o = f(a, b);
                }
            }),
        }
    }
}

/// `out = op(x)` within a kernel; the same bits as [`unary`].
#[inline(always)]
pub(crate) fn apply_unary<S: Simd, T: Real>(op: Unary, x: &[T], out: &mut [T]) {
    let op = op.simplified();
    if op.is_costly() {
        Costly { op, source: Some(x), out }.apply::<S>();
    } else {
        apply_cheap::<S, T>(op, Apart { x, out });
    }
}

/// Where a function of two elements reads and writes.
pub(crate) trait Pairs<T: Real> {
    /// Calls `f` for each pair.
    fn map(self, f: impl Fn(T, T) -> T);
}

/// Runs the loops of `pairs` with the function of `op`.
#[inline(always)]
pub(crate) fn with_function<T: Real>(op: Binary, pairs: impl Pairs<T>) {
    let truth = |x: bool| if x { T::ONE } else { T::ZERO };
    match op {
        Binary::Add => pairs.map(|a, b| a + b),
        Binary::Sub => pairs.map(|a, b| a - b),
        Binary::Mul => pairs.map(|a, b| a * b),
        Binary::Div => pairs.map(|a, b| a / b),
        Binary::Max => pairs.map(|a, b| if b > a || b.is_nan() { b } else { a }),
        Binary::Min => pairs.map(|a, b| if b < a || b.is_nan() { b } else { a }),
        Binary::Greater => pairs.map(|a, b| truth(a > b)),
        Binary::GreaterEqual => pairs.map(|a, b| truth(a >= b)),
        Binary::Equal => pairs.map(|a, b| truth(a == b)),
        // A closed gate stops infinities too.
        Binary::Gate(0.0) => pairs.map(|a, b| if b > T::ZERO { a } else { T::ZERO }),
        Binary::Gate(slope) => {
            let slope = T::from_f64(slope);
            pairs.map(|a, b| if b > T::ZERO { a } else { slope * a });
        }
    }
}

struct SelectKernel<'k, 'a, T> {
    runs: &'k mut Runs<'a, T, 3>,
}

impl<T: Real> Kernel for SelectKernel<'_, '_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        while let Some(([cond, a, b], out)) = self.runs.next() {
            for (((o, &cond), &a), &b) in out.iter_mut().zip(cond).zip(a).zip(b) {
                *o = if cond != T::ZERO { a } else { b };
            }
        }
    }
}
