//! Derivatives: one reverse sweep over the tape, which records the gradient as ordinary equations.

use std::collections::HashMap;

use smallvec::SmallVec;

use crate::checkpoint::Replays;
use crate::tape::{Id, Node, Source, Tape, Var};
use crate::vjp::vjp as rule;

/// Gradient of the scalar `y` with respect to each of `xs`, differentiable again to any order; zeros where `y` does not
/// depend on it.
///
/// # Panics
/// If `y` has other than one element or is not floating point.
#[track_caller]
pub fn grad<'t>(y: Var<'t>, xs: &[Var<'t>]) -> Vec<Var<'t>> {
    assert!(y.shape().elements() == 1 && y.dtype().is_float(), "grad of {}, which is not one number", y.aval());
    let one = y.tape().full(y.shape(), 1.0, y.dtype());
    vjp(&[y], &[one], xs)
}

/// The same numbers as [`grad`], as constants: for first-order methods, and for the outermost derivative. An eager tape forgets
/// all equations that were recorded on the way.
#[track_caller]
pub fn grad_detached<'t>(y: Var<'t>, xs: &[Var<'t>]) -> Vec<Var<'t>> {
    let tape = y.tape();
    let mark = tape.len();
    let gradients = grad(y, xs);
    if !tape.is_eager() {
        return gradients.into_iter().map(Var::stop_gradient).collect();
    }
    let values: Vec<_> = gradients.iter().map(|g| g.value()).collect();
    tape.truncate(mark);
    values.iter().map(|v| tape.constant(v)).collect()
}

/// Vector-Jacobian product: cotangents of `xs` from those of `ys`; zeros where no `y` depends on an `x`.
///
/// # Panics
/// If a cotangent has not the shape and type of its value.
#[track_caller]
pub fn vjp<'t>(ys: &[Var<'t>], cotangents: &[Var<'t>], xs: &[Var<'t>]) -> Vec<Var<'t>> {
    assert_eq!(ys.len(), cotangents.len(), "a cotangent for each value");
    let found = sweep(ys, cotangents, xs);
    found.into_iter().zip(xs).map(|(g, x)| g.unwrap_or_else(|| x.tape().zeros(x.shape(), x.dtype()))).collect()
}

/// Jacobian-vector product: tangents of `ys` when `xs` move along `tangents`. The transpose of the (linear) transpose, so it
/// needs no rules of its own.
#[track_caller]
pub fn jvp<'t>(ys: &[Var<'t>], xs: &[Var<'t>], tangents: &[Var<'t>]) -> Vec<Var<'t>> {
    assert_eq!(xs.len(), tangents.len(), "a tangent for each input");
    // Any cotangents do: the product is linear in them.
    let dummies: Vec<Var<'t>> = ys.iter().map(|y| y.tape().zeros(y.shape(), y.dtype())).collect();
    let pulled = vjp(ys, &dummies, xs);
    vjp(&pulled, tangents, &dummies)
}

/// Hessian-vector product of the scalar `y`: the gradient's change when `xs` move along `vectors`.
#[track_caller]
pub fn hvp<'t>(y: Var<'t>, xs: &[Var<'t>], vectors: &[Var<'t>]) -> Vec<Var<'t>> {
    assert_eq!(xs.len(), vectors.len(), "a vector for each input");
    let gradients = grad(y, xs);
    // The Hessian is symmetric, so pulling the vectors back through the gradient multiplies by it.
    vjp(&gradients, vectors, xs)
}

fn sweep<'t>(ys: &[Var<'t>], cotangents: &[Var<'t>], xs: &[Var<'t>]) -> Vec<Option<Var<'t>>> {
    let Some(tape) = ys.first().map(|y| y.tape()) else { return vec![None; xs.len()] };
    let top = ys.iter().map(|y| y.id).max().map_or(0, |id| id as usize + 1);
    let reach = reaches(tape, xs, top);
    let mark = tape.len() as Id;
    let mut cotangent: HashMap<Id, Var<'t>> = HashMap::new();
    let add = |into: &mut HashMap<Id, Var<'t>>, id: Id, g: Var<'t>| {
        into.entry(id).and_modify(|sum| *sum = *sum + g).or_insert(g);
    };
    for (y, &g) in ys.iter().zip(cotangents) {
        assert_eq!(y.aval(), g.aval(), "a cotangent is shaped like its value");
        if reach[y.id as usize] {
            add(&mut cotangent, y.id, g);
        }
    }
    let mut replays = Replays::new(tape);
    let wanted = |id: Id| xs.iter().any(|x| x.id == id);
    for id in (0..top as Id).rev() {
        if !reach[id as usize] || !cotangent.contains_key(&id) {
            continue;
        }
        let eqn = tape.with_node(id, |node| match &node.source {
            Source::Eqn { prim, ins } => Some((prim.clone(), ins.clone())),
            Source::Input(_) | Source::Const(_) => None,
        });
        let Some((prim, ins)) = eqn else { continue };
        replays.enter(id, &cotangent);
        let g = if wanted(id) { cotangent[&id] } else { cotangent.remove(&id).expect("checked above") };
        let inputs: SmallVec<[Var<'t>; 3]> = ins.iter().map(|&i| replays.at(i)).collect();
        let need: SmallVec<[bool; 3]> = ins.iter().map(|&i| reach[i as usize]).collect();
        // What this sweep has recorded and nobody else holds, or will: a cotangent that waits, or is a result, is a variable to the caller.
        let is_private = |id: Id| id >= mark && cotangent.values().all(|other| other.id != id);
        let gradients = rule(&prim, &inputs, replays.at(id), g, &need, &is_private);
        for ((&input, &needed), gradient) in ins.iter().zip(&need).zip(gradients) {
            if let (true, Some(gradient)) = (needed, gradient) {
                add(&mut cotangent, input, gradient);
            }
        }
    }
    xs.iter().map(|x| cotangent.get(&x.id).copied()).collect()
}

/// For each value below `top`: does it depend on one of `xs` (or is it one), through floating-point values?
fn reaches(tape: &Tape, xs: &[Var<'_>], top: usize) -> Vec<bool> {
    let mut reach = vec![false; top.max(xs.iter().map(|x| x.id as usize + 1).max().unwrap_or(0))];
    let start = xs.iter().map(|x| x.id).min().unwrap_or(0);
    for x in xs {
        reach[x.id as usize] = true;
    }
    for id in start..top as Id {
        let depends = tape.with_node(id, |node: &Node| match &node.source {
            Source::Eqn { ins, .. } => node.aval.dtype.is_float() && ins.iter().any(|&i| reach[i as usize]),
            Source::Input(_) | Source::Const(_) => false,
        });
        reach[id as usize] |= depends;
    }
    reach
}
