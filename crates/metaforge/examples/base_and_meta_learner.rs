//! A base learner, and a meta-learner that is truly trained to improve it.
//!
//!     cargo run --release --example base_and_meta_learner
//!
//! The base learner is Dense(10, relu)-Dense(1) on 1,000 rows of 10 features, trained by Adam at 0.001 in shuffled batches of 32.
//! The meta-learner has the same shape: ten inputs, Dense(10, relu)-Dense(1). It looks at ten features of one weight of the base
//! learner (its gradient, running averages of it, the weight itself) and gives a correction to that weight's step.
//!
//! The listing that this corrects computes a meta-loss that does not depend on the meta-learner, so that its gradient is None and
//! it never changes; and it shows the first 32 rows in every epoch. Here the meta-loss is the base learner's loss after several
//! steps that the meta-learner had a hand in, on rows that those steps did not see. Its gradient flows back through the steps,
//! which contain gradients themselves: a derivative of second order.

use metaforge::autodiff::{Aval, DType, Key, Par, Program, Tensor, Var, grad};
use metaforge::nn::losses::mse;
use metaforge::nn::{Adam, Model, Optimizer, Params, Relu, zoo};

const ROWS: usize = 1000;
const FEATURES: usize = 10;
const BATCH: usize = 32;
/// Steps of the base learner that the meta-loss looks back on.
const UNROLL: usize = 10;
/// Steps in the life of a base learner: about six epochs.
const LIFE: u64 = 200;
const META_STEPS: u64 = 3000;
const RATE: f64 = 0.001;
/// How far an output of 1 moves a weight: twice Adam's step.
const REACH: f64 = 0.002;
/// Decays of the running averages of the gradient, and of its square.
const DECAYS: [f64; 3] = [0.5, 0.9, 0.99];
const SQUARE_DECAY: f64 = 0.999;

/// 1,000 rows of a random regression problem: a linear and a bent part, and noise.
struct Problem {
    x: Tensor,
    y: Tensor,
}

impl Problem {
    fn draw(key: Key) -> Problem {
        let x = key.fold(0).normal([ROWS, FEATURES], 0.0, 1.0);
        let (line, bend) = (key.fold(1).normal([FEATURES], 0.0, 0.5), key.fold(2).normal([FEATURES], 0.0, 0.5));
        let noise = key.fold(3).normal([ROWS], 0.0, 0.1);
        let dot = |row: &[f32], w: &Tensor| row.iter().zip(w.f32s()).map(|(a, b)| a * b).sum::<f32>();
        let rows = x.f32s().chunks(FEATURES).zip(noise.f32s());
        let y = rows.map(|(row, noise)| dot(row, &line) + dot(row, &bend).sin() + noise).collect();
        Problem { y: Tensor::new([ROWS, 1], y), x }
    }

    /// Batch number `index` of a life: each epoch is another permutation of all rows.
    fn batch(&self, key: Key, index: u64) -> [Tensor; 2] {
        use rand::seq::SliceRandom;
        let per_epoch = (ROWS / BATCH) as u64;
        let mut order: Vec<u32> = (0..ROWS as u32).collect();
        order.shuffle(&mut key.fold(index / per_epoch).rng());
        let start = (index % per_epoch) as usize * BATCH;
        let pick = |from: &Tensor, width: usize| {
            let rows = order[start..start + BATCH].iter().map(|&r| r as usize * width);
            Tensor::new([BATCH, width], rows.flat_map(|r| from.f32s()[r..r + width].to_vec()).collect())
        };
        [pick(&self.x, FEATURES), pick(&self.y, 1)]
    }
}

