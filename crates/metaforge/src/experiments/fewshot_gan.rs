//! A GAN that learns to draw a new class from a few images of it.

use std::path::Path;
use std::sync::Arc;

use metaforge_autodiff::{Key, Par, Tensor};
use metaforge_data::{Classes, EpisodeConfig, EpisodeSampler, Rotations};
use metaforge_fusion::evaluate::{Embedding, Ranking, Subject, rank};
use metaforge_fusion::{
    self as fusion, FewShotConfig, FewShotGan, FewShotTrainer, InnerConfig, InnerGame, Players, fewshot_gan,
};
use metaforge_gan::Rule;
use metaforge_meta::{MetaTrainer, ProtoNet, TrainConfig};
use metaforge_nn::{Adam, Model, Params, zoo};
use rand::seq::index;
use rayon::prelude::*;

use super::seed_gan::rule;
use crate::error::{Error, Result};
use crate::experiment::{Evaluation, Experiment, Figure, Unit, Watch};
use crate::metrics::Metrics;
use crate::picture::{Layout, Picture};
use crate::recipe::{self, DrawEval, InnerGame as Inner};
use crate::sources;

/// Classes of a picture, and images drawn of each.
const SHOWN: [usize; 2] = [8, 8];
/// Classes that are measured, at most: their drawings are held and compared all together.
const MOST_CLASSES: usize = 2000;
/// Which unseen classes are measured and shown is the same for every seed.
const CHOICE: u64 = 0x7e57;
/// Real drawings of a class that stand for it when sets are compared.
const REFERENCE: usize = 7;
/// The episodes of the embedding: ways, shots, queries.
const EPISODE: [usize; 3] = [20, 1, 5];

/// The players with their trainer, and the classes that they have not seen.
pub(super) struct FewshotDrawing {
    trainer: FewShotTrainer,
    untrained: Players,
    train: Arc<dyn Classes>,
    test: Arc<dyn Classes>,
    shots: usize,
    inner: Inner,
    eval: DrawEval,
}

/// The experiment of a recipe of kind `fewshot-gan`.
pub(super) fn build(recipe: &recipe::FewshotGan, seed: u64, data: Option<&Path>) -> Result<FewshotDrawing> {
    let [train, test] = sources::classes(recipe.data.source, [recipe.data.split, recipe.eval.split], data)?;
    let (task, inner, eval) = (recipe.task, recipe.inner.clone(), recipe.eval);
    if eval.tasks > test.classes() {
        return Err(Error::Refused(format!(
            "`eval.tasks` is {}, the data has {} unseen classes",
            eval.tasks,
            test.classes()
        )));
    }
    if eval.tasks > MOST_CLASSES {
        return Err(Error::Refused(format!(
            "`eval.tasks` is {}; it is at most {MOST_CLASSES}, because every drawing is compared with every class",
            eval.tasks
        )));
    }
    let gan = FewShotGan {
        adversarial: inner.adversarial,
        reconstruction: inner.reconstruction,
        ..fewshot_gan(recipe.model.latent, recipe.model.channels)
    };
    let player = || Rule::adam(inner.lr, inner.beta1, 0.999);
    let config = InnerConfig { shots: task.shots, generator: player(), discriminator: player() };
    // The control starts where the trained players started.
    let untrained = gan.init(Key::new(seed).fold(0));
    let game = InnerGame::new(gan, config)?;
    // A task is one class; its one query image is not looked at.
    let episode = EpisodeConfig { ways: 1, shots: task.shots, queries: 1, rotations: recipe.data.rotations };
    let tasks = EpisodeSampler::new(train.clone(), episode, seed)?;
    let config =
        FewShotConfig { inner_steps: inner.steps, meta_batch: task.meta_batch, outer: rule(&recipe.optimizer), seed };
    let trainer = FewShotTrainer::new(game, Arc::new(tasks), config)?;
    Ok(FewshotDrawing { trainer, untrained, train, test, shots: task.shots, inner, eval })
}

impl FewshotDrawing {
    /// `n` unseen classes, for a key always the same ones.
    fn subjects(&self, n: usize, key: Key) -> Result<Vec<Subject>> {
        let n = n.min(self.test.classes());
        let classes = index::sample(&mut key.rng(), self.test.classes(), n);
        let subject =
            |class: usize| Ok(Subject::draw(self.test.as_ref(), class, self.shots, REFERENCE, key.fold(class as u64))?);
        classes.iter().map(subject).collect()
    }

    /// A class a row: its support beside what is drawn after it, by the trained players or by those that were never trained.
    fn rows(&self, n: usize, key: Key, from: &Players) -> Result<Picture> {
        let subjects = self.subjects(n, key)?;
        let game = self.trainer.game();
        let drawn: Vec<Tensor> = subjects
            .par_iter()
            .enumerate()
            .map(|(i, subject)| {
                let key = key.fold(i as u64);
                let adapted = game.adapt(from, &subject.support, self.inner.eval_steps, key.fold(0), Par::Seq)?;
                Ok(game.sample(&adapted, SHOWN[1], key.fold(1)))
            })
            .collect::<Result<_>>()?;
        let support: Vec<&Tensor> = subjects.iter().map(|s| &s.support).collect();
        Ok(Picture::rows(
            &Tensor::stack(&support),
            &Tensor::stack(&drawn.iter().collect::<Vec<_>>()),
            Layout::columns(1),
        ))
    }

