//! Learning to learn: episodes, MAML, prototypical networks, their training and evaluation.
//!
//! An [`EpisodeLearner`] says what is learned across tasks and how one task is played, as differentiable code; a
//! [`MetaTrainer`] does the rest. MAML on the sine waves of Finn et al. 2017:
//!
//! ```
//! use std::sync::Arc;
//! use metaforge_data::{Sinusoids, Split};
//! use metaforge_meta::{Maml, MetaTrainer, Objective, Statistics, TrainConfig, evaluate};
//! use metaforge_nn::{Adam, Model, Relu, zoo};
//!
//! let model = Model::new(zoo::mlp(&[40, 40], 1, Relu), [10, 1]);
//! let maml = Maml { lr: 0.01, eval_steps: 10, ..Maml::new(model, Objective::MeanSquare) };
//! let train = Arc::new(Sinusoids::new(10, 10, 0, Split::Train));
//! let mut trainer = MetaTrainer::new(Arc::new(maml), train, Box::new(Adam::default()), TrainConfig::new(25, 1e-3))?;
//! let report = trainer.step()?;
//! assert!(report.loss > 0.0);
//!
//! let test = Sinusoids::new(5, 10, 0, Split::Test);
//! let after = evaluate(trainer.learner(), trainer.params(), trainer.learner_state(), &test, 0..20, Statistics::Transductive)?;
//! println!("error after 10 steps: {} ± {}", after.last().loss.mean, after.last().loss.ci95);
//! # Ok::<(), metaforge_meta::Error>(())
//! ```
#![forbid(unsafe_code)]

mod error;
mod evaluate;
mod group;
mod learner;
mod maml;
mod proto;
mod task;
mod trainer;
mod update;

pub use error::Error;
pub use evaluate::{Evaluation, Evaluator, Interval, Score, evaluate};
pub use learner::{EpisodeLearner, Objective, Played, Statistics};
pub use maml::{Maml, Order, adapt};
pub use proto::{ProtoNet, prototypes, squared_distances};
pub use task::{Task, TaskShape, TaskVars, Tasks};
pub use trainer::{Clip, MetaTrainer, StepReport, TrainConfig};
