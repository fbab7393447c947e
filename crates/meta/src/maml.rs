//! Model-agnostic meta-learning (Finn, Abbeel, Levine 2017, <https://arxiv.org/abs/1703.03400>): initial weights from which a few
//! gradient steps on the support set lead to a small loss on the query set.

use metaforge_autodiff::{Key, Var, grad, grad_detached};
use metaforge_nn::{Mode, Model, Params, StateSpec};
use serde::{Deserialize, Serialize};

use crate::{EpisodeLearner, Objective, Played, Statistics, TaskShape, TaskVars};

/// Which derivatives the meta-gradient takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// All: it flows through the gradients of the inner steps (MAML).
    Second,
    /// The gradients of the inner steps count as constants, the weights that they are subtracted from do not (FOMAML, §5.2 of the
    /// paper): the meta-gradient is the gradient at the adapted weights.
    First,
}

/// The method, with its settings. `Maml { steps: 5, lr: 0.5, ..Maml::new(model, objective) }`.
#[derive(Debug)]
pub struct Maml {
    /// The network; its parameters are what is meta-learned.
    pub model: Model,
    /// The loss of the inner and of the outer loop, a mean over samples.
    pub objective: Objective,
    /// Inner steps in training.
    pub steps: usize,
    /// Inner learning rate α.
    pub lr: f64,
    /// Which derivatives the meta-gradient takes.
    pub order: Order,
    /// Inner steps in evaluation; the results after 0, 1, ..., `eval_steps` steps are given.
    pub eval_steps: usize,
    /// Whose statistics normalise the query set in training. The support set always has its own; where they serve the query set too,
    /// no gradient flows through them.
    pub statistics: Statistics,
    /// For each parameter whether the inner loop adapts it. What it does not adapt is meta-learned all the same.
    pub adapted: Vec<bool>,
    /// Whether the meta-gradient computes an inner step again when it comes to it, instead of keeping what the step computed
    /// ([`Tape::checkpoint`](metaforge_autodiff::Tape::checkpoint)): the same bits. Another step then takes the memory of its adapted
    /// weights, not of its activations. Conv4-64 on 28x28 images, 5-way 5-shot, second order: 0.45 MB a step, one copy of the weights
    /// (1.0 MB of workspace, whose values cannot be packed without gaps), instead of 18.6 MB; the arithmetic of five steps grows by
    /// 19 %. In first order nothing is kept anyway.
    pub rematerialise: bool,
}

impl Maml {
    /// One inner step of rate 0.4 in training, three in evaluation (the paper's for Omniglot, whose rate is another one: see
    /// [`Objective::CrossEntropy`]), second order, transductive, all parameters adapted, nothing computed twice.
    pub fn new(model: Model, objective: Objective) -> Maml {
        let adapted = vec![true; model.specs().len()];
        let (order, statistics) = (Order::Second, Statistics::Transductive);
        Maml { model, objective, steps: 1, lr: 0.4, order, eval_steps: 3, statistics, adapted, rematerialise: false }
    }

    /// The inner loop adapts the parameters whose name is chosen, and no other. With the last layer alone this is ANIL (Raghu et
    /// al. 2020); without the batch norm's it is what Finn's code does.
    pub fn adapt_only(mut self, chosen: impl Fn(&str) -> bool) -> Maml {
        self.adapted = self.model.specs().iter().map(|spec| chosen(&spec.name)).collect();
        self
    }

