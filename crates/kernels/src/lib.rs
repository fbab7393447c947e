//! SIMD kernels over slices: elementwise, reductions, matrix products, convolutions.
