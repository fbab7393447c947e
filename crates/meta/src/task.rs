//! Tasks: something to learn from (support), questions to be asked afterwards (query), and numbered sources of them.

use std::fmt;
use std::sync::Arc;

use metaforge_autodiff::{Aval, Key, Tensor, Var};
use metaforge_data::{Episode, EpisodeSampler, FunctionEpisode, Sinusoids};

/// One task, of classification or of regression.
#[derive(Clone, Debug)]
pub struct Task {
    /// Inputs to learn from, `[S, ..]`.
    pub support_x: Tensor,
    /// Their labels `[S]` (u32, below `ways`) or targets `[S, ..]`.
    pub support_y: Tensor,
    /// Inputs to be judged on, `[Q, ..]`.
    pub query_x: Tensor,
    /// Their labels `[Q]` or targets `[Q, ..]`.
    pub query_y: Tensor,
    /// Number of classes N; 0 for regression.
    pub ways: usize,
}

impl Task {
    /// Support inputs and labels, query inputs and labels.
    pub fn tensors(&self) -> [&Tensor; 4] {
        [&self.support_x, &self.support_y, &self.query_x, &self.query_y]
    }

    /// What a program for tasks like this one has to know of them.
    pub fn shape(&self) -> TaskShape {
        TaskShape { tensors: self.tensors().map(Tensor::aval), ways: self.ways }
    }
}

impl From<Episode> for Task {
    fn from(e: Episode) -> Task {
        Task { support_x: e.support_x, support_y: e.support_y, query_x: e.query_x, query_y: e.query_y, ways: e.ways }
    }
}

impl From<FunctionEpisode> for Task {
    fn from(e: FunctionEpisode) -> Task {
        Task { support_x: e.support_x, support_y: e.support_y, query_x: e.query_x, query_y: e.query_y, ways: 0 }
    }
}

/// Shapes and types of a task's tensors, and its number of classes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskShape {
    /// In the order of [`Task::tensors`].
    pub tensors: [Aval; 4],
    /// Number of classes; 0 for regression.
    pub ways: usize,
}

impl TaskShape {
    /// What a program that plays such a task takes of it: the four tensors and the key.
    pub(crate) fn inputs(&self) -> Vec<Aval> {
        let key = Key::new(0).tensor().aval();
        self.tensors.iter().copied().chain([key]).collect()
    }
}

impl fmt::Display for TaskShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [sx, sy, qx, qy] = &self.tensors;
        write!(f, "support {sx} with {sy}, query {qx} with {qy}, {} ways", self.ways)
    }
}

/// A task as variables of a tape; fields as in [`Task`].
#[derive(Clone, Copy, Debug)]
pub struct TaskVars<'t> {
    /// `[S, ..]`.
    pub support_x: Var<'t>,
    /// `[S]` (u32) or `[S, ..]`.
    pub support_y: Var<'t>,
    /// `[Q, ..]`.
    pub query_x: Var<'t>,
    /// `[Q]` (u32) or `[Q, ..]`.
    pub query_y: Var<'t>,
    /// Number of classes; 0 for regression.
    pub ways: usize,
    /// `u32[2]`: the randomness of this task's play (dropout); another one for every number of a task.
    pub key: Var<'t>,
}

impl<'t> TaskVars<'t> {
    /// From five inputs of a program, in the order of [`TaskShape::inputs`].
    pub(crate) fn from_inputs(inputs: &[Var<'t>], ways: usize) -> TaskVars<'t> {
        let &[support_x, support_y, query_x, query_y, key] = inputs else {
            unreachable!("a task has five inputs, not {}", inputs.len())
        };
        TaskVars { support_x, support_y, query_x, query_y, ways, key }
    }
}

/// A source of tasks. Task `index` is always the same one, so that any of them can be replayed and a training can go on where it
/// stopped; all tasks of a source have the same shape.
pub trait Tasks: Send + Sync {
    /// Task number `index`.
    fn task(&self, index: u64) -> Task;
}

impl Tasks for EpisodeSampler {
    fn task(&self, index: u64) -> Task {
        self.episode(index).into()
    }
}

impl Tasks for Sinusoids {
    fn task(&self, index: u64) -> Task {
        self.episode(index).into()
    }
}

impl<T: Tasks + ?Sized> Tasks for Arc<T> {
    fn task(&self, index: u64) -> Task {
        (**self).task(index)
    }
}

impl<F: Fn(u64) -> Task + Send + Sync> Tasks for F {
    fn task(&self, index: u64) -> Task {
        self(index)
    }
}
