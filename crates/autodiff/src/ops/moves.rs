//! Moving numbers about: shapes, axes, pieces.

use crate::aval::Shape;
use crate::prim::Prim;
use crate::tape::Var;

impl<'t> Var<'t> {
    /// The same numbers in another shape.
    #[track_caller]
    pub fn reshape(self, shape: impl Into<Shape>) -> Var<'t> {
        let shape = shape.into();
        if shape == self.shape() { self } else { Var::record(Prim::Reshape(shape), &[self]) }
    }

    /// Axis `i` of the output is axis `axes[i]` of the input.
    #[track_caller]
    pub fn permute(self, axes: &[usize]) -> Var<'t> {
        Var::record(Prim::Permute(axes.into()), &[self])
    }

    /// The last two axes exchanged.
    #[track_caller]
    pub fn transpose(self) -> Var<'t> {
        let rank = self.shape().len();
        assert!(rank >= 2, "transpose of {}", self.aval());
        let mut axes: Vec<usize> = (0..rank).collect();
        axes.swap(rank - 2, rank - 1);
        self.permute(&axes)
    }

    /// Stretched by numpy's rule: aligned at the last axis, sizes of 1 repeat.
    #[track_caller]
    pub fn broadcast_to(self, shape: impl Into<Shape>) -> Var<'t> {
        let shape = shape.into();
        if shape == self.shape() { self } else { Var::record(Prim::Broadcast(shape), &[self]) }
    }

    /// Summed over the axes along which `shape` would stretch to this value's.
    #[track_caller]
    pub fn sum_to(self, shape: impl Into<Shape>) -> Var<'t> {
        let shape = shape.into();
        if shape == self.shape() { self } else { Var::record(Prim::SumTo(shape), &[self]) }
    }

    /// `len` entries from `start` on along `axis`.
    #[track_caller]
    pub fn slice(self, axis: usize, start: usize, len: usize) -> Var<'t> {
        if start == 0 && self.shape().get(axis) == Some(&len) {
            return self;
        }
        Var::record(Prim::Slice { axis, start, len }, &[self])
    }

    /// Zeros before and after along `axis`.
    #[track_caller]
    pub fn pad(self, axis: usize, before: usize, after: usize) -> Var<'t> {
        if before == 0 && after == 0 { self } else { Var::record(Prim::Pad { axis, before, after }, &[self]) }
    }

    /// Reversed along `axis`.
    #[track_caller]
    pub fn flip(self, axis: usize) -> Var<'t> {
        Var::record(Prim::Flip { axis }, &[self])
    }
}

/// The values one behind the other along `axis`.
///
/// # Panics
/// Without values, or if they differ beside `axis`.
#[track_caller]
pub fn concat<'t>(values: &[Var<'t>], axis: usize) -> Var<'t> {
    match values {
        [one] => *one,
        _ => Var::record(Prim::Concat { axis }, values),
    }
}

/// The values side by side along a new axis `axis`.
///
/// # Panics
/// Without values, or if their shapes differ.
#[track_caller]
pub fn stack<'t>(values: &[Var<'t>], axis: usize) -> Var<'t> {
    let thin: Vec<Var<'t>> = values
        .iter()
        .map(|v| {
            let mut shape = v.shape().to_vec();
            shape.insert(axis, 1);
            v.reshape(shape)
        })
        .collect();
    concat(&thin, axis)
}
