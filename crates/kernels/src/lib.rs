//! SIMD kernels over slices: elementwise, reductions, matrix products, convolutions.

pub mod arena;
pub mod conv;
pub mod elementwise;
mod fold;
pub mod gather;
pub mod layout;
pub mod math;
pub mod matmul;
mod microkernel;
pub mod moves;
pub mod norm;
pub mod par;
pub mod pool;
pub mod random;
pub mod real;
pub mod reduce;
mod scratch;
pub mod simd;
pub mod softmax;
mod transpose;

pub use arena::{Arena, Buffer, LINE, Rest, Span};
pub use conv::{ConvDims, conv, conv_input_grad, conv_weight_grad};
pub use elementwise::{Binary, Unary, binary, select, unary, unary_assign};
pub use gather::{gather, scatter_add};
pub use matmul::{MatMulDims, matmul};
pub use moves::copy_strided;
pub use norm::{normalize, normalize_grad, rstd};
pub use par::Par;
pub use pool::{Window, max_pool_indices, sum_pool, sum_unpool};
pub use random::uniform;
pub use real::Real;
pub use reduce::{argmax_rows, sum_axes};
pub use softmax::log_softmax_rows;
