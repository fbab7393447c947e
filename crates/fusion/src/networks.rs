//! The two players for 28x28 images of one channel, small enough for a CPU.
//!
//! The generator is an encoder and a decoder. Layer norm stands where the published networks have batch norm: it treats each
//! image alone, so nothing has to be carried from task to task.

use metaforge_gan::{Loss, Penalty};
use metaforge_nn::{
    Conv2d, ConvTranspose2d, Flatten, Init, LayerNorm, LeakyRelu, Linear, Model, Relu, Reshape, Sequential,
};

use crate::FewShotGan;

const SIDE: usize = 28;

/// The game of few-shot generation: codes of `latent` numbers, `channels` channels at 14x14, half as many at 28x28.
pub fn fewshot_gan(latent: usize, channels: usize) -> FewShotGan {
    FewShotGan {
        encoder: encoder(latent, channels),
        decoder: decoder(latent, channels),
        discriminator: discriminator(channels),
        loss: Loss::NonSaturating,
        penalty: Penalty::R1 { weight: 1.0 },
        adversarial: 1.0,
        reconstruction: 20.0,
    }
}

fn down(net: Sequential, out: usize) -> Sequential {
    net.then(Conv2d::new(out, 3).stride(2).same().init(Init::KaimingNormal)).then(LeakyRelu(0.2))
}

/// `[N, 28, 28, 1]` to codes `[N, latent]`.
fn encoder(latent: usize, channels: usize) -> Model {
    let body = [channels, 2 * channels, 2 * channels].into_iter().fold(Sequential::new(), down);
    Model::new(body.then(Flatten).then(Linear::new(latent).init(Init::XavierUniform)), [1, SIDE, SIDE, 1])
}

/// Codes `[N, latent]` to logits of pixels `[N, 28, 28, 1]`.
fn decoder(latent: usize, channels: usize) -> Model {
    let up = |out| ConvTranspose2d::new(out, 4).stride(2).pad(1).init(Init::XavierUniform);
    let net = Sequential::new()
        .then(Linear::new(49 * 2 * channels).init(Init::KaimingNormal))
        .then(Reshape::new([7, 7, 2 * channels]))
        .then(LayerNorm::over(3).plain())
        .then(Relu)
        .then(up(channels))
        .then(LayerNorm::over(3).plain())
        .then(Relu)
        .then(up(channels / 2))
        .then(LeakyRelu(0.2))
        .then(Conv2d::new(1, 3).same().init(Init::XavierUniform));
    Model::new(net, [1, latent])
}

/// `[N, 28, 28, 1]` to logits `[N, 1]`.
fn discriminator(channels: usize) -> Model {
    let body = [channels, 2 * channels, 4 * channels].into_iter().fold(Sequential::new(), down);
    Model::new(body.then(Flatten).then(Linear::new(1).init(Init::XavierUniform)), [1, SIDE, SIDE, 1])
}
