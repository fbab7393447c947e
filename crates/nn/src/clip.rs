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

#[cfg(test)]
mod tests {
    use super::*;
    use metaforge_autodiff::{Tape, Tensor, grad};

    #[test]
    fn the_global_norm_shrinks_and_never_grows() {
        let tape = Tape::eager();
        let g = [tape.var(&Tensor::new([1], vec![3.0])), tape.var(&Tensor::new([2], vec![0.0, 4.0]))];
        assert_eq!(global_norm(&g).value().item(), 5.0);
        let clipped = clip_by_global_norm(&g, 1.0);
        for (ours, exact) in clipped[1].value().f32s().iter().zip([0.0, 0.8]) {
            assert!((ours - exact).abs() < 1e-6);
        }
        assert_eq!(clip_by_global_norm(&g, 10.0)[1].value(), g[1].value());
        assert_eq!(clip_by_value(&g, 3.5)[1].value().f32s(), &[0.0, 3.5]);
        assert_eq!(clip_by_value(&[-g[0]], 0.5)[0].value().f32s(), &[-0.5]);
    }

    #[test]
    fn zero_gradients_can_be_clipped_and_differentiated() {
        let tape = Tape::eager();
        let g = tape.var(&Tensor::new([2], vec![0.0; 2]));
        let clipped = clip_by_global_norm(&[g], 1.0)[0];
        assert_eq!(clipped.value().f32s(), &[0.0; 2]);
        assert_eq!(grad(clipped.sum(), &[g])[0].value().f32s(), &[1.0; 2]);
    }
}
