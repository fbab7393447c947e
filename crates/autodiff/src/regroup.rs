//! Products with a matrix that is a product itself: `X (A B)` as `(X A) B`, where the side that A and B share is short.
//!
//! A step of descent on a few samples changes a layer's weights by such a product, W' = W - α AᵀG, whose short side is the samples. If every
//! entry of a [`vmap`](crate::vmap) has a W' of its own but all share W, then `X W' = X W - α (X Aᵀ) G`: the product with W is one over the
//! rows of all entries, and neither W' nor, in the reverse sweep, its gradient is ever there as a matrix. Of several steps only the last
//! gradient gains: the sum of two such products has a side twice as long.

use std::collections::HashMap;
use std::mem::discriminant;
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
    let vars = Vec::with_capacity(nodes.len());
    let mut recorder = Recorder { trace: &trace, tape: &tape, vars, cores: HashMap::new() };
    let mut starts = Vec::with_capacity(nodes.len() + 1);
    for id in 0..nodes.len() as Id {
        starts.push(tape.next());
        recorder.node(id);
    }
    starts.push(tape.next());
    results.iter_mut().for_each(|y| *y = recorder.vars[*y].id as usize);
    regions.iter_mut().for_each(|r| *r = starts[r.start as usize]..starts[r.end as usize]);
    drop(recorder);
    tape.into_nodes()
}

/// The trace of one entry. What is known of a value stands at its origin, the first value with the same numbers: that a checkpoint computes a
/// value again, behind barriers, must not change what is made of it.
struct Trace<'n> {
    nodes: &'n [Node],
    origin: Vec<Id>,
    /// Which values differ from entry to entry.
    mapped: Vec<bool>,
    /// The origins that read each origin, each once, and `None` for a result.
    readers: Vec<SmallVec<[Option<Id>; 2]>>,
}

/// A matrix as a product.
struct Form {
    /// The side that the two factors share.
    inner: usize,
    /// Whether a matrix that all entries have in common is added.
    has_base: bool,
    /// Whether nothing else reads the product or what is made of it.
    is_alone: bool,
}

