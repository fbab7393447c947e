//! The adversarial game: players, losses, penalties, training, metrics.
//!
//! A [`Gan`] is an architecture, a loss and a penalty, chosen independently; a [`GanTrainer`] plays it. The seed model on
//! the embedded digits:
//!
//! ```
//! use std::sync::Arc;
//! use metaforge_data::{Digits, Split};
//! use metaforge_gan::{GanTrainer, TrainerConfig, seed};
//! use metaforge_autodiff::Key;
//!
//! let images = Arc::new(Digits::new(0, Split::Train).set(0..100));
//! let config = TrainerConfig { batch: 8, ..seed::seed_config(0) };
//! let mut trainer = GanTrainer::new(seed::seed_gan(), config, images)?;
//! let report = trainer.step()?;
//! assert!(report.d_loss > 0.0);
//! assert_eq!(trainer.sample(3, Key::new(1)).shape(), [3, 28, 28, 1]);
//! # Ok::<(), metaforge_gan::Error>(())
//! ```
#![forbid(unsafe_code)]

pub mod classifier;
mod error;
mod game;
mod losses;
pub mod metrics;
pub mod penalty;
pub mod seed;
pub mod state;
mod trainer;
mod truncation;

pub use classifier::{Classifier, ClassifierConfig};
pub use error::Error;
pub use game::{Gan, Round, Rule, Verdict, judge};
pub use losses::Loss;
pub use penalty::Penalty;
pub use trainer::{GanTrainer, Report, TrainerConfig};
