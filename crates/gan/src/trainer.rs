//! Training of a GAN by alternating moves, each compiled once.

use std::sync::Arc;
use std::time::Duration;

use metaforge_autodiff::{Aval, DType, Key, Par, Program, Tensor, Workspace, attended};
use metaforge_data::{BatchSampler, ImageSet};
use metaforge_nn::{Params, Schedule};

use crate::truncation::{calmest, unrest};
use crate::{Error, Gan, Penalty, Rule, Verdict, state};

/// How a game is trained.
#[derive(Clone, Debug)]
pub struct TrainerConfig {
    /// Images of a move, real and generated each.
    pub batch: usize,
    /// Moves of the discriminator before one of the generator.
    pub discriminator_steps: usize,
    /// The penalty is taken in one of so many moves of the discriminator, with so many times its weight; 1 for every move.
    pub penalty_every: u64,
    /// What the weight of the penalty is multiplied by, by step. As the generator draws better, less of it is needed
    /// (Huang et al. 2024 let it fall to a tenth).
    pub penalty_scale: Schedule,
    /// How the generator moves.
    pub generator: Rule,
    /// How the discriminator moves.
    pub discriminator: Rule,
    /// Decay of the moving average of the generator's parameters, which then draws the samples; None for no average.
    /// At step t the decay is at most (1 + t) / (10 + t), so that the start is soon forgotten.
    pub average: Option<f64>,
    /// Whence the first parameters, the order of the images and the noise.
    pub seed: u64,
}

/// How a step went.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Report {
    /// The step, counted from 1.
    pub step: u64,
    /// The discriminator's loss in its last move, with the penalty if that move took it.
    pub d_loss: f64,
    /// The generator's loss.
    pub g_loss: f64,
    /// Mean verdict of the discriminator on real images: a probability, or the score where the loss knows none.
    pub d_real: f64,
    /// Mean verdict on generated images.
    pub d_fake: f64,
}

/// A program with the memory that it runs in.
struct Move {
    program: Program,
    workspace: Workspace,
}

impl Move {
    fn new(program: Program) -> Move {
        Move { workspace: program.workspace(), program }
    }

    /// Makes the move; `player` becomes what it is afterwards. Whether all its numbers are finite.
    fn run(&mut self, inputs: &[&Tensor], player: &mut Player) -> bool {
        let mut results: Vec<&mut Tensor> = player.params.tensors_mut().chain(player.optimizer.tensors_mut()).collect();
        self.program.run_into_finite(&mut self.workspace, inputs, &mut results, Par::Rayon)
    }

    /// What each instruction takes, once everything has been touched.
    fn profile(&self, inputs: &[&Tensor]) -> Vec<(String, Duration)> {
        let mut workspace = self.program.workspace();
        self.program.run(&mut workspace, inputs, Par::Rayon);
        self.program.run_timed(&mut workspace, inputs, Par::Rayon)
    }

    fn number(&self, index: usize) -> f64 {
        self.program.output(&self.workspace, index).item()
    }
}

/// A player's parameters and the state of its optimiser.
#[derive(Clone)]
struct Player {
    params: Params,
    optimizer: Params,
}

impl Player {
    fn tensors(&self) -> impl Iterator<Item = &Tensor> {
        self.params.tensors().iter().chain(self.optimizer.tensors())
    }

    fn avals(&self) -> Vec<Aval> {
        self.tensors().map(Tensor::aval).collect()
    }
}

/// Trains a GAN. Its kernels split over the threads of the current rayon pool; the numbers are the same for any.
pub struct GanTrainer {
    gan: Gan,
    config: TrainerConfig,
    reals: Box<dyn Fn(u64) -> Tensor + Send + Sync>,
    key: Key,
    generator: Player,
    discriminator: Player,
    average: Option<Params>,
    /// Memory for the players after the next step, which are kept only if all is finite.
    next: [Player; 2],
    /// Memory for a discriminator between two of its moves.
    spare: Player,
    /// The real batch of that number, drawn while the generator moved.
    drawn: Option<(u64, Tensor)>,
    step: u64,
    discriminator_move: Move,
    /// Without the penalty; None if every move takes it.
    plain_move: Option<Move>,
    generator_move: Move,
    /// Images of noise.
    sampler: Program,
}

