//! Rewrites of a traced program that keep every bit of its results: dead code, common subexpressions, constants, aliases.

use std::collections::HashMap;
use std::mem::{Discriminant, discriminant};

use metaforge_kernels::{Buffer, Par};
use smallvec::SmallVec;

use crate::eval::eval;
use crate::prim::{Binary, Prim, Unary};
use crate::tape::{Id, Node, Source};
use crate::tensor::Tensor;
use crate::view::SliceMut;

/// Nodes without the superfluous ones, in the same order, and the outputs among them.
pub(super) fn optimise(nodes: Vec<Node>, outputs: Vec<Id>) -> (Vec<Node>, Vec<Id>) {
    let (nodes, outputs) = rewrite(nodes, outputs);
    sweep_dead(nodes, outputs)
}

type Key = (Discriminant<Prim>, SmallVec<[Id; 3]>);

fn rewrite(nodes: Vec<Node>, outputs: Vec<Id>) -> (Vec<Node>, Vec<Id>) {
    let live = live(&nodes, &outputs);
    let mut out: Vec<Node> = Vec::with_capacity(nodes.len());
    let mut place: Vec<Id> = vec![Id::MAX; nodes.len()];
    let mut seen: HashMap<Key, SmallVec<[Id; 2]>> = HashMap::new();
    let mut scalars: Vec<Id> = Vec::new();
    for (id, node) in nodes.into_iter().enumerate() {
        if !live[id] {
            continue;
        }
        let Node { source, aval, .. } = node;
        place[id] = match source {
            Source::Input(_) => push(&mut out, Node { source, aval, value: None }),
            Source::Const(value) => constant(&mut out, &mut scalars, value),
            Source::Eqn { mut prim, mut ins } => {
                translate(&mut ins, &place);
                shorten(&out, &mut prim, &aval, &mut ins);
                absorb_broadcasts(&out, &prim, &aval, &mut ins);
                if let Prim::Barrier = prim {
                    // What comes after it is to be computed anew, so no two are the same.
                    push(&mut out, Node { source: Source::Eqn { prim, ins }, aval, value: None })
                } else if let Some(same) = identity(&out, &prim, &aval, &ins) {
                    same
                } else if let Some(value) = fold(&out, &prim, &aval, &ins) {
                    constant(&mut out, &mut scalars, value)
                } else {
                    let key = (discriminant(&prim), ins.clone());
                    let bucket = seen.entry(key).or_default();
                    let known = bucket
                        .iter()
                        .copied()
                        .find(|&i| matches!(&out[i as usize].source, Source::Eqn { prim: p, .. } if is_same(p, &prim)));
                    known.unwrap_or_else(|| {
                        let new = push(&mut out, Node { source: Source::Eqn { prim, ins }, aval, value: None });
                        bucket.push(new);
                        new
                    })
                }
            }
        };
    }
    let outputs = outputs.iter().map(|&id| place[id as usize]).collect();
    (out, outputs)
}

/// Whether two primitives give the same bits. Numbers of theirs that are equal may be zeros of two signs, which show when they are written down.
fn is_same(a: &Prim, b: &Prim) -> bool {
    a == b && format!("{a:?}") == format!("{b:?}")
}

/// The operands' new places; those that are gone, a barrier's, are left out.
fn translate(ins: &mut SmallVec<[Id; 3]>, place: &[Id]) {
    ins.iter_mut().for_each(|i| *i = place[*i as usize]);
    ins.retain(|i| *i != Id::MAX);
}

fn push(out: &mut Vec<Node>, node: Node) -> Id {
    out.push(node);
    (out.len() - 1) as Id
}

/// A constant's place; equal single numbers share one.
fn constant(out: &mut Vec<Node>, scalars: &mut Vec<Id>, value: Tensor) -> Id {
    let single = value.len() == 1;
    if single {
        let known = scalars.iter().copied().find(|&i| match &out[i as usize].source {
            Source::Const(c) => c.aval() == value.aval() && c.bytes() == value.bytes(),
            Source::Input(_) | Source::Eqn { .. } => false,
        });
        if let Some(known) = known {
            return known;
        }
    }
    let aval = value.aval();
    let id = push(out, Node { source: Source::Const(value), aval, value: None });
    if single {
        scalars.push(id);
    }
    id
}

fn eqn(out: &[Node], id: Id) -> Option<(&Prim, &[Id])> {
    match &out[id as usize].source {
        Source::Eqn { prim, ins } => Some((prim, ins)),
        Source::Input(_) | Source::Const(_) => None,
    }
}

/// An elementwise primitive stretches its operands itself: an explicit broadcast before it is read from its source.
fn absorb_broadcasts(out: &[Node], prim: &Prim, aval: &crate::Aval, ins: &mut SmallVec<[Id; 3]>) {
    if !matches!(prim, Prim::Binary(_) | Prim::Select) {
        return;
    }
    for slot in 0..ins.len() {
        let Some((Prim::Broadcast(_), source)) = eqn(out, ins[slot]) else { continue };
        let mut shorter = ins.clone();
        shorter[slot] = source[0];
        let shape = shorter[1..]
            .iter()
            .try_fold(out[shorter[0] as usize].aval.shape, |s, &i| s.broadcast(&out[i as usize].aval.shape));
        if shape == Some(aval.shape) {
            *ins = shorter;
        }
    }
}

