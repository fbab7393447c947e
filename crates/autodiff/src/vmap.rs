//! Vectorisation: a function of one entry, applied to many at once (JAX's `vmap`: Frostig, Johnson, Leary 2018, "Compiling machine
//! learning programs via high-level tracing").
//!
//! The function is traced once, on shapes without the axis of entries; then every equation of its trace is recorded for all entries
//! together. This file is the fourth table: a rule for each primitive. Many small equations become one that is long enough to be worth its
//! beginning and end.
//!
//! A mapped value has the axis of entries before its last one, `[.., B, C]`: what has one number a column, like a bias, is then `[B, C]`, which
//! broadcasts, and is summed to, as `[C]` does; and the rows of all entries' matrices lie side by side. A scalar is `[B]`.

use smallvec::SmallVec;

use crate::aval::{MAX_RANK, Shape};
use crate::ops::stack;
use crate::prim::{Binary, Prim};
use crate::regroup::regroup;
use crate::tape::{Node, Source, Tape, Var};

/// An argument of [`vmap`].
#[derive(Clone, Copy, Debug)]
pub enum Arg<'t> {
    /// The same for every entry.
    Shared(Var<'t>),
    /// `[B, ..]`: one for each entry.
    Each(Var<'t>),
}

/// A result of [`vmap`]: one value for each entry.
#[derive(Clone, Copy, Debug)]
pub struct Mapped<'t> {
    item: Item<'t>,
    /// Of one entry's value.
    shape: Shape,
    entries: usize,
}

impl<'t> Mapped<'t> {
    /// All entries' values, `[B, ..]`.
    pub fn stacked(&self) -> Var<'t> {
        self.item.front(&self.shape, self.entries)
    }

    /// The sum of the entries' values, which are floating-point numbers, in an order that their shapes fix and what was recorded before: who wants
    /// [`Mapped::stacked`] too asks for it first. A tape that computes at once computes some products a second time for it.
    #[track_caller]
    pub fn sum(&self) -> Var<'t> {
        match self.item.mapped {
            true if self.shape.len() == 2 => sum_of_matrices(self.item.var),
            true => self.item.var.sum_axes(&[self.shape.len().saturating_sub(1)], false),
            false => self.item.var * self.entries as f64,
        }
    }
}

