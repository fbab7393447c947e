//! Places for a program's values: all of them in one arena, packed by liveness.

use metaforge_kernels::Span;
use smallvec::{SmallVec, smallvec};

use super::graph::{Graph, OnDemand, Op, Origin, Use};
use super::{Instr, LARGE, Operand, Place, Program, Value};
use crate::aval::Aval;
use crate::prim::Prim;

/// Lays out the values of a graph and lists the instructions in order.
pub(super) fn plan(inputs: Vec<Aval>, mut graph: Graph) -> Program {
    // An output that is an input or a constant is copied, so that every result lies in the arena.
    let outputs: Vec<Use> = std::mem::take(&mut graph.outputs).into_iter().map(|output| graph.owned(output)).collect();
    let Graph { values, eqns, consts, on_demand, .. } = graph;
    // Only what instructions compute has a place in the arena.
    let mut number = vec![usize::MAX; values.len()];
    let mut planned: Vec<Value> = Vec::new();
    for &val in eqns.iter().flat_map(|eqn| &eqn.outs) {
        number[val] = planned.len();
        planned.push(Value {
            aval: values[val].0,
            span: Span { start: 0, bytes: values[val].0.bytes() },
            result: None,
            is_watched: false,
        });
    }
    let operand = |x: &Use| {
        let place = match values[x.val].1 {
            Origin::Input(i) => Place::Input(i),
            Origin::Const(i) => Place::Const(i),
            Origin::Eqn(_) => Place::Value(number[x.val]),
            Origin::OnDemand(i) => Place::OnDemand(i),
        };
        Operand { place, aval: x.aval }
    };
    let conv_of = |x: &Use| match values[x.val].1 {
        Origin::OnDemand(i) => Some(i),
        Origin::Input(_) | Origin::Const(_) | Origin::Eqn(_) => None,
    };
    let on_demand = on_demand
        .into_iter()
        .map(|conv| OnDemand { image: operand(&conv.image), weights: operand(&conv.weights), dims: conv.dims })
        .collect();
    let instrs = eqns.into_iter().map(|eqn| Instr {
        ins: eqn.ins.iter().map(operand).collect(),
        outs: eqn.outs.iter().map(|&val| number[val]).collect(),
        on_demand: eqn.ins.iter().find_map(conv_of),
        op: eqn.op,
        spans: SmallVec::new(),
        in_place: false,
    });
    let instrs = instrs.collect();
    let outputs = outputs.into_iter().map(|output| (number[output.val], output.aval)).collect();
    let mut program =
        Program { inputs, consts, values: planned, on_demand, instrs, outputs, lines: 0, is_large: false };
    program.is_large = program.flops() >= LARGE;
    pack(&mut program);
    mark_results(&mut program);
    program
}

/// Notes which values are a result and nothing else, and which of them a pass can watch.
fn mark_results(program: &mut Program) {
    let mut uses = vec![0; program.values.len()];
    for instr in &program.instrs {
        for operand in instr.reads(&program.on_demand) {
            if let Place::Value(i) = operand.place {
                uses[i] += 1;
            }
        }
        if instr.in_place {
            // Its memory is that of its operand.
            uses[instr.outs[0]] += 1;
        }
    }
    program.outputs.iter().for_each(|&(i, _)| uses[i] += 1);
    for (result, &(i, _)) in program.outputs.iter().enumerate() {
        program.values[i].result = (uses[i] == 1).then_some(result);
    }
    for instr in &program.instrs {
        let sums: SmallVec<[usize; 4]> = match &instr.op {
            Op::Fused { passes, .. } => match &passes[..] {
                [fusion] => fusion.sums().iter().map(|sum| sum.into).collect(),
                _ => SmallVec::new(),
            },
            Op::FusedConv { .. } => SmallVec::new(),
            Op::Prim(_)
            | Op::Statistics { .. }
            | Op::ConvStatistics { .. }
            | Op::Coefficients { .. }
            | Op::Product { .. }
            | Op::Step(_)
            | Op::FusedWeightGrad { .. } => {
                continue;
            }
        };
        for (i, &value) in instr.outs.iter().enumerate() {
            let value = &mut program.values[value];
            value.is_watched = value.result.is_some() && value.aval.dtype.is_float() && !sums.contains(&i);
        }
    }
}

impl Graph {
    /// An output as (a view of) a value that an equation computes.
    fn owned(&mut self, output: Use) -> Use {
        let val = match self.values[output.val].1 {
            Origin::Eqn(_) => output.val,
            _ => self.emit(Op::Prim(Prim::Reshape(output.aval.shape)), smallvec![output], &[output.aval]),
        };
        Use { val, aval: output.aval }
    }
}

