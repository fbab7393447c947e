//! Prototypical networks (Snell, Swersky, Zemel 2017, <https://arxiv.org/abs/1703.05175>): a class is the mean of its support
//! embeddings, and a query belongs to the nearest.

use metaforge_autodiff::{DType, Key, Var, concat};
use metaforge_nn::losses::{accuracy, cross_entropy};
use metaforge_nn::{Mode, Model, Params};

use crate::{EpisodeLearner, Played, Statistics, TaskVars};

/// The method. The model embeds: `[n, ..]` to `[n, D]` (other shapes are flattened).
///
/// An episode may have any number of ways. The paper trains with more of them (60) than it tests with, and with as many shots.
#[derive(Debug)]
pub struct ProtoNet {
    /// The embedding; its parameters are what is meta-learned, its running statistics are the state.
    pub model: Model,
}

impl ProtoNet {
    /// With this embedding.
    pub fn new(model: Model) -> ProtoNet {
        ProtoNet { model }
    }

    /// Embeddings of the support and the query set in one pass (as the authors' code does): batch norm sees the whole episode.
    fn embed<'t>(
        &self,
        meta: &[Var<'t>],
        state: &[Var<'t>],
        task: &TaskVars<'t>,
        mode: Mode,
        key: Option<Var<'t>>,
    ) -> (Var<'t>, Var<'t>, Vec<Var<'t>>) {
        let images = concat(&[task.support_x, task.query_x], 0);
        let (z, state) = self.model.apply(meta, state, images, mode, key);
        let z = z.reshape([z.shape()[0], z.shape()[1..].iter().product()]);
        let (support, query) = (task.support_x.shape()[0], task.query_x.shape()[0]);
        (z.slice(0, 0, support), z.slice(0, support, query), state)
    }
}

/// Equation 2: `p(y = k | x)` is the softmax over classes of minus the squared distance; its logits `[Q, N]`.
fn logits<'t>(support: Var<'t>, query: Var<'t>, task: &TaskVars<'t>) -> Var<'t> {
    -squared_distances(query, prototypes(support, task.support_y, task.ways))
}

impl EpisodeLearner for ProtoNet {
    fn init(&self, key: Key) -> Params {
        self.model.init(key)
    }

    fn init_state(&self) -> Params {
        self.model.init_state()
    }

    fn play<'t>(&self, meta: &[Var<'t>], state: &[Var<'t>], task: &TaskVars<'t>) -> Played<'t> {
        let (support, query, state) = self.embed(meta, state, task, Mode::Train, Some(task.key));
        let logits = logits(support, query, task);
        Played { loss: cross_entropy(logits, task.query_y), metric: accuracy(logits, task.query_y), state }
    }

    /// Inductive: running statistics normalise (the paper's). Transductive: those of the whole episode.
    fn judge<'t>(
        &self,
        meta: &[Var<'t>],
        state: &[Var<'t>],
        task: &TaskVars<'t>,
        statistics: Statistics,
    ) -> Vec<[Var<'t>; 2]> {
        let mode = match statistics {
            Statistics::Transductive => Mode::Batch,
            Statistics::Inductive => Mode::Eval,
        };
        let (support, query, _) = self.embed(meta, state, task, mode, None);
        let logits = logits(support, query, task);
        vec![[cross_entropy(logits, task.query_y), accuracy(logits, task.query_y)]]
    }

    fn metric(&self) -> &'static str {
        "accuracy"
    }
}

/// Equation 1: the mean embedding of each class, `[N, D]`, from embeddings `[S, D]` and labels `[S]` below `ways`. Zero for a class
/// without any.
///
/// # Panics
/// When it runs, if a label is `ways` or more.
#[track_caller]
pub fn prototypes<'t>(embeddings: Var<'t>, labels: Var<'t>, ways: usize) -> Var<'t> {
    let (tape, dtype) = (embeddings.tape(), embeddings.dtype());
    let sums = embeddings.scatter_add(labels, ways);
    let counts = tape.full([labels.shape()[0], 1], 1.0, dtype).scatter_add(labels, ways);
    sums / counts.maximum(tape.scalar(1.0, dtype))
}

/// Squared Euclidean distances `[Q, N]` between rows of `[Q, D]` and of `[N, D]`: |q|² - 2 q·p + |p|².
#[track_caller]
pub fn squared_distances<'t>(a: Var<'t>, b: Var<'t>) -> Var<'t> {
    assert!(a.dtype() != DType::U32, "squared_distances of {}", a.aval());
    let norms = |x: Var<'t>| x.square().sum_axes(&[1], false);
    let (rows, cols) = (a.shape()[0], b.shape()[0]);
    norms(a).reshape([rows, 1]) - 2.0 * a.matmul_t(b, false, true) + norms(b).reshape([1, cols])
}

#[cfg(test)]
#[path = "proto_tests.rs"]
mod tests;
