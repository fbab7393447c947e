//! The tables of a recipe, by kind, and the ranges of their numbers.

use metaforge_data::{Rotations, Split};
use metaforge_gan::Loss;
use metaforge_meta::{Order, Statistics};
use serde::{Deserialize, Serialize};
use toml::Table;

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

/// The values of `kind`.
pub(crate) const KINDS: [&str; 5] = ["proto", "maml", "sinusoid-maml", "seed-gan", "fewshot-gan"];

type Checked = Result<(), String>;

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
                at_least("eval.tasks", r.eval.tasks, 2)
            }
            Kind::Maml(r) => {
                r.task.check()?;
                r.model.check()?;
                r.inner.check()?;
                r.optimizer.check("optimizer")?;
                check_splits(r.data.split, r.eval.split)?;
                at_least("eval.tasks", r.eval.tasks, 2)
            }
            Kind::SinusoidMaml(r) => {
                r.task.check()?;
                r.model.check()?;
                r.inner.check()?;
                r.optimizer.check("optimizer")?;
                at_least("eval.shots", r.eval.shots, 1)?;
                at_least("eval.tasks", r.eval.tasks, 2)
            }
            Kind::SeedGan(r) => {
                r.game.check()?;
                r.generator.check("generator")?;
                r.discriminator.check("discriminator")?;
                at_least("eval.classifier_epochs", r.eval.classifier_epochs, 1)?;
                at_least("eval.images", r.eval.images, 200)
            }
            Kind::FewshotGan(r) => {
                r.task.check()?;
                r.model.check()?;
                r.inner.check()?;
                r.optimizer.check("optimizer")?;
                check_splits(r.data.split, r.eval.split)?;
                at_least("eval.images", r.eval.images, 2)?;
                at_least("eval.embedding_steps", r.eval.embedding_steps, 1)?;
                at_least("eval.tasks", r.eval.tasks, 2)
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

/// Where classes of images come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EpisodeData {
    /// The classes.
    pub source: ClassSource,
    /// The part of the classes to learn from: `train`, or `trainval` once nothing is chosen by the validation part any more.
    pub split: Split,
    /// What quarter turns do: `none`, `as-classes` or `per-episode`.
    pub rotations: Rotations,
}

/// The part to learn from and the part to be measured on share no class.
fn check_splits(learned: Split, measured: Split) -> Checked {
    match (learned, measured) {
        (Split::Train, Split::Val | Split::Test) | (Split::TrainVal, Split::Test) => Ok(()),
        (Split::Train | Split::TrainVal, _) => {
            let other = if learned == Split::Train { "`val` or `test`" } else { "`test`" };
            Err(format!(
                "`eval.split` is {}; to be measured on classes that were not learned from, it is {other}",
                measured.name()
            ))
        }
        _ => Err(format!("`data.split` is {}; it is `train` or `trainval`", learned.name())),
    }
}

/// Where images come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageData {
    /// The images.
    pub source: ImageSource,
}

/// A source of classes, some of which are held out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClassSource {
    /// Embedded: endless invented alphabets.
    Glyphs,
    /// `omniglot` below the data folder, with the Vinyals split.
    Omniglot,
    /// The data folder itself: a subfolder a class, with PNG files in it.
    Folder,
}

/// A source of images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ImageSource {
    /// Embedded: digits drawn by strokes.
    Digits,
    /// `mnist` below the data folder.
    Mnist,
    /// The data folder itself: a subfolder a class, with PNG files in it.
    Folder,
}

/// N-way K-shot episodes, to train with and to be measured on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Task {
    /// Classes of a test episode.
    pub ways: usize,
    /// Support images a class of a test episode.
    pub shots: usize,
    /// Query images a class of a test episode.
    pub queries: usize,
    /// Classes of a training episode.
    pub train_ways: usize,
    /// Support images a class of a training episode.
    pub train_shots: usize,
    /// Query images a class of a training episode.
    pub train_queries: usize,
    /// Episodes of a step.
    pub meta_batch: usize,
}

impl Task {
    fn check(&self) -> Checked {
        at_least("task.ways", self.ways, 2)?;
        at_least("task.train_ways", self.train_ways, 2)?;
        at_least("task.shots", self.shots, 1)?;
        at_least("task.queries", self.queries, 1)?;
        at_least("task.train_shots", self.train_shots, 1)?;
        at_least("task.train_queries", self.train_queries, 1)?;
        at_least("task.meta_batch", self.meta_batch, 1)
    }
}

