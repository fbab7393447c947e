//! The adversarial game: players, losses, training, metrics.
#![forbid(unsafe_code)]
