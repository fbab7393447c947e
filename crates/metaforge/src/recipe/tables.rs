//! The tables of recipes, and the ranges of their numbers.

use metaforge_data::{Rotations, Split};
use metaforge_gan::Loss;
use metaforge_meta::{Order, Statistics};
use serde::{Deserialize, Serialize};

/// What is out of range, in words.
pub(super) type Checked = Result<(), String>;

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
pub(super) fn check_splits(learned: Split, measured: Split) -> Checked {
    match (learned, measured) {
        (Split::Train, Split::Val | Split::Test) | (Split::TrainVal, Split::Test) => Ok(()),
        (Split::Train | Split::TrainVal, _) => {
            let other = if learned == Split::Train { "`val` or `test`" } else { "`test`" };
            Err(format!(
                "`eval.split` is {}; to be measured on what was not learned from, it is {other}",
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
    pub(super) fn check(&self) -> Checked {
        count("task.ways", self.ways, 2)?;
        count("task.train_ways", self.train_ways, 2)?;
        count("task.shots", self.shots, 1)?;
        count("task.queries", self.queries, 1)?;
        count("task.train_shots", self.train_shots, 1)?;
        count("task.train_queries", self.train_queries, 1)?;
        count("task.meta_batch", self.meta_batch, 1)
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
    pub(super) fn check(&self) -> Checked {
        count("task.shots", self.shots, 1)?;
        count("task.queries", self.queries, 1)?;
        count("task.meta_batch", self.meta_batch, 1)
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
    pub(super) fn check(&self) -> Checked {
        count("task.shots", self.shots, 2)?;
        count("task.meta_batch", self.meta_batch, 1)
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
    pub(super) fn check(&self) -> Checked {
        between("model.channels", self.channels, 1, WIDEST)
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
    pub(super) fn check(&self) -> Checked {
        let units = |key, of: Option<usize>| between(key, of.unwrap_or(1), 1, WIDEST);
        units("the shortest of model.hidden", self.hidden.iter().copied().min())?;
        units("the longest of model.hidden", self.hidden.iter().copied().max())
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
    pub(super) fn check(&self) -> Checked {
        between("model.latent", self.latent, 1, MOST_OF_GAME)?;
        between("model.channels", self.channels, 2, MOST_OF_GAME)
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
    /// Weight of the same at real and at generated images (R1 and R2, Huang et al. 2024); 0 for none.
    pub r1_r2: f64,
    /// Weight of the penalty on its slope's distance from 1 between real and generated images (Gulrajani et al. 2017); 0 for
    /// none.
    pub gradient_penalty: f64,
    /// The penalty is taken in one of so many steps of the discriminator, with so many times its weight; 1 for every step.
    pub penalty_every: u64,
    /// The weight of the penalty falls gradually, by half in so many steps; 0 for not at all.
    pub penalty_halve_every: u64,
    /// Steps of the discriminator before one of the generator.
    pub discriminator_steps: usize,
    /// Images of the generator's batch that it learns from, those that the discriminator likes best (Sinha et al. 2020); 0 for all.
    pub best: usize,
    /// Decay of the moving average of the generator that draws the samples; 0 for none.
    pub average: f64,
}

impl Game {
    pub(super) fn check(&self) -> Checked {
        between("game.batch", self.batch, 1, MOST_OF_GAME)?;
        count("game.discriminator_steps", self.discriminator_steps, 1)?;
        at_least("game.penalty_every", self.penalty_every, 1)?;
        weight("game.r1", self.r1)?;
        weight("game.gradient_penalty", self.gradient_penalty)?;
        weight("game.r1_r2", self.r1_r2)?;
        let penalties = [("r1", self.r1), ("r1_r2", self.r1_r2), ("gradient_penalty", self.gradient_penalty)];
        let set: Vec<_> = penalties.into_iter().filter(|(_, weight)| *weight > 0.0).collect();
        if let [(a, of_a), (b, of_b), ..] = set[..] {
            return Err(format!(
                "`game.{a}` is {of_a} and `game.{b}` is {of_b}; there is one penalty, so set one of them to 0"
            ));
        }
        if self.loss == Loss::Wasserstein && set.is_empty() {
            return Err("`game.loss` is wasserstein, whose critic needs bounded slopes; set `game.gradient_penalty` (published: 10), `game.r1` or `game.r1_r2` above 0".into());
        }
        if self.best > self.batch {
            return Err(format!("`game.best` is {}; it is at most `game.batch`, {}", self.best, self.batch));
        }
        if (0.0..1.0).contains(&self.average) {
            Ok(())
        } else {
            Err(format!("`game.average` is {}; it is at least 0 and below 1", self.average))
        }
    }
}

/// Which of the images that a generator makes are shown and measured.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sampling {
    /// The share that is kept of the images drawn: those that change least with their noise for what is on them (after Tanielian et al. 2020); 1 for
    /// all.
    pub keep: f64,
}

/// The least share: for each image shown a hundred are drawn.
const LEAST_KEPT: f64 = 0.01;

impl Sampling {
    pub(super) fn check(&self) -> Checked {
        if (LEAST_KEPT..=1.0).contains(&self.keep) {
            Ok(())
        } else {
            Err(format!("`sampling.keep` is {}; it is at least {LEAST_KEPT} and at most 1", self.keep))
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
    pub(super) fn check(&self, table: &str) -> Checked {
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
    /// Whether the meta-gradient computes each step again instead of keeping what it computed: the same numbers in less memory and
    /// more time, worth it with many steps on many support images.
    pub rematerialise: bool,
}

impl Inner {
    pub(super) fn check(&self) -> Checked {
        count("inner.steps", self.steps, 1)?;
        count("inner.eval_steps", self.eval_steps, 1)?;
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
    pub(super) fn check(&self) -> Checked {
        count("inner.steps", self.steps, 1)?;
        count("inner.eval_steps", self.eval_steps, 1)?;
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
    /// The waves: `test`, or `val`, others, while settings are being chosen.
    pub split: Split,
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

/// The most of anything that a task or a batch holds side by side.
const MOST: usize = 10_000;
/// The most channels, or units, of a layer.
const WIDEST: usize = 4096;
/// The most images of a batch of a game, and channels and numbers of a code of a few-shot generator: what they take is not counted beforehand.
const MOST_OF_GAME: usize = 512;

/// A number of things that are in memory at once.
fn count(key: &str, value: usize, least: usize) -> Checked {
    between(key, value, least, MOST)
}

/// `key` is at least `least` and at most `most`.
pub(crate) fn between<T: PartialOrd + std::fmt::Display>(key: &str, value: T, least: T, most: T) -> Checked {
    if value > most { Err(format!("`{key}` is {value}; it is at most {most}")) } else { at_least(key, value, least) }
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
