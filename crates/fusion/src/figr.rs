//! The inner game of few-shot generation: two players learn to draw one class from a few images of it.
//!
//! After FIGR (Clouâtre and Demers 2019, <https://arxiv.org/abs/1901.02199>): both players of a GAN start a class from
//! meta-learned parameters and take a few steps against each other on its k images. What differs from the published
//! program:
//! - The generator does not draw from noise alone. It encodes the support images and decodes random combinations of
//!   their codes, as fusing generators do (Hong et al. 2020, F2GAN); it also has to decode each code to its own image. The
//!   noise is what the combinations are drawn from.
//! - A penalty on the discriminator's slope is on that of one image over all its pixels (there: of one pixel).
//! - The state of the inner optimisers starts anew with every class.

use metaforge_autodiff::{Aval, DType, Key, Par, Pool, Program, Tensor, Var, concat};
use metaforge_gan::{Loss, Penalty, Round, Rule, judge};
use metaforge_nn::losses::bce_with_logits;
use metaforge_nn::{Model, Params};

use crate::Error;

/// Two players that learn a class from a few images of it. The generator is the encoder with the decoder.
#[derive(Clone, Debug)]
pub struct FewShotGan {
    /// Images `[N, H, W, C]` with values in 0..=1 to codes `[N, Z]`.
    pub encoder: Model,
    /// Codes `[N, Z]` to images `[N, H, W, C]` as logits: a sigmoid follows.
    pub decoder: Model,
    /// Images to scores `[N, 1]`.
    pub discriminator: Model,
    /// What each side minimises in the game.
    pub loss: Loss,
    /// What is added for the discriminator.
    pub penalty: Penalty,
    /// Weight of the adversarial loss for the generator.
    pub adversarial: f64,
    /// Weight of the reconstruction of the support for the generator: cross-entropy, mean over pixels.
    pub reconstruction: f64,
}

/// Parameters of both players.
#[derive(Clone, Debug, PartialEq)]
pub struct Players {
    /// Those of the encoder, then those of the decoder.
    pub generator: Params,
    /// Those of the discriminator.
    pub discriminator: Params,
}

impl Players {
    /// Whether every number is finite.
    pub fn is_finite(&self) -> bool {
        self.generator.is_finite() && self.discriminator.is_finite()
    }

    /// All tensors, the generator's first.
    pub fn tensors(&self) -> impl Iterator<Item = &Tensor> {
        self.generator.tensors().iter().chain(self.discriminator.tensors())
    }
}

/// The inner game's settings.
#[derive(Clone, Debug)]
pub struct InnerConfig {
    /// Images of a class, k; at least 2, since combinations of one code are that code.
    pub shots: usize,
    /// How the generator moves.
    pub generator: Rule,
    /// How the discriminator moves.
    pub discriminator: Rule,
}

impl FewShotGan {
    /// First parameters of both players.
    pub fn init(&self, key: Key) -> Players {
        let mut generator = self.encoder.init(key.fold(0)).prefixed("encoder");
        generator.extend(self.decoder.init(key.fold(1)).prefixed("decoder"));
        Players { generator, discriminator: self.discriminator.init(key.fold(2)) }
    }

    /// Codes `[k, Z]` of images by the generator `g`.
    pub fn encode<'t>(&self, g: &[Var<'t>], images: Var<'t>) -> Var<'t> {
        self.encoder.forward(&g[..self.encoder.specs().len()], images)
    }

    /// Images of codes by the generator `g`, as logits.
    pub fn decode<'t>(&self, g: &[Var<'t>], codes: Var<'t>) -> Var<'t> {
        self.decoder.forward(&g[self.encoder.specs().len()..], codes)
    }

    /// New images of the class of `support` `[k, ..]`: one for each row of `mix` `[N, k]`, see [`mixtures`].
    pub fn generate<'t>(&self, g: &[Var<'t>], support: Var<'t>, mix: Var<'t>) -> Var<'t> {
        self.decode(g, mix.matmul(self.encode(g, support))).sigmoid()
    }

    /// What the generator minimises, of shape `[]`, and the part of it that is reconstruction.
    pub fn generator_loss<'t>(&self, g: &[Var<'t>], d: &[Var<'t>], support: Var<'t>, mix: Var<'t>) -> [Var<'t>; 2] {
        let codes = self.encode(g, support);
        let logits = self.decode(g, concat(&[codes, mix.matmul(codes)], 0));
        let shots = support.shape()[0];
        let [own, new] = [(0, shots), (shots, mix.shape()[0])].map(|(from, n)| logits.slice(0, from, n));
        let reconstruction = bce_with_logits(own, support);
        let adversarial = self.loss.generator(
            || self.discriminator.forward(d, support),
            self.discriminator.forward(d, new.sigmoid()),
            None,
        );
        [reconstruction * self.reconstruction + adversarial * self.adversarial, reconstruction]
    }
}

