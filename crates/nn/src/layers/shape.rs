//! Layers that give the same numbers another shape.

use metaforge_autodiff::{Shape, Var};

use crate::layer::{Builder, Layer, Pass};

/// All axes but the first become one: `[N, H, W, C]` to `[N, C * H * W]`.
///
/// The numbers come in the order C, H, W, as PyTorch has them, so that the weights of a linear layer behind it mean the same here
/// and there. Where `H * W` is 1, as behind most convolutional encoders, that costs nothing; [`Reshape`] never does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flatten;

impl Layer for Flatten {
    fn build(&self, _: &mut Builder, input: Shape) -> Shape {
        assert!(!input.is_empty(), "flattening of an input of shape []");
        [input[0], input[1..].iter().product()].into()
    }

    fn apply<'t>(&self, _: &mut Pass<'_, 't>, x: Var<'t>) -> Var<'t> {
        let shape = x.shape();
        let rank = shape.len();
        let out = [shape[0], shape[1..].iter().product()];
        let pixels: usize = shape[1..].iter().take(rank.saturating_sub(2)).product();
        if pixels == 1 || shape[rank - 1] == 1 {
            return x.reshape(out);
        }
        let mut axes: Vec<usize> = vec![0, rank - 1];
        axes.extend(1..rank - 1);
        x.permute(&axes).reshape(out)
    }
}

/// All axes but the first become those given: `[N, ..]` to `[N, ..shape]`, in the order in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reshape(pub Vec<usize>);

impl Reshape {
    /// To these axes behind the first; `[H, W, C]` for an image.
    pub fn new(shape: impl Into<Shape>) -> Reshape {
        Reshape(shape.into().to_vec())
    }

    fn out(&self, rows: usize) -> Shape {
        Shape::from([&[rows], &self.0[..]].concat())
    }
}

impl Layer for Reshape {
    fn build(&self, _: &mut Builder, input: Shape) -> Shape {
        let numbers: usize = self.0.iter().product();
        let fits = !input.is_empty() && input[1..].iter().product::<usize>() == numbers;
        assert!(fits, "an input of shape {input} does not become [N, ..{:?}]", self.0);
        self.out(input[0])
    }

    fn apply<'t>(&self, _: &mut Pass<'_, 't>, x: Var<'t>) -> Var<'t> {
        x.reshape(self.out(x.shape()[0]))
    }
}