/// Sine waves to fit from a few points.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WaveTask {
    /// Points to adapt to.
    pub shots: usize,
    /// Points to be measured on.
    pub queries: usize,
    /// Waves of a step.
    pub meta_batch: usize,
}

impl WaveTask {
    fn check(&self) -> Checked {
        at_least("task.shots", self.shots, 1)?;
        at_least("task.queries", self.queries, 1)?;
        at_least("task.meta_batch", self.meta_batch, 1)
    }
}

/// A class to draw after a few images of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DrawTask {
    /// Images to learn the class from.
    pub shots: usize,
    /// Classes of a step.
    pub meta_batch: usize,
}

impl DrawTask {
    fn check(&self) -> Checked {
        at_least("task.shots", self.shots, 2)?;
        at_least("task.meta_batch", self.meta_batch, 1)
    }
}

/// A convolutional network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConvNet {
    /// Which one.
    pub name: ConvName,
    /// Channels of every layer.
    pub channels: usize,
}

/// The convolutional networks that there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConvName {
    /// With max-pooling (Vinyals et al. 2016).
    Conv4,
    /// With strides, and the mean over what is left of the image (Finn et al. 2017).
    Conv4Strided,
}

impl ConvNet {
    fn check(&self) -> Checked {
        at_least("model.channels", self.channels, 1)
    }
}

/// A fully connected network with one input and one output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mlp {
    /// Units of the hidden layers.
    pub hidden: Vec<usize>,
}

impl Mlp {
    fn check(&self) -> Checked {
        at_least("the shortest of model.hidden", self.hidden.iter().copied().min().unwrap_or(1), 1)
    }
}

/// A generator that encodes and decodes, and a discriminator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FewshotModel {
    /// Numbers of a code.
    pub latent: usize,
    /// Channels at half the image's size.
    pub channels: usize,
}

impl FewshotModel {
    fn check(&self) -> Checked {
        at_least("model.latent", self.latent, 1)?;
        at_least("model.channels", self.channels, 2)
    }
}

/// The rules of an adversarial game.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Game {
    /// Images of a step.
    pub batch: usize,
    /// What the players minimise.
    pub loss: Loss,
    /// Weight of the penalty on the discriminator's slope at real images (R1, Mescheder et al. 2018); 0 for none.
    pub r1: f64,
    /// Weight of the penalty on its slope's distance from 1 between real and generated images (Gulrajani et al. 2017); 0 for
    /// none. It is this one or R1.
    pub gradient_penalty: f64,
    /// The penalty is taken in one of so many steps of the discriminator, with so many times its weight; 1 for every step.
    pub penalty_every: u64,
    /// The weight of the penalty falls gradually, by half in so many steps; 0 for not at all.
    pub penalty_halve_every: u64,
    /// Steps of the discriminator before one of the generator.
    pub discriminator_steps: usize,
    /// Decay of the moving average of the generator that draws the samples; 0 for none.
    pub average: f64,
}

impl Game {
    fn check(&self) -> Checked {
        at_least("game.batch", self.batch, 1)?;
        at_least("game.discriminator_steps", self.discriminator_steps, 1)?;
        at_least("game.penalty_every", self.penalty_every, 1)?;
        weight("game.r1", self.r1)?;
        weight("game.gradient_penalty", self.gradient_penalty)?;
        if self.r1 > 0.0 && self.gradient_penalty > 0.0 {
            return Err(format!(
                "`game.r1` is {} and `game.gradient_penalty` is {}; there is one penalty, so set one of them to 0",
                self.r1, self.gradient_penalty
            ));
        }
        if self.loss == Loss::Wasserstein && self.r1 == 0.0 && self.gradient_penalty == 0.0 {
            return Err("`game.loss` is wasserstein, whose critic needs bounded slopes; set `game.gradient_penalty` (published: 10) or `game.r1` above 0".into());
        }
        if (0.0..1.0).contains(&self.average) {
            Ok(())
        } else {
            Err(format!("`game.average` is {}; it is at least 0 and below 1", self.average))
        }
    }
}

