//! Training across classes: Reptile (Nichol, Achiam, Schulman 2018, <https://arxiv.org/abs/1803.02999>) over both players.
//!
//! A step plays the inner game on a meta-batch of classes, each from the same parameters `theta` to its own `phi`; the mean of
//! `theta - phi` is what the outer optimiser descends, as if it were a gradient.

use std::sync::Arc;

use metaforge_autodiff::{Aval, DType, Key, Par, Program, Tensor, Workspace};
use metaforge_gan::{Rule, state};
use metaforge_meta::Tasks;
use metaforge_nn::Params;
use rayon::prelude::*;

use crate::{Adapted, Error, InnerGame, Players};

/// How the first parameters of a class are learned across classes.
#[derive(Clone, Debug)]
pub struct FewShotConfig {
    /// Steps of the inner game.
    pub inner_steps: usize,
    /// Classes of an outer step.
    pub meta_batch: usize,
    /// How `theta` descends along the mean of `theta - phi`.
    pub outer: Rule,
    /// Whence the first parameters and the noise of the inner games.
    pub seed: u64,
}

/// How an outer step went: means over its classes, at the end of their games.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FewShotReport {
    /// The step, counted from 1.
    pub step: u64,
    /// The discriminator's loss, with its penalty.
    pub d_loss: f64,
    /// The generator's loss.
    pub g_loss: f64,
    /// Cross-entropy of the reconstructed support a pixel.
    pub reconstruction: f64,
    /// Length of the mean of `theta - phi`.
    pub distance: f64,
}

/// Trains the first parameters of both players. The result depends on the game, the tasks and the settings alone: not on the
/// number of threads, nor on whether training was interrupted.
pub struct FewShotTrainer {
    game: InnerGame,
    tasks: Arc<dyn Tasks>,
    config: FewShotConfig,
    players: Players,
    optimizer: Params,
    update: Program,
    workspace: Workspace,
    step: u64,
}

impl FewShotTrainer {
    /// A trainer on numbered tasks of one class each; what it learns from are their support sets.
    ///
    /// # Errors
    /// If a setting makes no sense, or the first task has not the shape that the game was compiled for.
    pub fn new(game: InnerGame, tasks: Arc<dyn Tasks>, config: FewShotConfig) -> Result<FewShotTrainer, Error> {
        if config.meta_batch == 0 || config.inner_steps == 0 {
            return Err(Error::Setting("a meta-batch has at least one class, and a game at least one step".into()));
        }
        let players = game.gan().init(Key::new(config.seed).fold(0));
        // Fails early on tasks of another shape.
        game.adapt(&players, &tasks.task(0).support_x, 0, Key::new(0), Par::Seq)?;
        let params: Vec<Aval> = players.tensors().map(Tensor::aval).collect();
        let optimizer = config.outer.optimizer.init(&params);
        let inputs = [params.clone(), params.clone(), optimizer.avals(), vec![Aval::new([], DType::F32)]].concat();
        let n = params.len();
        let update = Program::trace(&inputs, |_, v| {
            let (theta, rest) = v.split_at(n);
            let (direction, rest) = rest.split_at(n);
            let (state, rate) = rest.split_at(rest.len() - 1);
            let (theta, state) = config.outer.move_along(direction, theta, state, rate[0]);
            [theta, state].concat()
        });
        let workspace = update.workspace();
        Ok(FewShotTrainer { game, tasks, config, players, optimizer, update, workspace, step: 0 })
    }