/// Gives every value a span that no value alive at the same time overlaps.
fn pack(program: &mut Program) {
    // The instruction that reads a value last; what nobody reads dies where it is made.
    let mut last_use: Vec<usize> = vec![0; program.values.len()];
    for (at, instr) in program.instrs.iter().enumerate() {
        for &value in &instr.outs {
            last_use[value] = at;
        }
        for operand in instr.reads(&program.on_demand) {
            if let Place::Value(i) = operand.place {
                last_use[i] = at;
            }
        }
    }
    for &(i, _) in &program.outputs {
        last_use[i] = usize::MAX;
    }
    let mut free = FreeList::default();
    for (at, instr) in program.instrs.iter_mut().enumerate() {
        let dying: SmallVec<[usize; 4]> = {
            let mut dying: SmallVec<[usize; 4]> = instr
                .reads(&program.on_demand)
                .filter_map(|o| match o.place {
                    Place::Value(i) if last_use[i] == at => Some(i),
                    _ => None,
                })
                .collect();
            dying.sort_unstable();
            dying.dedup();
            dying
        };
        match (&instr.op, &dying[..]) {
            (Op::Prim(Prim::Unary(_)), &[i]) => {
                instr.in_place = true;
                program.values[instr.outs[0]].span = program.values[i].span;
            }
            _ => {
                for &value in &instr.outs {
                    program.values[value].span = free.take(program.values[value].aval.bytes());
                }
                for i in dying {
                    free.give(program.values[i].span);
                }
            }
        }
        instr.spans = instr.outs.iter().map(|&value| program.values[value].span).collect();
        for &value in &instr.outs {
            if last_use[value] == at {
                // Nothing reads it.
                free.give(program.values[value].span);
            }
        }
    }
    program.lines = free.end;
}

/// Free lines of the arena, as intervals in order.
#[derive(Default)]
struct FreeList {
    gaps: Vec<(usize, usize)>,
    end: usize,
}

impl FreeList {
    /// The smallest gap that fits, or new lines at the end.
    fn take(&mut self, bytes: usize) -> Span {
        let span = Span { start: 0, bytes };
        let lines = span.lines();
        if lines == 0 {
            return span;
        }
        let best = (0..self.gaps.len())
            .filter(|&i| self.gaps[i].1 - self.gaps[i].0 >= lines)
            .min_by_key(|&i| self.gaps[i].1 - self.gaps[i].0);
        let start = match best {
            Some(i) => {
                let start = self.gaps[i].0;
                self.gaps[i].0 += lines;
                if self.gaps[i].0 == self.gaps[i].1 {
                    self.gaps.remove(i);
                }
                start
            }
            None => {
                // A gap at the very end grows.
                let start = match self.gaps.last() {
                    Some(&(start, end)) if end == self.end => {
                        self.gaps.pop();
                        start
                    }
                    _ => self.end,
                };
                self.end = start + lines;
                start
            }
        };
        Span { start, bytes }
    }

    fn give(&mut self, span: Span) {
        let (start, end) = (span.start, span.end());
        if start == end {
            return;
        }
        let at = self.gaps.partition_point(|gap| gap.0 < start);
        self.gaps.insert(at, (start, end));
        if at + 1 < self.gaps.len() && self.gaps[at + 1].0 == end {
            self.gaps[at].1 = self.gaps[at + 1].1;
            self.gaps.remove(at + 1);
        }
        if at > 0 && self.gaps[at - 1].1 == start {
            self.gaps[at - 1].1 = self.gaps[at].1;
            self.gaps.remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Spans handed out and not yet returned never overlap, and everything returned merges to one gap.
        #[test]
        fn the_free_list_never_hands_out_a_line_twice(ops in prop::collection::vec((1usize..2000, any::<bool>()), 1..60)) {
            let mut free = FreeList::default();
            let mut held: Vec<Span> = Vec::new();
            for (bytes, release) in ops {
                if release && !held.is_empty() {
                    free.give(held.remove(bytes % held.len()));
                } else {
                    let new = free.take(bytes);
                    for other in &held {
                        prop_assert!(new.end() <= other.start || other.end() <= new.start);
                    }
                    prop_assert!(new.end() <= free.end);
                    held.push(new);
                }
            }
            held.drain(..).for_each(|span| free.give(span));
            prop_assert_eq!(free.gaps, vec![(0, free.end)]);
        }
    }
}
