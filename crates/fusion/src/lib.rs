//! Where meta-learning and GANs meet: generators that learn a class from a few images of it.
//!
//! An [`InnerGame`] is the game that two players play on one class; a [`FewShotTrainer`] learns across classes where to
//! start it; [`evaluate::rank`] measures whose class the drawn images resemble.
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
