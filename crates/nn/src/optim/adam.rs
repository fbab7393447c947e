//! Adam (Kingma and Ba 2015, optionally with the AMSGrad of Reddi et al. 2018) and AdamW (Loshchilov and Hutter 2019).

use metaforge_autodiff::{Aval, DType, Tensor, Var};
use serde::{Deserialize, Serialize};

use super::{Optimizer, check, decayed, push_zeros};
use crate::numeric::safe_sqrt;
use crate::params::Params;

/// Adam. Its state is `m.0`, ..., then `v.0`, ..., then `vmax.0`, ... with AMSGrad, then the number of steps, `t` (`f64[]`).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Adam {
    /// Decay of the mean of gradients, in [0, 1).
    pub beta1: f64,
    /// Decay of the mean of their squares, in [0, 1).
    pub beta2: f64,
    /// Added to the root.
    pub eps: f64,
    /// Times the parameter is added to its gradient (not decoupled; see [`AdamW`]).
    pub weight_decay: f64,
    /// Divide by the largest mean square so far.
    pub amsgrad: bool,
}

impl Default for Adam {
    fn default() -> Adam {
        Adam { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0, amsgrad: false }
    }
}

impl Adam {
    /// Adam with these decays; what GANs take: `Adam::betas(0.5, 0.999)`.
    pub fn betas(beta1: f64, beta2: f64) -> Adam {
        Adam { beta1, beta2, ..Adam::default() }
    }
}

impl Optimizer for Adam {
    fn init(&self, params: &[Aval]) -> Params {
        let mut state = Params::new();
        push_zeros(&mut state, "m", params);
        push_zeros(&mut state, "v", params);
        if self.amsgrad {
            push_zeros(&mut state, "vmax", params);
        }
        state.push("t", Tensor::zeros([], DType::F64));
        state
    }

    /// The numbers are PyTorch's. Where the root of `v` is under 1e-12 it counts as a constant (it stands beside `eps`), so that all
    /// derivatives are finite at a zero gradient.
    fn update<'t>(
        &self,
        params: &[Var<'t>],
        grads: &[Var<'t>],
        state: &[Var<'t>],
        lr: Var<'t>,
    ) -> (Vec<Var<'t>>, Vec<Var<'t>>) {
        let n = params.len();
        let vmax_len = if self.amsgrad { n } else { 0 };
        check(params, grads, state, 2 * n + vmax_len + 1);
        let (ms, rest) = state.split_at(n);
        let (vs, rest) = rest.split_at(n);
        let (vmaxs, t) = rest.split_at(vmax_len);
        let t = t[0] + 1.0;
        // The corrections in f64: in f32, 1 - 0.999^t loses five of seven digits at first.
        let correction = |beta: f64| 1.0 - (t * beta.ln()).exp();
        let step = lr / correction(self.beta1).cast(lr.dtype());
        let root_correction = correction(self.beta2).sqrt().cast(lr.dtype());
        let (mut new_ms, mut new_vs, mut new_vmaxs) = (Vec::new(), Vec::new(), Vec::new());
        let mut moved = Vec::with_capacity(n);
        for (i, (&p, &g)) in params.iter().zip(grads).enumerate() {
            let g = decayed(g, p, self.weight_decay);
            let m = ms[i] + (g - ms[i]) * (1.0 - self.beta1);
            let v = vs[i] * self.beta2 + g.square() * (1.0 - self.beta2);
            let mut largest = v;
            if let Some(&vmax) = vmaxs.get(i) {
                largest = vmax.maximum(v);
                new_vmaxs.push(largest);
            }
            let root = safe_sqrt(largest) / root_correction + self.eps;
            moved.push(p - m / root * step);
            new_ms.push(m);
            new_vs.push(v);
        }
        (moved, [new_ms, new_vs, new_vmaxs, vec![t]].concat())
    }
}

/// Adam with decoupled weight decay: the parameter shrinks by `lr * weight_decay` of itself, whatever its gradient. State as
/// [`Adam`]'s.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AdamW {
    /// Decay of the mean of gradients, in [0, 1).
    pub beta1: f64,
    /// Decay of the mean of their squares, in [0, 1).
    pub beta2: f64,
    /// Added to the root.
    pub eps: f64,
    /// Times `lr` the share of the parameter that is taken away.
    pub weight_decay: f64,
}

impl Default for AdamW {
    fn default() -> AdamW {
        AdamW { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01 }
    }
}

impl AdamW {
    fn adam(&self) -> Adam {
        Adam { beta1: self.beta1, beta2: self.beta2, eps: self.eps, weight_decay: 0.0, amsgrad: false }
    }
}

impl Optimizer for AdamW {
    fn init(&self, params: &[Aval]) -> Params {
        self.adam().init(params)
    }

    /// Derivatives as in [`Adam`].
    fn update<'t>(
        &self,
        params: &[Var<'t>],
        grads: &[Var<'t>],
        state: &[Var<'t>],
        lr: Var<'t>,
    ) -> (Vec<Var<'t>>, Vec<Var<'t>>) {
        let kept = 1.0 - lr * self.weight_decay;
        let shrunk: Vec<Var<'t>> = params.iter().map(|&p| p * kept).collect();
        self.adam().update(&shrunk, grads, state, lr)
    }
}