/// Weights `[n, k]` of random combinations of k codes: each row sums to 1, and the combinations have the mean and the (unbiased)
/// covariance of the codes themselves, whatever those are.
///
/// A row is `1/k + (z - mean(z)) / sqrt(k - 1)` with normal `z`. The combinations are a Gaussian fitted to the class, on
/// the plane through its codes; they lie between the codes and somewhat beyond.
pub fn mixtures(key: Key, n: usize, k: usize) -> Tensor {
    let z = key.normal([n, k], 0.0, 1.0);
    let weights = z.f32s().chunks_exact(k.max(1)).flat_map(|row| {
        let mean = row.iter().sum::<f32>() / k as f32;
        let scale = 1.0 / ((k as f32 - 1.0).max(1.0)).sqrt();
        row.iter().map(move |z| 1.0 / k as f32 + (z - mean) * scale)
    });
    Tensor::new([n, k], weights.collect())
}

/// The inner game, compiled; any number of threads may play it at once, each its own class.
pub struct InnerGame {
    gan: FewShotGan,
    config: InnerConfig,
    round: Pool,
    /// Parameters and support to images, in chunks.
    sampler: Pool,
    start: [Params; 2],
}

/// Players that have learned a class, with the images that they learned it from.
#[derive(Clone, Debug, PartialEq)]
pub struct Adapted {
    /// Their parameters.
    pub players: Players,
    /// `[k, H, W, C]`, values in 0..=1.
    pub support: Tensor,
    /// The discriminator's loss in the last step, with its penalty; 0 after no step.
    pub d_loss: f64,
    /// The generator's loss in the last step; 0 after no step.
    pub g_loss: f64,
    /// Cross-entropy of the reconstructed support a pixel, in the last step; 0 after no step.
    pub reconstruction: f64,
}

/// Images that the sampling program draws at once.
const CHUNK: usize = 16;

impl InnerGame {
    /// Compiles a step of both players.
    ///
    /// # Errors
    /// If there are fewer than two shots.
    pub fn new(gan: FewShotGan, config: InnerConfig) -> Result<InnerGame, Error> {
        let shots = config.shots;
        if shots < 2 {
            return Err(Error::Setting(format!("a class is learned from at least 2 images, not {shots}")));
        }
        let floats = |shape: &[usize]| Aval::new(shape, DType::F32);
        let generator = [gan.encoder.avals(), gan.decoder.avals()].concat();
        let discriminator = gan.discriminator.avals();
        let start = [config.generator.start(&generator), config.discriminator.start(&discriminator)];
        let support = Aval::new(gan.encoder.input().with(0, shots), DType::F32);
        let mix = floats(&[shots, shots]);
        let sizes = [generator.len(), start[0].len(), discriminator.len(), start[1].len()];
        let mut inputs = [generator.clone(), start[0].avals(), discriminator, start[1].avals()].concat();
        inputs.extend([support, mix, mix, floats(&[shots]), floats(&[]), floats(&[])]);
        let round = Program::trace(&inputs, |_, v| {
            let mut rest = v;
            let [g, g_state, d, d_state] = sizes.map(|n| {
                let (part, after) = rest.split_at(n);
                rest = after;
                part
            });
            let &[support, mix_d, mix_g, between, g_rate, d_rate] = rest else { unreachable!("six inputs of data") };
            let fake = gan.generate(g, support, mix_d);
            let round = Round { real: support, fake, mix: between };
            let verdict = judge(&gan.discriminator, d, gan.loss, gan.penalty, round);
            let (d, d_state) = config.discriminator.descend(verdict.total(), d, d_state, d_rate);
            let [loss, reconstruction] = gan.generator_loss(g, &d, support, mix_g);
            let (g, g_state) = config.generator.descend(loss, g, g_state, g_rate);
            [g, g_state, d, d_state, vec![verdict.total(), loss, reconstruction]].concat()
        });
        let mut inputs = generator;
        inputs.extend([support, floats(&[CHUNK, shots])]);
        let sampler =
            Program::trace(&inputs, |_, v| vec![gan.generate(&v[..v.len() - 2], v[v.len() - 2], v[v.len() - 1])]);
        Ok(InnerGame { gan, config, round: Pool::new(round), sampler: Pool::new(sampler), start })
    }