    /// A prototypical network that was trained on the classes to learn from, for comparing images of the others.
    fn embedding(&self, watch: Watch<'_>) -> Result<Embedding> {
        let [ways, shots, queries] = EPISODE;
        let [h, w, c] = self.train.image_shape();
        let model = Model::new(zoo::conv4(64, None), [1, h, w, c]);
        let ways = ways.min(self.train.classes());
        let episode = EpisodeConfig { ways, shots, queries, rotations: Rotations::None };
        let tasks = EpisodeSampler::new(self.train.clone(), episode, CHOICE)?;
        let learner = Arc::new(ProtoNet::new(model.clone()));
        let config = TrainConfig { seed: CHOICE, ..TrainConfig::new(1, 1e-3) };
        let mut trainer = MetaTrainer::new(learner, Arc::new(tasks), Box::new(Adam::default()), config)?;
        let steps = self.eval.embedding_steps;
        for step in 0..steps {
            watch(step as usize, steps as usize);
            trainer.step()?;
        }
        let name = format!("prototypical Conv4-64 after {steps} episodes of {ways} ways");
        Ok(Embedding::new(name, model, trainer.params().clone(), trainer.learner_state().clone()))
    }
}

impl Experiment for FewshotDrawing {
    fn step(&mut self, _n: u64) -> Result<Metrics> {
        let report = self.trainer.step()?;
        let losses = Metrics::new().with("loss/generator", report.g_loss).with("loss/discriminator", report.d_loss);
        Ok(losses.with("reconstruction/support", report.reconstruction).with("distance/theta to phi", report.distance))
    }

    fn samples(&self) -> Result<Vec<(String, Picture)>> {
        Ok(vec![("support_left_drawn_right".into(), self.rows(SHOWN[0], Key::new(CHOICE), self.trainer.players())?)])
    }

    fn state(&self) -> Params {
        self.trainer.state()
    }

    fn restore(&mut self, state: &Params) -> Result<()> {
        Ok(self.trainer.restore(state)?)
    }

    fn weights(&self) -> Params {
        let players = self.trainer.players();
        let mut weights = players.generator.prefixed("generator");
        weights.extend(players.discriminator.prefixed("discriminator"));
        weights
    }

    fn restore_weights(&mut self, weights: &Params) -> Result<()> {
        Ok(self.trainer.restore_weights(weights)?)
    }

    /// The time goes into the embedding, so its training is what `watch` hears of.
    fn evaluate(&self, watch: Watch<'_>) -> Result<Evaluation> {
        let embedding = self.embedding(watch)?;
        let subjects = self.subjects(self.eval.tasks, Key::new(CHOICE))?;
        let ranked = |from: &Players| -> Result<Ranking> {
            let (steps, images) = (self.inner.eval_steps, self.eval.images);
            Ok(rank(self.trainer.game(), from, &embedding, &subjects, steps, images, Key::new(CHOICE))?)
        };
        let (trained, control) = (ranked(self.trainer.players())?, ranked(&self.untrained)?);
        let of = trained.classes;
        let figures = vec![
            Figure::new(
                "top1",
                format!("drawn images nearest to their own class of {of}"),
                trained.top1,
                Unit::Fraction,
            )
            .with_ci95(trained.interval)
            .with_note(format!(
                "real drawings have {:.0} %, chance is {:.0} %",
                100.0 * trained.real_top1,
                100.0 / of as f64
            )),
            Figure::new("top1_control", "the same steps without meta-training", control.top1, Unit::Fraction)
                .with_ci95(control.interval),
            Figure::new("top1_real", "real drawings nearest to their own class", trained.real_top1, Unit::Fraction),
            Figure::new("mean_rank", "mean rank of the right class", trained.mean_rank, Unit::Number),
            Figure::new("diversity", "spread within a class, real drawings = 1", trained.diversity, Unit::Number)
                .with_note(format!("control {:.2}", control.diversity)),
            Figure::new(
                "novelty",
                "distance to the nearest support image, real drawings = 1",
                trained.novelty,
                Unit::Number,
            )
            .with_note(format!("copies have 0; control {:.2}", control.novelty)),
        ];
        let protocol = format!(
            "{of} classes of the {} part, {} support images each, {} steps of both players, {} images drawn of each; nearest of the classes' prototypes (means of other real drawings) in the embedding of {}.",
            self.eval.split.name(),
            trained.shots,
            trained.steps,
            trained.samples,
            trained.embedding,
        );
        let pictures = vec![
            ("support_left_drawn_right".into(), self.rows(SHOWN[0], Key::new(CHOICE), self.trainer.players())?),
            ("without_meta_training".into(), self.rows(SHOWN[0], Key::new(CHOICE), &self.untrained)?),
        ];
        Ok(Evaluation { protocol, tasks: of, figures, plots: Vec::new(), pictures })
    }

    fn generate(&self, n: usize, seed: u64) -> Result<Picture> {
        let key = if seed == 0 { Key::new(CHOICE) } else { Key::new(CHOICE).fold(seed) };
        self.rows(n, key, self.trainer.players())
    }
}

impl From<fusion::Error> for Error {
    fn from(e: fusion::Error) -> Error {
        Error::Refused(e.to_string())
    }
}
