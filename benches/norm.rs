//! Batch norm by itself, over the first maps of a Conv4: what its derivatives cost beside its forward pass.

use metaforge_autodiff::{Key, Var, grad};
use metaforge_nn::{BatchNorm, Mode, Model, Sequential};

use crate::workloads::{Repeated, applied};

/// The maps `[N, H, W, C]`.
const MAPS: [usize; 4] = [80, 28, 28, 64];

/// The normalised, scaled and shifted maps.
pub fn forward() -> Repeated {
    repeated(|y, _, _| vec![y])
}

/// Forward, and the gradient with respect to the maps and the scale.
pub fn backward() -> Repeated {
    repeated(|y, of, [c, _]| grad((y * c).sum(), &of))
}

/// Forward, backward, and the gradient of the backward pass with respect to the maps, the scale and the cotangent.
pub fn double_backward() -> Repeated {
    repeated(|y, of, [c, d]| {
        let first = grad((y * c).sum(), &[of[0]])[0];
        grad((first * d).sum(), &[of[0], of[1], c])
    })
}

/// `f` of the maps after batch norm, of the maps and the scale, and of two cotangents.
fn repeated<F>(f: F) -> Repeated
where
    F: for<'t> FnOnce(Var<'t>, [Var<'t>; 2], [Var<'t>; 2]) -> Vec<Var<'t>>,
{
    let model = Model::new(Sequential::new().then(BatchNorm::new()), MAPS);
    let maps = [1, 2, 3].map(|seed| Key::new(seed).normal(MAPS, 0.0, 1.0));
    applied(&model, Mode::Train, maps.to_vec(), |y, weights, maps| {
        let mut results = f(y, [maps[0], weights[0]], [maps[1], maps[2]]);
        results.push(results[0].sum());
        results
    })
}
