//! Few-shot learners as they are timed: MAML on sine waves and on images, prototypical networks in training and in use.

use std::sync::Arc;

use metaforge_autodiff::Key;
use metaforge_data::{EpisodeConfig, EpisodeSampler, Glyphs, Rotations, Sinusoids, Split};
use metaforge_meta::{
    EpisodeLearner, Maml, MetaTrainer, Objective, Order, ProtoNet, Tasks, TrainConfig, squared_distances,
};
use metaforge_nn::{Adam, Mode, Model, Relu, zoo};

use crate::workloads::{Repeated, applied};

/// Second-order MAML on sine waves: an MLP 1-40-40-1, 10 support and 10 query points, 25 tasks, Adam.
pub fn maml_sinusoid(inner_steps: usize) -> MetaTrainer {
    let model = Model::new(zoo::mlp(&[40, 40], 1, Relu), [1, 1]);
    let maml = Maml { steps: inner_steps, lr: 0.01, ..Maml::new(model, Objective::MeanSquare) };
    trainer(maml, Arc::new(Sinusoids::new(10, 10, 1, Split::Train)), 25)
}

/// MAML on 28x28 images: Conv4-64 with batch norm and max-pooling, 5-way 1-shot, 15 queries a class, `tasks` tasks, Adam.
pub fn maml_images(order: Order, inner_steps: usize, rematerialise: bool, tasks: usize) -> MetaTrainer {
    let model = Model::new(zoo::conv4(64, Some(5)), [1, 28, 28, 1]);
    let maml = Maml { steps: inner_steps, lr: 0.4, order, rematerialise, ..Maml::new(model, Objective::CrossEntropy) };
    trainer(maml, episodes(5, 1, 15), tasks)
}

/// A prototypical network on 28x28 images: Conv4-64, one episode a step, Adam.
pub fn proto_images(ways: usize, shots: usize, queries: usize) -> MetaTrainer {
    let model = Model::new(zoo::conv4(64, None), [1, 28, 28, 1]);
    trainer(ProtoNet::new(model), episodes(ways, shots, queries), 1)
}

/// A trained embedding in use, 5-way 1-shot, 15 queries a class: the 80 images of an episode by running statistics, the prototypes, the
/// distances, the nearest class of each query. The images stay the same.
pub fn proto_eval() -> Repeated {
    let (ways, shots) = (5, 1);
    let model = Model::new(zoo::conv4(64, None), [1, 28, 28, 1]);
    let images = Key::new(1).uniform([80, 28, 28, 1], 0.0, 1.0);
    applied(&model, Mode::Eval, vec![images], |z, _, _| {
        let (rows, width) = (z.shape()[0], z.shape()[1]);
        let prototypes = z.slice(0, 0, ways * shots).reshape([ways, shots, width]).mean_axes(&[1], false);
        let queries = z.slice(0, ways * shots, rows - ways * shots);
        vec![(-squared_distances(queries, prototypes)).argmax()]
    })
}

fn episodes(ways: usize, shots: usize, queries: usize) -> Arc<EpisodeSampler> {
    let config = EpisodeConfig { ways, shots, queries, rotations: Rotations::None };
    Arc::new(EpisodeSampler::new(Arc::new(Glyphs::new(0, Split::Train)), config, 1).expect("glyphs are endless"))
}

fn trainer(learner: impl EpisodeLearner + 'static, tasks: Arc<dyn Tasks>, batch: usize) -> MetaTrainer {
    let config = TrainConfig::new(batch, 1e-3);
    MetaTrainer::new(Arc::new(learner), tasks, Box::new(Adam::default()), config).expect("the settings make sense")
}
