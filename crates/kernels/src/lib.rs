//! SIMD kernels over slices: elementwise, reductions, matrix products, convolutions.

mod arena;

pub use arena::{Arena, Buffer, LINE, Rest, Span};
