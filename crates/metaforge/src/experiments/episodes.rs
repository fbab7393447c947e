//! Few-shot classification of images: prototypical networks and MAML.

use std::path::Path;
use std::sync::Arc;

use metaforge_data::{Classes, EpisodeConfig, EpisodeSampler, Rotations};
use metaforge_meta::{
    self as meta, Clip, EpisodeLearner, Maml, MetaTrainer, Objective, ProtoNet, Statistics, TrainConfig,
};
use metaforge_nn::{Model, Params, zoo};

use super::{optimizer, schedule, watched};
use crate::chart::{Mark, Plot, Series};
use crate::error::Result;
use crate::experiment::{Evaluation, Experiment, Figure, Unit, Watch};
use crate::metrics::Metrics;
use crate::picture::{Layout, Picture};
use crate::recipe::{self, ConvName, ConvNet, EpisodeData, EpisodeEval, Task};
use crate::sources;

/// Test episodes are another stream than those of training, and the same for every seed.
const TEST_SEED: u64 = 0x7e57;

/// A learner, its trainer and the episodes that it is measured on.
pub(super) struct Episodes {
    trainer: MetaTrainer,
    test: EpisodeSampler,
    task: Task,
    eval: EpisodeEval,
    rotations: Rotations,
}

/// The experiment of a recipe of kind `proto`.
pub(super) fn proto(recipe: &recipe::Proto, seed: u64, data: Option<&Path>) -> Result<Episodes> {
    let learner = |shape| Arc::new(ProtoNet::new(network(recipe.model, shape, None))) as Arc<dyn EpisodeLearner>;
    Episodes::new(learner, recipe.data, recipe.task, &recipe.optimizer, recipe.eval, seed, data)
}

/// The experiment of a recipe of kind `maml`.
pub(super) fn maml(recipe: &recipe::Maml, seed: u64, data: Option<&Path>) -> Result<Episodes> {
    let inner = recipe.inner;
    let learner = |shape| {
        let model = network(recipe.model, shape, Some(recipe.task.train_ways));
        let maml = Maml {
            steps: inner.steps,
            lr: inner.lr,
            eval_steps: inner.eval_steps,
            order: inner.order,
            rematerialise: inner.rematerialise,
            statistics: recipe.eval.batch_norm,
            ..Maml::new(model, Objective::CrossEntropy)
        };
        Arc::new(maml) as Arc<dyn EpisodeLearner>
    };
    Episodes::new(learner, recipe.data, recipe.task, &recipe.optimizer, recipe.eval, seed, data)
}

fn network(net: ConvNet, [h, w, c]: [usize; 3], ways: Option<usize>) -> Model {
    let layers = match net.name {
        ConvName::Conv4 => zoo::conv4(net.channels, ways),
        ConvName::Conv4Strided => zoo::conv4_strided(net.channels, ways),
    };
    Model::new(layers, [1, h, w, c])
}

impl Episodes {
    fn new(
        learner: impl Fn([usize; 3]) -> Arc<dyn EpisodeLearner>,
        data: EpisodeData,
        task: Task,
        rule: &recipe::Optimizer,
        eval: EpisodeEval,
        seed: u64,
        dir: Option<&Path>,
    ) -> Result<Episodes> {
        let [train, test] = sources::classes(data.source, [data.split, eval.split], dir)?;
        let rotations = data.rotations;
        let sampler = |source: Arc<dyn Classes>, ways, shots, queries, seed| {
            EpisodeSampler::new(source, EpisodeConfig { ways, shots, queries, rotations }, seed)
        };
        let train = sampler(train, task.train_ways, task.train_shots, task.train_queries, seed)?;
        let test = sampler(test, task.ways, task.shots, task.queries, TEST_SEED)?;
        let config = TrainConfig {
            meta_batch: task.meta_batch,
            schedule: schedule(rule),
            clip: (rule.clip > 0.0).then_some(Clip::Norm(rule.clip)),
            seed,
        };
        let learner = learner(train.image_shape());
        let trainer = MetaTrainer::new(learner, Arc::new(train), optimizer(rule), config)?;
        Ok(Episodes { trainer, test, task, eval, rotations })
    }
}

