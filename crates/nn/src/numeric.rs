//! Small pieces that several modules share: a square root whose derivatives stay finite, and keys within a tape.

use metaforge_autodiff::{Aval, DType, Prim, Var};

/// Below this, the square root counts as a constant: it is under 1e-12 there, and its derivatives would grow without bound.
const FLAT: f64 = 1e-24;

/// `sqrt(x)` of numbers that are not negative. The numbers are those of the square root everywhere; the derivatives of every
/// order are its own above 1e-24 and zero below, so that they are finite at zero.
pub(crate) fn safe_sqrt(x: Var<'_>) -> Var<'_> {
    let flat = x.tape().scalar(FLAT, x.dtype());
    // Above, both are the same number and the gradient goes to the first; below, the second is the smaller, and has none.
    // Neither becomes infinite on the way back, where infinity times zero would be no number.
    x.maximum(flat).sqrt().minimum(x.stop_gradient().sqrt())
}

/// Key number `index` derived from a key `u32[2]`: two of its random numbers of 24 bits each.
pub(crate) fn subkey(key: Var<'_>, index: usize) -> Var<'_> {
    let numbers = Var::record(Prim::Uniform(Aval::new([2 * (index + 1)], DType::F32)), &[key]);
    (numbers.slice(0, 2 * index, 2) * f64::from(1 << 24)).cast(DType::U32)
}
