//! Tensors, a closed set of primitives, gradients to any order, and compiled programs.
#![forbid(unsafe_code)]
