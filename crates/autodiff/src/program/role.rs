//! Which equations can be steps of a fused pass, over what domain, and how they read their operands.

use metaforge_kernels::fused::{MAX_PERIOD, MAX_ROWS, Pooling, StepOp};
use smallvec::{SmallVec, smallvec};

use super::graph::{Eqn, Graph, Op, Origin, Use};
use crate::aval::{Aval, Shape};
use crate::prim::{Prim, Unary, Window};

/// What an equation can be in a fused pass.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Role {
    /// Element by element over `n` elements; some operands have one number a column, of which there are `period`.
    Map { n: usize, period: Option<usize> },
    /// Between `full` pixels and the windows of them.
    Pool { pooling: Pooling, full: usize },
    /// The sum over all rows of `n` elements.
    Sum { n: usize, period: usize },
}

/// The role of an equation, if it has one.
pub(super) fn role(graph: &Graph, eqn: &Eqn) -> Option<Role> {
    let out = graph.values[eqn.outs[0]].0;
    let n = out.shape.elements();
    if n == 0 || eqn.ins.iter().any(|x| x.aval.shape.elements() == 0) {
        return None;
    }
    match &eqn.op {
        Op::Prim(Prim::Unary(_) | Prim::Binary(_) | Prim::Select) | Op::Step(_) => {
            let mut period = None;
            let mut dense = false;
            for x in &eqn.ins {
                match columns(&x.aval.shape, &out.shape)? {
                    Columns::All => dense = true,
                    Columns::One => {}
                    // Long rows would make long tiles; what is no primitive has to be a step all the same.
                    Columns::Each(c) if c > MAX_PERIOD && !matches!(eqn.op, Op::Step(_)) => return None,
                    Columns::Each(c) if period.is_none_or(|p| p == c) => period = Some(c),
                    Columns::Each(_) => return None,
                }
            }
            (dense && out.dtype.is_float()).then_some(Role::Map { n, period })
        }
        Op::Prim(Prim::SumTo(to)) => {
            let x = eqn.ins[0].aval;
            match columns(to, &x.shape)? {
                Columns::Each(period) if period <= MAX_PERIOD && x.dtype.is_float() => {
                    Some(Role::Sum { n: x.shape.elements(), period })
                }
                _ => None,
            }
        }
        Op::Prim(Prim::MaxPoolIndices(window)) => {
            let x = eqn.ins[0].aval;
            x.dtype.is_float().then_some(())?;
            Some(Role::Pool { pooling: tiles(window, &x.shape)?, full: x.shape.elements() })
        }
        Op::Prim(Prim::Gather | Prim::ScatterAdd { .. }) => {
            // Indices that come from pooling, of an image as large as what is picked from or placed into.
            let Origin::Eqn(indices) = graph.values[eqn.ins[1].val].1 else { return None };
            let pool = &graph.eqns[indices];
            let Op::Prim(Prim::MaxPoolIndices(window)) = &pool.op else { return None };
            let image = pool.ins[0].aval;
            let (pixels, windows) = match eqn.op {
                Op::Prim(Prim::Gather) => (eqn.ins[0].aval, out),
                _ => (out, eqn.ins[0].aval),
            };
            let per_image = image.shape.elements() / image.shape[0];
            let fits = pixels.shape[..] == [image.shape[0], per_image, 1]
                && windows.shape.elements() == eqn.ins[1].aval.shape.elements();
            (fits && out.dtype.is_float()).then_some(())?;
            Some(Role::Pool { pooling: tiles(window, &image.shape)?, full: image.shape.elements() })
        }
        _ => None,
    }
}

/// How a step names the equation.
pub(super) fn step_op(op: &Op) -> Option<StepOp> {
    Some(match op {
        Op::Prim(Prim::Unary(op)) => StepOp::Unary(*op),
        Op::Prim(Prim::Binary(op)) => StepOp::Binary(*op),
        Op::Prim(Prim::Select) => StepOp::Select,
        Op::Prim(Prim::MaxPoolIndices(_)) => StepOp::PoolIndices,
        Op::Prim(Prim::Gather) => StepOp::PoolGather,
        Op::Prim(Prim::ScatterAdd { .. }) => StepOp::PoolScatter,
        Op::Step(op) => *op,
        _ => return None,
    })
}

/// Whether computing it twice costs more than reading it from memory.
pub(super) fn is_costly(op: &Op) -> bool {
    match op {
        Op::Prim(Prim::Unary(op)) => !matches!(
            op,
            Unary::Neg
                | Unary::Abs
                | Unary::Sign
                | Unary::Step
                | Unary::Relu
                | Unary::LeakyRelu(_)
                | Unary::Affine { .. }
                | Unary::Recip
        ),
        Op::Prim(Prim::MaxPoolIndices(_)) => true,
        _ => false,
    }
}

/// Whether operand `i` is read element by element; otherwise it has one number for all or for each column.
pub(super) fn is_dense(eqn: &Eqn, i: usize, out: &Aval) -> bool {
    match eqn.op {
        Op::Prim(Prim::Unary(_) | Prim::Binary(_) | Prim::Select) | Op::Step(_) => {
            columns(&eqn.ins[i].aval.shape, &out.shape) == Some(Columns::All)
        }
        _ => true,
    }
}

/// The dense operands of an equation that has a role.
pub(super) fn dense<'a>(graph: &'a Graph, eqn: &'a Eqn) -> SmallVec<[Use; 3]> {
    let out = graph.values[eqn.outs[0]].0;
    let mut dense = smallvec![];
    for (i, &x) in eqn.ins.iter().enumerate() {
        if is_dense(eqn, i, &out) {
            dense.push(x);
        }
    }
    dense
}

#[derive(Clone, Copy, PartialEq)]
enum Columns {
    /// As many elements as the whole.
    All,
    /// One for all.
    One,
    /// One for each of so many columns.
    Each(usize),
}

/// How numbers of shape `part` stand in those of shape `whole`, if in one of these ways.
fn columns(part: &Shape, whole: &Shape) -> Option<Columns> {
    let n = part.elements();
    if n == whole.elements() {
        return Some(Columns::All);
    }
    if n == 1 {
        return Some(Columns::One);
    }
    let lead = part.iter().take_while(|&&size| size == 1).count();
    whole.ends_with(&part[lead..]).then_some(Columns::Each(n))
}

/// The windows, if they tile an image `[N, H, W, C]` and are more than a pixel.
fn tiles(window: &Window, image: &Shape) -> Option<Pooling> {
    let [_, h, w, c] = image[..] else { return None };
    let [kh, kw] = window.kernel;
    let is_tiled = window.stride == window.kernel
        && window.pad == [[0; 2]; 2]
        && h >= kh
        && w >= kw
        && kh * kw > 1
        && kh <= MAX_ROWS;
    is_tiled.then_some(Pooling { hw: [h, w], channels: c, kernel: window.kernel })
}
