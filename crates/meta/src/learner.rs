//! What a method of meta-learning has to say: what is learned across tasks, and how one of them is played.

use metaforge_autodiff::{Key, Var, grad};
use metaforge_nn::Params;
use metaforge_nn::losses::{accuracy, cross_entropy, mse};
use serde::{Deserialize, Serialize};

use crate::{TaskShape, TaskVars};

/// A method of learning to learn.
///
/// `meta` are the variables of [`EpisodeLearner::init`], in order; `state` those of [`EpisodeLearner::init_state`]. Both are inputs:
/// nothing is kept between calls, so that many tasks can be played at once.
pub trait EpisodeLearner: Send + Sync {
    /// What is learned across tasks, as it is before training.
    fn init(&self, key: Key) -> Params;

    /// What is carried along beside it and changed by no gradient, such as running statistics. The new states of the tasks of a
    /// meta-batch are averaged.
    fn init_state(&self) -> Params {
        Params::new()
    }

    /// Whether it can learn such tasks; why not, in words. Asked before anything is computed.
    fn accepts(&self, _shape: &TaskShape) -> Result<(), String> {
        Ok(())
    }

    /// Plays a task in training: learns from its support set and is judged on its query set.
    fn play<'t>(&self, meta: &[Var<'t>], state: &[Var<'t>], task: &TaskVars<'t>) -> Played<'t>;

    /// The play, and the direction in which the meta-parameters are to descend: by default the gradient of the loss, through
    /// everything that [`EpisodeLearner::play`] does.
    fn meta_gradient<'t>(
        &self,
        meta: &[Var<'t>],
        state: &[Var<'t>],
        task: &TaskVars<'t>,
    ) -> (Played<'t>, Vec<Var<'t>>) {
        let played = self.play(meta, state, task);
        let gradient = grad(played.loss, meta);
        (played, gradient)
    }

    /// Plays a task in evaluation. Gives the query loss and the metric (both of shape `[]`) after 0, 1, 2, ... steps of adaptation;
    /// a learner that does not adapt in steps gives one pair.
    fn judge<'t>(
        &self,
        meta: &[Var<'t>],
        state: &[Var<'t>],
        task: &TaskVars<'t>,
        statistics: Statistics,
    ) -> Vec<[Var<'t>; 2]>;

    /// What the metric is: `accuracy` or `error`.
    fn metric(&self) -> &'static str;
}

/// What a task's play gives.
#[derive(Clone, Debug)]
pub struct Played<'t> {
    /// Loss on the query set, of shape `[]`.
    pub loss: Var<'t>,
    /// The metric on the query set, of shape `[]`.
    pub metric: Var<'t>,
    /// The state afterwards.
    pub state: Vec<Var<'t>>,
}

/// Whose statistics normalise the query set where a network has batch norm. Numbers of the two kinds are not comparable: Reptile has
/// 95.4 % and 97.7 % on 5-way 1-shot Omniglot (Nichol et al. 2018).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Statistics {
    /// Those of the query batch itself, whose members so help each other.
    Transductive,
    /// Those of the training or of the support set: each query stands alone.
    Inductive,
}

/// What is minimised, and what is reported of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Objective {
    /// Mean cross-entropy of logits `[n, N]` against labels `[n]`; the metric is the accuracy.
    ///
    /// Finn's code sums over the N ways: its inner rate 0.4 (5-way) or 0.1 (20-way) is a rate of 2.0 here.
    CrossEntropy,
    /// Mean squared error; the metric is the same.
    MeanSquare,
}

impl Objective {
    /// The loss, of shape `[]`.
    #[track_caller]
    pub fn loss<'t>(self, output: Var<'t>, target: Var<'t>) -> Var<'t> {
        match self {
            Objective::CrossEntropy => cross_entropy(output, target),
            Objective::MeanSquare => mse(output, target),
        }
    }

    /// What is reported beside the loss, of shape `[]`.
    #[track_caller]
    pub fn metric<'t>(self, output: Var<'t>, target: Var<'t>) -> Var<'t> {
        match self {
            Objective::CrossEntropy => accuracy(output, target),
            Objective::MeanSquare => mse(output, target),
        }
    }

    /// Name of the metric.
    pub fn metric_name(self) -> &'static str {
        match self {
            Objective::CrossEntropy => "accuracy",
            Objective::MeanSquare => "error",
        }
    }
}