    /// One outer step: a meta-batch of classes, spread over the threads of the current rayon pool.
    ///
    /// # Errors
    /// If a number is no longer finite, or a task is of another shape; the state is then the one before the step.
    pub fn step(&mut self) -> Result<FewShotReport, Error> {
        let (step, n) = (self.step, self.config.meta_batch as u64);
        let numbered = |error| match error {
            Error::Diverged { what, .. } => Error::Diverged { step: step + 1, what },
            other => other,
        };
        let classes: Vec<Adapted> = (0..self.config.meta_batch)
            .into_par_iter()
            .with_max_len(1)
            .map(|i| self.play(step * n + i as u64).map_err(numbered))
            .collect::<Result<_, _>>()?;
        let direction = self.direction(&classes);
        let squares = direction.iter().flat_map(Tensor::f32s).map(|&v| f64::from(v).powi(2));
        let distance = squares.sum::<f64>().sqrt();

        let rate = Tensor::scalar(self.config.outer.rate.at(step) as f32);
        let mut inputs: Vec<&Tensor> = self.players.tensors().chain(&direction).collect();
        inputs.extend(self.optimizer.tensors());
        inputs.push(&rate);
        self.update.run(&mut self.workspace, &inputs, Par::Rayon);
        let (mut players, mut at) = (self.players.clone(), 0);
        for part in [&mut players.generator, &mut players.discriminator] {
            part.update_from(&self.update, &self.workspace, at);
            at += part.len();
        }
        let mut optimizer = self.optimizer.clone();
        optimizer.update_from(&self.update, &self.workspace, at);
        let finite = [
            ("the mean of the players", distance.is_finite()),
            ("a parameter after the outer step", players.is_finite()),
            ("a mean of the outer optimiser's gradients", optimizer.is_finite()),
        ];
        if let Some((what, _)) = finite.into_iter().find(|(_, finite)| !finite) {
            return Err(Error::Diverged { step: step + 1, what: what.into() });
        }
        (self.players, self.optimizer, self.step) = (players, optimizer, step + 1);
        let mean = |f: fn(&Adapted) -> f64| classes.iter().map(f).sum::<f64>() / n as f64;
        let [d_loss, g_loss] = [mean(|c| c.d_loss), mean(|c| c.g_loss)];
        Ok(FewShotReport { step: step + 1, d_loss, g_loss, reconstruction: mean(|c| c.reconstruction), distance })
    }

    fn play(&self, number: u64) -> Result<Adapted, Error> {
        let support = self.tasks.task(number).support_x;
        let key = Key::new(self.config.seed).fold(1).fold(number);
        self.game.adapt(&self.players, &support, self.config.inner_steps, key, Par::Seq)
    }

    /// The mean of `theta - phi` over the classes, added in their order.
    fn direction(&self, classes: &[Adapted]) -> Vec<Tensor> {
        let ends: Vec<Vec<&Tensor>> = classes.iter().map(|c| c.players.tensors().collect()).collect();
        let starts: Vec<&Tensor> = self.players.tensors().collect();
        let scale = 1.0 / classes.len() as f32;
        let mean = |(i, theta): (usize, &&Tensor)| {
            let mut sum = vec![0.0f32; theta.len()];
            for end in &ends {
                let pairs = theta.f32s().iter().zip(end[i].f32s());
                sum.iter_mut().zip(pairs).for_each(|(s, (theta, phi))| *s += theta - phi);
            }
            sum.iter_mut().for_each(|s| *s *= scale);
            Tensor::new(theta.shape(), sum)
        };
        starts.par_iter().enumerate().map(mean).collect()
    }

    /// The inner game.
    pub fn game(&self) -> &InnerGame {
        &self.game
    }

    /// The parameters that every class starts from.
    pub fn players(&self) -> &Players {
        &self.players
    }

    /// Outer steps taken so far.
    pub fn steps(&self) -> u64 {
        self.step
    }

    /// Learns a class from its support `[k, H, W, C]` in `steps` steps of the inner game, on the threads of the current
    /// rayon pool.
    ///
    /// # Errors
    /// As [`InnerGame::adapt`].
    pub fn adapt(&self, support: &Tensor, steps: usize, key: Key) -> Result<Adapted, Error> {
        self.game.adapt(&self.players, support, steps, key, Par::Rayon)
    }

    /// Everything that training goes on from, to the same bits. Names begin with `generator.` and `discriminator.`; what
    /// only training needs begins with `training.`.
    pub fn state(&self) -> Params {
        let mut all = self.players.generator.prefixed("generator");
        all.extend(self.players.discriminator.prefixed("discriminator"));
        all.extend(self.optimizer.prefixed("training.optimizer"));
        all.extend(state::count(self.step).prefixed("training"));
        all
    }

    /// Takes what [`FewShotTrainer::state`] gave, in any order.
    ///
    /// # Errors
    /// If a tensor is missing or of another shape. Nothing is changed then.
    pub fn restore(&mut self, saved: &Params) -> Result<(), Error> {
        let optimizer = saved.part("training.optimizer", &self.optimizer)?;
        let step = saved.part("training", &state::count(0))?.tensors()[0].item() as u64;
        self.restore_weights(saved)?;
        (self.optimizer, self.step) = (optimizer, step);
        Ok(())
    }

    /// Takes only the players from a saved state.
    ///
    /// # Errors
    /// Like [`FewShotTrainer::restore`].
    pub fn restore_weights(&mut self, saved: &Params) -> Result<(), Error> {
        let generator = saved.part("generator", &self.players.generator)?;
        let discriminator = saved.part("discriminator", &self.players.discriminator)?;
        self.players = Players { generator, discriminator };
        Ok(())
    }
}

#[cfg(test)]
#[path = "trainer_tests.rs"]
mod tests;
