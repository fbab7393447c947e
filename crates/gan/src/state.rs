//! Named parts of a trainer's state, out of and back into one list.

use metaforge_autodiff::{DType, Tensor};
use metaforge_nn::Params;

use crate::Error;

/// The part of `saved` under `prefix`, in the order of `like`.
///
/// # Errors
/// If a tensor is missing, or has another shape or type than in `like`.
pub fn take(saved: &Params, prefix: &str, like: &Params) -> Result<Params, Error> {
    let find = |(name, own): (&str, &Tensor)| {
        let full = format!("{prefix}.{name}");
        let found = saved.get(&full).ok_or_else(|| Error::Checkpoint(format!("there is no `{full}`")))?;
        if found.aval() != own.aval() {
            return Err(Error::Checkpoint(format!("`{full}` is {}, the model's is {}", found.aval(), own.aval())));
        }
        Ok(found.clone())
    };
    Ok(like.with_tensors(like.iter().map(find).collect::<Result<_, _>>()?))
}

/// A count as a tensor `f64[]`, which holds it exactly.
pub fn count(value: u64) -> Params {
    let mut params = Params::new();
    params.push("step", Tensor::full([], value as f64, DType::F64));
    params
}
