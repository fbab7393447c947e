//! A table of vectors.

use metaforge_autodiff::{Shape, Var};

use crate::init::Init;
use crate::layer::{Builder, Layer, Layout, Pass};

/// Rows of a table, by number: indices `[..]` (`u32`) to `[.., width]`. Parameter: `weight [rows, width]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Embedding {
    /// Number of rows; an index of this or more panics when it runs.
    pub rows: usize,
    /// Numbers in a row.
    pub width: usize,
    /// Where the table starts.
    pub init: Init,
}

impl Embedding {
    /// A table that starts with standard normal numbers, as PyTorch's.
    pub fn new(rows: usize, width: usize) -> Embedding {
        Embedding { rows, width, init: Init::Normal { std: 1.0 } }
    }
}

impl Layer for Embedding {
    fn build(&self, b: &mut Builder, input: Shape) -> Shape {
        b.param("weight", [self.rows, self.width], self.init, Layout::Plain);
        Shape::from([&input[..], &[self.width]].concat())
    }

    fn apply<'t>(&self, pass: &mut Pass<'_, 't>, x: Var<'t>) -> Var<'t> {
        pass.param().gather(x)
    }
}