/// Gradient descent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Optimizer {
    /// `adam` or `sgd`.
    pub name: OptimizerName,
    /// Learning rate.
    pub lr: f64,
    /// Adam's decay of the first moment; SGD's momentum.
    pub beta1: f64,
    /// Halve the rate every so many steps; 0 for never.
    pub halve_every: u64,
    /// Clip the gradient to this norm; 0 for not at all.
    pub clip: f64,
}

/// A rule of gradient descent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerName {
    /// Kingma, Ba 2015.
    Adam,
    /// With momentum.
    Sgd,
}

impl Optimizer {
    fn check(&self, table: &str) -> Checked {
        positive(&format!("{table}.lr"), self.lr)?;
        if !(0.0..1.0).contains(&self.beta1) {
            return Err(format!("`{table}.beta1` is {}; it is at least 0 and below 1", self.beta1));
        }
        if self.clip == 0.0 { Ok(()) } else { positive(&format!("{table}.clip"), self.clip) }
    }
}

/// Adaptation by gradient steps on the support set.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Inner {
    /// Steps in training.
    pub steps: usize,
    /// Learning rate, on the mean loss of the support set.
    pub lr: f64,
    /// Steps in evaluation.
    pub eval_steps: usize,
    /// Whether the meta-gradient flows through the steps' gradients.
    pub order: Order,
}

impl Inner {
    fn check(&self) -> Checked {
        at_least("inner.steps", self.steps, 1)?;
        at_least("inner.eval_steps", self.eval_steps, 1)?;
        positive("inner.lr", self.lr)
    }
}

/// The game that is played within a task, from the meta-learned initial weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InnerGame {
    /// Steps of both players in training.
    pub steps: usize,
    /// Steps of both players in evaluation.
    pub eval_steps: usize,
    /// Learning rate of both players.
    pub lr: f64,
    /// Adam's decay of the first moment; it starts anew with each class.
    pub beta1: f64,
    /// Weight of the adversarial loss for the generator.
    pub adversarial: f64,
    /// Weight of the reconstruction of the support for the generator.
    pub reconstruction: f64,
}

impl InnerGame {
    fn check(&self) -> Checked {
        at_least("inner.steps", self.steps, 1)?;
        at_least("inner.eval_steps", self.eval_steps, 1)?;
        at_least("inner.adversarial", self.adversarial, 0.0)?;
        at_least("inner.reconstruction", self.reconstruction, 0.0)?;
        if !(0.0..1.0).contains(&self.beta1) {
            return Err(format!("`inner.beta1` is {}; it is at least 0 and below 1", self.beta1));
        }
        positive("inner.lr", self.lr)
    }
}

/// How a few-shot classifier is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EpisodeEval {
    /// Episodes.
    pub tasks: usize,
    /// The part of the classes to draw them from: `test`, or `val` while settings are being chosen.
    pub split: Split,
    /// Whose statistics normalise the query images.
    pub batch_norm: Statistics,
}

/// How a regressor that adapts to functions is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WaveEval {
    /// Test tasks.
    pub tasks: usize,
    /// Points of a test task to adapt to.
    pub shots: usize,
}

/// How a few-shot generator is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DrawEval {
    /// Classes.
    pub tasks: usize,
    /// Images drawn of each.
    pub images: usize,
    /// Training steps of the prototypical network whose embedding compares the images.
    pub embedding_steps: u64,
    /// The part of the classes to draw them from: `test`, or `val` while settings are being chosen.
    pub split: Split,
}

/// How a generator is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageEval {
    /// Generated images to compare with as many real ones.
    pub images: usize,
    /// Passes over the real images in which the classifier that reads them is trained.
    pub classifier_epochs: usize,
}

/// `key` is at least `least`.
pub(crate) fn at_least<T: PartialOrd + std::fmt::Display>(key: &str, value: T, least: T) -> Checked {
    if value >= least { Ok(()) } else { Err(format!("`{key}` is {value}; it is at least {least}")) }
}

/// `value` weighs a term that may be left out.
fn weight(key: &str, value: f64) -> Checked {
    if value.is_finite() && value >= 0.0 {
        Ok(())
    } else {
        Err(format!("`{key}` is {value}; it is a number of at least 0"))
    }
}

fn positive(key: &str, value: f64) -> Checked {
    if value.is_finite() && value > 0.0 { Ok(()) } else { Err(format!("`{key}` is {value}; it is a number above 0")) }
}