/// One step of the base learner: Adam's, corrected by the meta-learner. `moments` are, for each weight tensor, three running
/// averages of its gradient and one of the gradient's square.
fn corrected_step<'t>(
    learners: (&Model, &Model),
    meta: &[Var<'t>],
    weights: &[Var<'t>],
    moments: &[Var<'t>],
    [x, y]: [Var<'t>; 2],
) -> (Vec<Var<'t>>, Vec<Var<'t>>) {
    let (base, meta_learner) = learners;
    let gradients = grad(mse(base.forward(weights, x), y), weights);
    let (mut new_weights, mut new_moments) = (Vec::new(), Vec::new());
    for ((&w, g), m) in weights.iter().zip(gradients).zip(moments.chunks(4)) {
        let mut averages: Vec<Var<'t>> = DECAYS.iter().zip(m).map(|(&d, &m)| m * d + g * (1.0 - d)).collect();
        let square = m[3] * SQUARE_DECAY + g * g * (1.0 - SQUARE_DECAY);
        // The root of the mean square, never zero, so that its derivative is finite.
        let scale = (square + 1e-10).rsqrt();
        let count = w.shape().elements();
        let mut features = vec![g, averages[0], averages[1], averages[2]];
        features.extend([
            g * scale,
            averages[0] * scale,
            averages[1] * scale,
            averages[2] * scale,
            w,
            (g.abs() + 1e-10).sqrt(),
        ]);
        let columns: Vec<Var<'t>> = features.iter().map(|f| f.reshape([count, 1])).collect();
        let correction = meta_learner.forward(meta, metaforge::autodiff::concat(&columns, 1)).reshape(w.shape());
        new_weights.push(w - averages[1] * scale * RATE - correction * REACH);
        averages.push(square);
        new_moments.extend(averages);
    }
    (new_weights, new_moments)
}

fn main() {
    let network = || zoo::mlp(&[10], 1, Relu);
    let base = Model::new(network(), [BATCH, FEATURES]);
    let meta_learner = Model::new(network(), [BATCH, FEATURES]);
    println!("base learner and meta-learner: {} weights each", base.init(Key::new(0)).count());

    // Compiled once: ten steps of the base learner, its loss afterwards on a batch that they did not see, the gradient of that loss
    // with respect to the meta-learner, and Adam's step on the meta-learner.
    let batch = [Aval::new([BATCH, FEATURES], DType::F32), Aval::new([BATCH, 1], DType::F32)];
    let (meta_avals, base_avals) = (meta_learner.avals(), base.avals());
    let moments_avals: Vec<Aval> = base_avals.iter().flat_map(|&a| [a; 4]).collect();
    let adam = Adam::default();
    let (p, q, m) = (meta_avals.len(), base_avals.len(), moments_avals.len());
    let adam_state = adam.init(&meta_avals);
    let inputs =
        [meta_avals.clone(), adam_state.avals(), base_avals.clone(), moments_avals.clone(), batch.repeat(UNROLL + 1)]
            .concat();
    let meta_step = Program::trace(&inputs, |tape, v| {
        let (meta, rest) = v.split_at(p);
        let (state, rest) = rest.split_at(adam_state.len());
        let (weights, rest) = rest.split_at(q);
        let (moments, batches) = rest.split_at(m);
        let pair = |i: usize| [batches[2 * i], batches[2 * i + 1]];
        let start = (weights.to_vec(), moments.to_vec());
        let (weights, moments) =
            (0..UNROLL).fold(start, |(w, m), i| corrected_step((&base, &meta_learner), meta, &w, &m, pair(i)));
        let [x, y] = pair(UNROLL);
        let meta_loss = mse(base.forward(&weights, x), y);
        let (meta, state) = adam.update(meta, &grad(meta_loss, meta), state, tape.scalar(0.001, DType::F32));
        [vec![meta_loss], meta, state, weights, moments].concat()
    });
    let mut workspace = meta_step.workspace();

    let mut meta = meta_learner.init(Key::new(1));
    let mut adam_state = adam_state.clone();
    let untrained = meta.clone();
    let zeros = |avals: &[Aval]| avals.iter().map(|a| Tensor::zeros(a.shape, a.dtype)).collect::<Vec<_>>();
    let (mut weights, mut moments) = (Vec::new(), Vec::new());
    let (mut problem, mut life) = (Problem::draw(Key::new(2)), Key::new(3));
    let per_life = LIFE / UNROLL as u64;
    let mut loss = 0.0;
    for step in 0..META_STEPS {
        let age = step % per_life;
        if age == 0 {
            // A new base learner on a new problem.
            let number = step / per_life;
            (problem, life) = (Problem::draw(Key::new(2).fold(number)), Key::new(3).fold(number));
            (weights, moments) = (base.init(life).tensors().to_vec(), zeros(&moments_avals));
        }
        let first = age * UNROLL as u64;
        let batches: Vec<Tensor> = (first..=first + UNROLL as u64).flat_map(|i| problem.batch(life, i)).collect();
        let tensors = [meta.tensors(), adam_state.tensors(), &weights, &moments, &batches].concat();
        meta_step.run(&mut workspace, &tensors.iter().collect::<Vec<_>>(), Par::Seq);
        let out = |i: usize| meta_step.output(&workspace, i).to_tensor();
        loss += out(0).item() / per_life as f64;
        meta.update_from(&meta_step, &workspace, 1);
        adam_state.update_from(&meta_step, &workspace, 1 + p);
        let at = 1 + p + adam_state.len();
        weights = (at..at + q).map(out).collect();
        moments = (at + q..at + q + m).map(out).collect();
        if age + 1 == per_life {
            let life = step / per_life;
            if life.is_multiple_of(15) {
                println!("life {life:3}: mean loss of the base learner {loss:.4}");
            }
            loss = 0.0;
        }
    }

    // The trial: new problems, new base learners, with the trained meta-learner and without one.
    let single = [meta_avals, base_avals.clone(), moments_avals.clone(), batch.to_vec()].concat();
    let step = Program::trace(&single, |_, v| {
        let (weights, moments) = corrected_step(
            (&base, &meta_learner),
            &v[..p],
            &v[p..p + q],
            &v[p + q..p + q + m],
            [v[p + q + m], v[p + q + m + 1]],
        );
        [weights, moments].concat()
    });
    let all = [base_avals, vec![Aval::new([ROWS, FEATURES], DType::F32), Aval::new([ROWS, 1], DType::F32)]].concat();
    let measure = Program::trace(&all, |_, v| vec![mse(base.forward(&v[..q], v[q]), v[q + 1])]);
    let trial = |meta: &Params| -> Vec<f64> {
        (0..20)
            .map(|number| {
                let (problem, life) = (Problem::draw(Key::new(4).fold(number)), Key::new(5).fold(number));
                let mut state = [base.init(life).tensors().to_vec(), zeros(&moments_avals)].concat();
                for i in 0..LIFE {
                    let tensors = [meta.tensors(), &state, &problem.batch(life, i)].concat();
                    state = step.call(&tensors.iter().collect::<Vec<_>>());
                }
                let tensors = [&state[..q], &[problem.x.clone(), problem.y.clone()]].concat();
                measure.call(&tensors.iter().collect::<Vec<_>>())[0].item()
            })
            .collect()
    };
    let silent = meta.with_tensors(zeros(&meta.avals()));
    let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
    let (adam_alone, before, after) = (trial(&silent), trial(&untrained), trial(&meta));
    println!("\nloss on all rows after {LIFE} steps, mean over {} new problems:", after.len());
    println!("  Adam alone                         {:.4}", mean(&adam_alone));
    println!("  with the meta-learner, untrained   {:.4}", mean(&before));
    println!("  with the meta-learner, trained     {:.4}", mean(&after));
    let better = adam_alone.iter().zip(&after).filter(|(a, b)| b < a).count();
    println!("The trained meta-learner improves {better} of {} base learners.", after.len());
    assert!(mean(&after) < mean(&adam_alone), "the meta-learner did not learn to help");
}
