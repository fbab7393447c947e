//! Counts as tensors, for states that hold nothing else.

use metaforge_autodiff::{DType, Tensor};
use metaforge_nn::Params;

/// A count as a tensor `f64[]`, which holds it exactly.
pub fn count(value: u64) -> Params {
    let mut params = Params::new();
    params.push("step", Tensor::full([], value as f64, DType::F64));
    params
}
