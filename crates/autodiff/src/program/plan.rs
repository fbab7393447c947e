//! Places for a program's values: all of them in one arena, packed by liveness.

use metaforge_kernels::Span;
use smallvec::SmallVec;

use super::{Instr, Operand, Place, Program};
use crate::aval::Aval;
use crate::prim::Prim;
use crate::tape::{Id, Node, Source};

/// Lays out the values of `nodes` and lists the instructions in order.
pub(super) fn plan(inputs: Vec<Aval>, nodes: Vec<Node>, outputs: Vec<Id>) -> Program {
    let mut program = Program { inputs, consts: Vec::new(), instrs: Vec::new(), outputs: Vec::new(), lines: 0 };
    // Where each node's numbers are; a reshape is another view of its operand.
    let mut place: Vec<Place> = Vec::with_capacity(nodes.len());
    let mut avals: Vec<Aval> = Vec::with_capacity(nodes.len());
    for node in nodes {
        avals.push(node.aval);
        place.push(match node.source {
            Source::Input(i) => Place::Input(i),
            Source::Const(value) => {
                program.consts.push(value);
                Place::Const(program.consts.len() - 1)
            }
            Source::Eqn { prim: Prim::Reshape(_), ins } => place[ins[0] as usize],
            Source::Eqn { prim, ins } => {
                let operand = |&i: &Id| Operand { place: place[i as usize], aval: avals[i as usize] };
                program.emit(prim, ins.iter().map(operand).collect(), node.aval)
            }
        });
    }
    for id in outputs {
        let (place, aval) = (place[id as usize], avals[id as usize]);
        let owned = matches!(place, Place::Value(i) if program.instrs[i].aval == aval);
        // An output that is only another view of something is copied, so that every result is a value of its own.
        let place = match owned {
            true => place,
            false => program.emit(Prim::Reshape(aval.shape), SmallVec::from_slice(&[Operand { place, aval }]), aval),
        };
        let Place::Value(index) = place else { unreachable!("an emitted instruction is a value") };
        program.outputs.push(index);
    }
    pack(&mut program);
    program
}

impl Program {
    fn emit(&mut self, prim: Prim, ins: SmallVec<[Operand; 3]>, aval: Aval) -> Place {
        let span = Span { start: 0, bytes: aval.bytes() };
        self.instrs.push(Instr { prim, ins, aval, span, in_place: false });
        Place::Value(self.instrs.len() - 1)
    }
}

/// Gives every value a span that no value alive at the same time overlaps.
fn pack(program: &mut Program) {
    let count = program.instrs.len();
    let mut last_use: Vec<usize> = (0..count).collect();
    for (at, instr) in program.instrs.iter().enumerate() {
        for operand in &instr.ins {
            if let Place::Value(i) = operand.place {
                last_use[i] = at;
            }
        }
    }
    for &i in &program.outputs {
        last_use[i] = usize::MAX;
    }
    let mut free = FreeList::default();
    for at in 0..count {
        let dying: SmallVec<[usize; 4]> = {
            let mut dying: SmallVec<[usize; 4]> = program.instrs[at]
                .ins
                .iter()
                .filter_map(|o| match o.place {
                    Place::Value(i) if last_use[i] == at => Some(i),
                    _ => None,
                })
                .collect();
            dying.sort_unstable();
            dying.dedup();
            dying
        };
        let reuse = match (&program.instrs[at].prim, &dying[..]) {
            (Prim::Unary(_), &[i]) => Some(program.instrs[i].span),
            _ => None,
        };
        match reuse {
            Some(span) => {
                program.instrs[at].in_place = true;
                program.instrs[at].span = span;
            }
            None => {
                let bytes = program.instrs[at].aval.bytes();
                program.instrs[at].span = free.take(bytes);
                for i in dying {
                    free.give(program.instrs[i].span);
                }
            }
        }
        if last_use[at] == at {
            // Nothing reads it.
            free.give(program.instrs[at].span);
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