impl Episodes {
    /// The first test episode, a class a row: what is learned from it, and what is asked.
    fn picture(&self) -> Picture {
        let (episode, [h, w, c]) = (self.test.episode(0), self.test.image_shape());
        let Task { ways, shots, queries, .. } = self.task;
        let support = episode.support_x.reshape([ways, shots, h, w, c]);
        Picture::rows(&support, &episode.query_x.reshape([ways, queries, h, w, c]), Layout::columns(1))
    }
}

impl Experiment for Episodes {
    fn step(&mut self, _n: u64) -> Result<Metrics> {
        let report = self.trainer.step()?;
        Ok(Metrics::new().with("loss/query", report.loss).with("accuracy/query", report.metric))
    }

    fn memory_bytes(&self) -> usize {
        self.trainer.memory_bytes()
    }

    fn state(&self) -> Params {
        self.trainer.state()
    }

    fn restore(&mut self, state: &Params) -> Result<()> {
        Ok(self.trainer.restore(state)?)
    }

    fn weights(&self) -> Params {
        self.trainer.weights()
    }

    fn restore_weights(&mut self, weights: &Params) -> Result<()> {
        Ok(self.trainer.restore_weights(weights)?)
    }

    fn evaluate(&self, watch: Watch<'_>) -> Result<Evaluation> {
        let tasks = watched(&self.test, self.eval.tasks, watch);
        let found = self.trainer.evaluate(&tasks, self.eval.tasks as u64, self.eval.batch_norm)?;
        let Task { ways, shots, queries, .. } = self.task;
        let last = found.last();
        let mut chance = format!("chance is {:.0} %", 100.0 / ways as f64);
        if self.task.train_ways != ways {
            chance += &format!("; training, and its curve, is {}-way", self.task.train_ways);
        }
        let label = format!("{ways}-way {shots}-shot accuracy on unseen classes");
        let accuracy = Figure::new("accuracy", label, last.metric.mean, Unit::Fraction);
        let mut figures = vec![
            accuracy.with_ci95(last.metric.ci95).with_note(chance),
            Figure::new("loss", "query loss", last.loss.mean, Unit::Number).with_ci95(last.loss.ci95),
        ];
        let mut plots = Vec::new();
        if found.scores.len() > 1 {
            for (steps, score) in found.scores.iter().enumerate() {
                let label = format!("accuracy after {}", in_words(steps));
                let figure = Figure::new(format!("accuracy_step{steps}"), label, score.metric.mean, Unit::Fraction);
                figures.push(figure.with_ci95(score.metric.ci95));
            }
            let points = found.scores.iter().enumerate().map(|(i, s)| [i as f64, s.metric.mean]).collect();
            plots.push(adaptation("Accuracy on unseen classes as the network adapts", "accuracy", points));
        }
        let turned = match self.rotations {
            Rotations::None => "no rotations",
            Rotations::AsClasses => "quarter turns as classes of their own",
            Rotations::PerEpisode => "each class turned by a random quarter per episode",
        };
        let whose = match found.statistics {
            Statistics::Transductive => "transductive batch norm (statistics of the query batch)",
            Statistics::Inductive => "inductive batch norm (each query stands alone)",
        };
        let protocol = format!(
            "{} episodes of {ways} classes of the {} part, {shots} support and {queries} query images a class, {turned}, {whose}; mean and 95 % interval over episodes.",
            found.tasks,
            self.eval.split.name(),
        );
        Ok(Evaluation {
            protocol,
            tasks: found.tasks,
            figures,
            plots,
            pictures: vec![("a_test_episode_support_then_queries".into(), self.picture())],
        })
    }
}

/// `1 step`, `2 steps`.
pub(super) fn in_words(steps: usize) -> String {
    format!("{steps} step{}", if steps == 1 { "" } else { "s" })
}

/// A curve over the steps of adaptation.
pub(super) fn adaptation(title: &str, y: &str, points: Vec<[f64; 2]>) -> Plot {
    let series = vec![Series { name: String::new(), color: 0, mark: Mark::Line, points }];
    Plot { title: title.into(), x: "inner steps".into(), y: y.into(), log_y: false, series }
}

impl From<meta::Error> for crate::Error {
    fn from(e: meta::Error) -> crate::Error {
        crate::Error::Refused(e.to_string())
    }
}