/// Images that the sampling program draws at once.
const CHUNK: usize = 128;

impl GanTrainer {
    /// A trainer on shuffled batches of a set of images.
    ///
    /// # Errors
    /// If the images are not of the generator's shape, there are fewer than a batch, or a setting makes no sense.
    pub fn new(gan: Gan, config: TrainerConfig, images: Arc<ImageSet>) -> Result<GanTrainer, Error> {
        let sampler = BatchSampler::new(images, config.batch, config.seed)?.range(gan.range);
        GanTrainer::with_source(gan, config, move |number| sampler.batch(number).x)
    }

    /// A trainer on any source of real batches `[batch, ..]`: a pure function of their number, which may be asked for more than once.
    ///
    /// # Errors
    /// If the first batch is not of the generator's shape, or a setting makes no sense.
    pub fn with_source(
        gan: Gan,
        config: TrainerConfig,
        reals: impl Fn(u64) -> Tensor + Send + Sync + 'static,
    ) -> Result<GanTrainer, Error> {
        if config.batch == 0 || config.discriminator_steps == 0 {
            return Err(Error::Setting(
                "a batch has at least one image, and the discriminator at least one move".into(),
            ));
        }
        if gan.best.is_some_and(|best| !(1..=config.batch).contains(&best)) {
            return Err(Error::Setting(format!(
                "the generator learns from at least 1 and at most {} of its images",
                config.batch
            )));
        }
        if config.penalty_every == 0 {
            return Err(Error::Setting("the penalty is taken in one of at least 1 move".into()));
        }
        if config.average.is_some_and(|decay| !(0.0..1.0).contains(&decay)) {
            return Err(Error::Setting("the decay of an average is at least 0 and below 1".into()));
        }
        let (made, seen) = (gan.generator.output(), reals(0));
        if seen.shape()[1..] != made[1..] || seen.shape()[0] != config.batch {
            let what = format!("real batches are {}, the generator gives images {:?}", seen.aval(), &made[1..]);
            return Err(Error::Setting(what));
        }
        let key = Key::new(config.seed);
        let player = |params: Params, rule: &Rule| Player { optimizer: rule.start(&params.avals()), params };
        let generator = player(gan.generator.init(key.fold(0)), &config.generator);
        let discriminator = player(gan.discriminator.init(key.fold(1)), &config.discriminator);
        let average = config.average.map(|_| generator.params.clone());
        let (noise, mix, rate) = ([config.batch, gan.noise()].into(), [config.batch].into(), [].into());
        let floats = |shape| Aval { shape, dtype: DType::F32 };

        let mut inputs = discriminator.avals();
        let (of_d, of_g) = (inputs.len(), generator.params.len());
        inputs.extend(generator.params.avals());
        inputs.extend([seen.aval(), floats(noise), floats(mix), floats(rate), floats(rate)]);
        let of_params = discriminator.params.len();
        let move_with = |penalty: Penalty| {
            let gan = Gan { penalty, ..gan.clone() };
            Move::new(Program::trace(&inputs, |_, v| {
                let (own, rest) = v.split_at(of_d);
                let (d, state) = own.split_at(of_params);
                let (g, data) = rest.split_at(of_g);
                let verdict = gan.discriminator_loss(g, d, data[0], data[1], data[2]);
                let verdict = Verdict { penalty: verdict.penalty.map(|penalty| penalty * data[4]), ..verdict };
                let (d, state) = config.discriminator.descend(verdict.total(), d, state, data[3]);
                [d, state, vec![verdict.total(), verdict.real, verdict.fake]].concat()
            }))
        };
        let discriminator_move = move_with(gan.penalty);
        let lazy = config.penalty_every > 1 && gan.penalty != Penalty::None;
        let plain_move = lazy.then(|| move_with(Penalty::None));

        let mut inputs = generator.avals();
        let of_own = inputs.len();
        inputs.extend(average.iter().flat_map(Params::avals));
        let of_average = inputs.len() - of_own;
        inputs.extend(discriminator.params.avals());
        inputs.extend([seen.aval(), floats(noise), floats(rate), floats(rate)]);
        let generator_move = Program::trace(&inputs, |_, v| {
            let (own, rest) = v.split_at(of_own);
            let (average, rest) = rest.split_at(of_average);
            let (d, data) = rest.split_at(of_params);
            let (g, state) = own.split_at(of_g);
            let loss = gan.generator_loss(g, d, data[0], data[1]);
            let (g, state) = config.generator.descend(loss, g, state, data[2]);
            let average = average.iter().zip(&g).map(|(&a, &p)| p + (a - p) * data[3]).collect();
            [g, state, vec![loss], average].concat()
        });

        let mut inputs = generator.params.avals();
        inputs.push(floats([CHUNK, gan.noise()].into()));
        let sampler = Program::trace(&inputs, |_, v| vec![gan.unit_images(&v[..of_g], v[of_g])]);

        Ok(GanTrainer {
            gan,
            config,
            reals: Box::new(reals),
            key: key.fold(2),
            next: [generator.clone(), discriminator.clone()],
            spare: discriminator.clone(),
            generator,
            discriminator,
            average,
            drawn: None,
            step: 0,
            discriminator_move,
            plain_move,
            generator_move: Move::new(generator_move),
            sampler,
        })
    }

