//! Dropout (Srivastava et al. 2014), inverted: what stays is scaled up in training, and nothing happens otherwise.

use metaforge_autodiff::{Aval, DType, Prim, Shape, Var};

use crate::layer::{Builder, Layer, Mode, Pass};

/// In [`Mode::Train`] each number becomes 0 with this probability, in [0, 1), and is divided by the probability of staying
/// otherwise. Each dropout of a model draws its own numbers from the pass's key.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dropout(pub f64);

impl Dropout {
    /// With this probability of becoming 0.
    pub fn new(rate: f64) -> Dropout {
        Dropout(rate)
    }
}

impl Layer for Dropout {
    fn build(&self, _: &mut Builder, input: Shape) -> Shape {
        assert!((0.0..1.0).contains(&self.0), "a dropout of {} is not in [0, 1)", self.0);
        input
    }

    fn apply<'t>(&self, pass: &mut Pass<'_, 't>, x: Var<'t>) -> Var<'t> {
        if pass.mode() != Mode::Train || self.0 == 0.0 {
            return x;
        }
        // Drawn as f32 whatever x is, so that the mask is the same.
        let aval = Aval::new(x.shape(), DType::F32);
        let drawn = Var::record(Prim::Uniform(aval), &[pass.key()]);
        let stays = drawn.greater_equal(drawn.tape().scalar(self.0, DType::F32));
        x * (stays * (1.0 / (1.0 - self.0))).cast(x.dtype())
    }
}
