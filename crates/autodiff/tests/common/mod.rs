//! Every primitive with operands that fit it, for the tests that go through all of them.
#![allow(dead_code)]

use metaforge_autodiff::{Aval, Binary, Conv, DType, Key, Prim, Shape, Tensor, Unary, Var, Window};
use rand::{Rng, seq::SliceRandom};

/// A primitive and operands for it.
pub(crate) struct Case {
    pub(crate) prim: Prim,
    pub(crate) ins: Vec<Tensor>,
}

impl Case {
    /// The primitive as a function that yields floating-point numbers of which gradients flow: indices pick from their operand.
    pub(crate) fn apply<'t>(&self, xs: &[Var<'t>]) -> Var<'t> {
        match &self.prim {
            Prim::Argmax => xs[0].take_last(xs[0].argmax()),
            Prim::MaxPoolIndices(window) => xs[0].max_pool2d(*window),
            // A condition that differences do not move: 0 or 1.
            Prim::Select => xs[0].step().select(xs[1], xs[2]),
            other => Var::record(other.clone(), xs),
        }
    }
}

/// Number of kinds of primitives; see [`kind`].
pub(crate) const KINDS: usize = 63;

/// The kind of a primitive as a number below [`KINDS`]. There is no wildcard: a new primitive does not compile without its row,
/// and the test `every_kind_has_a_case` fails until [`cases`] has it too.
pub(crate) fn kind(prim: &Prim) -> usize {
    match prim {
        Prim::Unary(op) => match op {
            Unary::Neg => 0,
            Unary::Abs => 1,
            Unary::Sign => 2,
            Unary::Step => 3,
            Unary::Exp => 4,
            Unary::Log => 5,
            Unary::Sqrt => 6,
            Unary::Rsqrt => 7,
            Unary::Recip => 8,
            Unary::Tanh => 9,
            Unary::Sigmoid => 10,
            Unary::Softplus => 11,
            Unary::Sin => 12,
            Unary::Cos => 13,
            Unary::Relu => 14,
            Unary::LeakyRelu(_) => 15,
            Unary::Powf(_) => 16,
            Unary::Affine { .. } => 17,
        },
        Prim::Binary(op) => match op {
            Binary::Add => 18,
            Binary::Sub => 19,
            Binary::Mul => 20,
            Binary::Div => 21,
            Binary::Max => 22,
            Binary::Min => 23,
            Binary::Greater => 24,
            Binary::GreaterEqual => 25,
            Binary::Equal => 26,
            Binary::Gate(_) => 27,
        },
        Prim::Select => 28,
        Prim::Cast(_) => 29,
        Prim::StopGradient => 30,
        Prim::Reshape(_) => 31,
        Prim::Permute(_) => 32,
        Prim::Broadcast(_) => 33,
        Prim::SumTo(_) => 34,
        Prim::Slice { .. } => 35,
        Prim::Pad { .. } => 36,
        Prim::Flip { .. } => 37,
        Prim::Concat { .. } => 38,
        Prim::Argmax => 39,
        Prim::Gather => 40,
        Prim::ScatterAdd { .. } => 41,
        Prim::MatMul { ta: false, tb: false, interleaved: false } => 42,
        Prim::MatMul { ta: false, tb: true, interleaved: false } => 43,
        Prim::MatMul { ta: true, tb: false, interleaved: false } => 44,
        Prim::MatMul { ta: true, tb: true, interleaved: false } => 45,
        Prim::Conv(conv) if conv.groups == 1 => 46,
        Prim::Conv(_) => 47,
        Prim::ConvInputGrad { conv, .. } if conv.groups == 1 => 48,
        Prim::ConvInputGrad { .. } => 49,
        Prim::ConvWeightGrad { conv, .. } if conv.groups == 1 => 50,
        Prim::ConvWeightGrad { .. } => 51,
        Prim::MaxPoolIndices(_) => 52,
        Prim::SumPool(_) => 53,
        Prim::SumUnpool { .. } => 54,
        Prim::LogSoftmax => 55,
        Prim::Normalize { .. } => 56,
        Prim::Rstd { .. } => 57,
        Prim::NormalizeGrad => 58,
        Prim::Uniform(_) => 59,
        // The one way in from outside; its own tests stand in `custom.rs`.
        Prim::Custom(_) => 60,
        Prim::Barrier => 61,
        Prim::MatMul { interleaved: true, .. } => 62,
    }
}

/// The kind that [`cases`] leaves out: the user's own.
pub(crate) const CUSTOM: usize = 60;

