//! SIMD kernels over slices: elementwise, reductions, matrix products, convolutions.

pub mod arena;
pub mod math;
pub mod par;
pub mod real;
pub mod simd;

pub use par::Par;
pub use real::Real;
