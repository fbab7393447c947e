//! Random programs: however equations follow each other, a compiled program gives the eager run's bits.

use std::fmt;

use metaforge_autodiff::{
    Aval, Binary, Conv, DType, Key, Par, Prim, Program, Shape, Tape, Tensor, Unary, Var, Window, concat, grad,
};
use proptest::prelude::*;
use rand::Rng;

/// Elements of the largest value.
const LARGEST: usize = 1 << 17;

/// One equation, or a few: what is done, and by which numbers operands, axes and sizes are chosen among those that fit.
#[derive(Clone, Copy, Debug)]
struct Step {
    kind: u8,
    picks: [u16; 4],
}

/// A random program and its inputs.
#[derive(Clone)]
struct Case {
    /// Sizes of the images.
    image: [usize; 4],
    /// Channels that a convolution or a product gives.
    wide: usize,
    dtype: DType,
    /// Whether there are infinities and NaNs among the inputs.
    wild: bool,
    seed: u64,
    steps: Vec<Step>,
    /// Which values are given out, besides the last.
    outputs: Vec<u16>,
    /// Whether the gradient is given out too.
    gradient: bool,
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Case { image, wide, dtype, wild, seed, outputs, gradient, .. } = self;
        writeln!(f, "{image:?} {wide} {dtype} wild: {wild} seed: {seed} outputs: {outputs:?} gradient: {gradient}")?;
        self.steps.iter().try_for_each(|Step { kind, picks }| writeln!(f, "  {} {picks:?}", kind % KINDS))?;
        write!(f, "{}", self.program())
    }
}

/// Numbers on a coarse lattice, so that there are ties, zeros of both signs, and pools with several maxima.
fn numbers(shape: &[usize], seed: u64, wild: bool) -> Tensor {
    let mut rng = Key::new(seed).rng();
    let mut number = || match rng.random_range(0..40) {
        0 if wild => f64::NAN,
        1 if wild => f64::INFINITY,
        2 if wild => f64::NEG_INFINITY,
        3 => -0.0,
        4..20 => f64::from(rng.random_range(-8i32..=8)) / 4.0,
        _ => rng.random_range(-2.0..2.0),
    };
    Tensor::from_f64(shape, (0..shape.iter().product()).map(|_| number()).collect())
}

impl Case {
    /// Two images, columns for them, weights, a matrix, a number; the first image and the columns are there twice.
    fn inputs(&self) -> Vec<Tensor> {
        let [n, h, w, c] = self.image;
        let d = self.wide;
        let shapes: [&[usize]; 9] = [
            &[n, h, w, c],
            &[n, h, w, c],
            &[c],
            &[1, 1, 1, c],
            &[3, 3, c, d],
            &[1, 1, c, c],
            &[c, d],
            &[n, 1, 1, c],
            &[],
        ];
        let draw = |(i, shape): (usize, &&[usize])| numbers(shape, self.seed.wrapping_add(i as u64), self.wild);
        let mut all: Vec<Tensor> = shapes.iter().enumerate().map(draw).map(|t| t.to_dtype(self.dtype)).collect();
        all.extend([all[0].clone(), all[2].clone()]);
        all
    }

    fn avals(&self) -> Vec<Aval> {
        self.inputs().iter().map(Tensor::aval).collect()
    }

    fn program(&self) -> Program {
        Program::trace(&self.avals(), |_, x| self.record(x))
    }

    /// Records the steps and gives the values that are given out.
    fn record<'t>(&self, inputs: &[Var<'t>]) -> Vec<Var<'t>> {
        let mut values = Values { all: inputs.to_vec(), indices: Vec::new() };
        for step in &self.steps {
            if let Some(new) = values.apply(step)
                && new.shape().elements() <= LARGEST
            {
                values.all.push(new);
            }
        }
        let all = &values.all;
        let last = all[all.len() - 1];
        let mut outputs: Vec<Var<'t>> = self.outputs.iter().map(|&i| all[i as usize % all.len()]).collect();
        outputs.extend(values.indices.iter().take(2));
        outputs.push(last);
        if self.gradient {
            // Of all values, so that the sweep goes back through every step; by four inputs, so that some of it is dead.
            let sum = all.iter().map(|x| x.tanh().sum()).reduce(|a, b| a + b).expect("there are inputs");
            outputs.extend(grad(sum, &[inputs[0], inputs[2], inputs[4], inputs[6]]));
        }
        outputs
    }
}

