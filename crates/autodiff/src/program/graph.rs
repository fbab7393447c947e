//! A program between its trace and its plan: equations over numbered values, in terms of what the kernels offer.

use std::collections::HashMap;

use metaforge_kernels::fused::{Fusion, StepOp};
use metaforge_kernels::{ConvDims, MatMulDims};
use smallvec::{SmallVec, smallvec};

use crate::aval::{Aval, Shape};
use crate::prim::{Binary, Prim};
use crate::shape::conv_dims;
use crate::tape::{Id, Node, Source};
use crate::tensor::Tensor;

/// Number of a value.
pub(super) type Val = usize;

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    Input(usize),
    Const(usize),
    /// The equation with this number.
    Eqn(usize),
    /// The convolution with this number, where it is read.
    OnDemand(usize),
}

/// A convolution that is no equation: what reads its result computes it.
#[derive(Debug)]
pub(super) struct OnDemand<O> {
    pub(super) image: O,
    pub(super) weights: O,
    pub(super) dims: ConvDims,
}

/// A value, seen as of a shape: a reshape is another view of the same numbers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Use {
    pub(super) val: Val,
    pub(super) aval: Aval,
}

/// What an instruction computes.
#[derive(Debug)]
pub(super) enum Op {
    Prim(Prim),
    /// Mean and `1 / sqrt(var + eps)` of `[1, R, C]` over R.
    Statistics {
        eps: f64,
    },
    /// A convolution of an image with weights, and the statistics of the result over all pixels.
    ConvStatistics {
        eps: f64,
        dims: Box<ConvDims>,
    },
    /// Slope and shift of the gradient of a normalisation over `rows`, from the sums of g and of g * xhat, and rstd.
    Coefficients {
        rows: usize,
    },
    /// A product that is finished while it is in the cache. Its operands are those of the product, and what they are added to if they are.
    Product {
        dims: Box<MatMulDims>,
        ending: Ending,
    },
    /// A step that is no primitive by itself; it always becomes part of a fused pass.
    Step(StepOp),
    /// Many steps in one pass over memory, or several such passes beside one another. The first `inputs` operands are the inputs, pass by
    /// pass, the others the parameters.
    Fused {
        passes: Vec<Fusion>,
        inputs: usize,
    },
    /// Such a pass over the result of a convolution, which is input `at`. Its operands are those of the pass without that, the image, and the weights.
    FusedConv {
        fusion: Box<Fusion>,
        inputs: usize,
        at: usize,
        dims: Box<ConvDims>,
    },
    /// The weight gradient by what such a pass computes. Its operands are those of the pass, and the image.
    FusedWeightGrad {
        fusion: Box<Fusion>,
        inputs: usize,
        dims: Box<ConvDims>,
    },
}

/// What is done with the sums of a product, in this order.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Ending {
    /// Scale and shift.
    pub(super) affine: Option<[f64; 2]>,
    pub(super) base: Option<Base>,
    pub(super) relu: bool,
}

impl Ending {
    pub(super) fn is_nothing(&self) -> bool {
        self.affine.is_none() && self.base.is_none() && !self.relu
    }
}

/// How the sums of a product are added to an operand, or subtracted from it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Base {
    pub(super) minus: bool,
    /// Where the operand has the numbers for the next row, and for the next product of a batch; 0 for the same.
    pub(super) row: usize,
    pub(super) batch: usize,
}

#[derive(Debug)]
pub(super) struct Eqn {
    pub(super) op: Op,
    pub(super) ins: SmallVec<[Use; 3]>,
    pub(super) outs: SmallVec<[Val; 1]>,
}

impl Eqn {
    /// The shape of the convolution that it is, if it is one.
    pub(super) fn conv(&self) -> Option<ConvDims> {
        let Op::Prim(Prim::Conv(conv)) = &self.op else { return None };
        let [x, w] = [&self.ins[0].aval.shape, &self.ins[1].aval.shape];
        let (&[n, h, wide, c], &[kh, kw, _, co]) = (&x[..], &w[..]) else { return None };
        conv_dims(conv, [n, h, wide, c], [kh, kw], co).ok()
    }
}

#[derive(Debug, Default)]
pub(super) struct Graph {
    /// Shape and type of each value, and where it comes from.
    pub(super) values: Vec<(Aval, Origin)>,
    pub(super) eqns: Vec<Eqn>,
    pub(super) consts: Vec<Tensor>,
    pub(super) outputs: Vec<Use>,
    pub(super) on_demand: Vec<OnDemand<Use>>,
}

/// What has been computed already, whatever its shape.
#[derive(Default)]
struct Known {
    /// Means, by value, columns and bits of eps; what follows a mean is its `1 / sqrt(var + eps)`.
    statistics: HashMap<(Val, usize, u64), Val>,
    /// Products of two values number by number, in either order: the same bits, but for which NaN it is where both are one.
    products: HashMap<(Val, Val), Val>,
    /// Sums over all rows, by value and columns.
    sums: HashMap<(Val, usize), Val>,
}

/// Whether two values have as many numbers of one type.
fn same_numbers(a: Aval, b: Aval) -> bool {
    a.dtype == b.dtype && a.shape.elements() == b.shape.elements()
}

/// Whether all axes but the last are summed away.
fn is_column_sum(x: Aval, to: &Shape) -> bool {
    x.shape.last().is_some_and(|&c| to.last() == Some(&c) && to.elements() == c)
}

