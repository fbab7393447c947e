//! The seed GAN on images of one data set.

use std::path::Path;
use std::sync::Arc;

use metaforge_autodiff::{Key, Tensor};
use metaforge_data::ImageSet;
use metaforge_gan::classifier::images_of;
use metaforge_gan::metrics::{fcd, kcd};
use metaforge_gan::{self as gan, Classifier, ClassifierConfig, Gan, GanTrainer, Penalty, Rule, TrainerConfig, seed};
use metaforge_nn::{Adam, Params, Schedule, Sgd};

use super::schedule;
use crate::error::Result;
use crate::experiment::{Evaluation, Experiment, Figure, Unit, Watch};
use crate::metrics::Metrics;
use crate::picture::{Layout, Picture};
use crate::recipe::{self, ImageEval, OptimizerName};
use crate::sources;

/// Samples of a picture, and columns of it.
const SHOWN: usize = 64;
const COLUMNS: usize = 8;
/// Noise of the samples is the same for every seed and step, so that pictures can be compared.
const NOISE: u64 = 0x5a3b1e;
/// Images of a subset, and subsets, of the kernel distance.
const SUBSETS: [usize; 2] = [1000, 10];

/// A game, and the images that it imitates and is compared with.
pub(super) struct SeedGan {
    trainer: GanTrainer,
    train: Arc<ImageSet>,
    test: Arc<ImageSet>,
    /// The share of the images drawn that is shown.
    keep: f64,
    eval: ImageEval,
}

/// The experiment of a recipe of kind `seed-gan`.
pub(super) fn build(recipe: &recipe::SeedGan, seed: u64, data: Option<&Path>) -> Result<SeedGan> {
    let [train, test] = sources::images(recipe.data.source, data)?;
    let config = TrainerConfig {
        batch: recipe.game.batch,
        discriminator_steps: recipe.game.discriminator_steps,
        penalty_every: recipe.game.penalty_every,
        penalty_scale: scale(&recipe.game),
        generator: rule(&recipe.generator),
        discriminator: rule(&recipe.discriminator),
        average: (recipe.game.average > 0.0).then_some(recipe.game.average),
        seed,
    };
    let best = (recipe.game.best > 0).then_some(recipe.game.best);
    let game = Gan { loss: recipe.game.loss, penalty: penalty(&recipe.game), best, ..seed::seed_gan() };
    let trainer = GanTrainer::new(game, config, train.clone())?;
    Ok(SeedGan { trainer, train, test, keep: recipe.sampling.keep, eval: recipe.eval })
}

/// What a recipe's table adds for the discriminator.
fn penalty(table: &recipe::Game) -> Penalty {
    match (table.r1, table.r1_r2, table.gradient_penalty) {
        (weight, _, _) if weight > 0.0 => Penalty::R1 { weight },
        (_, weight, _) if weight > 0.0 => Penalty::R1R2 { weight },
        (_, _, weight) if weight > 0.0 => Penalty::Gradient { weight },
        _ => Penalty::None,
    }
}

/// What part of the penalty is left, by step.
fn scale(table: &recipe::Game) -> Schedule {
    match table.penalty_halve_every {
        0 => Schedule::Constant(1.0),
        every => Schedule::Exponential { rate: 1.0, factor: 0.5f64.powf(1.0 / every as f64) },
    }
}

/// How a player moves, by a recipe's table.
pub(super) fn rule(table: &recipe::Optimizer) -> Rule {
    let rule = match table.name {
        OptimizerName::Adam => Rule::new(Adam::betas(table.beta1, 0.999), schedule(table)),
        OptimizerName::Sgd => Rule::new(Sgd { momentum: table.beta1, ..Sgd::new() }, schedule(table)),
    };
    Rule { clip: (table.clip > 0.0).then_some(table.clip), ..rule }
}

impl SeedGan {
    fn sample(&self, n: usize, key: Key) -> Tensor {
        self.trainer.sample_calm(n, self.keep, key)
    }