/// `f` of each entry along the first axis of the mapped arguments, all at once. `f` sees them without that axis, on a tracing tape of
/// its own, and may take gradients; what it closes over from another tape cannot be used in it. Gradients flow through the results to the
/// arguments, to any order.
///
/// An entry's numbers are those of the entry alone but for rounding: sums and products are put together as is least work for all.
/// Entries do not see each other; with a key that is shared they get the same random numbers. Some equations are recorded once for each entry:
/// convolutions with weights of each entry's own, gradients of convolution weights that are taken inside, random numbers and
/// [`Prim::Custom`].
///
/// ```
/// use metaforge_autodiff::{Arg, Tape, Tensor, grad, vmap};
/// // The gradient of |w x|^2 in w, for each x by itself.
/// let tape = Tape::eager();
/// let w = tape.var(&Tensor::new([1], vec![3.0]));
/// let x = tape.var(&Tensor::new([4, 1], vec![0.0, 1.0, 2.0, 3.0]));
/// let g = vmap(&[Arg::Shared(w), Arg::Each(x)], |_, v| grad((v[0] * v[1]).square().sum(), &v[..1]));
/// assert_eq!(g[0].stacked().value().f32s(), &[0.0, 6.0, 24.0, 54.0]);
/// assert_eq!(g[0].sum().value().f32s(), &[84.0]);
/// ```
///
/// # Panics
/// If no argument is mapped, a mapped one is a scalar, their entries differ in number or are none, arguments are of several tapes, a result
/// is of another tape than `f` was given, a value in `f` that differs from entry to entry has as many axes as a tensor may, or `f` panics.
#[track_caller]
pub fn vmap<'t, F>(args: &[Arg<'t>], f: F) -> Vec<Mapped<'t>>
where
    F: for<'i> FnOnce(&'i Tape, &[Var<'i>]) -> Vec<Var<'i>>,
{
    let mut counts: Vec<usize> = Vec::new();
    let mut tape = None;
    for arg in args {
        let (Arg::Shared(var) | Arg::Each(var)) = *arg;
        let tape = *tape.get_or_insert(var.tape());
        assert!(std::ptr::eq(tape, var.tape()), "vmap: arguments of several tapes");
        if let Arg::Each(_) = arg {
            assert!(!var.shape().is_empty(), "vmap: a mapped argument {} has no axis of entries", var.aval());
            counts.push(var.shape()[0]);
        }
    }
    let (Some(tape), Some(&entries)) = (tape, counts.first()) else { panic!("vmap: no argument is mapped") };
    let fits = entries > 0 && counts.iter().all(|&count| count == entries);
    assert!(fits, "vmap: mapped arguments of {counts:?} entries");

    let inner = Tape::tracing();
    let mut results: Vec<_> = {
        let inputs: Vec<Var<'_>> = args
            .iter()
            .enumerate()
            .map(|(i, arg)| {
                let mut aval = match arg {
                    Arg::Shared(var) | Arg::Each(var) => var.aval(),
                };
                if let Arg::Each(_) = arg {
                    aval.shape = aval.shape[1..].into();
                }
                inner.input(i, aval)
            })
            .collect();
        let ys = f(&inner, &inputs);
        assert!(ys.iter().all(|y| std::ptr::eq(y.tape, &inner)), "vmap: a result of another tape");
        ys.iter().map(|y| y.id as usize).collect()
    };
    let mut regions = inner.checkpoints.take();
    let is_mapped = |input: usize| matches!(args[input], Arg::Each(_));
    let nodes = regroup(&inner.into_nodes(), is_mapped, &mut results, &mut regions);
    let items = record(tape, args, &nodes, &results, entries, &regions);
    let mapped =
        |&y: &usize| Mapped { item: items[y].expect("a result was recorded"), shape: nodes[y].aval.shape, entries };
    results.iter().map(mapped).collect()
}

/// The sum over the entries of `[R, B, C]`. Terms of it that are products of the entries' own rows, which nobody has read so far, are one product over the rows of all
/// entries: `sum over b and k of A[k, b, r] B[k, b, c]`. The gradient of weights that the entries share has such terms.
fn sum_of_matrices(y: Var<'_>) -> Var<'_> {
    let reads = y.tape.reads();
    let (mut products, mut others, mut left) = (Vec::new(), Vec::new(), vec![y]);
    while let Some(term) = left.pop() {
        let is_alone = reads[term.id as usize] == u32::from(term.id != y.id);
        let parts: Option<(Prim, SmallVec<[Var<'_>; 3]>)> = match is_alone {
            true => term.tape.with_node(term.id, |node| match &node.source {
                Source::Eqn { prim, ins } => Some((prim.clone(), ins.iter().map(|&x| term.tape.var_at(x)).collect())),
                Source::Input(_) | Source::Const(_) => None,
            }),
            false => None,
        };
        match parts {
            Some((Prim::Binary(Binary::Add), ins)) if ins.iter().all(|x| x.shape() == y.shape()) => {
                left.extend(ins.into_iter().rev());
            }
            Some((Prim::MatMul { ta: true, tb: false, interleaved: true }, ins))
                if ins.iter().all(|x| x.shape().len() == 3) =>
            {
                let [a, b] = [0, 1].map(|i| {
                    let [rows, entries, cols] = [0, 1, 2].map(|axis| ins[i].shape()[axis]);
                    ins[i].reshape([rows * entries, cols])
                });
                products.push(Var::record(Prim::MatMul { ta: true, tb: false, interleaved: false }, &[a, b]));
            }
            _ => others.push(term),
        }
    }
    if products.is_empty() {
        return y.sum_axes(&[1], false);
    }
    let others = others.into_iter().reduce(|a, b| a + b).map(|others| others.sum_axes(&[1], false));
    others.into_iter().chain(products).reduce(|a, b| a + b).expect("one term at least")
}

/// Records on `tape` all that the results need, each equation for all entries.
fn record<'t>(
    tape: &'t Tape,
    args: &[Arg<'t>],
    nodes: &[Node],
    results: &[usize],
    entries: usize,
    regions: &[std::ops::Range<u32>],
) -> Vec<Option<Item<'t>>> {
    let mut needed = vec![false; nodes.len()];
    results.iter().for_each(|&y| needed[y] = true);
    for (at, node) in nodes.iter().enumerate().rev() {
        if let (true, Source::Eqn { ins, .. }) = (needed[at], &node.source) {
            ins.iter().for_each(|&x| needed[x as usize] = true);
        }
    }
    let mut items: Vec<Option<Item<'t>>> = Vec::with_capacity(nodes.len());
    // Where on the tape each equation of the trace begins, for the regions that a sweep is to compute again.
    let mut starts = Vec::with_capacity(nodes.len() + 1);
    for (at, node) in nodes.iter().enumerate() {
        starts.push(tape.next());
        items.push(needed[at].then(|| match &node.source {
            Source::Input(i) => match args[*i] {
                Arg::Shared(var) => Item { var, mapped: false },
                Arg::Each(var) => Item::from_front(var, &node.aval.shape),
            },
            Source::Const(value) => Item { var: tape.constant(value), mapped: false },
            Source::Eqn { prim, ins } => {
                let ins: SmallVec<[Operand<'t>; 3]> = ins
                    .iter()
                    .map(|&x| Operand {
                        item: items[x as usize].expect("operands are recorded first"),
                        shape: nodes[x as usize].aval.shape,
                    })
                    .collect();
                let fits = node.aval.shape.len() < MAX_RANK || ins.iter().all(|x| !x.item.mapped);
                assert!(fits, "vmap: {prim} gives {}, which leaves no axis for the entries", node.aval);
                equation(prim, &ins, &node.aval.shape, entries)
            }
        }));
    }
    starts.push(tape.next());
    for region in regions {
        let outer = starts[region.start as usize]..starts[region.end as usize];
        if !outer.is_empty() {
            tape.checkpoints.borrow_mut().push(outer);
        }
    }
    items
}

/// A value on the outer tape: the same for all entries, or with their axis before the last one.
#[derive(Clone, Copy, Debug)]
struct Item<'t> {
    var: Var<'t>,
    mapped: bool,
}

/// An operand, and the shape that it has for one entry.
#[derive(Clone, Copy)]
struct Operand<'t> {
    item: Item<'t>,
    shape: Shape,
}

/// The shape of a mapped value, with so many entries.
fn laid(shape: &Shape, entries: usize) -> Shape {
    let mut sizes = shape.to_vec();
    sizes.insert(shape.len().saturating_sub(1), entries);
    sizes.into()
}

impl<'t> Item<'t> {
    fn mapped(var: Var<'t>) -> Item<'t> {
        Item { var, mapped: true }
    }

    /// From `[B, ..]`.
    fn from_front(var: Var<'t>, shape: &Shape) -> Item<'t> {
        let rank = shape.len();
        if rank < 2 {
            return Item::mapped(var);
        }
        let axes: Vec<usize> = (1..rank).chain([0, rank]).collect();
        Item::mapped(var.permute(&axes))
    }

    /// As `[B, ..]`, repeated if it is shared.
    fn front(self, shape: &Shape, entries: usize) -> Var<'t> {
        let rank = shape.len();
        if !self.mapped {
            return self.var.broadcast_to([&[entries], &shape[..]].concat());
        }
        if rank < 2 {
            return self.var;
        }
        let axes: Vec<usize> = [rank - 1].into_iter().chain(0..rank - 1).chain([rank]).collect();
        self.var.permute(&axes)
    }
}

impl<'t> Operand<'t> {
    /// With an axis of entries before the last one, of length 1 if it is shared, to be broadcast to a result of this rank.
    fn aligned(&self, rank: usize) -> Var<'t> {
        let var = self.item.var;
        match (self.item.mapped, self.shape.len()) {
            (true, 0) if rank > 0 => var.reshape([var.shape()[0], 1]),
            (false, 2..) => var.reshape(laid(&self.shape, 1)),
            _ => var,
        }
    }

    /// All entries one behind the other along the first axis.
    fn merged(&self, entries: usize) -> Var<'t> {
        let sizes = [&[entries * self.shape[0]], &self.shape[1..]].concat();
        self.item.front(&self.shape, entries).reshape(sizes)
    }

    /// The value of one entry.
    fn entry(&self, i: usize) -> Var<'t> {
        match self.item.mapped {
            true => self.item.var.slice(self.shape.len().saturating_sub(1), i, 1).reshape(self.shape),
            false => self.item.var,
        }
    }

    /// The last axes of all entries side by side, as one: for what treats each column by itself.
    fn side_by_side(&self, entries: usize) -> Var<'t> {
        let all = self.aligned(self.shape.len()).broadcast_to(laid(&self.shape, entries));
        let (outer, last) = self.shape.split_at(self.shape.len() - 1);
        all.reshape([outer, &[entries * last[0]]].concat())
    }
}

