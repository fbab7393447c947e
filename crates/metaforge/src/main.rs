//! The `metaforge` program.
fn main() {}
