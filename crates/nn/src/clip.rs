//! Clipping of gradients, differentiable like everything else.

use metaforge_autodiff::Var;

use crate::numeric::safe_sqrt;

/// Euclidean norm of all numbers of all values together, of shape `[]`.
///
/// # Panics
/// Without values.
#[track_caller]
pub fn global_norm<'t>(values: &[Var<'t>]) -> Var<'t> {
    let squares = values.iter().map(|v| v.square().sum()).reduce(|a, b| a + b);
    safe_sqrt(squares.expect("the norm of at least one value"))
}

/// All gradients scaled by the same factor so that their global norm is at most `max`, as PyTorch's `clip_grad_norm_` does:
/// by `max / (norm + 1e-6)` where that is less than 1.
pub fn clip_by_global_norm<'t>(gradients: &[Var<'t>], max: f64) -> Vec<Var<'t>> {
    if gradients.is_empty() {
        return Vec::new();
    }
    let norm = global_norm(gradients);
    let factor = (max / (norm + 1e-6)).minimum(norm.tape().scalar(1.0, norm.dtype()));
    gradients.iter().map(|&g| g * factor).collect()
}

/// Every number of every gradient limited to `[-max, max]`.
pub fn clip_by_value<'t>(gradients: &[Var<'t>], max: f64) -> Vec<Var<'t>> {
    let limit = |g: Var<'t>, to: f64| g.tape().scalar(to, g.dtype());
    gradients.iter().map(|&g| g.minimum(limit(g, max)).maximum(limit(g, -max))).collect()
}
