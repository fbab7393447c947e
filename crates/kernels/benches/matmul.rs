//! Products.
fn main() {}
