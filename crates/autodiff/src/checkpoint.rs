//! Gradient checkpointing, or rematerialisation: the reverse sweep computes intermediate values again instead of keeping them (Griewank,
//! Walther 2000, "Revolve", <https://doi.org/10.1145/347837.347846>; Chen et al. 2016, <https://arxiv.org/abs/1604.06174>).
//!
//! The equations that are to be computed again stand on the tape already. When the sweep comes to them it records them a second time,
//! behind barriers, and takes the derivatives at the second values. So nothing but the sweep knows of it, and the result is made of
//! ordinary equations, to be differentiated again.

use std::collections::HashMap;
use std::ops::Range;

use crate::prim::Prim;
use crate::tape::{Id, Node, Source, Tape, Var};

impl Tape {
    /// Runs `f` and marks the equations that it records: a gradient through them computes their values again, from those that `f`
    /// takes from outside. A program then keeps none of the values in between until its reverse pass, for the price of computing them
    /// twice. The numbers are the same to the bit; those of a derivative of the gradient up to the order of its sums.
    ///
    /// `f` may take gradients itself, and call this again; what it returns, and what it takes from outside, are any values. What is
    /// read of its intermediate values afterwards stays in memory as usual.
    ///
    /// An eager tape keeps every value until it is dropped, so there it saves nothing; nor is anything computed twice.
    ///
    /// ```
    /// use metaforge_autodiff::{Aval, DType, Program, Var, grad};
    /// // 36 layers of 128 KiB each, in blocks of six.
    /// let program = |checkpointed: bool| {
    ///     let avals = [[32, 32], [1024, 32]].map(|shape| Aval::new(shape, DType::F32));
    ///     Program::trace(&avals, |tape, x| {
    ///         let block = |h| (0..6).fold(h, |h: Var<'_>, _| h.matmul(x[0]).tanh());
    ///         let y = (0..6).fold(x[1], |h, _| if checkpointed { tape.checkpoint(|| block(h)) } else { block(h) });
    ///         grad(y.sum(), &x[..1])
    ///     })
    /// };
    /// assert!(2 * program(true).workspace_bytes() < program(false).workspace_bytes());
    /// ```
    pub fn checkpoint<R>(&self, f: impl FnOnce() -> R) -> R {
        let start = self.next();
        let result = f();
        let region = start..self.next();
        if !region.is_empty() {
            self.checkpoints.borrow_mut().push(region);
        }
        result
    }
}

/// What a sweep sees in place of the values of checkpointed equations.
pub(crate) struct Replays<'t> {
    tape: &'t Tape,
    /// Regions that the sweep has not come to, the next one last; of two that end together, the outer one.
    ahead: Vec<Range<Id>>,
    /// The regions that the sweep is in, the innermost last.
    inside: Vec<Replay>,
}

struct Replay {
    start: Id,
    /// The second values of a region's own, and the values behind barriers that they are computed from.
    again: HashMap<Id, Id>,
}

impl<'t> Replays<'t> {
    pub(crate) fn new(tape: &'t Tape) -> Replays<'t> {
        Replays { tape, ahead: tape.checkpoints.borrow().clone(), inside: Vec::new() }
    }

    /// To be called with each value that has a cotangent, in falling order, before its rule is.
    pub(crate) fn enter(&mut self, id: Id, cotangents: &HashMap<Id, Var<'t>>) {
        while self.inside.pop_if(|replay| id < replay.start).is_some() {}
        while let Some(region) = self.ahead.pop_if(|region| id < region.end) {
            if region.start <= id {
                let replay = self.replay(region.start..id + 1, cotangents);
                self.inside.push(replay);
            }
        }
    }

    /// The value to take for `id` in the rule of an equation where the sweep is now.
    pub(crate) fn at(&self, id: Id) -> Var<'t> {
        let again = self.inside.last().and_then(|replay| replay.again.get(&id));
        self.tape.var_at(again.copied().unwrap_or(id))
    }

    /// Records the equations of a region once more. Its constants are used as they stand.
    fn replay(&self, region: Range<Id>, cotangents: &HashMap<Id, Var<'t>>) -> Replay {
        let start = region.start;
        // All that the sweep has found must be there first: else the second values could be computed beside the first ones, and the
        // parts of a sum be kept until the last of them is there.
        let mut found: Vec<(Id, Var<'t>)> = cotangents.iter().map(|(&id, &g)| (id, g)).collect();
        found.sort_unstable_by_key(|(id, _)| *id);
        let mut again: HashMap<Id, Id> = HashMap::new();
        for id in region {
            let Node { source, aval, value } = self.tape.with_node(id, Node::clone);
            let Source::Eqn { prim, mut ins } = source else { continue };
            for i in &mut ins {
                if *i < start {
                    let behind = || {
                        let operands: Vec<_> = [self.at(*i)].into_iter().chain(found.iter().map(|(_, g)| *g)).collect();
                        Var::record(Prim::Barrier, &operands).id
                    };
                    *i = *again.entry(*i).or_insert_with(behind);
                } else if let Some(&second) = again.get(i) {
                    *i = second;
                }
            }
            // An eager tape has the numbers.
            again.insert(id, self.tape.push(Node { source: Source::Eqn { prim, ins }, aval, value }).id);
        }
        Replay { start, again }
    }
}