impl Graph {
    /// The equations of a trace. Normalisations over all rows are taken apart, so that the parts can be fused with what stands
    /// around them: the statistics, and what is done element by element.
    pub(super) fn new(nodes: Vec<Node>, outputs: Vec<Id>) -> Graph {
        let mut graph = Graph::default();
        let mut uses: Vec<Use> = Vec::with_capacity(nodes.len());
        let mut known = Known::default();
        for node in nodes {
            let aval = node.aval;
            let val = match node.source {
                Source::Input(i) => graph.value(aval, Origin::Input(i)),
                Source::Const(value) => {
                    graph.consts.push(value);
                    graph.value(aval, Origin::Const(graph.consts.len() - 1))
                }
                Source::Eqn { prim: Prim::Reshape(_), ins } => uses[ins[0] as usize].val,
                Source::Eqn { prim, ins } => {
                    let ins: SmallVec<[Use; 3]> = ins.iter().map(|&i| uses[i as usize]).collect();
                    graph.lower(prim, ins, aval, &mut known)
                }
            };
            uses.push(Use { val, aval });
        }
        graph.outputs = outputs.iter().map(|&id| uses[id as usize]).collect();
        graph
    }

    /// The graph in which what reads a barrier's result reads its operand. Barriers have done their work once the order of the equations
    /// is settled, so they cost neither time nor memory.
    pub(super) fn without_barriers(mut self) -> Graph {
        let mut same: Vec<Val> = (0..self.values.len()).collect();
        for eqn in &self.eqns {
            if let Op::Prim(Prim::Barrier) = eqn.op {
                same[eqn.outs[0]] = same[eqn.ins[0].val];
            }
        }
        self.eqns.retain(|eqn| !matches!(eqn.op, Op::Prim(Prim::Barrier)));
        let uses = self.eqns.iter_mut().flat_map(|eqn| &mut eqn.ins).chain(&mut self.outputs);
        uses.for_each(|x| x.val = same[x.val]);
        self.renumbered()
    }

    /// The graph without the equations that are `gone`, one answer each.
    pub(super) fn without(mut self, gone: Vec<bool>) -> Graph {
        let mut gone = gone.into_iter();
        self.eqns.retain(|_| gone.next() != Some(true));
        self.renumbered()
    }

    /// The graph whose values know which equation they come from, after equations have come or gone.
    pub(super) fn renumbered(mut self) -> Graph {
        for (i, eqn) in self.eqns.iter().enumerate() {
            eqn.outs.iter().for_each(|&out| self.values[out].1 = Origin::Eqn(i));
        }
        self
    }

    fn value(&mut self, aval: Aval, origin: Origin) -> Val {
        self.values.push((aval, origin));
        self.values.len() - 1
    }

    /// Adds an equation with results of these kinds; they are numbered in a row.
    pub(super) fn emit(&mut self, op: Op, ins: SmallVec<[Use; 3]>, outs: &[Aval]) -> Val {
        let first = self.values.len();
        for &aval in outs {
            self.value(aval, Origin::Eqn(self.eqns.len()));
        }
        self.eqns.push(Eqn { op, ins, outs: (first..first + outs.len()).collect() });
        first
    }

    fn lower(&mut self, prim: Prim, ins: SmallVec<[Use; 3]>, aval: Aval, known: &mut Known) -> Val {
        let x = ins.first().copied();
        let rows_and_columns = x.and_then(|x| match x.aval.shape[..] {
            // A single row has nothing to gain, and is not summed but copied.
            [1, r, c] if r > 1 && c > 1 => Some((r, c)),
            _ => None,
        });
        match (&prim, x, rows_and_columns) {
            (&(Prim::Normalize { eps } | Prim::Rstd { eps }), Some(x), Some((_, c))) => {
                let columns = Aval { shape: Shape::new(&[1, c]), ..aval };
                let mean = *known
                    .statistics
                    .entry((x.val, c, eps.to_bits()))
                    .or_insert_with(|| self.emit(Op::Statistics { eps }, smallvec![x], &[columns, columns]));
                if let Prim::Rstd { .. } = prim {
                    return mean + 1;
                }
                let [mean, rstd] = [mean, mean + 1].map(|val| Use { val, aval: columns });
                self.emit(Op::Step(StepOp::Normalize), smallvec![x, mean, rstd], &[aval])
            }
            (Prim::NormalizeGrad, Some(xhat), Some((rows, c))) => {
                let (rstd, g) = (ins[1], ins[2]);
                let columns = Aval { shape: Shape::new(&[1, 1, c]), ..aval };
                let product = self.lower(Prim::Binary(Binary::Mul), smallvec![g, xhat], aval, known);
                let product = Use { val: product, aval };
                let [sum, products] = [g, product].map(|of| {
                    let val = self.lower(Prim::SumTo(columns.shape), smallvec![of], columns, known);
                    Use { val, aval: columns }
                });
                let slope = self.emit(Op::Coefficients { rows }, smallvec![sum, products, rstd], &[columns, columns]);
                let [slope, shift] = [slope, slope + 1].map(|val| Use { val, aval: columns });
                self.emit(Op::Step(StepOp::NormalizeGrad), smallvec![xhat, g, rstd, slope, shift], &[aval])
            }
            // The gradients of a batch norm's scale and shift are sums that the gradient of its image needs too, in another shape.
            (Prim::Binary(Binary::Mul), Some(a), _) if [a, ins[1]].iter().all(|x| same_numbers(x.aval, aval)) => {
                let key = (a.val.min(ins[1].val), a.val.max(ins[1].val));
                *known.products.entry(key).or_insert_with(|| self.emit(Op::Prim(prim), ins, &[aval]))
            }
            (Prim::SumTo(to), Some(x), _) if is_column_sum(x.aval, to) => {
                *known.sums.entry((x.val, to.elements())).or_insert_with(|| self.emit(Op::Prim(prim), ins, &[aval]))
            }
            _ => self.emit(Op::Prim(prim), ins, &[aval]),
        }
    }
}