impl<'n> Trace<'n> {
    fn new(nodes: &'n [Node], is_mapped: impl Fn(usize) -> bool, results: &[usize]) -> Trace<'n> {
        let mut trace = Trace {
            nodes,
            origin: Vec::with_capacity(nodes.len()),
            mapped: Vec::with_capacity(nodes.len()),
            readers: vec![SmallVec::new(); nodes.len()],
        };
        // By the kind of the primitive and the operands.
        let mut known: HashMap<_, Vec<Id>> = HashMap::new();
        for (id, node) in (0..).zip(nodes) {
            let (origin, mapped) = match &node.source {
                Source::Input(i) => (id, is_mapped(*i)),
                Source::Const(_) => (id, false),
                Source::Eqn { prim, ins } => {
                    let ins: SmallVec<[Id; 3]> = ins.iter().map(|&x| trace.origin[x as usize]).collect();
                    let mapped = ins.iter().any(|&x| trace.mapped[x as usize]);
                    if let Prim::Barrier = prim {
                        // It waits for the other operands and needs none of their numbers.
                        (ins[0], trace.mapped[ins[0] as usize])
                    } else {
                        let alike = known.entry((discriminant(prim), ins)).or_default();
                        let is_same = |&&at: &&Id| matches!(trace.equation(at), Some((known, _)) if known == prim);
                        let first = alike.iter().find(is_same).copied().unwrap_or(id);
                        if first == id {
                            alike.push(id);
                        }
                        (first, mapped)
                    }
                }
            };
            trace.origin.push(origin);
            trace.mapped.push(mapped);
        }
        for &y in results {
            let y = trace.origin[y] as usize;
            trace.readers[y].push(None);
        }
        for id in (0..nodes.len() as Id).rev() {
            if let (false, Some((_, ins))) = (trace.readers[id as usize].is_empty(), trace.equation(id)) {
                for &x in ins {
                    let x = trace.origin[x as usize] as usize;
                    if !trace.readers[x].contains(&Some(id)) {
                        trace.readers[x].push(Some(id));
                    }
                }
            }
        }
        trace
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
        let w = self.origin[w as usize];
        let (prim, ins) = self.equation(w)?;
        if !self.mapped[w as usize] {
            return None;
        }
        let is_alone = self.readers[w as usize].len() == 1;
        match *prim {
            Prim::MatMul { ta, .. } if self.is_product(prim, ins) => {
                Some(Form { inner: self.shape(ins[0])[usize::from(!ta)], has_base: false, is_alone })
            }
            Prim::Unary(op) if is_linear(op) => {
                self.form(ins[0]).map(|form| Form { is_alone: is_alone && form.is_alone, ..form })
            }
            Prim::Binary(Binary::Add | Binary::Sub) if self.shape(ins[0]) == self.shape(ins[1]) => {
                let step = match [0, 1].map(|i| self.mapped[ins[i] as usize]) {
                    [true, false] => ins[0],
                    [false, true] => ins[1],
                    _ => return None,
                };
                let form = self.form(step).filter(|form| form.is_alone && !form.has_base)?;
                Some(Form { has_base: true, is_alone, ..form })
            }
            _ => None,
        }
    }

    /// Whether the product `x w` is less work by the factors of `w`.
    fn pays(&self, w: Id) -> bool {
        let Some(Form { inner, has_base, .. }) = self.form(w) else { return false };
        let (sides, all) = (self.shape(w).iter().sum::<usize>(), self.shape(w).iter().product::<usize>());
        match has_base {
            false => inner * sides < all,
            // The products with the base come on top, so the matrix itself must be spared.
            true => self.rows(w).is_some_and(|rows| rows * sides <= all),
        }
    }

    /// The rows of all products that read this matrix as their right side; `None` if something else reads it. A layer's weights are read by its
    /// gradient, too, which may be taken later.
    fn rows(&self, w: Id) -> Option<usize> {
        let w = self.origin[w as usize];
        let (mut all, mut most) = (0, 0);
        for reader in &self.readers[w as usize] {
            let id = (*reader)?;
            let (prim, ins) = self.equation(id)?;
            if !self.is_product(prim, ins) || self.origin[ins[0] as usize] == w {
                return None;
            }
            let rows = self.shape(id)[0];
            (all, most) = (all + rows, most.max(rows));
        }
        Some(all.max(2 * most))
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
struct Recorder<'n, 't> {
    trace: &'n Trace<'n>,
    tape: &'t Tape,
    vars: Vec<Var<'t>>,
    /// The products `X A` so far: the gradient of one layer has the transpose of another's.
    cores: HashMap<[Factor; 2], Var<'t>>,
}

impl<'t> Recorder<'_, 't> {
    fn node(&mut self, id: Id) {
        let node = &self.trace.nodes[id as usize];
        let var = match &node.source {
            Source::Input(i) => self.tape.input(*i, node.aval),
            Source::Const(value) => self.tape.constant(value),
            Source::Eqn { prim, ins } => match *prim {
                Prim::MatMul { ta, tb, .. } if self.trace.is_product(prim, ins) && self.trace.pays(ins[1]) => {
                    self.product((ins[0], ta), (ins[1], tb))
                }
                _ => {
                    let ins: SmallVec<[Var<'t>; 3]> = ins.iter().map(|&x| self.vars[x as usize]).collect();
                    Var::record(prim.clone(), &ins)
                }
            },
        };
        self.vars.push(var);
    }

    /// `x w`, by the factors of `w`, as [`Trace::form`] finds them.
    fn product(&mut self, x: Factor, (w, tw): Factor) -> Var<'t> {
        let origin = self.trace.origin[w as usize];
        let (prim, ins) = match self.trace.equation(origin) {
            Some(equation) if self.trace.mapped[origin as usize] => equation,
            _ => return self.vars[x.0 as usize].matmul_t(self.vars[w as usize], x.1, tw),
        };
        match *prim {
            Prim::MatMul { ta, tb, .. } => {
                // Transposed, the factors change their places.
                let [a, b] = if tw { [(ins[1], !tb), (ins[0], !ta)] } else { [(ins[0], ta), (ins[1], tb)] };
                let (core, is_turned) = self.core(x, a);
                core.matmul_t(self.vars[b.0 as usize], is_turned, b.1)
            }
            Prim::Unary(_) => {
                let y = self.product(x, (ins[0], tw));
                Var::record(prim.clone(), &[y])
            }
            Prim::Binary(_) => {
                let sides = [0, 1].map(|i| self.product(x, (ins[i], tw)));
                Var::record(prim.clone(), &sides)
            }
            _ => unreachable!("{prim} is no product"),
        }
    }

    /// `x a`, or its transpose: of two that are each other's, always the same one, so that both are computed once and to the same bits.
    fn core(&mut self, x: Factor, a: Factor) -> (Var<'t>, bool) {
        let straight = [x, a];
        let turned = [a, x].map(|(id, is_transposed)| (id, !is_transposed));
        let side = |(id, is_transposed): Factor, axis: usize| self.trace.shape(id)[axis ^ usize::from(is_transposed)];
        let origins =
            |factors: [Factor; 2]| factors.map(|(id, is_transposed)| (self.trace.origin[id as usize], is_transposed));
        let (rows, cols) = (side(x, 0), side(a, 1));
        let is_turned = rows < cols || rows == cols && origins(turned) < origins(straight);
        let key = if is_turned { turned } else { straight };
        let [(x, tx), (a, ta)] = key;
        let core =
            *self.cores.entry(key).or_insert_with(|| self.vars[x as usize].matmul_t(self.vars[a as usize], tx, ta));
        (core, is_turned)
    }
}
