//! Products with a matrix that is a product itself: `X (A B)` as `(X A) B`, where the side that A and B share is short.
//!
//! A step of descent on a few samples changes a layer's weights by such a product, W' = W - α AᵀG, whose short side is the samples. If every
//! entry of a [`vmap`](crate::vmap) has a W' of its own but all share W, then `X W' = X W - α (X Aᵀ) G`: the product with W is one over the
//! rows of all entries, and neither W' nor, in the reverse sweep, its gradient is ever there as a matrix.

use std::collections::HashMap;
use std::ops::Range;

use smallvec::SmallVec;

use crate::prim::{Binary, Prim, Unary};
use crate::tape::{Id, Node, Source, Tape, Var};

/// The same trace with its products regrouped; moves the `results` and `regions` with it. Of the inputs `is_mapped` says which differ from
/// entry to entry.
pub(crate) fn regroup(
    nodes: &[Node],
    is_mapped: impl Fn(usize) -> bool,
    results: &mut [usize],
    regions: &mut [Range<Id>],
) -> Vec<Node> {
    let trace = Trace::new(nodes, is_mapped, results);
    let tape = Tape::tracing();
    let mut copy = Copy { trace: &trace, tape: &tape, vars: Vec::with_capacity(nodes.len()), cores: HashMap::new() };
    let mut starts = Vec::with_capacity(nodes.len() + 1);
    for id in 0..nodes.len() as Id {
        starts.push(tape.next());
        copy.node(id);
    }
    starts.push(tape.next());
    results.iter_mut().for_each(|y| *y = copy.vars[*y].id as usize);
    regions.iter_mut().for_each(|r| *r = starts[r.start as usize]..starts[r.end as usize]);
    drop(copy);
    tape.into_nodes()
}

/// The trace of one entry.
struct Trace<'n> {
    nodes: &'n [Node],
    /// Which values differ from entry to entry.
    mapped: Vec<bool>,
    /// The equations that read each value, and `None` for a result.
    readers: Vec<SmallVec<[Option<Id>; 2]>>,
}

/// A matrix as a product.
struct Form {
    /// The side that the two factors share.
    inner: usize,
    /// Whether a matrix that all entries have in common is added.
    has_base: bool,
}

impl<'n> Trace<'n> {
    fn new(nodes: &'n [Node], is_mapped: impl Fn(usize) -> bool, results: &[usize]) -> Trace<'n> {
        let mut mapped: Vec<bool> = Vec::with_capacity(nodes.len());
        let mut needed = vec![false; nodes.len()];
        let mut readers = vec![SmallVec::new(); nodes.len()];
        for node in nodes {
            mapped.push(match &node.source {
                Source::Input(i) => is_mapped(*i),
                Source::Const(_) => false,
                Source::Eqn { ins, .. } => ins.iter().any(|&x| mapped[x as usize]),
            });
        }
        for &y in results {
            needed[y] = true;
            readers[y].push(None);
        }
        for (id, node) in nodes.iter().enumerate().rev() {
            if let (true, Source::Eqn { ins, .. }) = (needed[id], &node.source) {
                for &x in ins {
                    needed[x as usize] = true;
                    readers[x as usize].push(Some(id as Id));
                }
            }
        }
        Trace { nodes, mapped, readers }
    }

    fn equation(&self, id: Id) -> Option<(&'n Prim, &'n [Id])> {
        match &self.nodes[id as usize].source {
            Source::Eqn { prim, ins } => Some((prim, ins)),
            Source::Input(_) | Source::Const(_) => None,
        }
    }

    fn shape(&self, id: Id) -> &'n [usize] {
        &self.nodes[id as usize].aval.shape
    }

    /// Whether an equation is the product of two matrices.
    fn is_product(&self, prim: &Prim, ins: &[Id]) -> bool {
        matches!(prim, Prim::MatMul { interleaved: false, .. }) && ins.iter().all(|&x| self.shape(x).len() == 2)
    }

    /// The product that a matrix of each entry's own is, but for a scale and what all entries have in common.
    fn form(&self, w: Id) -> Option<Form> {
        let (prim, ins) = self.equation(w)?;
        if !self.mapped[w as usize] {
            return None;
        }
        match *prim {
            Prim::MatMul { ta, .. } if self.is_product(prim, ins) => {
                Some(Form { inner: self.shape(ins[0])[usize::from(!ta)], has_base: false })
            }
            Prim::Barrier => self.form(ins[0]),
            Prim::Unary(op) if is_linear(op) => self.form(ins[0]),
            Prim::Binary(Binary::Add | Binary::Sub) if self.shape(ins[0]) == self.shape(ins[1]) => {
                let own = match ins.iter().map(|&x| self.mapped[x as usize]).collect::<SmallVec<[bool; 2]>>()[..] {
                    [true, false] => ins[0],
                    [false, true] => ins[1],
                    _ => return None,
                };
                let is_spared = self.readers[own as usize].len() == 1;
                self.form(own).filter(|form| is_spared && !form.has_base).map(|form| Form { has_base: true, ..form })
            }
            _ => None,
        }
    }

