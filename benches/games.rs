//! Adversarial games as they are timed: the seed model by its trainer; a DCGAN and the critic of a WGAN-GP as programs of their own, because
//! their generator has batch norm, whose statistics a step carries along.

use std::sync::Arc;

use metaforge_autodiff::{Key, Tensor};
use metaforge_data::{Digits, Split};
use metaforge_gan::{GanTrainer, Loss, Penalty, Round, Rule, TrainerConfig, judge, seed};
use metaforge_nn::{
    BatchNorm, Conv2d, ConvTranspose2d, Flatten, LeakyRelu, Linear, Mode, Model, Relu, Reshape, Sequential, Sigmoid,
};

use crate::workloads::Repeated;

/// Images of a batch of the two convolutional games.
const BATCH: usize = 64;
/// Length of the noise vector.
const NOISE: usize = 100;

/// The seed GAN on 28x28 images in batches of 32: a step of both players, without a moving average.
pub fn seed_gan() -> GanTrainer {
    let images = Arc::new(Digits::new(0, Split::Train).set(0..2000));
    let config = TrainerConfig { average: None, ..seed::seed_config(1) };
    GanTrainer::new(seed::seed_gan(), config, images).expect("2000 images are enough")
}

/// The generator of a DCGAN for 28x28 images: `[N, 100]` to `[N, 28, 28, 1]` in 0..=1.
fn generator() -> Model {
    let up = |net: Sequential, out| {
        let net = net.then(BatchNorm::new()).then(Relu);
        net.then(ConvTranspose2d::new(out, 4).stride(2).pad(1))
    };
    let base = Sequential::new().then(Linear::new(256 * 49)).then(Reshape::new([7, 7, 256]));
    let body = [128, 64].into_iter().fold(base, up).then(BatchNorm::new()).then(Relu);
    Model::new(body.then(Conv2d::new(1, 3).pad(1)).then(Sigmoid), [BATCH, NOISE])
}

/// The seed model's discriminator, padded alike on all sides: `[N, 28, 28, 1]` to logits `[N, 1]`.
fn discriminator() -> Model {
    let conv = |net: Sequential, out| net.then(Conv2d::new(out, 3).stride(2).pad(1)).then(LeakyRelu(0.2));
    let body = [64, 128, 256].into_iter().fold(Sequential::new(), conv);
    Model::new(body.then(Flatten).then(Linear::new(1)), [BATCH, 28, 28, 1])
}

/// A step of a DCGAN: the discriminator's move, and the generator's against the moved discriminator on the same images; Adam.
pub fn dcgan28() -> Repeated {
    let (g, d) = (generator(), discriminator());
    let rule = Rule::adam(2e-4, 0.5, 0.999);
    let [of_g, of_d] = [g.init(Key::new(0)), d.init(Key::new(1))];
    let [g_adam, d_adam] = [&of_g, &of_d].map(|params| rule.start(&params.avals()));
    let draw = |step| vec![Key::new(2).fold(step).normal([BATCH, NOISE], 0.0, 1.0)];
    let carried = [of_d, d_adam, of_g, g_adam, g.init_state()];
    Repeated::new(&carried, vec![reals(), Tensor::scalar(2e-4)], draw, |parts| {
        let &[dw, d_adam, gw, g_adam, g_norm, &[real, rate, z]] = parts else { unreachable!("as carried and drawn") };
        let (fake, g_norm) = g.apply(gw, g_norm, z, Mode::Train, None);
        let round = Round { real, fake, mix: rate };
        let verdict = judge(&d, dw, Loss::NonSaturating, Penalty::None, round);
        let (dw, d_adam) = rule.descend(verdict.loss, dw, d_adam, rate);
        let loss = Loss::NonSaturating.generator(|| d.forward(&dw, real), d.forward(&dw, fake), None);
        let (gw, g_adam) = rule.descend(loss, gw, g_adam, rate);
        [dw, d_adam, gw, g_adam, g_norm, vec![verdict.loss + loss]].concat()
    })
}

/// The critic's step of a WGAN with gradient penalty (weight 10), which differentiates twice; Adam. The generator only forwards.
pub fn wgan_gp_critic() -> Repeated {
    let (g, d) = (generator(), discriminator());
    let rule = Rule::adam(1e-4, 0.5, 0.9);
    let (of_g, of_d) = (g.init(Key::new(0)), d.init(Key::new(1)));
    let d_adam = rule.start(&of_d.avals());
    let fixed = of_g.tensors().iter().cloned().chain([reals(), Tensor::scalar(1e-4)]).collect();
    let draw = |step| {
        let key = Key::new(2).fold(step);
        vec![key.fold(0).normal([BATCH, NOISE], 0.0, 1.0), key.fold(1).uniform([BATCH], 0.0, 1.0)]
    };
    Repeated::new(&[of_d, d_adam, g.init_state()], fixed, draw, |parts| {
        let &[dw, d_adam, g_norm, &[ref gw @ .., real, rate, z, mix]] = parts else {
            unreachable!("as carried, fixed and drawn")
        };
        let (fake, g_norm) = g.apply(gw, g_norm, z, Mode::Train, None);
        let verdict = judge(&d, dw, Loss::Wasserstein, Penalty::Gradient { weight: 10.0 }, Round { real, fake, mix });
        let (dw, d_adam) = rule.descend(verdict.total(), dw, d_adam, rate);
        [dw, d_adam, g_norm, vec![verdict.total()]].concat()
    })
}

fn reals() -> Tensor {
    Key::new(3).uniform([BATCH, 28, 28, 1], 0.0, 1.0)
}
