//! Sums, means, and what is taken along the last axis.

use crate::aval::Shape;
use crate::prim::Prim;
use crate::tape::Var;

impl<'t> Var<'t> {
    /// Sum of all elements, of shape `[]`.
    pub fn sum(self) -> Var<'t> {
        self.sum_to([])
    }

    /// Mean of all elements, of shape `[]`.
    pub fn mean(self) -> Var<'t> {
        self.sum().affine(1.0 / self.shape().elements().max(1) as f64, 0.0)
    }

    /// Sum over some axes; with `keep` they stay, with size 1.
    #[track_caller]
    pub fn sum_axes(self, axes: &[usize], keep: bool) -> Var<'t> {
        let shape = self.shape();
        let mut kept = shape;
        for &axis in axes {
            kept = kept.with(axis, 1);
        }
        let sum = self.sum_to(kept);
        if keep {
            return sum;
        }
        let left: Vec<usize> = (0..shape.len()).filter(|i| !axes.contains(i)).map(|i| shape[i]).collect();
        sum.reshape(left)
    }

    /// Mean over some axes; with `keep` they stay, with size 1.
    #[track_caller]
    pub fn mean_axes(self, axes: &[usize], keep: bool) -> Var<'t> {
        let shape = self.shape();
        let count: usize = axes.iter().map(|&axis| shape[axis]).product();
        self.sum_axes(axes, keep).affine(1.0 / count.max(1) as f64, 0.0)
    }

    /// Index of the first maximum along the last axis, `u32`; no gradient.
    #[track_caller]
    pub fn argmax(self) -> Var<'t> {
        Var::record(Prim::Argmax, &[self])
    }

    /// `x - log(sum(exp(x)))` along the last axis.
    #[track_caller]
    pub fn log_softmax(self) -> Var<'t> {
        Var::record(Prim::LogSoftmax, &[self])
    }

    /// `exp(x) / sum(exp(x))` along the last axis.
    #[track_caller]
    pub fn softmax(self) -> Var<'t> {
        self.log_softmax().exp()
    }

    /// `(x - mean) / sqrt(var + eps)` with mean and biased variance over the middle one of three groups of axes: the first
    /// `outer` axes keep their own statistics, so do the last `inner` ones. Batch norm of `[N, H, W, C]` is `(0, 1)`, instance
    /// norm `(1, 1)`, layer norm over the last axis `(3, 0)`.
    #[track_caller]
    pub fn normalize(self, outer: usize, inner: usize, eps: f64) -> Var<'t> {
        let shape = self.shape();
        self.reshape(grouped(&shape, outer, inner)).record_normalize(eps).reshape(shape)
    }

    fn record_normalize(self, eps: f64) -> Var<'t> {
        Var::record(Prim::Normalize { eps }, &[self])
    }
}

#[track_caller]
fn grouped(shape: &Shape, outer: usize, inner: usize) -> Shape {
    assert!(outer + inner <= shape.len(), "{outer} outer and {inner} inner axes of {shape}");
    let product = |axes: &[usize]| axes.iter().product::<usize>();
    let last = shape.len() - inner;
    [product(&shape[..outer]), product(&shape[outer..last]), product(&shape[last..])].into()
}