    /// Algorithm 2, lines 5 to 7, once: a gradient step on the support set.
    fn inner_step<'t>(&self, weights: &[Var<'t>], task: &TaskVars<'t>, order: Order) -> Vec<Var<'t>> {
        let loss = |adapted: &[Var<'t>]| {
            let output = self.model.forward(&self.with(weights, adapted), task.support_x);
            self.objective.loss(output, task.support_y)
        };
        let adapted: Vec<Var<'t>> = weights.iter().zip(&self.adapted).filter(|(_, a)| **a).map(|(w, _)| *w).collect();
        self.with(weights, &adapt(loss, &adapted, self.lr, 1, order))
    }

    /// `weights` with the adapted ones among them replaced.
    fn with<'t>(&self, weights: &[Var<'t>], adapted: &[Var<'t>]) -> Vec<Var<'t>> {
        let mut adapted = adapted.iter();
        let pick =
            |(&w, &a): (&Var<'t>, &bool)| if a { *adapted.next().expect("one for each that is adapted") } else { w };
        weights.iter().zip(&self.adapted).map(pick).collect()
    }

    /// The network's output for the query set.
    fn answer<'t>(&self, weights: &[Var<'t>], task: &TaskVars<'t>, statistics: Statistics) -> Var<'t> {
        match statistics {
            Statistics::Transductive => self.model.forward(weights, task.query_x),
            Statistics::Inductive => {
                let statistics = self.support_statistics(weights, task);
                self.model.apply(weights, &statistics, task.query_x, Mode::Eval, None).0
            }
        }
    }

    /// The statistics of the support set, as a state of the model.
    fn support_statistics<'t>(&self, weights: &[Var<'t>], task: &TaskVars<'t>) -> Vec<Var<'t>> {
        let x = task.support_x;
        let place = |spec: &StateSpec| x.tape().zeros(spec.start.shape(), x.dtype());
        let state: Vec<_> = self.model.state_specs().iter().map(place).collect();
        self.model.apply(weights, &state, x, Mode::Measure, None).1
    }
}

impl EpisodeLearner for Maml {
    fn init(&self, key: Key) -> Params {
        self.model.init(key)
    }

    /// A label needs an output of its own.
    fn accepts(&self, shape: &TaskShape) -> Result<(), String> {
        let outputs = self.model.output().last().copied().unwrap_or(1);
        match self.objective {
            Objective::CrossEntropy if outputs < shape.ways => {
                Err(format!("the network has {outputs} outputs, the tasks have {} classes", shape.ways))
            }
            Objective::CrossEntropy | Objective::MeanSquare => Ok(()),
        }
    }

    /// Algorithm 2, lines 5 to 8 and the loss of line 10, for one task.
    fn play<'t>(&self, meta: &[Var<'t>], state: &[Var<'t>], task: &TaskVars<'t>) -> Played<'t> {
        let mut weights = meta.to_vec();
        for _ in 0..self.steps {
            let step = || self.inner_step(&weights, task, self.order);
            weights = if self.rematerialise { task.support_x.tape().checkpoint(step) } else { step() };
        }
        let output = self.answer(&weights, task, self.statistics);
        let loss = self.objective.loss(output, task.query_y);
        Played { loss, metric: self.objective.metric(output, task.query_y), state: state.to_vec() }
    }

    fn judge<'t>(
        &self,
        meta: &[Var<'t>],
        _: &[Var<'t>],
        task: &TaskVars<'t>,
        statistics: Statistics,
    ) -> Vec<[Var<'t>; 2]> {
        let mut weights = meta.to_vec();
        let mut results = Vec::with_capacity(self.eval_steps + 1);
        for step in 0..=self.eval_steps {
            if step > 0 {
                weights = self.inner_step(&weights, task, Order::First);
            }
            let output = self.answer(&weights, task, statistics);
            results.push([self.objective.loss(output, task.query_y), self.objective.metric(output, task.query_y)]);
        }
        results
    }

    fn metric(&self) -> &'static str {
        self.objective.metric_name()
    }
}

/// Gradient descent on `loss` from `weights`, as differentiable code: θ' = θ - α ∇L(θ), `steps` times.
///
/// With [`Order::First`] the gradient is a constant, but θ' still depends on θ with the identity as its derivative.
pub fn adapt<'t>(
    loss: impl Fn(&[Var<'t>]) -> Var<'t>,
    weights: &[Var<'t>],
    lr: f64,
    steps: usize,
    order: Order,
) -> Vec<Var<'t>> {
    let mut weights = weights.to_vec();
    for _ in 0..steps {
        let loss = loss(&weights);
        let gradient = match order {
            Order::Second => grad(loss, &weights),
            Order::First => grad_detached(loss, &weights),
        };
        weights = weights.iter().zip(gradient).map(|(&w, g)| w - lr * g).collect();
    }
    weights
}

#[cfg(test)]
#[path = "maml_tests.rs"]
mod tests;
