//! Layers, losses, optimisers and schedules as pure functions of their variables.
//!
//! ```
//! use metaforge_autodiff::{Key, Tape, Tensor, grad};
//! use metaforge_nn::{Model, Relu, losses, zoo};
//! let model = Model::new(zoo::mlp(&[8], 3, Relu), [5, 4]);
//! let params = model.init(Key::new(1));
//! let tape = Tape::eager();
//! let weights = params.bind(&tape);
//! let x = tape.constant(&Key::new(2).normal([5, 4], 0.0, 1.0));
//! let labels = tape.constant(&Tensor::from_u32([5], vec![0, 1, 2, 0, 1]));
//! let loss = losses::cross_entropy(model.forward(&weights, x), labels);
//! // A step of gradient descent: the fast weights are variables like any other.
//! let gradients = grad(loss, &weights);
//! let fast: Vec<_> = weights.iter().zip(gradients).map(|(&w, g)| w - g * 0.1).collect();
//! assert!(losses::cross_entropy(model.forward(&fast, x), labels).value().item() < loss.value().item());
//! ```
#![forbid(unsafe_code)]

pub mod clip;
mod ema;
mod error;
pub mod file;
mod init;
mod layer;
mod layers;
pub mod losses;
mod model;
mod numeric;
mod optim;
mod params;
mod schedules;
pub mod zoo;

pub use ema::ema;
pub use error::Error;
pub use init::Init;
pub use layer::{Builder, Layer, Layout, Mode, Pass, Spec, StateSpec};
pub use layers::*;
pub use model::Model;
pub use optim::{Adam, AdamW, Optimizer, RmsProp, Sgd};
pub use params::{Mismatch, Params};
pub use schedules::Schedule;
