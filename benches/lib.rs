//! Whole workloads as a user runs them, ready to take a step: what `workloads.rs` times.
#![forbid(unsafe_code)]

use std::sync::Arc;

use metaforge_data::{Digits, EpisodeConfig, EpisodeSampler, Glyphs, Rotations, Sinusoids, Split};
use metaforge_gan::{GanTrainer, seed};
use metaforge_meta::{EpisodeLearner, Maml, MetaTrainer, Objective, Order, ProtoNet, TrainConfig};
use metaforge_nn::{Adam, Model, Relu, zoo};

/// Second-order MAML on sine waves: an MLP 1-40-40-1, 10 support and 10 query points, 25 tasks, Adam.
pub fn maml_sinusoid(inner_steps: usize) -> MetaTrainer {
    let model = Model::new(zoo::mlp(&[40, 40], 1, Relu), [1, 1]);
    let maml = Maml { steps: inner_steps, lr: 0.01, ..Maml::new(model, Objective::MeanSquare) };
    trainer(maml, Arc::new(Sinusoids::new(10, 10, 1, Split::Train)), 25)
}

/// MAML on 28x28 images: Conv4-64 with batch norm and max-pooling, 5-way 1-shot, 15 queries a class, `tasks` tasks, Adam.
pub fn maml_images(order: Order, tasks: usize) -> MetaTrainer {
    let model = Model::new(zoo::conv4(64, Some(5)), [1, 28, 28, 1]);
    let maml = Maml { lr: 0.4, order, ..Maml::new(model, Objective::CrossEntropy) };
    trainer(maml, episodes(5, 1, 15), tasks)
}

/// A prototypical network on 28x28 images: Conv4-64, one episode a step, Adam.
pub fn proto_images(ways: usize, shots: usize, queries: usize) -> MetaTrainer {
    let model = Model::new(zoo::conv4(64, None), [1, 28, 28, 1]);
    trainer(ProtoNet::new(model), episodes(ways, shots, queries), 1)
}

/// The seed GAN on 28x28 images in batches of 32: a step of both players.
pub fn seed_gan() -> GanTrainer {
    let images = Arc::new(Digits::new(0, Split::Train).set(0..2000));
    GanTrainer::new(seed::seed_gan(), seed::seed_config(1), images).expect("2000 images are enough")
}

fn episodes(ways: usize, shots: usize, queries: usize) -> Arc<EpisodeSampler> {
    let config = EpisodeConfig { ways, shots, queries, rotations: Rotations::None };
    Arc::new(EpisodeSampler::new(Arc::new(Glyphs::new(0, Split::Train)), config, 1).expect("glyphs are endless"))
}

fn trainer(learner: impl EpisodeLearner + 'static, tasks: Arc<dyn metaforge_meta::Tasks>, batch: usize) -> MetaTrainer {
    let config = TrainConfig::new(batch, 1e-3);
    MetaTrainer::new(Arc::new(learner), tasks, Box::new(Adam::default()), config).expect("the settings make sense")
}
