//! SIMD kernels over slices: elementwise, reductions, matrix products, convolutions.

pub mod arena;
mod broadcast;
mod conv;
mod elementwise;
mod fold;
pub mod fused;
mod gather;
mod instances;
pub mod layout;
pub mod math;
mod matmul;
mod microkernel;
mod moves;
mod norm;
mod panels;
pub mod par;
mod pool;
mod prefetch;
mod random;
pub mod real;
mod reduce;
mod scratch;
pub mod simd;
mod softmax;
mod term;
mod transpose;

pub use arena::{Arena, Buffer, LINE, Rest, Span};
pub use conv::{ConvDims, OnDemand};
pub use elementwise::{Binary, Unary};
pub use gather::gather;
pub use instances::*;
pub use matmul::MatMulDims;
pub use moves::copy_strided;
pub use par::{Par, attended};
pub use pool::Window;
pub use real::Real;
