//! Activations, element by element.

use metaforge_autodiff::{Shape, Var};

use crate::init::Init;
use crate::layer::{Builder, Layer, Layout, Pass};

macro_rules! activation {
    ($(#[$doc:meta])* $name:ident $(($field:ty))?, |$this:ident, $x:ident| $body:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq)]
        pub struct $name $((pub $field))?;

        impl Layer for $name {
            fn build(&self, _: &mut Builder, input: Shape) -> Shape {
                input
            }

            fn apply<'t>(&self, _: &mut Pass<'_, 't>, $x: Var<'t>) -> Var<'t> {
                let $this = self;
                $body
            }
        }
    };
}

activation!(
    /// `max(x, 0)`.
    Relu, |_this, x| x.relu()
);
activation!(
    /// `x` where positive, else the given slope times `x`.
    LeakyRelu(f64), |this, x| x.leaky_relu(this.0)
);
activation!(
    /// `x` where positive, else the given factor times `exp(x) - 1` (Clevert et al. 2016).
    Elu(f64), |this, x| {
        // The exponent never sees a positive number, so it cannot overflow.
        let low = x.minimum(x.tape().scalar(0.0, x.dtype()));
        x.relu() + (low.exp() - 1.0) * this.0
    }
);
activation!(
    /// `x * Phi(x)` (Hendrycks and Gimpel 2016), with the tanh form of the normal distribution function: PyTorch's
    /// `approximate='tanh'`.
    Gelu, |_this, x| {
        let inner = (x + x * x * x * 0.044715) * (2.0 / std::f64::consts::PI).sqrt();
        x * (inner.tanh() * 0.5 + 0.5)
    }
);
activation!(
    /// `x * sigmoid(x)`, also called swish.
    Silu, |_this, x| x * x.sigmoid()
);
activation!(
    /// `log(1 + exp(x))`.
    Softplus, |_this, x| x.softplus()
);
activation!(
    /// Hyperbolic tangent.
    Tanh, |_this, x| x.tanh()
);
activation!(
    /// `1 / (1 + exp(-x))`.
    Sigmoid, |_this, x| x.sigmoid()
);

impl LeakyRelu {
    /// With this slope; DCGAN's is 0.2.
    pub fn new(slope: f64) -> LeakyRelu {
        LeakyRelu(slope)
    }
}

impl Elu {
    /// With this factor; 1 makes the derivative continuous.
    pub fn new(alpha: f64) -> Elu {
        Elu(alpha)
    }
}

/// `x` where positive, else a learned slope times `x` (He et al. 2015). Parameter: `weight [1]`, one slope for all, starting at
/// 0.25.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PRelu;

impl Layer for PRelu {
    fn build(&self, b: &mut Builder, input: Shape) -> Shape {
        b.param("weight", [1], Init::Constant(0.25), Layout::Plain);
        input
    }

    fn apply<'t>(&self, pass: &mut Pass<'_, 't>, x: Var<'t>) -> Var<'t> {
        let low = x.minimum(x.tape().scalar(0.0, x.dtype()));
        x.relu() + low * pass.param()
    }
}