    /// Real images beside generated ones.
    fn compared(&self) -> Picture {
        let shown = SHOWN.min(self.train.len());
        // Images lie class by class: an even walk shows all classes.
        let real: Vec<Tensor> =
            (0..shown).map(|i| i * self.train.len() / shown).map(|i| images_of(&self.train, i..i + 1)).collect();
        let [h, w, c] = self.train.shape();
        let real = Tensor::new([shown, h, w, c], real.iter().flat_map(|x| x.f32s().to_vec()).collect());
        Picture::pair(&real, &self.sample(SHOWN, Key::new(NOISE)), Layout::columns(COLUMNS))
    }
}

impl Experiment for SeedGan {
    fn step(&mut self, _n: u64) -> Result<Metrics> {
        let report = self.trainer.step()?;
        let losses = Metrics::new().with("loss/discriminator", report.d_loss).with("loss/generator", report.g_loss);
        Ok(losses.with("verdict/real", report.d_real).with("verdict/generated", report.d_fake))
    }

    fn samples(&self) -> Result<Vec<(String, Picture)>> {
        Ok(vec![("real_left_generated_right".into(), self.compared())])
    }

    fn state(&self) -> Params {
        self.trainer.state()
    }

    fn restore(&mut self, state: &Params) -> Result<()> {
        Ok(self.trainer.restore(state)?)
    }

    fn weights(&self) -> Params {
        let state = self.trainer.state();
        state
            .iter()
            .filter(|(name, _)| !name.starts_with("training."))
            .map(|(n, t)| (n.to_owned(), t.clone()))
            .collect()
    }

    fn restore_weights(&mut self, weights: &Params) -> Result<()> {
        Ok(self.trainer.restore_weights(weights)?)
    }

    fn evaluate(&self, watch: Watch<'_>) -> Result<Evaluation> {
        // The classifier, the drawing, the comparing.
        watch(0, 3);
        let images = self.eval.images.min(self.test.len()).min(self.train.len());
        let config = ClassifierConfig { epochs: self.eval.classifier_epochs, ..ClassifierConfig::default() };
        let classifier = Classifier::train(self.train.clone(), &config)?;
        watch(1, 3);
        let accuracy = classifier.accuracy(&self.test);
        let made = self.sample(images, Key::new(NOISE).fold(1));
        let readings = classifier.read(&made);
        let real = |set: &ImageSet| {
            let picks: Vec<Tensor> =
                (0..images).map(|i| i * set.len() / images).map(|i| images_of(set, i..i + 1)).collect();
            let [h, w, c] = set.shape();
            let all = Tensor::new([images, h, w, c], picks.iter().flat_map(|x| x.f32s().to_vec()).collect());
            classifier.features(&all)
        };
        watch(2, 3);
        let (made, test, train) = (classifier.features(&made), real(&self.test), real(&self.train));
        let distance = fcd(&made, &test);
        let floor = fcd(&train, &test);
        let kernel = kcd(&made, &test, SUBSETS[0], SUBSETS[1], Key::new(NOISE).fold(2));
        let mut figures = vec![
            // The headline is the distance: a game that collapsed to noise can have a read rate near 1, never a small distance.
            Figure::new("fcd", "Fréchet classifier distance to test images", distance.value, Unit::Number)
                .with_note(format!("training images have {:.3}; smaller is better", floor.value)),
            Figure::new("read_rate", "samples read with confidence above 0.9", readings.read_rate, Unit::Fraction)
                .with_note("noise too can be read with confidence, as one class: look at the distance first"),
            Figure::new("rarest_class", "share of the rarest class", readings.rarest(), Unit::Fraction)
                .with_note(format!("{:.0} % if all were equal", 100.0 / readings.histogram.len() as f64)),
            Figure::new("fcd_floor", "Fréchet distance of training images", floor.value, Unit::Number),
            Figure::new("kcd", "kernel classifier distance to test images", kernel.value, Unit::Number)
                .with_note(spread(kernel.deviation, images)),
            Figure::new("classifier_accuracy", "test accuracy of the classifier that reads", accuracy, Unit::Fraction),
        ];
        if self.keep < 1.0 {
            let all = self.trainer.sample(images, Key::new(NOISE).fold(1));
            let (readings, distance) = (classifier.read(&all), fcd(&classifier.features(&all), &test));
            figures.extend([
                Figure::new("all_fcd", "Fréchet distance of all that is drawn", distance.value, Unit::Number)
                    .with_note(format!("the figures above are of the calmest {:.0} %", 100.0 * self.keep)),
                Figure::new("all_read_rate", "of all that is drawn, read", readings.read_rate, Unit::Fraction),
                Figure::new("all_rarest_class", "of all, share of the rarest class", readings.rarest(), Unit::Fraction),
            ]);
        }
        for (name, share) in self.train.names().iter().zip(&readings.histogram) {
            figures.push(Figure::new(format!("share_{name}"), format!("share read as {name}"), *share, Unit::Fraction));
        }
        let kept = match self.keep {
            1.0 => String::new(),
            keep => {
                format!(
                    " Generated are those {:.0} % of all drawn that change least with their noise, for how bright they are.",
                    100.0 * keep
                )
            }
        };
        let protocol = format!(
            "{images} generated and as many real images, seen by {} that was trained on the same training images. Distances are in its features and comparable with no others.{kept}",
            classifier.name(),
        );
        Ok(Evaluation { protocol, tasks: images, figures, plots: Vec::new(), pictures: self.samples()? })
    }