    /// The players' networks and losses.
    pub fn gan(&self) -> &FewShotGan {
        &self.gan
    }

    /// The settings.
    pub fn config(&self) -> &InnerConfig {
        &self.config
    }

    /// Lets both players take `steps` steps on a class, from the given parameters and with optimisers that know nothing yet.
    /// The result depends on these arguments alone.
    ///
    /// # Errors
    /// If the support is not of the shape compiled for, or a number is no longer finite.
    pub fn adapt(&self, from: &Players, support: &Tensor, steps: usize, key: Key, par: Par) -> Result<Adapted, Error> {
        let k = self.config.shots;
        let wanted = self.gan.encoder.input().with(0, k);
        if support.shape() != &*wanted || support.dtype() != DType::F32 {
            return Err(Error::Setting(format!("the support is {}, it has to be f32{wanted}", support.aval())));
        }
        let mut players = from.clone();
        let [mut g_state, mut d_state] = self.start.clone();
        let mut losses = [0.0; 3];
        for step in 0..steps as u64 {
            let key = key.fold(step);
            let (mix_d, mix_g) = (mixtures(key.fold(0), k, k), mixtures(key.fold(1), k, k));
            let between = key.fold(2).uniform([k], 0.0, 1.0);
            let rate = |rule: &Rule| Tensor::scalar(rule.rate.at(step) as f32);
            let (g_rate, d_rate) = (rate(&self.config.generator), rate(&self.config.discriminator));
            let mut inputs: Vec<&Tensor> = players.generator.tensors().iter().chain(g_state.tensors()).collect();
            inputs.extend(players.discriminator.tensors().iter().chain(d_state.tensors()));
            let moving = inputs.len();
            inputs.extend([support, &mix_d, &mix_g, &between, &g_rate, &d_rate]);
            let moved: Vec<Tensor> = self.round.with(|program, workspace| {
                program.run(workspace, &inputs, par);
                losses = [0, 1, 2].map(|i| program.output(workspace, moving + i).item());
                (0..moving).map(|i| program.output(workspace, i).to_tensor()).collect()
            });
            let mut moved = moved.into_iter();
            for part in [&mut players.generator, &mut g_state, &mut players.discriminator, &mut d_state] {
                *part = part.with_tensors(moved.by_ref().take(part.len()).collect());
            }
            if losses.iter().any(|l| !l.is_finite()) {
                return Err(Error::Diverged {
                    step: 0,
                    what: format!("a loss in step {} of the inner game", step + 1),
                });
            }
        }
        if !players.is_finite() {
            return Err(Error::Diverged { step: 0, what: "a player after the last step of the inner game".into() });
        }
        let [d_loss, g_loss, reconstruction] = losses;
        Ok(Adapted { players, support: support.clone(), d_loss, g_loss, reconstruction })
    }

    /// `n` new images `[n, H, W, C]` of the class, with values in 0..=1.
    pub fn sample(&self, adapted: &Adapted, n: usize, key: Key) -> Tensor {
        let shape = self.gan.decoder.output();
        let size: usize = shape[1..].iter().product();
        let mut images = Vec::with_capacity(n * size);
        for chunk in 0..n.div_ceil(CHUNK) {
            let mix = mixtures(key.fold(chunk as u64), CHUNK, self.config.shots);
            let mut inputs: Vec<&Tensor> = adapted.players.generator.tensors().iter().collect();
            inputs.extend([&adapted.support, &mix]);
            let some = (n - chunk * CHUNK).min(CHUNK);
            self.sampler.with(|program, workspace| {
                program.run(workspace, &inputs, Par::Seq);
                images.extend_from_slice(&program.output(workspace, 0).f32s()[..some * size]);
            });
        }
        Tensor::new(shape.with(0, n), images)
    }
}

#[cfg(test)]
#[path = "figr_tests.rs"]
pub(crate) mod tests;
