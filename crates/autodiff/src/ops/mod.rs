//! What one writes on values: each method records primitives.

mod arithmetic;
mod image;
mod index;
mod linear;
mod moves;
mod reduce;

pub use moves::{concat, stack};
