//! A group of equations as one pass: steps in order, temporaries by liveness.

use std::collections::{HashMap, HashSet};

use metaforge_kernels::fused::{Fusion, Place, Step, StepOp, Sum};
use smallvec::SmallVec;

use super::fuse::{Group, copy};
use super::graph::{Eqn, Graph, Op, Use, Val};
use super::role::{Role, is_dense, role, step_op};
use crate::prim::{Binary, Prim};

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
    let last_read: HashMap<Val, usize> =
        members.iter().flat_map(|&m| graph.eqns[m].ins.iter().map(move |x| (x.val, m))).collect();
    let (mut steps, mut sums) = (Vec::new(), Vec::new());
    // Sums are taken when all steps are done, so what they read stays.
    let summed: HashSet<Val> =
        members.iter().filter(|&&m| is_sum(graph, m)).map(|&m| graph.eqns[m].ins[0].val).collect();
    for &m in &members {
        let eqn = &graph.eqns[m];
        let out = graph.values[eqn.outs[0]].0;
        let args: Vec<Place> =
            (0..eqn.ins.len()).map(|i| writer.read(eqn.ins[i], is_dense(eqn, i, &out), &computed)).collect();
        if is_sum(graph, m) {
            let Place::Output(into) = writer.places[&eqn.outs[0]] else { unreachable!("a living sum is needed") };
            let pooled = group.domain.windows() == Some(eqn.ins[0].aval.shape.elements());
            sums.push(Sum { of: args[0], into, pooled });
            continue;
        }
        let place = writer.write(eqn.outs[0], summed.contains(&eqn.outs[0]));
        for x in &eqn.ins {
            if last_read.get(&x.val) == Some(&m) && !summed.contains(&x.val) {
                writer.release(x.val);
            }
        }
        let op = step_op(&eqn.op).expect("a member of a pass is a step");
        let n = out.shape.elements();
        let is_map = matches!(role(graph, eqn), Some(Role::Map { .. }));
        steps.push(Step { op, args, out: place, pooled: is_map && group.domain.windows() == Some(n) });
    }
    let inputs = writer.inputs.len();
    let ins = writer.inputs.into_iter().chain(writer.params).collect();
    let fusion =
        Fusion::new(merged(steps, &sums), sums, group.domain.period.unwrap_or(1), group.domain.n, group.domain.pooling);
    Some(Eqn { op: Op::Fused { passes: vec![fusion], inputs }, ins, outs })
}

/// The steps with products, and normalisations, that only a sum reads as one step with it: what stays in a register is neither stored nor loaded.
fn merged(steps: Vec<Step>, sums: &[Sum]) -> Vec<Step> {
    let is_dead = |place: Place, after: usize| {
        let next = steps[after + 1..].iter().find(|step| step.args.contains(&place) || step.out == place);
        next.map_or(sums.iter().all(|sum| sum.of != place), |step| !step.args.contains(&place))
    };
    // The operand beside the result of step `i`, if the next is `op` of just that and nobody reads it later.
    let other = |i: usize, op: Binary| {
        let (step, next) = (&steps[i], steps.get(i + 1)?);
        let fits = next.op == StepOp::Binary(op) && next.pooled == step.pooled;
        let is_temp = matches!(step.out, Place::Temp(_)) && is_dead(step.out, i + 1);
        match next.args[..] {
            [a, b] if fits && is_temp && a == step.out && b != a => Some(b),
            [a, b] if fits && is_temp && b == step.out && b != a => Some(a),
            _ => None,
        }
    };
    let mut done = Vec::new();
    let mut i = 0;
    while i < steps.len() {
        let step = &steps[i];
        let (op, more, len) = match step.op {
            StepOp::Binary(Binary::Mul) => (StepOp::MulAdd, other(i, Binary::Add).map(|c| vec![c]), 2),
            StepOp::Normalize => {
                let more = other(i, Binary::Mul).and_then(|scale| Some(vec![scale, other(i + 1, Binary::Add)?]));
                (StepOp::NormalizeMulAdd, more, 3)
            }
            _ => (step.op, None, 1),
        };
        let joined = more.map(|more| {
            let args = [&step.args[..], &more].concat();
            Step { op, args, out: steps[i + len - 1].out, pooled: step.pooled }
        });
        match joined.filter(|joined| !joined.args.contains(&joined.out)) {
            Some(joined) => {
                done.push(joined);
                i += len;
            }
            None => {
                done.push(step.clone());
                i += 1;
            }
        }
    }
    done
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
    free: Vec<usize>,
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

    /// Where a step leaves its result: an output, or a temporary; one of its own, if it is summed.
    fn write(&mut self, val: Val, is_summed: bool) -> Place {
        if let Some(&place) = self.places.get(&val) {
            return place;
        }
        let free = if is_summed { None } else { self.free.pop() };
        let temp = free.unwrap_or_else(|| {
            self.temps += 1;
            self.temps - 1
        });
        self.places.insert(val, Place::Temp(temp));
        Place::Temp(temp)
    }

    /// Gives back the temporary of a value that is read no more.
    fn release(&mut self, val: Val) {
        if let Some(&Place::Temp(temp)) = self.places.get(&val)
            && !self.free.contains(&temp)
        {
            self.free.push(temp);
        }
    }
}

/// A step as text.
pub(super) fn shown(step: &Step) -> String {
    let name = match &step.op {
        StepOp::Unary(op) => format!("{op:?}"),
        StepOp::Binary(op) => format!("{op:?}"),
        other => format!("{other:?}"),
    };
    let place = |p: &Place| match p {
        Place::Input(i) => format!("in{i}"),
        Place::Output(i) => format!("out{i}"),
        Place::Temp(i) => format!("t{i}"),
        Place::Param(i) => format!("p{i}"),
    };
    let args: Vec<String> = step.args.iter().map(place).collect();
    format!("{} = {name}({})", place(&step.out), args.join(", "))
}