    /// Whether the product `x w` is less work by the factors of `w`.
    ///
    /// What is computed again by a checkpoint must not change the answer, so nothing is counted but shapes.
    fn is_less(&self, w: Id) -> bool {
        let Some(Form { inner, has_base }) = self.form(w) else { return false };
        let (sides, all) = (self.shape(w).iter().sum::<usize>(), self.shape(w).iter().product::<usize>());
        match has_base {
            false => inner * sides < all,
            // The product with the base comes on top, so the matrix itself must be spared. It is read twice, by a layer and by its gradient.
            true => self.rows(w).is_some_and(|rows| 2 * rows * sides <= all),
        }
    }

    /// The most rows of a product that reads this matrix as its right side; `None` if something else reads it.
    fn rows(&self, w: Id) -> Option<usize> {
        let mut most = 0;
        for reader in &self.readers[w as usize] {
            let id = (*reader)?;
            let (prim, ins) = self.equation(id)?;
            most = most.max(match prim {
                Prim::Barrier if ins[0] == w => self.rows(id)?,
                // It waits for it and needs none of its numbers.
                Prim::Barrier => 0,
                _ if self.is_product(prim, ins) && ins[0] != w => self.shape(id)[0],
                _ => return None,
            });
        }
        Some(most)
    }
}

/// Whether `op(x w)` is `x op(w)`.
fn is_linear(op: Unary) -> bool {
    match op {
        Unary::Neg => true,
        Unary::Affine { shift, .. } => shift == 0.0,
        _ => false,
    }
}

/// A factor of a product, and whether it is transposed.
type Factor = (Id, bool);

/// The trace as it is recorded anew.
struct Copy<'n, 't> {
    trace: &'n Trace<'n>,
    tape: &'t Tape,
    vars: Vec<Var<'t>>,
    /// The products `X A` so far: the gradient of one layer has the transpose of another's.
    cores: HashMap<[Factor; 2], Var<'t>>,
}

impl<'t> Copy<'_, 't> {
    fn node(&mut self, id: Id) {
        let node = &self.trace.nodes[id as usize];
        let var = match &node.source {
            Source::Input(i) => self.tape.input(*i, node.aval),
            Source::Const(value) => self.tape.constant(value),
            Source::Eqn { prim, ins } => match *prim {
                Prim::MatMul { ta, tb, .. } if self.trace.is_product(prim, ins) && self.trace.is_less(ins[1]) => {
                    self.product((ins[0], ta), (ins[1], tb))
                }
                _ => self.record(prim, ins),
            },
        };
        self.vars.push(var);
    }

    fn record(&self, prim: &Prim, ins: &[Id]) -> Var<'t> {
        let ins: SmallVec<[Var<'t>; 3]> = ins.iter().map(|&x| self.vars[x as usize]).collect();
        Var::record(prim.clone(), &ins)
    }

    /// `x w`, by the factors of `w`.
    fn product(&mut self, x: Factor, (w, tw): Factor) -> Var<'t> {
        let (prim, ins) = match self.trace.equation(w) {
            Some(equation) if self.trace.mapped[w as usize] => equation,
            _ => return self.vars[x.0 as usize].matmul_t(self.vars[w as usize], x.1, tw),
        };
        match *prim {
            Prim::MatMul { ta, tb, .. } => {
                // Transposed, the factors change their places.
                let [a, b] = if tw { [(ins[1], !tb), (ins[0], !ta)] } else { [(ins[0], ta), (ins[1], tb)] };
                let (core, is_turned) = self.core(x, a);
                core.matmul_t(self.vars[b.0 as usize], is_turned, b.1)
            }
            Prim::Barrier => self.product(x, (ins[0], tw)),
            Prim::Binary(_) => {
                let sides = [0, 1].map(|i| self.product(x, (ins[i], tw)));
                Var::record(prim.clone(), &sides)
            }
            _ => {
                let y = self.product(x, (ins[0], tw));
                Var::record(prim.clone(), &[y])
            }
        }
    }

    /// `x a`, or its transpose: the one with more rows, so that it has the same bits whoever asks first.
    fn core(&mut self, x: Factor, a: Factor) -> (Var<'t>, bool) {
        let turned = [a, x].map(|(id, is_transposed)| (id, !is_transposed));
        let side = |(id, is_transposed): Factor, axis: usize| self.trace.shape(id)[axis ^ usize::from(is_transposed)];
        let (rows, cols) = (side(x, 0), side(a, 1));
        let is_turned = rows < cols || rows == cols && self.cores.contains_key(&turned);
        let key = if is_turned { turned } else { [x, a] };
        let [(x, tx), (a, ta)] = key;
        let core =
            *self.cores.entry(key).or_insert_with(|| self.vars[x as usize].matmul_t(self.vars[a as usize], tx, ta));
        (core, is_turned)
    }
}
