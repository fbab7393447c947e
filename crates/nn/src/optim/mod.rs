//! Optimisers: pure functions of parameters, gradients and state, so that one can be differentiated through.

mod adam;
mod rmsprop;
mod sgd;

pub use adam::{Adam, AdamW};
pub use rmsprop::RmsProp;
pub use sgd::Sgd;

use metaforge_autodiff::{Aval, Tensor, Var};

use crate::params::Params;

/// A rule that moves parameters against their gradients. Descends; negate the gradients to ascend.
pub trait Optimizer: Send + Sync {
    /// The state before the first step, for parameters of these shapes and types. Its names say what it is: `m.0` belongs to
    /// parameter 0.
    fn init(&self, params: &[Aval]) -> Params;

    /// Parameters and state after one step with the rate `lr` (of shape `[]` and the parameters' type). Differentiable in all
    /// four arguments.
    ///
    /// # Panics
    /// If the numbers or shapes of the arguments do not fit.
    fn update<'t>(
        &self,
        params: &[Var<'t>],
        grads: &[Var<'t>],
        state: &[Var<'t>],
        lr: Var<'t>,
    ) -> (Vec<Var<'t>>, Vec<Var<'t>>);
}

impl<O: Optimizer + ?Sized> Optimizer for Box<O> {
    fn init(&self, params: &[Aval]) -> Params {
        (**self).init(params)
    }

    fn update<'t>(
        &self,
        params: &[Var<'t>],
        grads: &[Var<'t>],
        state: &[Var<'t>],
        lr: Var<'t>,
    ) -> (Vec<Var<'t>>, Vec<Var<'t>>) {
        (**self).update(params, grads, state, lr)
    }
}

/// Adds a tensor of zeros for each parameter, named `name.0`, `name.1` and so on.
fn push_zeros(state: &mut Params, name: &str, params: &[Aval]) {
    for (i, aval) in params.iter().enumerate() {
        state.push(format!("{name}.{i}"), Tensor::zeros(aval.shape, aval.dtype));
    }
}

/// Checks that there is a gradient for each parameter and as much state as declared.
#[track_caller]
fn check(params: &[Var<'_>], grads: &[Var<'_>], state: &[Var<'_>], expected: usize) {
    assert_eq!(params.len(), grads.len(), "a gradient for each parameter");
    for (i, (p, g)) in params.iter().zip(grads).enumerate() {
        assert!(p.aval() == g.aval(), "parameter {i} is {}, its gradient {}", p.aval(), g.aval());
    }
    assert_eq!(state.len(), expected, "pieces of state of the optimiser");
}

/// The gradient with the penalty `decay / 2 * |param|^2` in it.
fn decayed<'t>(grad: Var<'t>, param: Var<'t>, decay: f64) -> Var<'t> {
    if decay == 0.0 { grad } else { grad + param * decay }
}