/// Kinds of steps; see [`Values::apply`].
const KINDS: u8 = 24;

/// The values that a step can choose from.
struct Values<'t> {
    all: Vec<Var<'t>>,
    indices: Vec<Var<'t>>,
}

impl<'t> Values<'t> {
    /// Some value, one of the last ones in half the cases.
    fn any(&self, pick: u16) -> Var<'t> {
        let (n, pick) = (self.all.len(), pick as usize);
        if pick.is_multiple_of(2) { self.all[n - 1 - pick / 2 % n.min(4)] } else { self.all[pick / 2 % n] }
    }

    /// Some value that `fits`.
    fn that(&self, pick: u16, fits: impl Fn(Shape) -> bool) -> Option<Var<'t>> {
        let found: Vec<Var<'t>> = self.all.iter().rev().copied().filter(|x| fits(x.shape())).collect();
        (!found.is_empty()).then(|| found[pick as usize % found.len()])
    }

    fn image(&self, pick: u16) -> Option<Var<'t>> {
        self.that(pick, |s| s.len() == 4)
    }

    /// Some value that broadcasts with a shape to no more than [`LARGEST`] elements.
    fn beside(&self, pick: u16, shape: Shape) -> Option<Var<'t>> {
        self.that(pick, |s| s.broadcast(&shape).is_some_and(|s| s.elements() <= LARGEST))
    }

    /// What a step gives; `None` if nothing fits.
    fn apply(&mut self, step: &Step) -> Option<Var<'t>> {
        let [a, b, c, d] = step.picks;
        let x = self.any(a);
        let shape = x.shape();
        let axis = |pick: u16| (!shape.is_empty()).then(|| pick as usize % shape.len());
        Some(match step.kind % KINDS {
            0..3 => Var::record(Prim::Unary(UNARY[b as usize % UNARY.len()]), &[x]),
            3..7 => Var::record(
                Prim::Binary(BINARY[c as usize % BINARY.len()]),
                &if d.is_multiple_of(2) { [x, self.beside(b, shape)?] } else { [self.beside(b, shape)?, x] },
            ),
            7 => {
                let other = self.beside(b, shape)?;
                let both = shape.broadcast(&other.shape())?;
                let third = self.beside(c, both)?;
                match d % 3 {
                    0 => x.select(other, third),
                    1 => other.greater(x).select(third, x),
                    _ => third.select(x, other),
                }
            }
            8 => x.broadcast_to(self.that(b, |s| shape.broadcast(&s) == Some(s))?.shape()),
            9 => x.sum_to(self.that(b, |s| s.broadcast(&shape) == Some(shape))?.shape()),
            10 => x.sum_axes(&[axis(b)?], c.is_multiple_of(2)),
            11 => match b % 4 {
                0 => x.reshape([shape.elements()]),
                1 => x.reshape([1, shape.elements()]),
                2 => x.reshape([shape[..axis(c)?].iter().product(), shape[axis(c)?..].iter().product::<usize>()]),
                _ => x.reshape(self.that(c, |s| s.elements() == shape.elements())?.shape()),
            },
            12 | 13 => {
                let inner = b as usize % (shape.len() + 1);
                let outer = if c.is_multiple_of(3) { d as usize % (shape.len() - inner + 1) } else { 0 };
                x.normalize(outer, inner, 0.1)
            }
            14 => {
                let like = self.that(b, |s| s == shape)?;
                let rows = [1, shape[..shape.len().checked_sub(1)?].iter().product(), shape[shape.len() - 1]];
                let [x, like] = [x, like].map(|x| x.reshape(rows));
                let rstd = Var::record(Prim::Rstd { eps: 0.1 }, &[x]);
                let xhat = if c.is_multiple_of(2) { x.normalize(0, 1, 0.1) } else { x };
                let g = Var::record(Prim::NormalizeGrad, &[xhat, rstd.reshape([1, rows[2]]), like]);
                g.reshape(shape)
            }
            15 => {
                let [ta, tb] = [c, d].map(|pick| pick.is_multiple_of(2));
                let flat = |x: Var<'t>| {
                    let s = x.shape();
                    let last = *s.last()?;
                    Some(x.reshape([s[..s.len() - 1].iter().product(), last]))
                };
                let x = flat(x)?;
                let k = x.shape()[usize::from(!ta)];
                let fits = |s: Shape| match (s.split_last(), tb) {
                    (None, _) => false,
                    (Some((&last, _)), true) => last == k,
                    (Some((_, lead)), false) => lead.iter().product::<usize>() == k,
                };
                let y = flat(self.that(b, fits)?)?;
                let out = x.shape()[usize::from(ta)] * y.shape()[usize::from(!tb)];
                (out * k <= 1 << 22 && out <= LARGEST).then(|| x.matmul_t(y, ta, tb))?
            }
            16 | 17 => {
                let x = self.image(a)?;
                let window = window(b, c, x)?;
                let like = self.that(d, |s| s == x.shape())?;
                if d.is_multiple_of(3) {
                    x.max_pool2d(window)
                } else {
                    // What lies where another image has its maxima, or is put there.
                    let indices = Var::record(Prim::MaxPoolIndices(window), &[like]);
                    self.indices.push(indices);
                    let ([n, pixels], out) = (flat(x.shape()), indices.shape());
                    let flat_indices = indices.reshape(flat(out));
                    let picked = Var::record(Prim::Gather, &[x.reshape([n, pixels, 1]), flat_indices]).reshape(out);
                    if d.is_multiple_of(2) {
                        picked
                    } else {
                        let g = self.that(c, |s| s == out).unwrap_or(picked).reshape([n, flat(out)[1], 1]);
                        Var::record(Prim::ScatterAdd { rows: pixels }, &[g, flat_indices]).reshape(x.shape())
                    }
                }
            }
            18 => {
                let x = self.image(a)?;
                x.avg_pool2d(window(b, c, x)?)
            }
            19 => {
                let x = self.image(a)?;
                let s = x.shape();
                let w = self
                    .that(b, |w| w.len() == 4 && w[2] == s[3] && (1..=3).contains(&w[0]) && (1..=3).contains(&w[1]))?;
                let conv = Conv::new().pad(c as usize % 2).stride(1 + d as usize % 2);
                let has_room = [0, 1].iter().all(|&i| s[1 + i] + 2 * conv.pad[i][0] >= w.shape()[i]);
                (has_room && s.elements() * w.shape().elements() <= 1 << 24).then(|| x.conv2d(w, conv))?
            }
            20 => {
                let mut axes: Vec<usize> = (0..shape.len()).collect();
                axes.rotate_left(axis(b)?);
                if c.is_multiple_of(2) {
                    axes.reverse();
                }
                x.permute(&axes)
            }
            21 => {
                let axis = axis(b)?;
                let start = c as usize % (shape[axis] + 1);
                let len = d as usize % (shape[axis] - start + 1);
                match d % 3 {
                    0 => x.slice(axis, start, len),
                    1 => x.flip(axis),
                    _ => x.pad(axis, c as usize % 3, d as usize % 2),
                }
            }
            22 => {
                let axis = axis(b)?;
                let like = self.that(c, |s| s.len() == shape.len() && s.with(axis, 0) == shape.with(axis, 0))?;
                concat(&[x, like, x][..2 + d as usize % 2], axis)
            }
            _ => match b % 4 {
                0 if !shape.is_empty() => x.log_softmax(),
                1 if shape.last().is_some_and(|&n| n > 0) => {
                    let best = x.argmax();
                    self.indices.push(best);
                    x.take_last(best)
                }
                2 => x.cast(if x.dtype() == DType::F32 { DType::F64 } else { DType::F32 }).cast(x.dtype()),
                _ => x.stop_gradient(),
            },
        })
    }
}

