//! Whole-workload benchmarks.
