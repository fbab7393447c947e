//! Element by element: operators with numpy broadcasting, and the usual functions.

use std::ops::{Add, Div, Mul, Neg, Sub};

use crate::aval::DType;
use crate::prim::{Binary, Prim, Unary};
use crate::tape::Var;

impl<'t> Var<'t> {
    #[track_caller]
    fn unary(self, op: Unary) -> Var<'t> {
        Var::record(Prim::Unary(op), &[self])
    }

    #[track_caller]
    fn binary(self, op: Binary, other: Var<'t>) -> Var<'t> {
        Var::record(Prim::Binary(op), &[self, other])
    }

    /// Absolute value.
    pub fn abs(self) -> Var<'t> {
        self.unary(Unary::Abs)
    }

    /// -1, 0 or 1; no gradient.
    pub fn sign(self) -> Var<'t> {
        self.unary(Unary::Sign)
    }

    /// 1 where positive, else 0; no gradient.
    pub fn step(self) -> Var<'t> {
        self.unary(Unary::Step)
    }

    /// Natural exponential.
    pub fn exp(self) -> Var<'t> {
        self.unary(Unary::Exp)
    }

    /// Natural logarithm.
    pub fn log(self) -> Var<'t> {
        self.unary(Unary::Log)
    }

    /// Square root.
    pub fn sqrt(self) -> Var<'t> {
        self.unary(Unary::Sqrt)
    }

    /// 1 / sqrt(x).
    pub fn rsqrt(self) -> Var<'t> {
        self.unary(Unary::Rsqrt)
    }

    /// 1 / x.
    pub fn recip(self) -> Var<'t> {
        self.unary(Unary::Recip)
    }

    /// Hyperbolic tangent.
    pub fn tanh(self) -> Var<'t> {
        self.unary(Unary::Tanh)
    }

    /// 1 / (1 + exp(-x)).
    pub fn sigmoid(self) -> Var<'t> {
        self.unary(Unary::Sigmoid)
    }

    /// log(1 + exp(x)), without overflow.
    pub fn softplus(self) -> Var<'t> {
        self.unary(Unary::Softplus)
    }

    /// Sine.
    pub fn sin(self) -> Var<'t> {
        self.unary(Unary::Sin)
    }

    /// Cosine.
    pub fn cos(self) -> Var<'t> {
        self.unary(Unary::Cos)
    }

    /// max(x, 0), with gradient 0 at 0.
    pub fn relu(self) -> Var<'t> {
        self.unary(Unary::Relu)
    }

    /// x where positive, else `slope * x`.
    pub fn leaky_relu(self, slope: f64) -> Var<'t> {
        self.unary(Unary::LeakyRelu(slope))
    }

    /// x to the power `p`.
    pub fn powf(self, p: f64) -> Var<'t> {
        self.unary(Unary::Powf(p))
    }

    /// x * x.
    pub fn square(self) -> Var<'t> {
        self * self
    }

    /// `scale * x + shift`.
    pub fn affine(self, scale: f64, shift: f64) -> Var<'t> {
        self.unary(Unary::Affine { scale, shift })
    }

    /// The larger of two values; ties count as the first.
    #[track_caller]
    pub fn maximum(self, other: Var<'t>) -> Var<'t> {
        self.binary(Binary::Max, other)
    }

    /// The smaller of two values; ties count as the first.
    #[track_caller]
    pub fn minimum(self, other: Var<'t>) -> Var<'t> {
        self.binary(Binary::Min, other)
    }

    /// 1 where `self > other`, else 0; no gradient.
    #[track_caller]
    pub fn greater(self, other: Var<'t>) -> Var<'t> {
        self.binary(Binary::Greater, other)
    }

    /// 1 where `self >= other`, else 0; no gradient.
    #[track_caller]
    pub fn greater_equal(self, other: Var<'t>) -> Var<'t> {
        self.binary(Binary::GreaterEqual, other)
    }

    /// 1 where `self == other`, else 0; no gradient.
    #[track_caller]
    pub fn equal(self, other: Var<'t>) -> Var<'t> {
        self.binary(Binary::Equal, other)
    }

    /// `self` where `by > 0`, else `slope * self`; no gradient for `by`. The gradient of a (leaky) rectifier.
    #[track_caller]
    pub fn gate(self, by: Var<'t>, slope: f64) -> Var<'t> {
        self.binary(Binary::Gate(slope), by)
    }

    /// `a` where `self` is not 0, else `b`.
    #[track_caller]
    pub fn select(self, a: Var<'t>, b: Var<'t>) -> Var<'t> {
        Var::record(Prim::Select, &[self, a, b])
    }

    /// The same numbers in another type.
    pub fn cast(self, dtype: DType) -> Var<'t> {
        if dtype == self.dtype() { self } else { Var::record(Prim::Cast(dtype), &[self]) }
    }

    /// The value, of which no gradient flows back.
    pub fn stop_gradient(self) -> Var<'t> {
        Var::record(Prim::StopGradient, &[self])
    }
}

/// An operator of two values, and of a value and a number `c`: `x op c`, then `c op x`.
macro_rules! operator {
    ($trait:ident, $method:ident, |$x:ident, $c:ident| $with_number:expr, $number_with:expr) => {
        impl<'t> $trait for Var<'t> {
            type Output = Var<'t>;
            #[track_caller]
            fn $method(self, other: Var<'t>) -> Var<'t> {
                self.binary(Binary::$trait, other)
            }
        }

        impl<'t> $trait<f64> for Var<'t> {
            type Output = Var<'t>;
            #[track_caller]
            fn $method(self, $c: f64) -> Var<'t> {
                let $x = self;
                $with_number
            }
        }

        impl<'t> $trait<Var<'t>> for f64 {
            type Output = Var<'t>;
            #[track_caller]
            fn $method(self, $x: Var<'t>) -> Var<'t> {
                let $c = self;
                $number_with
            }
        }
    };
}

operator!(Add, add, |x, c| x.affine(1.0, c), x.affine(1.0, c));
operator!(Sub, sub, |x, c| x.affine(1.0, -c), x.affine(-1.0, c));
operator!(Mul, mul, |x, c| x.affine(c, 0.0), x.affine(c, 0.0));
operator!(Div, div, |x, c| x.affine(1.0 / c, 0.0), x.recip().affine(c, 0.0));

impl<'t> Neg for Var<'t> {
    type Output = Var<'t>;
    #[track_caller]
    fn neg(self) -> Var<'t> {
        self.unary(Unary::Neg)
    }
}