/// Operands of random shapes for every primitive, replayable by `seed`.
pub(crate) fn cases(seed: u64) -> Vec<Case> {
    let mut g = Draw { rng: Key::new(seed).rng() };
    let mut all = Vec::new();
    let mut add = |prim: Prim, ins: Vec<Tensor>| all.push(Case { prim, ins });
    for op in [
        Unary::Neg,
        Unary::Abs,
        Unary::Sign,
        Unary::Step,
        Unary::Exp,
        Unary::Tanh,
        Unary::Sigmoid,
        Unary::Softplus,
        Unary::Sin,
        Unary::Cos,
        Unary::Relu,
        Unary::LeakyRelu(0.2),
        Unary::Recip,
        Unary::Affine { scale: -1.7, shift: 0.3 },
        Unary::Powf(3.0),
    ] {
        let s = g.shape(3);
        add(Prim::Unary(op), vec![g.away_from_zero(&s)]);
    }
    for op in [Unary::Log, Unary::Sqrt, Unary::Rsqrt, Unary::Powf(1.7), Unary::Powf(-0.5)] {
        let s = g.shape(3);
        add(Prim::Unary(op), vec![g.positive(&s)]);
    }
    for op in [
        Binary::Add,
        Binary::Sub,
        Binary::Mul,
        Binary::Div,
        Binary::Max,
        Binary::Min,
        Binary::Greater,
        Binary::GreaterEqual,
        Binary::Equal,
        Binary::Gate(0.0),
        Binary::Gate(0.3),
    ] {
        let (a, b) = g.broadcasting_pair();
        // Differences say little near a division by zero.
        let right = if op == Binary::Div { g.away_from_zero(&b) } else { g.never_tied(&b, 1) };
        add(Prim::Binary(op), vec![g.never_tied(&a, 0), right]);
    }
    let (a, b) = g.broadcasting_pair();
    add(Prim::Select, vec![g.away_from_zero(&a), g.any(&b), g.any(&a)]);

    let s = g.shape(4);
    add(Prim::Cast(DType::F64), vec![g.any(&s)]);
    add(Prim::StopGradient, vec![g.any(&s)]);
    add(Prim::Barrier, vec![g.any(&s), g.any(&[2]), g.any(&s)]);
    let total = s.iter().product::<usize>();
    add(Prim::Reshape([1, total].into()), vec![g.any(&s)]);
    let mut axes: Vec<usize> = (0..s.len()).collect();
    axes.shuffle(&mut g.rng);
    add(Prim::Permute(Shape::from(&axes)), vec![g.any(&s)]);
    let thin = g.thinned(&s);
    add(Prim::Broadcast(Shape::from(&s)), vec![g.any(&thin)]);
    add(Prim::SumTo(Shape::from(&thin)), vec![g.any(&s)]);
    let axis = g.rng.random_range(0..s.len());
    let start = g.rng.random_range(0..s[axis]);
    let len = g.rng.random_range(0..=s[axis] - start);
    add(Prim::Slice { axis, start, len }, vec![g.any(&s)]);
    add(Prim::Pad { axis, before: start, after: len }, vec![g.any(&s)]);
    add(Prim::Flip { axis }, vec![g.any(&s)]);
    let mut longer = s.clone();
    longer[axis] += 2;
    add(Prim::Concat { axis }, vec![g.any(&s), g.any(&longer), g.any(&s)]);
    add(Prim::Argmax, vec![g.distinct(&s)]);

    let [b, r, i, w] = [g.size(3), g.size(5), g.size(6), g.size(3)];
    let indices = g.indices(&[b, i], r);
    add(Prim::Gather, vec![g.any(&[b, r, w]), indices.clone()]);
    add(Prim::ScatterAdd { rows: r }, vec![g.any(&[b, i, w]), indices]);

    for (ta, tb) in [(false, false), (false, true), (true, false), (true, true)] {
        let plain = [(2, 2), (3, 3), (2, 3), (3, 2)].map(|ranks| (ranks, false));
        let interleaved = [(3, 3), (2, 3), (3, 2)].map(|ranks| (ranks, true));
        for (ranks, interleaved) in plain.into_iter().chain(interleaved) {
            let [batch, m, n, k] = [g.size(3), g.size(5), g.size(5), g.size(5)];
            let operand = |rank: usize, rows: usize, cols: usize, t: bool| {
                let mut shape = if t { vec![cols, rows] } else { vec![rows, cols] };
                if rank == 3 {
                    shape.insert(usize::from(interleaved), batch);
                }
                shape
            };
            let (a, b) = (operand(ranks.0, m, k, ta), operand(ranks.1, k, n, tb));
            add(Prim::MatMul { ta, tb, interleaved }, vec![g.any(&a), g.any(&b)]);
        }
    }
    for groups in [1, 2] {
        let (conv, kernel, hw, out) = g.conv(groups);
        let [n, ci, co] = [g.size(2), groups * g.size(3), groups * g.size(3)];
        let x = g.any(&[n, hw[0], hw[1], ci]);
        let w = g.any(&[kernel[0], kernel[1], ci / groups, co]);
        let y = g.any(&[n, out[0], out[1], co]);
        add(Prim::Conv(conv), vec![x.clone(), w.clone()]);
        add(Prim::ConvInputGrad { conv, hw }, vec![y.clone(), w]);
        add(Prim::ConvWeightGrad { conv, kernel }, vec![x, y]);
    }
    let (window, hw, out) = g.window();
    let [n, c] = [g.size(2), g.size(3)];
    add(Prim::MaxPoolIndices(window), vec![g.distinct(&[n, hw[0], hw[1], c])]);
    add(Prim::SumPool(window), vec![g.any(&[n, hw[0], hw[1], c])]);
    add(Prim::SumUnpool { window, hw }, vec![g.any(&[n, out[0], out[1], c])]);
    add(Prim::LogSoftmax, vec![g.any(&s)]);
    let s = [g.size(3), 1 + g.size(5), g.size(3)];
    add(Prim::Normalize { eps: 0.1 }, vec![g.any(&s)]);
    add(Prim::Rstd { eps: 0.1 }, vec![g.any(&s)]);
    add(Prim::NormalizeGrad, vec![g.any(&s), g.positive(&[s[0], s[2]]), g.any(&s)]);
    add(Prim::Uniform(Aval::new([3, 4], DType::F64)), vec![Key::new(seed).tensor()]);
    all
}

