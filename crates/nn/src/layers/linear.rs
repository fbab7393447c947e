//! The linear layer.

use metaforge_autodiff::{Shape, Var};

use crate::init::Init;
use crate::layer::{Builder, Layer, Layout, Pass};

/// `y = x W + b` along the last axis: `[.., in]` to `[.., out]`. Parameters: `weight [in, out]`, `bias [out]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Linear {
    /// Size of the last axis of the output.
    pub out: usize,
    /// Whether `b` is there.
    pub bias: bool,
    /// Where the weight starts. The bias starts at zero, except with [`Init::Torch`], which draws it as PyTorch does.
    pub init: Init,
}

impl Linear {
    /// With a bias, and PyTorch's initialisation.
    pub fn new(out: usize) -> Linear {
        Linear { out, bias: true, init: Init::Torch }
    }

    /// Without a bias.
    pub fn no_bias(self) -> Linear {
        Linear { bias: false, ..self }
    }

    /// With another initialisation of the weight.
    pub fn init(self, init: Init) -> Linear {
        Linear { init, ..self }
    }
}

impl Layer for Linear {
    fn build(&self, b: &mut Builder, input: Shape) -> Shape {
        let Some(&size) = input.last() else { panic!("a linear layer on an input of shape {input}") };
        let weight = [size, self.out];
        b.param("weight", weight, self.init, Layout::Weights);
        if self.bias {
            b.param("bias", [self.out], self.init.bias(&weight), Layout::Plain);
        }
        input.with(input.len() - 1, self.out)
    }

    fn apply<'t>(&self, pass: &mut Pass<'_, 't>, x: Var<'t>) -> Var<'t> {
        let y = x.matmul(pass.param());
        if self.bias { y + pass.param() } else { y }
    }
}
