//! The kinds of recipes, and the tables that each has.

use metaforge_data::Split;
use serde::{Deserialize, Serialize};
use toml::Table;

use super::tables::*;

/// What a recipe trains: the key `kind`, and the tables that go with it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Kind {
    /// A prototypical network (Snell et al. 2017).
    Proto(Proto),
    /// MAML on images (Finn et al. 2017).
    Maml(Maml),
    /// MAML on sine waves.
    SinusoidMaml(SinusoidMaml),
    /// A GAN on images of one data set.
    SeedGan(SeedGan),
    /// A GAN that learns to draw a new class from a few images of it.
    FewshotGan(FewshotGan),
}

/// The most tasks of an evaluation: its interval is narrow long before.
const MOST_TASKS: usize = 1_000_000;

/// The values of `kind`.
pub(crate) const KINDS: [&str; 5] = ["proto", "maml", "sinusoid-maml", "seed-gan", "fewshot-gan"];

impl Kind {
    /// The tables of a kind, whose name is one of [`KINDS`].
    pub(crate) fn read(kind: &str, table: Table) -> Result<Kind, toml::de::Error> {
        Ok(match kind {
            "proto" => Kind::Proto(table.try_into()?),
            "maml" => Kind::Maml(table.try_into()?),
            "sinusoid-maml" => Kind::SinusoidMaml(table.try_into()?),
            "seed-gan" => Kind::SeedGan(table.try_into()?),
            "fewshot-gan" => Kind::FewshotGan(table.try_into()?),
            other => unreachable!("`{other}` is not among the kinds"),
        })
    }

    /// The ranges of all numbers.
    pub(crate) fn check(&self) -> Checked {
        match self {
            Kind::Proto(r) => {
                r.task.check()?;
                r.model.check()?;
                r.optimizer.check("optimizer")?;
                check_splits(r.data.split, r.eval.split)?;
                between("eval.tasks", r.eval.tasks, 2, MOST_TASKS)
            }
            Kind::Maml(r) => {
                r.task.check()?;
                r.model.check()?;
                r.inner.check()?;
                r.optimizer.check("optimizer")?;
                check_splits(r.data.split, r.eval.split)?;
                between("eval.tasks", r.eval.tasks, 2, MOST_TASKS)
            }
            Kind::SinusoidMaml(r) => {
                r.task.check()?;
                r.model.check()?;
                r.inner.check()?;
                r.optimizer.check("optimizer")?;
                check_splits(Split::Train, r.eval.split)?;
                between("eval.shots", r.eval.shots, 1, 10_000)?;
                between("eval.tasks", r.eval.tasks, 2, MOST_TASKS)
            }
            Kind::SeedGan(r) => {
                r.game.check()?;
                r.sampling.check()?;
                r.generator.check("generator")?;
                r.discriminator.check("discriminator")?;
                at_least("eval.classifier_epochs", r.eval.classifier_epochs, 1)?;
                between("eval.images", r.eval.images, 200, 1_000_000)
            }
            Kind::FewshotGan(r) => {
                r.task.check()?;
                r.model.check()?;
                r.inner.check()?;
                r.optimizer.check("optimizer")?;
                check_splits(r.data.split, r.eval.split)?;
                between("eval.images", r.eval.images, 2, 1000)?;
                at_least("eval.embedding_steps", r.eval.embedding_steps, 1)?;
                between("eval.tasks", r.eval.tasks, 2, MOST_TASKS)
            }
        }
    }
}

/// Tables of kind `proto`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proto {
    /// Images to draw episodes from.
    pub data: EpisodeData,
    /// The episodes.
    pub task: Task,
    /// The embedding.
    pub model: ConvNet,
    /// How the embedding is improved.
    pub optimizer: Optimizer,
    /// How the result is measured.
    pub eval: EpisodeEval,
}

/// Tables of kind `maml`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Maml {
    /// Images to draw episodes from.
    pub data: EpisodeData,
    /// The episodes.
    pub task: Task,
    /// The classifier.
    pub model: ConvNet,
    /// The adaptation to a task.
    pub inner: Inner,
    /// How the initial weights are improved.
    pub optimizer: Optimizer,
    /// How the result is measured.
    pub eval: EpisodeEval,
}

/// Tables of kind `sinusoid-maml`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SinusoidMaml {
    /// The tasks.
    pub task: WaveTask,
    /// The regressor.
    pub model: Mlp,
    /// The adaptation to a task.
    pub inner: Inner,
    /// How the initial weights are improved.
    pub optimizer: Optimizer,
    /// How the result is measured.
    pub eval: WaveEval,
}

/// Tables of kind `seed-gan`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SeedGan {
    /// Images to imitate.
    pub data: ImageData,
    /// How they play.
    pub game: Game,
    /// How the generator is improved.
    pub generator: Optimizer,
    /// How the discriminator is improved.
    pub discriminator: Optimizer,
    /// Which images are shown.
    pub sampling: Sampling,
    /// How the result is measured.
    pub eval: ImageEval,
}

/// Tables of kind `fewshot-gan`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FewshotGan {
    /// Images to draw tasks from.
    pub data: EpisodeData,
    /// The tasks.
    pub task: DrawTask,
    /// The two networks.
    pub model: FewshotModel,
    /// The game played within a task.
    pub inner: InnerGame,
    /// How the initial weights of both are improved.
    pub optimizer: Optimizer,
    /// How the result is measured.
    pub eval: DrawEval,
}
