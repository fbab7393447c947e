//! What the recipes train: each kind joins a method of the crates below to the program's [`Experiment`].

mod episodes;
mod fewshot_gan;
mod seed_gan;
mod sinusoid;

use std::path::Path;

use metaforge_nn::{Adam, Optimizer, Schedule, Sgd};

use crate::error::Result;
use crate::experiment::Experiment;
use crate::recipe::{self, Kind, OptimizerName, Recipe};

/// The experiment of a recipe, before its first step; `data` is the `--data` of the command line.
///
/// # Errors
/// If the data cannot be read, or the recipe names something that there is not.
pub fn build(recipe: &Recipe, data: Option<&Path>) -> Result<Box<dyn Experiment>> {
    Ok(match &recipe.kind {
        Kind::Proto(kind) => Box::new(episodes::proto(kind, recipe.seed, data)?),
        Kind::Maml(kind) => Box::new(episodes::maml(kind, recipe.seed, data)?),
        Kind::SinusoidMaml(kind) => Box::new(sinusoid::build(kind, recipe.seed)?),
        Kind::SeedGan(kind) => Box::new(seed_gan::build(kind, recipe.seed, data)?),
        Kind::FewshotGan(kind) => Box::new(fewshot_gan::build(kind, recipe.seed, data)?),
    })
}

/// The optimiser of a recipe's table.
fn optimizer(table: &recipe::Optimizer) -> Box<dyn Optimizer> {
    match table.name {
        OptimizerName::Adam => Box::new(Adam::betas(table.beta1, 0.999)),
        OptimizerName::Sgd => Box::new(Sgd { momentum: table.beta1, ..Sgd::new() }),
    }
}

/// The learning rates of a recipe's table.
fn schedule(table: &recipe::Optimizer) -> Schedule {
    match table.halve_every {
        0 => Schedule::Constant(table.lr),
        every => Schedule::Step { rate: table.lr, every, factor: 0.5 },
    }
}