    /// One step: the discriminator's moves, then one of the generator, each with noise of its own.
    ///
    /// # Errors
    /// If a loss or a parameter is no longer finite; the state is then the one before the step.
    pub fn step(&mut self) -> Result<Report, Error> {
        attended(Par::Rayon, || self.moves())
    }

    fn moves(&mut self) -> Result<Report, Error> {
        let (step, moves) = (self.step, self.config.discriminator_steps as u64);
        let shape = [self.config.batch, self.gan.noise()];
        let key = self.key.fold(step);
        let scalar = |value: f64| Tensor::scalar(value as f32);

        let [generator, discriminator] = &mut self.next;
        let rate = scalar(self.config.discriminator.rate.at(step));
        let scale = scalar(self.config.penalty_scale.at(step) * self.config.penalty_every as f64);
        let (mut verdict, mut is_sound) = ([0.0; 3], true);
        let mut real = match self.drawn.take() {
            Some((at, real)) if at == step * moves => real,
            _ => (self.reals)(step * moves),
        };
        for i in 0..moves {
            let number = step * moves + i;
            if i > 0 {
                real = (self.reals)(number);
            }
            let noise = key.fold(i).fold(0).normal(shape, 0.0, 1.0);
            let mix = key.fold(i).fold(1).uniform([shape[0]], 0.0, 1.0);
            if i > 0 {
                // What the move before left; this one writes into the other memory.
                std::mem::swap(discriminator, &mut self.spare);
            }
            let before = if i == 0 { &self.discriminator } else { &self.spare };
            let mut inputs: Vec<&Tensor> = before.tensors().collect();
            inputs.extend(self.generator.params.tensors());
            inputs.extend([&real, &noise, &mix, &rate, &scale]);
            let by = match &mut self.plain_move {
                Some(plain) if !number.is_multiple_of(self.config.penalty_every) => plain,
                _ => &mut self.discriminator_move,
            };
            is_sound &= by.run(&inputs, discriminator);
            let first = discriminator.params.len() + discriminator.optimizer.len();
            verdict = [0, 1, 2].map(|i| by.number(first + i));
        }
        let [d_loss, d_real, d_fake] = verdict;

        let noise = key.fold(moves).normal(shape, 0.0, 1.0);
        let rate = scalar(self.config.generator.rate.at(step));
        let ramp = (1.0 + step as f64) / (10.0 + step as f64);
        let decay = scalar(self.config.average.unwrap_or(0.0).min(ramp));
        let mut inputs: Vec<&Tensor> = self.generator.tensors().collect();
        inputs.extend(self.average.iter().flat_map(Params::tensors));
        inputs.extend(discriminator.params.tensors());
        inputs.extend([&real, &noise, &rate, &decay]);
        let (reals, after, by) = (&self.reals, (step + 1) * moves, &mut self.generator_move);
        let (is_generator_sound, following) = rayon::join(|| by.run(&inputs, generator), || reals(after));
        self.drawn = Some((after, following));
        let first = generator.params.len() + generator.optimizer.len();
        let g_loss = self.generator_move.number(first);

        let report = Report { step: step + 1, d_loss, g_loss, d_real, d_fake };
        let finite = [
            ("the discriminator's loss", d_loss.is_finite()),
            ("the generator's loss", g_loss.is_finite()),
            ("a parameter of the discriminator or a mean of its gradients", is_sound),
            ("a parameter of the generator or a mean of its gradients", is_generator_sound),
        ];
        if let Some((what, _)) = finite.into_iter().find(|(_, finite)| !finite) {
            return Err(Error::Diverged { step: step + 1, what: what.into() });
        }
        if let Some(average) = &mut self.average {
            average.update_from(&self.generator_move.program, &self.generator_move.workspace, first + 1);
        }
        std::mem::swap(&mut self.generator, generator);
        std::mem::swap(&mut self.discriminator, discriminator);
        self.step = step + 1;
        Ok(report)
    }