/// The equation for all entries; `out` is the shape of one entry's result.
fn equation<'t>(prim: &Prim, ins: &[Operand<'t>], out: &Shape, entries: usize) -> Item<'t> {
    let vars: SmallVec<[Var<'t>; 3]> = ins.iter().map(|x| x.item.var).collect();
    if ins.iter().all(|x| !x.item.mapped) {
        return Item { var: Var::record(prim.clone(), &vars), mapped: false };
    }
    let x = vars[0];
    let rank = ins[0].shape.len();
    // Where an axis of an entry stands in a mapped value.
    let place = |axis: usize| if axis + 1 == rank { rank } else { axis };
    let spread = |operand: &Operand<'t>| operand.aligned(rank).broadcast_to(laid(&operand.shape, entries));
    let merge = || {
        let merged: SmallVec<[Var<'t>; 3]> = ins.iter().map(|x| x.merged(entries)).collect();
        let y = Var::record(prim.clone(), &merged);
        Item::from_front(y.reshape([&[entries], &out[..]].concat()), out)
    };
    let one_by_one = || {
        let of = |i: usize| -> Var<'t> {
            let ins: SmallVec<[Var<'t>; 3]> = ins.iter().map(|x| x.entry(i)).collect();
            Var::record(prim.clone(), &ins)
        };
        stack(&(0..entries).map(of).collect::<Vec<_>>(), out.len().saturating_sub(1))
    };
    let var = match prim {
        Prim::Unary(_) | Prim::Cast(_) | Prim::StopGradient | Prim::LogSoftmax => Var::record(prim.clone(), &vars),
        // It has the first operand's numbers, whatever it waits for.
        Prim::Barrier => return Item { var: Var::record(Prim::Barrier, &vars), ..ins[0].item },
        Prim::Binary(_) | Prim::Select => {
            let aligned: SmallVec<[Var<'t>; 3]> = ins.iter().map(|x| x.aligned(out.len())).collect();
            Var::record(prim.clone(), &aligned)
        }
        Prim::Reshape(to) => {
            let is_one = to.elements() == 1;
            match is_one || (rank > 0 && !to.is_empty() && ins[0].shape.last() == to.last()) {
                true => x.reshape(laid(to, entries)),
                false => {
                    let front = ins[0].item.front(&ins[0].shape, entries);
                    return Item::from_front(front.reshape([&[entries], &to[..]].concat()), to);
                }
            }
        }
        Prim::Permute(_) if rank == 0 => x,
        Prim::Permute(axes) => {
            let mut to: Vec<usize> = axes.iter().map(|&axis| place(axis)).collect();
            to.insert(rank - 1, rank - 1);
            x.permute(&to)
        }
        Prim::Broadcast(to) => ins[0].aligned(to.len()).broadcast_to(laid(to, entries)),
        Prim::SumTo(to) if to.is_empty() && rank > 0 => x.sum_to([entries, 1]).reshape([entries]),
        Prim::SumTo(to) => x.sum_to(laid(to, entries)),
        &Prim::Slice { axis, start, len } => x.slice(place(axis), start, len),
        &Prim::Pad { axis, before, after } => x.pad(place(axis), before, after),
        &Prim::Flip { axis } => x.flip(place(axis)),
        &Prim::Concat { axis } => {
            let parts: SmallVec<[Var<'t>; 3]> = ins.iter().map(spread).collect();
            Var::record(Prim::Concat { axis: place(axis) }, &parts)
        }
        Prim::Argmax => {
            let y = Var::record(Prim::Argmax, &vars);
            // The axis of entries is the last one now.
            if rank > 1 { y.transpose() } else { y }
        }
        &Prim::MatMul { ta, tb, interleaved: false } if rank == 2 && ins[1].shape.len() == 2 => {
            let w = vars[1];
            let [m, n] = [out[0], out[1]];
            match (ins[0].item.mapped, ins[1].item.mapped) {
                // The rows, or the columns, of all entries are those of one product.
                (true, false) if !ta => {
                    x.reshape([m * entries, ins[0].shape[1]]).matmul_t(w, false, tb).reshape([m, entries, n])
                }
                (false, true) if !tb => {
                    let w = w.reshape([ins[1].shape[0], entries * n]);
                    x.matmul_t(w, ta, false).reshape([m, entries, n])
                }
                _ => x.matmul_interleaved(w, ta, tb),
            }
        }
        &Prim::MatMul { ta, tb, interleaved } => {
            let batch = if interleaved { out[1] } else { out[0] };
            let operand = |operand: &Operand<'t>| {
                let front = operand.item.front(&operand.shape, entries);
                let s = front.shape();
                let [rows, cols] = [if interleaved || s.len() == 3 { s[1] } else { s[2] }, s[s.len() - 1]];
                let stacked = match s.len() {
                    3 => front.reshape([entries, 1, rows, cols]).broadcast_to([entries, batch, rows, cols]),
                    _ if interleaved => front.permute(&[0, 2, 1, 3]),
                    _ => front,
                };
                stacked.reshape([entries * batch, rows, cols])
            };
            let y = operand(&ins[0]).matmul_t(operand(&ins[1]), ta, tb);
            let y = y.reshape([entries, batch, y.shape()[1], y.shape()[2]]);
            return Item::from_front(if interleaved { y.permute(&[0, 2, 1, 3]) } else { y }, out);
        }
        // Images do not see each other, nor do the batches of what follows.
        Prim::Conv(_) | Prim::ConvInputGrad { .. } if !ins[1].item.mapped => {
            let y = Var::record(prim.clone(), &[ins[0].merged(entries), vars[1]]);
            return Item::from_front(y.reshape([&[entries], &out[..]].concat()), out);
        }
        Prim::SumPool(_)
        | Prim::SumUnpool { .. }
        | Prim::Normalize { .. }
        | Prim::Rstd { .. }
        | Prim::NormalizeGrad => {
            let columns: SmallVec<[Var<'t>; 3]> = ins.iter().map(|x| x.side_by_side(entries)).collect();
            Var::record(prim.clone(), &columns).reshape(laid(out, entries))
        }
        Prim::Gather | Prim::ScatterAdd { .. } | Prim::MaxPoolIndices(_) => return merge(),
        Prim::Conv(_)
        | Prim::ConvInputGrad { .. }
        | Prim::ConvWeightGrad { .. }
        | Prim::Uniform(_)
        | Prim::Custom(_) => one_by_one(),
    };
    Item::mapped(var)
}