fn flat(shape: Shape) -> [usize; 2] {
    [shape[0], shape[1..].iter().product()]
}

/// Windows that tile an image of this size, or overlap; each has a pixel in it.
fn window<'t>(size: u16, more: u16, x: Var<'t>) -> Option<Window> {
    let kernel = [[2, 2], [1, 2], [2, 1], [3, 2], [3, 3], [1, 1]][size as usize % 6];
    let tiles = Window { kernel, stride: kernel, pad: [[0; 2]; 2] };
    let window = match more % 4 {
        0 => Window { stride: [1, 2], ..tiles },
        1 if kernel[0] > 1 => Window { pad: [[1, 0], [0, 0]], ..tiles },
        _ => tiles,
    };
    let s = x.shape();
    window.out_size([s[1], s[2]]).map(|_| window).filter(|_| s[1] > 0 && s[2] > 0)
}

const UNARY: [Unary; 20] = [
    Unary::Neg,
    Unary::Abs,
    Unary::Sign,
    Unary::Step,
    Unary::Exp,
    Unary::Log,
    Unary::Sqrt,
    Unary::Rsqrt,
    Unary::Recip,
    Unary::Tanh,
    Unary::Sigmoid,
    Unary::Softplus,
    Unary::Sin,
    Unary::Cos,
    Unary::Relu,
    Unary::LeakyRelu(0.2),
    Unary::Powf(3.0),
    Unary::Powf(0.5),
    Unary::Affine { scale: -1.7, shift: 0.3 },
    Unary::Affine { scale: 0.5, shift: 0.0 },
];

