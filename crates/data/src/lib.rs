//! Images, functions, tasks and episodes; an embedded world of glyphs and digits.
//!
//! Everything that a training run reads comes from here, and everything is replayable by number: a seed and an index
//! give the same episode, batch or picture, in any order, on any number of threads.
//!
//! Pixels are ink: 1 is the stroke (or a bright pixel of a photograph), 0 the background. Images are `[N, H, W, C]`.
//!
//! ```
//! use std::sync::Arc;
//! use metaforge_data::{EpisodeConfig, EpisodeSampler, Glyphs, Rotations, Split};
//!
//! let config = EpisodeConfig { ways: 5, shots: 1, queries: 15, rotations: Rotations::None };
//! let sampler = EpisodeSampler::new(Arc::new(Glyphs::new(0, Split::Train)), config, 42)?;
//! let episode = sampler.episode(1_000_000); // as quick as the first
//! assert_eq!(episode.query_x.shape(), [75, 28, 28, 1]);
//! # Ok::<(), metaforge_data::Error>(())
//! ```
#![forbid(unsafe_code)]

pub mod batches;
pub mod digits;
pub mod episodes;
mod error;
pub mod folder;
pub mod functions;
pub mod glyphs;
pub mod idx;
pub mod images;
pub mod mixtures;
pub mod omniglot;
mod png;
mod resize;
mod root;
mod split;
mod stroke;

pub use batches::{Augment, Batch, BatchSampler, Range};
pub use digits::Digits;
pub use episodes::{Classes, Episode, EpisodeConfig, EpisodeSampler, Rotations};
pub use error::Error;
pub use functions::{FunctionEpisode, Sinusoids};
pub use glyphs::Glyphs;
pub use images::ImageSet;
pub use mixtures::Mixture;
pub use root::data_dir;
pub use split::Split;
