//! Gradient descent, with momentum (Polyak 1964) in PyTorch's form, `b = momentum * b + g; p -= lr * b`, or Nesterov's.

use metaforge_autodiff::{Aval, Var};
use serde::{Deserialize, Serialize};

use super::{Optimizer, check, decayed, push_zeros};
use crate::params::Params;

/// Gradient descent. Its state is one buffer a parameter, `momentum.0`, ..., or none without momentum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sgd {
    /// Share of the last step's direction that is kept, in [0, 1).
    pub momentum: f64,
    /// Look ahead along the momentum.
    pub nesterov: bool,
    /// Times the parameter is added to its gradient.
    pub weight_decay: f64,
}

impl Sgd {
    /// Plain gradient descent.
    pub fn new() -> Sgd {
        Sgd::default()
    }

    /// Gradient descent with momentum.
    pub fn momentum(momentum: f64) -> Sgd {
        Sgd { momentum, ..Sgd::default() }
    }

    /// Gradient descent with Nesterov's momentum.
    pub fn nesterov(momentum: f64) -> Sgd {
        Sgd { momentum, nesterov: true, ..Sgd::default() }
    }
}

impl Optimizer for Sgd {
    fn init(&self, params: &[Aval]) -> Params {
        let mut state = Params::new();
        if self.momentum != 0.0 {
            push_zeros(&mut state, "momentum", params);
        }
        state
    }

    fn update<'t>(
        &self,
        params: &[Var<'t>],
        grads: &[Var<'t>],
        state: &[Var<'t>],
        lr: Var<'t>,
    ) -> (Vec<Var<'t>>, Vec<Var<'t>>) {
        check(params, grads, state, if self.momentum != 0.0 { params.len() } else { 0 });
        let mut buffers = Vec::with_capacity(state.len());
        let mut moved = Vec::with_capacity(params.len());
        for (i, (&p, &g)) in params.iter().zip(grads).enumerate() {
            let g = decayed(g, p, self.weight_decay);
            let mut direction = g;
            if let Some(&buffer) = state.get(i) {
                let buffer = buffer * self.momentum + g;
                buffers.push(buffer);
                direction = if self.nesterov { g + buffer * self.momentum } else { buffer };
            }
            moved.push(p - direction * lr);
        }
        (moved, buffers)
    }
}
