//! Picking rows by index, and its adjoint.

use crate::aval::Shape;
use crate::prim::Prim;
use crate::tape::Var;

impl<'t> Var<'t> {
    /// Rows of `[R, ..rest]` that `indices [..i]` (u32) name: `[..i, ..rest]`. An index of `R` or more panics when it runs.
    #[track_caller]
    pub fn gather(self, indices: Var<'t>) -> Var<'t> {
        let (x, i) = (self.shape(), indices.shape());
        assert!(!x.is_empty(), "gather from {}", self.aval());
        let width = x[1..].iter().product();
        let picked = Var::record(Prim::Gather, &[self.reshape([1, x[0], width]), indices.reshape([1, i.elements()])]);
        picked.reshape(joined(&i, &x[1..]))
    }

    /// Rows `[..i, ..rest]` added into zeros `[rows, ..rest]` at `indices [..i]`: the adjoint of [`Var::gather`].
    #[track_caller]
    pub fn scatter_add(self, indices: Var<'t>, rows: usize) -> Var<'t> {
        let (g, i) = (self.shape(), indices.shape());
        assert!(g.starts_with(&i), "scatter_add of {} at {}", self.aval(), indices.aval());
        let rest = &g[i.len()..];
        let width = rest.iter().product();
        let flat = self.reshape([1, i.elements(), width]);
        let sum = Var::record(Prim::ScatterAdd { rows }, &[flat, indices.reshape([1, i.elements()])]);
        sum.reshape(joined(&[rows].into(), rest))
    }

    /// The element of the last axis of `[.., C]` that `indices [..]` (u32) names: `[..]`.
    #[track_caller]
    pub fn take_last(self, indices: Var<'t>) -> Var<'t> {
        let (x, i) = (self.shape(), indices.shape());
        assert!(x.len() == i.len() + 1 && x.starts_with(&i), "take_last of {} at {}", self.aval(), indices.aval());
        let rows = i.elements();
        let picked = Var::record(Prim::Gather, &[self.reshape([rows, x[i.len()], 1]), indices.reshape([rows, 1])]);
        picked.reshape(i)
    }
}

fn joined(a: &Shape, b: &[usize]) -> Shape {
    Shape::from([&**a, b].concat())
}
