//! Where meta-learning and GANs meet: generators that learn a class from a few images of it.
//!
//! An [`InnerGame`] is the game that two players play on one class; a [`FewShotTrainer`] learns across classes where to
//! start it; [`evaluate::rank`] measures whose class the drawn images resemble.
//!
//! ```
//! use std::sync::Arc;
//! use metaforge_autodiff::{Key, Par};
//! use metaforge_data::{EpisodeConfig, EpisodeSampler, Glyphs, Rotations, Split};
//! use metaforge_fusion::{FewShotConfig, FewShotTrainer, InnerConfig, InnerGame, fewshot_gan};
//! use metaforge_gan::Rule;
//! use metaforge_meta::Tasks;
//!
//! // A task is one character: five drawings of it to learn from.
//! let task = EpisodeConfig { ways: 1, shots: 5, queries: 1, rotations: Rotations::None };
//! let characters = |split| EpisodeSampler::new(Arc::new(Glyphs::new(0, split)), task, 0);
//! // Both players play three moves on a character; the trainer moves their beginning to where such games end.
//! let player = || Rule::adam(1e-3, 0.5, 0.999);
//! let game = InnerGame::new(fewshot_gan(8, 4), InnerConfig { shots: 5, generator: player(), discriminator: player() })?;
//! let config = FewShotConfig { inner_steps: 3, meta_batch: 2, outer: Rule::adam(1e-3, 0.0, 0.999), seed: 0 };
//! let mut trainer = FewShotTrainer::new(game, Arc::new(characters(Split::Train)?), config)?;
//! for _ in 0..2 {
//!     trainer.step()?;
//! }
//! // A character never seen, and sixteen new drawings of it.
//! let support = characters(Split::Test)?.task(0).support_x;
//! let adapted = trainer.game().adapt(trainer.players(), &support, 3, Key::new(1), Par::Seq)?;
//! assert_eq!(trainer.game().sample(&adapted, 16, Key::new(2)).shape(), [16, 28, 28, 1]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod error;
pub mod evaluate;
mod figr;
mod networks;
mod trainer;

pub use error::Error;
pub use figr::{Adapted, FewShotGan, InnerConfig, InnerGame, Players, mixtures};
pub use networks::fewshot_gan;
pub use trainer::{FewShotConfig, FewShotReport, FewShotTrainer};
