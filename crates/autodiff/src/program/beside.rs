//! Puts passes beside one another that wait for none of each other, so that threads share the elements of all. An optimiser's update of all
//! parameters becomes one instruction.

use std::collections::HashSet;

use super::graph::{Eqn, Graph, Op, Origin, Val};

/// Elements of the results from which on threads have something to share.
pub(super) const SHARED: usize = 1 << 15;
/// Elements of a pass that threads share by itself as well; beside others its operands would only have to be in memory longer.
const LARGE: usize = 1 << 20;

/// The graph in which runs of such passes with at least so many elements are one equation each.
pub(super) fn beside(mut graph: Graph, shared: usize) -> Graph {
    let mut runs: Vec<Vec<Eqn>> = Vec::new();
    let mut made: HashSet<Val> = HashSet::new();
    for eqn in std::mem::take(&mut graph.eqns) {
        // What an instruction computes on demand is of one convolution at most, so such a pass stays alone.
        let computes = |eqn: &Eqn| eqn.ins.iter().any(|x| matches!(graph.values[x.val].1, Origin::OnDemand(_)));
        let is_large = |eqn: &Eqn| graph.values[eqn.outs[0]].0.shape.elements() > LARGE;
        let goes_with = |first: &Eqn| {
            go_together(first, &eqn) && ![first, &eqn].into_iter().any(|eqn| computes(eqn) || is_large(eqn))
        };
        let is_ready = eqn.ins.iter().all(|x| !made.contains(&x.val));
        if !(is_ready && runs.last().is_some_and(|run| goes_with(&run[0]))) {
            runs.push(Vec::new());
            made.clear();
        }
        made.extend(eqn.outs.iter());
        runs.last_mut().expect("a run").push(eqn);
    }
    for run in runs {
        let elements = |eqn: &Eqn| eqn.outs.iter().map(|&out| graph.values[out].0.shape.elements()).sum::<usize>();
        if run.len() > 1 && run.iter().map(elements).sum::<usize>() >= shared {
            graph.eqns.push(joined(run));
        } else {
            graph.eqns.extend(run);
        }
    }
    graph.renumbered()
}

/// Whether both are passes of one type of numbers that take no sums.
fn go_together(a: &Eqn, b: &Eqn) -> bool {
    let is_pass =
        |eqn: &Eqn| matches!(&eqn.op, Op::Fused { passes, .. } if passes.iter().all(|pass| pass.sums().is_empty()));
    is_pass(a) && is_pass(b) && a.ins[0].aval.dtype == b.ins[0].aval.dtype
}

/// The passes as one equation.
fn joined(run: Vec<Eqn>) -> Eqn {
    let (mut all, mut ins, mut params, mut outs) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for eqn in run {
        let Op::Fused { passes, inputs } = eqn.op else { unreachable!("a pass") };
        all.extend(passes);
        ins.extend_from_slice(&eqn.ins[..inputs]);
        params.extend_from_slice(&eqn.ins[inputs..]);
        outs.extend(eqn.outs);
    }
    let inputs = ins.len();
    Eqn { op: Op::Fused { passes: all, inputs }, ins: ins.into_iter().chain(params).collect(), outs: outs.into() }
}
