//! Layers made of layers.

use metaforge_autodiff::{Shape, Var};

use crate::layer::{Builder, Layer, Pass};

/// One layer behind the other. Their names are `0`, `1` and so on, as in PyTorch: `0.weight`.
#[derive(Debug, Default)]
pub struct Sequential(pub Vec<Box<dyn Layer>>);

impl Sequential {
    /// No layers: the identity.
    pub fn new() -> Sequential {
        Sequential::default()
    }

    /// With one more layer behind.
    pub fn then(mut self, layer: impl Layer + 'static) -> Sequential {
        self.0.push(Box::new(layer));
        self
    }
}

impl Layer for Sequential {
    fn build(&self, b: &mut Builder, input: Shape) -> Shape {
        let mut shape = input;
        for (i, layer) in self.0.iter().enumerate() {
            shape = b.scoped(&i.to_string(), |b| layer.build(b, shape));
        }
        shape
    }

    fn apply<'t>(&self, pass: &mut Pass<'_, 't>, x: Var<'t>) -> Var<'t> {
        self.0.iter().fold(x, |x, layer| layer.apply(pass, x))
    }
}

/// `body(x) + x`, or `body(x) + skip(x)` where the shape changes (He et al. 2016). Names: `body.`, `skip.`.
#[derive(Debug)]
pub struct Residual {
    body: Box<dyn Layer>,
    skip: Option<Box<dyn Layer>>,
}

impl Residual {
    /// Around a layer that keeps the shape.
    pub fn new(body: impl Layer + 'static) -> Residual {
        Residual { body: Box::new(body), skip: None }
    }

    /// With a projection beside the body.
    pub fn project(self, skip: impl Layer + 'static) -> Residual {
        Residual { skip: Some(Box::new(skip)), ..self }
    }
}

impl Layer for Residual {
    fn build(&self, b: &mut Builder, input: Shape) -> Shape {
        let out = b.scoped("body", |b| self.body.build(b, input));
        let beside = match &self.skip {
            Some(skip) => b.scoped("skip", |b| skip.build(b, input)),
            None => input,
        };
        assert!(out == beside, "the body gives {out} and what stands beside it {beside}");
        out
    }

    fn apply<'t>(&self, pass: &mut Pass<'_, 't>, x: Var<'t>) -> Var<'t> {
        let y = self.body.apply(pass, x);
        match &self.skip {
            Some(skip) => y + skip.apply(pass, x),
            None => y + x,
        }
    }
}
