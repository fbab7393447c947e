//! What can go wrong with few-shot generation from outside.

/// A failure of adaptation, of training across classes, or of what they were given.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A number is no longer finite. Nothing of the step was kept.
    #[error("step {step}: {what} is no longer a number; lower the learning rates of the inner game")]
    Diverged {
        /// The outer step, counted from 1; 0 outside of training.
        step: u64,
        /// What is not a number.
        what: String,
    },
    /// A setting or a support set makes no sense.
    #[error("{0}")]
    Setting(String),
    /// A checkpoint is of another model.
    #[error("the checkpoint does not fit: {0}")]
    Checkpoint(#[from] metaforge_nn::Mismatch),
    /// A part of the game failed.
    #[error(transparent)]
    Gan(#[from] metaforge_gan::Error),
    /// The data fails.
    #[error(transparent)]
    Data(#[from] metaforge_data::Error),
}
