//! Whole-workload benchmarks.
#![forbid(unsafe_code)]
