//! The seed GAN, written out: a dense generator against a convolutional discriminator on 28x28 digits.
//!
//!     cargo run --release --example mnist_gan                            (stroke digits, embedded)
//!     METAFORGE_DATA=DIR cargo run --release --example mnist_gan         (DIR/mnist/train-images-idx3-ubyte.gz …)
//!
//! Code of this game is easily wrong without an error: labels handed to the discriminator as if they were images, the generator's raw output taken for
//! its loss, so that no gradient of the game ever reaches it, the same 32 real images in every step. Here it is played as it is meant: the
//! discriminator moves on a real and a generated batch, the generator moves by the gradient that comes back through the discriminator, and
//! the batches go through all images in a new order each epoch.
//!
//! So played, these two players still end at one image within some hundred steps: the discriminator grows too sure. One line holds its slope at the real
//! images (R1, Mescheder et al. 2018), which takes a gradient of a gradient. Set its weight to 0 to see the collapse.
//!
//! `metaforge train mnist-seed-gan` plays it longer and in a better form, with checkpoints, metrics and a report.

use std::path::Path;
use std::sync::Arc;

use metaforge::autodiff::{Aval, DType, Key, Par, Program, Tensor, Var, grad};
use metaforge::data::{BatchSampler, Digits, Split, idx};
use metaforge::gan::seed;
use metaforge::nn::losses::bce_with_logits;
use metaforge::nn::{Adam, Optimizer};
use metaforge::picture::{Layout, Picture};

const BATCH: usize = 32;
const STEPS: u64 = 6000;
/// Weight of the squared slope of the discriminator at the real images.
const R1: f64 = 2.0;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let images = match metaforge::data::data_dir(None) {
        Ok(dir) => idx::mnist(&dir.join("mnist"), Split::Train)?,
        Err(_) => Digits::new(0, Split::Train).set(0..20_000),
    };
    let batches = BatchSampler::new(Arc::new(images), BATCH, 0)?;

    // Dense 100-128-128-784, ReLU, ReLU, sigmoid; and conv 64-128-256 of stride 2 with LeakyReLU, flattened to one logit.
    let (generator, discriminator) = (seed::generator(), seed::discriminator());
    let (g, d) = (generator.avals(), discriminator.avals());
    let adam = Adam { beta1: 0.5, ..Adam::default() };
    let (g_state, d_state) = (adam.init(&g), adam.init(&d));
    let (real, noise) = (Aval::new([BATCH, 28, 28, 1], DType::F32), Aval::new([BATCH, seed::NOISE], DType::F32));

    // The discriminator's move: real images are 1, generated ones 0. The generator is held fixed: no gradient is asked of it.
    let inputs = [d.clone(), d_state.avals(), g.clone(), vec![real, noise]].concat();
    let d_move = Program::trace(&inputs, |tape, v| {
        let (own, v) = v.split_at(d.len());
        let (state, v) = v.split_at(d_state.len());
        let (fixed, v) = v.split_at(g.len());
        let fake = generator.forward(fixed, v[1]).stop_gradient();
        let target = |x: f64| tape.full([BATCH, 1], x, DType::F32);
        let verdict = discriminator.forward(own, v[0]);
        let slope = grad(verdict.sum(), &[v[0]])[0];
        let loss = bce_with_logits(verdict, target(1.0))
            + bce_with_logits(discriminator.forward(own, fake), target(0.0))
            + slope.square().sum() * (R1 / 2.0 / BATCH as f64);
        let (own, state) = adam.update(own, &grad(loss, own), state, tape.scalar(2e-4, DType::F32));
        [own, state, vec![loss]].concat()
    });

    // The generator's move: its images should be taken for real. The gradient passes through the discriminator, which stays as it is.
    let inputs = [g.clone(), g_state.avals(), d.clone(), vec![noise]].concat();
    let g_move = Program::trace(&inputs, |tape, v| {
        let (own, v) = v.split_at(g.len());
        let (state, v) = v.split_at(g_state.len());
        let (fixed, v) = v.split_at(d.len());
        let verdict = discriminator.forward(fixed, generator.forward(own, v[0]));
        let loss = bce_with_logits(verdict, tape.full([BATCH, 1], 1.0, DType::F32));
        let (own, state) = adam.update(own, &grad(loss, own), state, tape.scalar(2e-4, DType::F32));
        [own, state, vec![loss]].concat()
    });

    let key = Key::new(0);
    let mut generator_player = Player::new(generator.init(key.fold(0)).tensors(), g_state.tensors());
    let mut discriminator_player = Player::new(discriminator.init(key.fold(1)).tensors(), d_state.tensors());
    for step in 0..STEPS {
        let draw = |which: u64| key.fold(2).fold(step).fold(which).normal([BATCH, seed::NOISE], 0.0, 1.0);
        let d_loss = discriminator_player.play(&d_move, &generator_player, &[batches.batch(step).x, draw(0)]);
        let g_loss = generator_player.play(&g_move, &discriminator_player, &[draw(1)]);
        if step % 100 == 0 || step + 1 == STEPS {
            println!("step {step:5}: discriminator {d_loss:.3}, generator {g_loss:.3}");
        }
    }

    let sample =
        Program::trace(&[g.clone(), vec![Aval::new([100, seed::NOISE], DType::F32)]].concat(), |_, v: &[Var<'_>]| {
            vec![generator.forward(&v[..g.len()], v[g.len()])]
        });
    let z = key.fold(3).normal([100, seed::NOISE], 0.0, 1.0);
    let drawn = sample.call(&generator_player.params().iter().chain([&z]).collect::<Vec<_>>());
    let file = Path::new("mnist_gan.png");
    Picture::grid(&drawn[0], Layout::columns(10)).save(file)?;
    println!("100 samples are in {}", file.display());
    Ok(())
}

/// A player's parameters, followed by its optimiser's state.
struct Player {
    tensors: Vec<Tensor>,
    count: usize,
}

impl Player {
    fn new(params: &[Tensor], state: &[Tensor]) -> Player {
        Player { tensors: [params, state].concat(), count: params.len() }
    }

    fn params(&self) -> &[Tensor] {
        &self.tensors[..self.count]
    }

    /// Makes a move against the other player and gives the loss that it descended.
    fn play(&mut self, program: &Program, other: &Player, data: &[Tensor]) -> f64 {
        let inputs: Vec<&Tensor> = self.tensors.iter().chain(other.params()).chain(data).collect();
        let mut workspace = program.workspace();
        program.run(&mut workspace, &inputs, Par::Rayon);
        self.tensors = (0..self.tensors.len()).map(|i| program.output(&workspace, i).to_tensor()).collect();
        program.output(&workspace, self.tensors.len()).item()
    }
}
