//! MAML on sine waves (Finn et al. 2017, §5.1).

use std::sync::Arc;

use metaforge_data::{Sinusoids, Split};
use metaforge_meta::{Clip, Maml, MetaTrainer, Objective, Statistics, TrainConfig};
use metaforge_nn::{Model, Params, Relu, zoo};

use super::episodes::{adaptation, order};
use super::{optimizer, schedule};
use crate::error::Result;
use crate::experiment::{Evaluation, Experiment, Figure, Unit};
use crate::metrics::Metrics;
use crate::recipe::{self, WaveEval};

/// Query points of a test task.
const QUERIES: usize = 100;
/// Test tasks are the same for every seed.
const TEST_SEED: u64 = 0x7e57;

/// A regressor, its trainer and the waves that it is measured on.
pub(super) struct Waves {
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
        order: order(inner.order),
        ..Maml::new(model, Objective::MeanSquare)
    };
    let train = Sinusoids::new(task.shots, task.queries, seed, Split::Train);
    let config = TrainConfig {
        meta_batch: task.meta_batch,
        schedule: schedule(rule),
        clip: (rule.clip > 0.0).then_some(Clip::Norm(rule.clip)),
        seed,
    };
    let trainer = MetaTrainer::new(Arc::new(maml), Arc::new(train), optimizer(rule), config)?;
    let test = Sinusoids::new(eval.shots, QUERIES, TEST_SEED, Split::Test);
    Ok(Waves { trainer, test, eval })
}

impl Experiment for Waves {
    fn step(&mut self, _n: u64) -> Result<Metrics> {
        let report = self.trainer.step()?;
        Ok(Metrics::new().with("error/query", report.loss))
    }

    fn state(&self) -> Params {
        self.trainer.state()
    }

    fn restore(&mut self, state: &Params) -> Result<()> {
        Ok(self.trainer.restore(state)?)
    }

    fn weights(&self) -> Params {
        self.trainer.params().clone()
    }

    fn evaluate(&self) -> Result<Evaluation> {
        let found = self.trainer.evaluate(&self.test, self.eval.tasks as u64, Statistics::Transductive)?;
        let mut figures = Vec::new();
        for (steps, score) in found.scores.iter().enumerate() {
            let label = format!("{}-shot mean squared error after {steps} steps", self.eval.shots);
            let figure = Figure::new(format!("error_step{steps}"), label, score.metric.mean, Unit::Number);
            figures.push(figure.with_ci95(score.metric.ci95));
        }
        // The headline first: after all steps.
        let (last, steps) = (found.last().metric, found.scores.len() - 1);
        let label = format!("{}-shot mean squared error on new waves after {steps} steps", self.eval.shots);
        figures.insert(0, Figure::new("error", label, last.mean, Unit::Number).with_ci95(last.ci95));
        let protocol = format!(
            "{} waves y = A sin(x - φ), A in [0.1, 5], φ in [0, π], x in [-5, 5]; {} support points (the same at every step), {QUERIES} query points; mean and 95 % interval over waves.",
            found.tasks, self.eval.shots,
        );
        let points = found.scores.iter().enumerate().map(|(i, s)| [i as f64, s.metric.mean]).collect();
        let plots = vec![adaptation("Error on new waves as the network adapts", "mean squared error", points)];
        Ok(Evaluation { protocol, tasks: found.tasks, figures, plots, pictures: Vec::new() })
    }
}