/// A chain of permutations or of reshapes is read from its first value. A permutation that leaves the longer axes in their order moves no number
/// and is a reshape; a number in every element of one shape or another is that number. A factor takes the sign of what it multiplies.
fn shorten(out: &[Node], prim: &mut Prim, aval: &crate::Aval, ins: &mut SmallVec<[Id; 3]>) {
    if let Prim::Permute(axes) = prim {
        while let Some((Prim::Permute(before), source)) = eqn(out, ins[0]) {
            *axes = axes.iter().map(|&axis| before[axis]).collect::<Vec<_>>().into();
            ins[0] = source[0];
        }
        let from = &out[ins[0] as usize].aval.shape;
        if axes.iter().filter(|&&axis| from[axis] != 1).is_sorted() {
            *prim = Prim::Reshape(aval.shape);
        }
    }
    if let Prim::Reshape(_) = prim {
        while let Some((Prim::Reshape(_), source)) = eqn(out, ins[0]) {
            ins[0] = source[0];
        }
        if let Some((Prim::Broadcast(_), source)) = eqn(out, ins[0])
            && out[source[0] as usize].aval.shape.is_empty()
        {
            *prim = Prim::Broadcast(aval.shape);
            ins[0] = source[0];
        }
    }
    if let Prim::Unary(Unary::Affine { scale, .. }) = prim
        && let Some((Prim::Unary(Unary::Neg), source)) = eqn(out, ins[0])
    {
        *scale = -*scale;
        ins[0] = source[0];
    }
}

/// The value that the equation merely repeats, if it does.
fn identity(out: &[Node], prim: &Prim, aval: &crate::Aval, ins: &[Id]) -> Option<Id> {
    let unchanged = |id: Id| (out[id as usize].aval == *aval).then_some(id);
    match prim {
        Prim::StopGradient => Some(ins[0]),
        Prim::Reshape(_) | Prim::Broadcast(_) | Prim::SumTo(_) => unchanged(ins[0]),
        Prim::Binary(Binary::Mul) if is_one(&out[ins[0] as usize]) => unchanged(ins[1]),
        Prim::Binary(Binary::Mul | Binary::Div) if is_one(&out[ins[1] as usize]) => unchanged(ins[0]),
        Prim::Unary(Unary::Neg) => match eqn(out, ins[0]) {
            Some((Prim::Unary(Unary::Neg), source)) => Some(source[0]),
            _ => None,
        },
        // A square root with a floor, which only its derivatives feel: it is never the smaller one. (Of two zeros both operations give the first, so
        // that signs are right too.)
        Prim::Binary(Binary::Min) => match [ins[0], ins[1]].map(|i| root(out, i)) {
            [Some(floored), Some(x)] if is_maximum_of(out, floored, x) => unchanged(ins[1]),
            _ => None,
        },
        _ => None,
    }
}

/// What it is the square root of, if it is one.
fn root(out: &[Node], id: Id) -> Option<Id> {
    match eqn(out, id) {
        Some((Prim::Unary(Unary::Sqrt), source)) => Some(source[0]),
        _ => None,
    }
}

/// Whether a value is the larger of `x` and a constant.
fn is_maximum_of(out: &[Node], id: Id, x: Id) -> bool {
    let is_floor = |i: Id| matches!(&out[i as usize].source, Source::Const(c) if c.len() == 1 && !c.item().is_nan());
    matches!(eqn(out, id), Some((Prim::Binary(Binary::Max), source)) if source[0] == x && is_floor(source[1]))
}

fn is_one(node: &Node) -> bool {
    matches!(&node.source, Source::Const(c) if c.len() == 1 && c.item() == 1.0)
}

/// The value of an equation of constants, unless it is larger than they are.
fn fold(out: &[Node], prim: &Prim, aval: &crate::Aval, ins: &[Id]) -> Option<Tensor> {
    let consts: Option<SmallVec<[&Tensor; 3]>> = ins
        .iter()
        .map(|&i| match &out[i as usize].source {
            Source::Const(c) => Some(c),
            Source::Input(_) | Source::Eqn { .. } => None,
        })
        .collect();
    let consts = consts?;
    if aval.bytes() > consts.iter().map(|c| c.aval().bytes()).sum() {
        return None;
    }
    let views: SmallVec<[_; 3]> = consts.iter().map(|c| c.view()).collect();
    let mut buffer = Buffer::zeroed(aval.bytes());
    eval(prim, &views, aval, SliceMut::of(aval.dtype, buffer.as_mut_slice()), Par::Seq);
    Some(Tensor::from_buffer(*aval, buffer))
}

/// Which nodes an output depends on.
fn live(nodes: &[Node], outputs: &[Id]) -> Vec<bool> {
    let mut live = vec![false; nodes.len()];
    for &id in outputs {
        live[id as usize] = true;
    }
    for id in (0..nodes.len()).rev() {
        if let (true, Source::Eqn { prim, ins }) = (live[id], &nodes[id].source) {
            // A barrier waits for its further operands, but needs none of them.
            let needed = if let Prim::Barrier = prim { &ins[..1] } else { &ins[..] };
            for &i in needed {
                live[i as usize] = true;
            }
        }
    }
    live
}

fn sweep_dead(nodes: Vec<Node>, outputs: Vec<Id>) -> (Vec<Node>, Vec<Id>) {
    let live = live(&nodes, &outputs);
    let mut place = vec![Id::MAX; nodes.len()];
    let mut out = Vec::with_capacity(nodes.len());
    for (id, mut node) in nodes.into_iter().enumerate() {
        if live[id] {
            if let Source::Eqn { ins, .. } = &mut node.source {
                translate(ins, &place);
            }
            place[id] = push(&mut out, node);
        }
    }
    let outputs = outputs.iter().map(|&id| place[id as usize]).collect();
    (out, outputs)
}