struct Draw<R> {
    rng: R,
}

impl<R: Rng> Draw<R> {
    /// 1 to `most`.
    fn size(&mut self, most: usize) -> usize {
        self.rng.random_range(1..=most)
    }

    fn shape(&mut self, most: usize) -> Vec<usize> {
        let rank = self.size(most);
        (0..rank).map(|_| self.size(4)).collect()
    }

    fn thinned(&mut self, shape: &[usize]) -> Vec<usize> {
        let lead = self.rng.random_range(0..=1.min(shape.len() - 1));
        shape[lead..].iter().map(|&s| if self.rng.random() { 1 } else { s }).collect()
    }

    fn broadcasting_pair(&mut self) -> (Vec<usize>, Vec<usize>) {
        let whole = self.shape(3);
        let thin = self.thinned(&whole);
        if self.rng.random() { (whole, thin) } else { (thin, whole) }
    }

    fn tensor(&mut self, shape: &[usize], mut draw: impl FnMut(&mut R) -> f64) -> Tensor {
        Tensor::from_f64(shape, (0..shape.iter().product()).map(|_| draw(&mut self.rng)).collect())
    }

    fn any(&mut self, shape: &[usize]) -> Tensor {
        self.tensor(shape, |rng| rng.random_range(-1.5..1.5))
    }

    fn positive(&mut self, shape: &[usize]) -> Tensor {
        self.tensor(shape, |rng| rng.random_range(0.5..2.0))
    }

    fn away_from_zero(&mut self, shape: &[usize]) -> Tensor {
        self.tensor(shape, |rng| rng.random_range(0.6..1.8) * if rng.random() { 1.0 } else { -1.0 })
    }

    /// Numbers on one of two lattices, neither of which has the other's points or zero within 0.2.
    fn never_tied(&mut self, shape: &[usize], lattice: i32) -> Tensor {
        self.tensor(shape, |rng| 0.2 * (4.0 * f64::from(rng.random_range(-2i32..2)) + 1.0 + 2.0 * f64::from(lattice)))
    }

    /// No two numbers within 0.05.
    fn distinct(&mut self, shape: &[usize]) -> Tensor {
        let mut values: Vec<f64> = (0..shape.iter().product::<usize>()).map(|i| 0.05 * i as f64 - 1.0).collect();
        values.shuffle(&mut self.rng);
        Tensor::from_f64(shape, values)
    }

    fn indices(&mut self, shape: &[usize], below: usize) -> Tensor {
        let n = shape.iter().product();
        Tensor::from_u32(shape, (0..n).map(|_| self.rng.random_range(0..below as u32)).collect())
    }

    /// A convolution with its kernel, image and output sizes.
    fn conv(&mut self, groups: usize) -> (Conv, [usize; 2], [usize; 2], [usize; 2]) {
        loop {
            let mut pair = |low: usize, high: usize| [0; 2].map(|_| self.rng.random_range(low..=high));
            let (kernel, stride, dilation, hw) = (pair(1, 3), pair(1, 3), pair(1, 2), pair(1, 5));
            let conv = Conv { stride, pad: [pair(0, 2), pair(0, 2)], dilation, groups };
            let out = [0, 1].map(|i| {
                let room = (hw[i] + conv.pad[i][0] + conv.pad[i][1]).checked_sub((kernel[i] - 1) * dilation[i] + 1)?;
                Some(room / stride[i] + 1)
            });
            if let [Some(oh), Some(ow)] = out {
                return (conv, kernel, hw, [oh, ow]);
            }
        }
    }

    fn window(&mut self) -> (Window, [usize; 2], [usize; 2]) {
        loop {
            let mut pair = |low: usize, high: usize| [0; 2].map(|_| self.rng.random_range(low..=high));
            let (kernel, stride, hw) = (pair(1, 3), pair(1, 3), pair(1, 5));
            // A window that lies in the padding alone has no maximum.
            let pad = [pair(0, kernel[0] - 1), pair(0, kernel[1] - 1)];
            let window = Window { kernel, stride, pad };
            if let Some(out) = window.out_size(hw) {
                return (window, hw, out);
            }
        }
    }
}
