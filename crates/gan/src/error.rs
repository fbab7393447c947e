//! What can go wrong with a game that comes from outside.

/// A failure of training or of what it was given.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A number is no longer finite. The trainer keeps the state from before that step.
    #[error("step {step}: {what} is no longer a number; a lower learning rate or a gradient penalty may help")]
    Diverged {
        /// The step, counted from 1.
        step: u64,
        /// What is not a number.
        what: String,
    },
    /// A setting makes no sense.
    #[error("{0}")]
    Setting(String),
    /// A checkpoint is of another model.
    #[error("the checkpoint does not fit: {0}")]
    Checkpoint(#[from] metaforge_nn::Mismatch),
    /// The data fails.
    #[error(transparent)]
    Data(#[from] metaforge_data::Error),
}
