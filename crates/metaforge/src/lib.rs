//! metaforge: meta-learning and generative adversarial networks on a plain CPU.
//!
//! This crate is the program: recipes, run folders, the training loop and the report. What it trains comes from the
//! crates below it, and from [`experiment::Experiment`]s that join them to a recipe.
#![forbid(unsafe_code)]

pub mod chart;
pub mod error;
mod events;
pub mod experiment;
pub mod experiments;
pub mod interrupt;
mod memory;
pub mod metrics;
pub mod picture;
pub mod progress;
pub mod quickstart;
pub mod recipe;
pub mod report;
pub mod run;
mod sources;
pub mod store;
pub mod train;

pub use error::{Error, Result};

#[doc(inline)]
pub use metaforge_autodiff as autodiff;
#[doc(inline)]
pub use metaforge_data as data;
#[doc(inline)]
pub use metaforge_fusion as fusion;
#[doc(inline)]
pub use metaforge_gan as gan;
#[doc(inline)]
pub use metaforge_meta as meta;
#[doc(inline)]
pub use metaforge_nn as nn;

/// The README's examples, compiled and run with the tests.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
pub struct ReadmeExamples;