const BINARY: [Binary; 12] = [
    Binary::Add,
    Binary::Add,
    Binary::Sub,
    Binary::Mul,
    Binary::Mul,
    Binary::Div,
    Binary::Max,
    Binary::Min,
    Binary::Greater,
    Binary::GreaterEqual,
    Binary::Equal,
    Binary::Gate(0.3),
];

fn step() -> impl Strategy<Value = Step> {
    (any::<u8>(), prop::array::uniform4(any::<u16>())).prop_map(|(kind, picks)| Step { kind: kind % KINDS, picks })
}

fn case() -> impl Strategy<Value = Case> {
    let small = (
        prop::sample::select(vec![2usize, 1, 3, 5, 4, 2, 3, 0]),
        prop::sample::select(vec![4usize, 1, 2, 3, 5, 6, 7, 8, 4, 0]),
        prop::sample::select(vec![4usize, 1, 2, 3, 5, 8]),
        prop::sample::select(vec![2usize, 1, 3, 4, 5, 8, 16, 17, 20, 33, 64, 65, 4, 8, 0]),
    );
    // More rows than a block of a sum has, more elements than a thread takes.
    let large =
        prop::sample::select(vec![[40, 14, 14, 8], [9, 28, 28, 4], [300, 6, 6, 3], [70, 28, 28, 2], [17, 7, 7, 64]]);
    let image = prop_oneof![9 => small.prop_map(|(n, h, w, c)| [n, h, w, c]), 1 => large];
    let shapes = (image, prop::sample::select(vec![2usize, 1, 4, 8, 17]));
    let dtype = prop::sample::select(vec![DType::F32, DType::F32, DType::F64]);
    let way = (dtype, prop::bool::weighted(0.25), any::<u64>(), prop::bool::weighted(0.5));
    let steps = prop::collection::vec(step(), 5..=30);
    (shapes, way, steps, prop::collection::vec(any::<u16>(), 0..5)).prop_map(
        |((image, wide), (dtype, wild, seed, gradient), steps, outputs)| Case {
            image,
            wide,
            dtype,
            wild,
            seed,
            steps,
            outputs,
            gradient,
        },
    )
}

/// Shape, type and bits. Which NaN it is is left open: neither the processor nor the compiler promises one.
fn bits(t: &Tensor) -> (Aval, Vec<u64>) {
    let bits = match t.dtype() {
        DType::F32 => t.f32s().iter().map(|x| if x.is_nan() { f32::NAN } else { *x }.to_bits().into()).collect(),
        DType::F64 => t.f64s().iter().map(|x| if x.is_nan() { f64::NAN } else { *x }.to_bits()).collect(),
        DType::U32 => t.u32s().iter().map(|&x| x.into()).collect(),
    };
    (t.aval(), bits)
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_program_gives_the_eager_bits(case in case()) {
        let inputs = case.inputs();
        let tape = Tape::eager();
        let xs: Vec<Var<'_>> = inputs.iter().map(|x| tape.var(x)).collect();
        let eager: Vec<_> = case.record(&xs).iter().map(|y| bits(&y.value())).collect();
        let as_if_large = Program::trace_as_if_large(&case.avals(), |_, x| case.record(x));
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        let inputs: Vec<&Tensor> = inputs.iter().collect();
        for program in [case.program(), as_if_large] {
            let mut workspace = program.workspace();
            // The second and third find what the one before left in memory.
            for par in [Par::Seq, Par::Rayon, Par::Seq] {
                pool.install(|| program.run(&mut workspace, &inputs, par));
                for (i, eager) in eager.iter().enumerate() {
                    let found = bits(&program.output(&workspace, i).to_tensor());
                    let at = eager.1.iter().zip(&found.1).position(|(a, b)| a != b);
                    prop_assert!(
                        *eager == found,
                        "output {i}, {} and {}, from element {at:?} on, {par:?}\n{program}", eager.0, found.0
                    );
                }
            }
        }
    }
}
