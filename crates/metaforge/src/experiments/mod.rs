//! What the recipes train: each kind joins a method of the crates below to the program's [`Experiment`].

mod episodes;
mod fewshot_gan;
mod seed_gan;
mod sinusoid;

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use metaforge_data::data_dir;
use metaforge_meta::Tasks;
use metaforge_nn::{Adam, Optimizer, Schedule, Sgd};

use crate::error::Result;
use crate::experiment::{Experiment, Watch};
use crate::recipe::{self, Kind, OptimizerName, Recipe};

/// The experiment of a recipe, before its first step; `data` is the `--data` of the command line.
///
/// # Errors
/// If the data cannot be read, or the recipe names something that there is not. A folder that is not there is an error even if the recipe needs no
/// data: whoever names it expects it to be read.
pub fn build(recipe: &Recipe, data: Option<&Path>) -> Result<Box<dyn Experiment>> {
    if data.is_some_and(|dir| !dir.as_os_str().is_empty()) {
        data_dir(data)?;
    }
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

/// The `count` tasks of an evaluation, telling `watch` about each that is drawn. It draws one more before all others, for its
/// shape.
fn watched<'a>(tasks: &'a dyn Tasks, count: usize, watch: Watch<'a>) -> impl Tasks + 'a {
    let drawn = AtomicUsize::new(0);
    move |number: u64| {
        watch(drawn.fetch_add(1, Ordering::Relaxed).min(count), count);
        tasks.task(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use metaforge_data::{Sinusoids, Split};
    use metaforge_meta::{Maml, Objective, Statistics, evaluate};
    use metaforge_nn::{Model, Params, Relu, zoo};
    use std::sync::Mutex;

    #[test]
    fn an_evaluation_is_watched_from_its_first_task_to_its_last_and_gives_the_same() {
        let maml = Maml::new(Model::new(zoo::mlp(&[4], 1, Relu), [1, 1]), Objective::MeanSquare);
        let weights = metaforge_meta::EpisodeLearner::init(&maml, metaforge_autodiff::Key::new(1));
        let tasks = Sinusoids::new(3, 3, 0, Split::Test);
        let score = |tasks: &dyn Tasks| {
            evaluate(&maml, &weights, &Params::new(), tasks, 0..20, Statistics::Transductive).unwrap()
        };
        let told = Mutex::new(Vec::new());
        let watch = |done, of| told.lock().unwrap().push((done, of));
        assert_eq!(score(&watched(&tasks, 20, &watch)), score(&tasks));
        let mut told = told.into_inner().unwrap();
        told.sort_unstable();
        assert_eq!(told, (0..=20).map(|done| (done, 20)).collect::<Vec<_>>());
    }
}
