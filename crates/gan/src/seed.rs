//! The seed model: a dense generator against a convolutional discriminator, on 28x28 images.
//!
//! Generator: noise 100, dense 128, ReLU, dense 128, ReLU, dense 784, sigmoid, as `[28, 28, 1]`; 130,576 numbers.
//! Discriminator: 3x3 convolutions of stride 2 to 64, 128 and 256 channels (28, 14, 7, 4 rows; TensorFlow's "same" padding),
//! each with a leaky ReLU of slope 0.2, then one dense output, a logit; 373,761 numbers. Both start as in Keras:
//! Glorot-uniform weights, no bias. Cross-entropy on logits, Adam at 2e-4 with decays 0.5 and 0.999, batches of 32.

use metaforge_data::Range;
use metaforge_nn::{Conv2d, Flatten, Init, LeakyRelu, Linear, Model, Relu, Reshape, Schedule, Sequential, Sigmoid};

use crate::{Gan, Loss, Penalty, Rule, TrainerConfig};

/// Length of the noise vector.
pub const NOISE: usize = 100;

/// Rows and columns of an image.
pub const SIDE: usize = 28;

/// `[N, 100]` to `[N, 28, 28, 1]` with values in 0..=1.
pub fn generator() -> Model {
    let dense = |out| Linear::new(out).init(Init::XavierUniform);
    let net = Sequential::new()
        .then(dense(128))
        .then(Relu)
        .then(dense(128))
        .then(Relu)
        .then(dense(SIDE * SIDE))
        .then(Sigmoid)
        .then(Reshape::new([SIDE, SIDE, 1]));
    Model::new(net, [1, NOISE])
}

/// `[N, 28, 28, 1]` to logits `[N, 1]`.
pub fn discriminator() -> Model {
    let conv = |net: Sequential, out| {
        net.then(Conv2d::new(out, 3).stride(2).same().init(Init::XavierUniform)).then(LeakyRelu(0.2))
    };
    let body = [64, 128, 256].into_iter().fold(Sequential::new(), conv);
    Model::new(body.then(Flatten).then(Linear::new(1).init(Init::XavierUniform)), [1, SIDE, SIDE, 1])
}

/// The seed model's game, without a penalty.
///
/// On MNIST the discriminator, which has 65 times the generator's arithmetic, wins within a few hundred steps and the generator
/// collapses to one image; so it does in PyTorch from the same distribution of first weights. [`Penalty::R1`] on the
/// discriminator's slope at real images keeps the game open and changes neither player.
///
/// What the game can teach is bounded by what this discriminator sees: a feature of its last convolution sees 15 of 28 rows and
/// columns (3, 7, 15), and its logit is a sum over the 16 places of those. It has no feature for how two parts of an image that lie
/// further apart go together.
pub fn seed_gan() -> Gan {
    Gan {
        generator: generator(),
        discriminator: discriminator(),
        loss: Loss::NonSaturating,
        penalty: Penalty::None,
        best: None,
        range: Range::Unit,
    }
}

/// The seed model's training, with a moving average of the generator for the samples.
pub fn seed_config(seed: u64) -> TrainerConfig {
    let rule = || Rule::adam(2e-4, 0.5, 0.999);
    TrainerConfig {
        batch: 32,
        discriminator_steps: 1,
        penalty_every: 1,
        penalty_scale: Schedule::Constant(1.0),
        generator: rule(),
        discriminator: rule(),
        average: Some(0.999),
        seed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use metaforge_autodiff::Key;

    #[test]
    fn the_players_have_the_seed_models_sizes() {
        let gan = seed_gan();
        assert_eq!(gan.generator.init(Key::new(0)).count(), 130_576);
        assert_eq!(gan.discriminator.init(Key::new(0)).count(), 373_761);
        assert_eq!(gan.generator.output()[1..], [28, 28, 1]);
        assert_eq!(gan.discriminator.output()[1..], [1]);
        assert_eq!(gan.noise(), NOISE);
    }

    #[test]
    fn padding_is_tensorflows() {
        // A first layer of stride 2 on 28 rows pads below and to the right only: output 0 sees rows 0..3.
        let d = discriminator();
        let params = d.init(Key::new(1));
        let score = |pixel: Option<(usize, usize)>| {
            let mut x = vec![0.0; SIDE * SIDE];
            if let Some((r, c)) = pixel {
                x[r * SIDE + c] = 1.0;
            }
            let tape = metaforge_autodiff::Tape::eager();
            let image = tape.constant(&metaforge_autodiff::Tensor::new([1, SIDE, SIDE, 1], x));
            let weights = params.bind(&tape);
            let first = Model::new(Conv2d::new(64, 3).stride(2).same(), [1, SIDE, SIDE, 1]);
            first.forward(&weights[..2], image).value()
        };
        let (blank, dot) = (score(None), score(Some((0, 0))));
        let w = params.tensors()[0].f32s();
        assert_eq!(dot.f32s()[..64], w[..64], "pixel (0, 0) meets tap (0, 0) of output (0, 0)");
        assert_eq!(dot.f32s()[64..], blank.f32s()[64..]);
    }
}
