//! MAML on sine waves (Finn et al. 2017, §5.1).

use std::sync::Arc;

use metaforge_autodiff::{Tape, Tensor};
use metaforge_data::{Sinusoids, Split};
use metaforge_meta::{Clip, Maml, MetaTrainer, Objective, Order, Statistics, TrainConfig, adapt};
use metaforge_nn::{Model, Params, Relu, losses, zoo};

use super::episodes::{adaptation, in_words};
use super::{optimizer, schedule, watched};
use crate::chart::{Mark, Plot, Series};
use crate::error::Result;
use crate::experiment::{Evaluation, Experiment, Figure, Unit, Watch};
use crate::metrics::Metrics;
use crate::recipe::{self, Inner, WaveEval};

/// Query points of a wave that is measured on.
const QUERIES: usize = 100;
/// Pieces of a drawn curve.
const CURVE: usize = 100;
/// The waves that are measured on are the same for every seed.
const TEST_SEED: u64 = 0x7e57;

/// A regressor, its trainer and the waves that it is measured on.
pub(super) struct Waves {
    model: Model,
    inner: Inner,
    trainer: MetaTrainer,
    test: Sinusoids,
    eval: WaveEval,
}

/// The experiment of a recipe of kind `sinusoid-maml`.
pub(super) fn build(recipe: &recipe::SinusoidMaml, seed: u64) -> Result<Waves> {
    let (task, inner, rule, eval) = (recipe.task, recipe.inner, &recipe.optimizer, recipe.eval);
    let model = Model::new(zoo::mlp(&recipe.model.hidden, 1, Relu), [1, 1]);
    let maml = Maml {
        steps: inner.steps,
        lr: inner.lr,
        eval_steps: inner.eval_steps,
        order: inner.order,
        rematerialise: inner.rematerialise,
        ..Maml::new(model.clone(), Objective::MeanSquare)
    };
    let train = Sinusoids::new(task.shots, task.queries, seed, Split::Train);
    let config = TrainConfig {
        meta_batch: task.meta_batch,
        schedule: schedule(rule),
        clip: (rule.clip > 0.0).then_some(Clip::Norm(rule.clip)),
        seed,
    };
    let trainer = MetaTrainer::new(Arc::new(maml), Arc::new(train), optimizer(rule), config)?;
    let test = Sinusoids::new(eval.shots, QUERIES, TEST_SEED, eval.split);
    Ok(Waves { model, inner, trainer, test, eval })
}

impl Waves {
    /// The first wave that is measured on, and what the network makes of its points: before, after one step and after all.
    fn picture(&self) -> Plot {
        let wave = self.test.episode(0);
        let [low, high] = self.test.x;
        let across: Vec<f32> = (0..=CURVE).map(|i| low + (high - low) * i as f32 / CURVE as f32).collect();
        let tape = Tape::eager();
        let [x, y] = [&wave.support_x, &wave.support_y].map(|t| tape.constant(t));
        let grid = tape.constant(&Tensor::new([across.len(), 1], across.clone()));
        let weights = self.trainer.params().bind(&tape);
        let loss = |weights: &[_]| losses::mse(self.model.forward(weights, x), y);
        let curve = |name: String, color, mark, ys: &[f32]| {
            let points = across.iter().zip(ys).map(|(&x, &y)| [x.into(), y.into()]).collect();
            Series { name, color, mark, points }
        };
        let truth: Vec<f32> = across.iter().map(|x| wave.amplitude * (x - wave.phase).sin()).collect();
        let mut series = vec![curve("the wave".into(), 5, Mark::Dashed, &truth)];
        let mut counts = vec![0, 1, self.inner.eval_steps];
        counts.dedup();
        for (color, steps) in counts.into_iter().enumerate() {
            let fast = adapt(loss, &weights, self.inner.lr, steps, Order::First);
            let made = self.model.forward(&fast, grid).value();
            series.push(curve(format!("after {}", in_words(steps)), color, Mark::Line, made.f32s()));
        }
        let points = wave.support_x.f32s().iter().zip(wave.support_y.f32s()).map(|(&x, &y)| [x.into(), y.into()]);
        series.push(Series { name: "its points".into(), color: 4, mark: Mark::Dots, points: points.collect() });
        Plot { title: "A new wave".into(), x: "x".into(), y: "y".into(), log_y: false, series }
    }
}

impl Experiment for Waves {
    fn step(&mut self, _n: u64) -> Result<Metrics> {
        let report = self.trainer.step()?;
        Ok(Metrics::new().with("error/query", report.loss))
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
        let found = self.trainer.evaluate(&tasks, self.eval.tasks as u64, Statistics::Transductive)?;
        let mut figures = Vec::new();
        for (steps, score) in found.scores.iter().enumerate() {
            let label = format!("{}-shot mean squared error after {}", self.eval.shots, in_words(steps));
            let figure = Figure::new(format!("error_step{steps}"), label, score.metric.mean, Unit::Number);
            figures.push(figure.with_ci95(score.metric.ci95));
        }
        // The headline first: after all steps.
        let (last, steps) = (found.last().metric, found.scores.len() - 1);
        let label = format!("{}-shot mean squared error on new waves after {}", self.eval.shots, in_words(steps));
        figures.insert(0, Figure::new("error", label, last.mean, Unit::Number).with_ci95(last.ci95));
        let protocol = format!(
            "{} waves of the {} part, y = A sin(x - φ), A in [0.1, 5], φ in [0, π], x in [-5, 5]; {} support points (the same at every step), {QUERIES} query points; mean and 95 % interval over waves.",
            found.tasks,
            self.eval.split.name(),
            self.eval.shots,
        );
        let points = found.scores.iter().enumerate().map(|(i, s)| [i as f64, s.metric.mean]).collect();
        let plots =
            vec![self.picture(), adaptation("Error on new waves as the network adapts", "mean squared error", points)];
        Ok(Evaluation { protocol, tasks: found.tasks, figures, plots, pictures: Vec::new() })
    }
}