    fn generate(&self, n: usize, seed: u64) -> Result<Picture> {
        let columns = (n as f64).sqrt().ceil() as usize;
        Ok(Picture::grid(&self.sample(n, Key::new(NOISE).fold(3).fold(seed)), Layout::columns(columns.max(1))))
    }
}

/// How the kernel distance of so many images a set was taken.
fn spread(deviation: Option<f64>, images: usize) -> String {
    let [size, subsets] = SUBSETS;
    match deviation {
        Some(deviation) => format!("± {deviation:.4} over {subsets} subsets of {size}"),
        None => format!("of all {images} images at once"),
    }
}

impl From<gan::Error> for crate::Error {
    fn from(e: gan::Error) -> crate::Error {
        crate::Error::Refused(e.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::{Draft, Kind};

    #[test]
    fn a_recipe_chooses_its_penalty() {
        let chosen = |r1: f64, gradient: f64| {
            let mut draft = Draft::open("digits-seed-gan").unwrap();
            draft.set(&format!("game.r1={r1}")).unwrap();
            draft.set(&format!("game.gradient_penalty={gradient}")).unwrap();
            let Kind::SeedGan(tables) = draft.finish().unwrap().kind else { panic!("a recipe of this kind") };
            penalty(&tables.game)
        };
        assert_eq!(chosen(0.0, 0.0), Penalty::None);
        assert_eq!(chosen(2.0, 0.0), Penalty::R1 { weight: 2.0 });
        assert_eq!(chosen(0.0, 10.0), Penalty::Gradient { weight: 10.0 });
    }

    #[test]
    fn the_note_of_the_kernel_distance_says_what_was_used() {
        assert_eq!(spread(Some(0.0123), 2000), "± 0.0123 over 10 subsets of 1000");
        assert_eq!(spread(None, 200), "of all 200 images at once");
    }

    #[test]
    fn the_penalty_falls_by_half_in_the_recipes_steps() {
        let mut draft = Draft::open("digits-seed-gan").unwrap();
        draft.set("game.penalty_halve_every=500").unwrap();
        let Kind::SeedGan(tables) = draft.finish().unwrap().kind else { panic!("a recipe of this kind") };
        let left = [0, 250, 500, 1500].map(|step| scale(&tables.game).at(step));
        assert!(left.iter().zip([1.0, 0.5f64.sqrt(), 0.5, 0.125]).all(|(a, b)| (a - b).abs() < 1e-12), "{left:?}");
    }
}
