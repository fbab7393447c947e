//! RMSprop (Hinton 2012), in PyTorch's form: eps outside the root, optionally centred and with momentum.

use metaforge_autodiff::{Aval, Var};
use serde::{Deserialize, Serialize};

use super::{Optimizer, check, decayed, push_zeros};
use crate::numeric::safe_sqrt;
use crate::params::Params;

/// RMSprop. Its state is `square.0`, ..., then `mean.0`, ... if centred, then `momentum.0`, ... with momentum.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RmsProp {
    /// Decay of the mean square, in [0, 1).
    pub alpha: f64,
    /// Added to the root.
    pub eps: f64,
    /// Share of the last step's direction that is kept, in [0, 1).
    pub momentum: f64,
    /// Divide by the deviation rather than by the root of the mean square (Graves 2013).
    pub centered: bool,
    /// Times the parameter is added to its gradient.
    pub weight_decay: f64,
}

impl Default for RmsProp {
    fn default() -> RmsProp {
        RmsProp { alpha: 0.99, eps: 1e-8, momentum: 0.0, centered: false, weight_decay: 0.0 }
    }
}

impl Optimizer for RmsProp {
    fn init(&self, params: &[Aval]) -> Params {
        let mut state = Params::new();
        push_zeros(&mut state, "square", params);
        if self.centered {
            push_zeros(&mut state, "mean", params);
        }
        if self.momentum != 0.0 {
            push_zeros(&mut state, "momentum", params);
        }
        state
    }

    /// Where the root is under 1e-12 it counts as a constant, so that all derivatives are finite at a zero gradient.
    fn update<'t>(
        &self,
        params: &[Var<'t>],
        grads: &[Var<'t>],
        state: &[Var<'t>],
        lr: Var<'t>,
    ) -> (Vec<Var<'t>>, Vec<Var<'t>>) {
        let n = params.len();
        let (mean_len, momentum_len) = (if self.centered { n } else { 0 }, if self.momentum != 0.0 { n } else { 0 });
        check(params, grads, state, n + mean_len + momentum_len);
        let (squares, rest) = state.split_at(n);
        let (means, momenta) = rest.split_at(mean_len);
        let (mut new_squares, mut new_means, mut new_momenta) = (Vec::new(), Vec::new(), Vec::new());
        let mut moved = Vec::with_capacity(n);
        for (i, (&p, &g)) in params.iter().zip(grads).enumerate() {
            let g = decayed(g, p, self.weight_decay);
            let square = squares[i] * self.alpha + g.square() * (1.0 - self.alpha);
            new_squares.push(square);
            let mut spread = square;
            if let Some(&mean) = means.get(i) {
                let mean = mean + (g - mean) * (1.0 - self.alpha);
                new_means.push(mean);
                // Never negative but for rounding.
                spread = (square - mean.square()).relu();
            }
            let mut direction = g / (safe_sqrt(spread) + self.eps);
            if let Some(&momentum) = momenta.get(i) {
                direction = momentum * self.momentum + direction;
                new_momenta.push(direction);
            }
            moved.push(p - direction * lr);
        }
        (moved, [new_squares, new_means, new_momenta].concat())
    }
}
