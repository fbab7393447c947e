//! A program of instructions that do nothing: what one costs beside its kernel.

use std::sync::Arc;

use metaforge_autodiff::{Aval, Custom, CustomPrim, Key, Prim, SliceMut, Var, View};

use crate::workloads::Repeated;

/// A primitive of two operands whose kernel does not write its result.
#[derive(Debug)]
struct Nothing;

impl Custom for Nothing {
    fn name(&self) -> &str {
        "nothing"
    }

    fn shape(&self, inputs: &[Aval]) -> Result<Aval, String> {
        inputs.first().copied().ok_or_else(|| "two operands".into())
    }

    fn eval(&self, _: &[View<'_>], _: SliceMut<'_>) {}

    fn vjp<'t>(&self, _: &[Var<'t>], _: Var<'t>, _: Var<'t>) -> Vec<Option<Var<'t>>> {
        vec![None, None]
    }
}

/// `count` of them, each of what the one before left and of an input.
pub fn nothings(count: usize) -> Repeated {
    let prim = Prim::Custom(CustomPrim(Arc::new(Nothing)));
    Repeated::new(
        &[],
        vec![Key::new(0).normal([4], 0.0, 1.0)],
        |_| Vec::new(),
        |parts| {
            let x = parts[0][0];
            vec![(0..count).fold(x, |y, _| Var::record(prim.clone(), &[y, x]))]
        },
    )
}
