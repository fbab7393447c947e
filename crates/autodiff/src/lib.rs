//! Tensors, a closed set of primitives, gradients to any order, and compiled programs.
#![forbid(unsafe_code)]

mod aval;
mod convert;
mod random;
mod tensor;
mod view;

pub use aval::{Aval, DType, MAX_RANK, Shape};
pub use random::Key;
pub use tensor::Tensor;
pub use view::{Slice, SliceMut, View};