    /// The programs of the discriminator's move and of the generator's. A step runs the first as often as the configuration says, then the
    /// second once.
    pub fn programs(&self) -> [&Program; 2] {
        [&self.discriminator_move.program, &self.generator_move.program]
    }

    /// Runs one move of the discriminator and one of the generator, as the next step would begin, and tells what each instruction took:
    /// where the time goes. Nothing changes.
    pub fn profile(&self) -> Vec<(String, Duration)> {
        let shape = [self.config.batch, self.gan.noise()];
        let key = self.key.fold(self.step);
        let real = (self.reals)(self.step * self.config.discriminator_steps as u64);
        let (noise, mix) = (key.fold(0).normal(shape, 0.0, 1.0), key.fold(1).uniform([shape[0]], 0.0, 1.0));
        let rate = Tensor::scalar(0.0);
        let mut inputs: Vec<&Tensor> = self.discriminator.tensors().collect();
        inputs.extend(self.generator.params.tensors());
        inputs.extend([&real, &noise, &mix, &rate, &rate]);
        let mut told = self.discriminator_move.profile(&inputs);
        let mut inputs: Vec<&Tensor> = self.generator.tensors().collect();
        inputs.extend(self.average.iter().flat_map(Params::tensors));
        inputs.extend(self.discriminator.params.tensors());
        inputs.extend([&real, &noise, &rate, &rate]);
        told.extend(self.generator_move.profile(&inputs));
        told
    }

    /// Steps taken so far.
    pub fn steps(&self) -> u64 {
        self.step
    }

    /// The game.
    pub fn gan(&self) -> &Gan {
        &self.gan
    }

    /// The parameters that samples are drawn with: the average, where there is one.
    pub fn sampling_params(&self) -> &Params {
        self.average.as_ref().unwrap_or(&self.generator.params)
    }

    /// `n` generated images `[n, ..]` with values in 0..=1, by the averaged generator where there is one. The same key gives
    /// the same noise.
    pub fn sample(&self, n: usize, key: Key) -> Tensor {
        let shape = self.gan.generator.output();
        let size: usize = shape[1..].iter().product();
        let mut images = Vec::with_capacity(n * size);
        self.draw(&self.sampler, n, key, |workspace, some| {
            images.extend_from_slice(&self.sampler.output(workspace, 0).f32s()[..some * size]);
        });
        Tensor::new(shape.with(0, n), images)
    }

