//! A group of equations as one pass: steps in order, which `merge.rs` then puts together.

use std::collections::{HashMap, HashSet};

use metaforge_kernels::fused::{Factor, Fusion, Place, Step, StepOp, Sum};
use smallvec::SmallVec;

use super::fuse::{Group, copy};
use super::graph::{Eqn, Graph, Op, Use, Val};
use super::merge::{merge, share_temporaries};
use super::role::{Role, is_dense, role, step_op};
use crate::prim::Prim;

/// The group as an equation whose results are those of its values that `is_needed` in memory; None if there are none. An
/// equation that is alone stays what it is.
pub(super) fn pass(graph: &Graph, group: &Group, is_needed: &dyn Fn(Val) -> bool) -> Option<Eqn> {
    let members = living(graph, group, is_needed);
    let (&first, rest) = members.split_first()?;
    if rest.is_empty() && matches!(graph.eqns[first].op, Op::Prim(_)) {
        return Some(copy(&graph.eqns[first]));
    }
    let mut writer = Writer::default();
    let computed: HashSet<Val> = members.iter().map(|&m| graph.eqns[m].outs[0]).collect();
    let mut outs: SmallVec<[Val; 1]> = SmallVec::new();
    for &m in &members {
        let out = graph.eqns[m].outs[0];
        if is_needed(out) {
            writer.places.insert(out, Place::Output(outs.len()));
            outs.push(out);
        }
    }
    let (mut steps, mut sums) = (Vec::new(), Vec::new());
    for &m in &members {
        let eqn = &graph.eqns[m];
        let out = graph.values[eqn.outs[0]].0;
        let args: Vec<Place> =
            (0..eqn.ins.len()).map(|i| writer.read(eqn.ins[i], is_dense(eqn, i, &out), &computed)).collect();
        if is_sum(graph, m) {
            let Place::Output(into) = writer.places[&eqn.outs[0]] else { unreachable!("a living sum is needed") };
            let pooled = group.domain.windows() == Some(eqn.ins[0].aval.shape.elements());
            sums.push(Sum { of: args[0], times: Factor::One, into, pooled });
            continue;
        }
        let place = writer.write(eqn.outs[0]);
        let op = step_op(&eqn.op).expect("a member of a pass is a step");
        let n = out.shape.elements();
        let is_map = matches!(role(graph, eqn), Some(Role::Map { .. }));
        steps.push(Step { op, args, out: place, pooled: is_map && group.domain.windows() == Some(n) });
    }
    let inputs = writer.inputs.len();
    let ins = writer.inputs.into_iter().chain(writer.params).collect();
    merge(&mut steps, &mut sums);
    share_temporaries(&mut steps, &mut sums);
    let fusion = Fusion::new(steps, sums, group.domain.period.unwrap_or(1), group.domain.n, group.domain.pooling);
    Some(Eqn { op: Op::Fused { passes: vec![fusion], inputs }, ins, outs })
}

fn is_sum(graph: &Graph, eqn: usize) -> bool {
    matches!(graph.eqns[eqn].op, Op::Prim(Prim::SumTo(_)))
}

/// The members that lead to something needed, in order.
fn living(graph: &Graph, group: &Group, is_needed: &dyn Fn(Val) -> bool) -> Vec<usize> {
    let mut read: HashSet<Val> = HashSet::new();
    let mut living = Vec::new();
    for &m in group.members.iter().rev() {
        let eqn = &graph.eqns[m];
        let out = eqn.outs[0];
        if is_needed(out) || read.contains(&out) && !is_sum(graph, m) {
            read.extend(eqn.ins.iter().map(|x| x.val));
            living.push(m);
        }
    }
    living.reverse();
    living
}

#[derive(Default)]
struct Writer {
    places: HashMap<Val, Place>,
    inputs: Vec<Use>,
    params: Vec<Use>,
    temps: usize,
}

impl Writer {
    /// Where a step finds an operand.
    fn read(&mut self, x: Use, is_dense: bool, computed: &HashSet<Val>) -> Place {
        if computed.contains(&x.val) && is_dense {
            return self.places[&x.val];
        }
        let list = if is_dense { &mut self.inputs } else { &mut self.params };
        let at = list.iter().position(|known| known.val == x.val).unwrap_or_else(|| {
            list.push(x);
            list.len() - 1
        });
        if is_dense { Place::Input(at) } else { Place::Param(at) }
    }

    /// Where a step leaves its result: an output, or a temporary of its own.
    fn write(&mut self, val: Val) -> Place {
        *self.places.entry(val).or_insert_with(|| {
            self.temps += 1;
            Place::Temp(self.temps - 1)
        })
    }
}

/// A step as text.
pub(super) fn shown(step: &Step) -> String {
    let (name, indices) = match &step.op {
        StepOp::Unary(op) => (format!("{op:?}"), None),
        StepOp::Binary(op) => (format!("{op:?}"), None),
        StepOp::PoolMax { indices } => ("PoolMax".into(), Some(indices)),
        other => (format!("{other:?}"), None),
    };
    let out: Vec<String> = indices.into_iter().chain([&step.out]).map(shown_place).collect();
    let args: Vec<String> = step.args.iter().map(shown_place).collect();
    format!("{} = {name}({})", out.join(", "), args.join(", "))
}

/// A sum as text.
pub(super) fn shown_sum(sum: &Sum) -> String {
    let of = shown_place(&sum.of);
    let times = match &sum.times {
        Factor::One => String::new(),
        Factor::Value(x) => format!(" * {}", shown_place(x)),
        Factor::Normalized(args) => format!(" * Normalize({})", args.each_ref().map(shown_place).join(", ")),
    };
    format!("out{} = sum of {of}{times}", sum.into)
}

fn shown_place(place: &Place) -> String {
    match place {
        Place::Input(i) => format!("in{i}"),
        Place::Output(i) => format!("out{i}"),
        Place::Temp(i) => format!("t{i}"),
        Place::Param(i) => format!("p{i}"),
    }
}
