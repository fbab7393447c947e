//! What can go wrong with tasks, numbers and checkpoints from outside.

use crate::TaskShape;

/// Why a meta-training step, an evaluation or a restart failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A number is no longer one. Nothing of the step was kept.
    #[error("step {step}: {what} is {value}; lower the learning rates, or clip the gradient")]
    Diverged {
        /// The training step, counted from 1.
        step: u64,
        /// What it was: the loss of a task, the gradient.
        what: String,
        /// NaN or an infinity.
        value: f64,
    },
    /// A task's result is not a number in evaluation.
    #[error("task {task}: {what} is {value}; the adaptation diverges (lower its rate or take fewer steps)")]
    NotFinite {
        /// Number of the task.
        task: u64,
        /// What it was.
        what: String,
        /// NaN or an infinity.
        value: f64,
    },
    /// A source gave a task of another shape than its others.
    #[error("task {task} is {found}, but the others are {expected}")]
    TaskShape {
        /// Number of the task.
        task: u64,
        /// Its shape.
        found: Box<TaskShape>,
        /// The shape that was compiled for.
        expected: Box<TaskShape>,
    },
    /// Saved tensors are not those of this trainer.
    #[error("not a state of this trainer: {0}")]
    State(String),
    /// A setting makes no sense.
    #[error("{0}")]
    Setting(String),
}