    /// Of `n / keep` images drawn as by [`GanTrainer::sample`] the `n` that change least with their noise, relative to what is on them, in the order in
    /// which they were drawn (truncation by the Jacobian, after Tanielian et al. 2020). What lies between two kinds of images goes first. All that is
    /// drawn is in memory at once, and each image costs some nine times one of [`GanTrainer::sample`].
    ///
    /// # Panics
    /// If `keep` is not above 0 and at most 1.
    pub fn sample_calm(&self, n: usize, keep: f64, key: Key) -> Tensor {
        assert!(keep > 0.0 && keep <= 1.0, "the share of images that are kept is {keep}");
        if keep == 1.0 {
            return self.sample(n, key);
        }
        let gauge = Program::trace(self.sampler.inputs(), |_, v| {
            let (noise, g) = v.split_last().expect("noise is the last input");
            let images = self.gan.unit_images(g, *noise);
            vec![images, unrest(images, *noise)]
        });
        let shape = self.gan.generator.output();
        let size: usize = shape[1..].iter().product();
        let drawn = (n as f64 / keep).ceil() as usize;
        let (mut images, mut unrest) = (Vec::with_capacity(drawn * size), Vec::with_capacity(drawn));
        self.draw(&gauge, drawn, key, |workspace, some| {
            images.extend_from_slice(&gauge.output(workspace, 0).f32s()[..some * size]);
            unrest.extend_from_slice(&gauge.output(workspace, 1).f32s()[..some]);
        });
        let kept = calmest(&unrest, n);
        Tensor::new(shape.with(0, n), kept.iter().flat_map(|&i| images[i * size..][..size].to_vec()).collect())
    }

    /// Runs a program of parameters and noise for `n` images, some at a time, and tells `take` how many of its results count.
    fn draw(&self, program: &Program, n: usize, key: Key, mut take: impl FnMut(&Workspace, usize)) {
        let mut workspace = program.workspace();
        for chunk in 0..n.div_ceil(CHUNK) {
            let noise = key.fold(chunk as u64).normal([CHUNK, self.gan.noise()], 0.0, 1.0);
            let mut inputs: Vec<&Tensor> = self.sampling_params().tensors().iter().collect();
            inputs.push(&noise);
            program.run(&mut workspace, &inputs, Par::Rayon);
            take(&workspace, (n - chunk * CHUNK).min(CHUNK));
        }
    }

    /// Everything that training goes on from, to the same bits. Names begin with `generator.`, `discriminator.` and
    /// `average.`; what only training needs begins with `training.`.
    pub fn state(&self) -> Params {
        let mut all = self.generator.params.prefixed("generator");
        all.extend(self.discriminator.params.prefixed("discriminator"));
        if let Some(average) = &self.average {
            all.extend(average.prefixed("average"));
        }
        all.extend(self.generator.optimizer.prefixed("training.generator"));
        all.extend(self.discriminator.optimizer.prefixed("training.discriminator"));
        all.extend(state::count(self.step).prefixed("training"));
        all
    }

    /// Takes what [`GanTrainer::state`] gave, in any order.
    ///
    /// # Errors
    /// If a tensor is missing or of another shape: the state is of another model. Nothing is changed then.
    pub fn restore(&mut self, saved: &Params) -> Result<(), Error> {
        let player = |name: &str, own: &Player| -> Result<Player, Error> {
            let optimizer = saved.part(&format!("training.{name}"), &own.optimizer)?;
            Ok(Player { params: saved.part(name, &own.params)?, optimizer })
        };
        let (generator, discriminator) =
            (player("generator", &self.generator)?, player("discriminator", &self.discriminator)?);
        let average = self.average.as_ref().map(|own| saved.part("average", own)).transpose()?;
        self.step = saved.part("training", &state::count(0))?.tensors()[0].item() as u64;
        (self.generator, self.discriminator, self.average) = (generator, discriminator, average);
        Ok(())
    }

    /// Takes only what sampling needs from a saved state: the generator and its average.
    ///
    /// # Errors
    /// Like [`GanTrainer::restore`].
    pub fn restore_weights(&mut self, saved: &Params) -> Result<(), Error> {
        let params = saved.part("generator", &self.generator.params)?;
        let average = self.average.as_ref().map(|own| saved.part("average", own)).transpose()?;
        (self.generator.params, self.average) = (params, average);
        Ok(())
    }
}

#[cfg(test)]
#[path = "trainer_tests.rs"]
mod tests;
