//! A game of two networks: who plays, what each minimises, and how a player moves.
//!
//! Architecture, loss and penalty are chosen independently of each other. Everything here is a function of variables, so a
//! move can be compiled, repeated, or differentiated through.

use std::fmt;
use std::sync::Arc;

use metaforge_autodiff::{Aval, Var, concat, grad_detached};
use metaforge_data::Range;
use metaforge_nn::clip::clip_by_global_norm;
use metaforge_nn::{Adam, Model, Optimizer, Params, Schedule};

use crate::losses::differences;
use crate::{Loss, Penalty};

/// Two networks and the rules of their game.
///
/// The networks carry no state: batch norm would let images of a batch see each other, by which a discriminator can tell real
/// batches from generated ones; use layer or instance norm.
#[derive(Clone, Debug)]
pub struct Gan {
    /// Noise `[N, Z]` to images.
    pub generator: Model,
    /// Images to scores `[N, 1]`.
    pub discriminator: Model,
    /// What each side minimises.
    pub loss: Loss,
    /// What is added for the discriminator.
    pub penalty: Penalty,
    /// Images of the generator's batch that it learns from, those with the highest scores (see [`Loss::generator`]); None for all.
    pub best: Option<usize>,
    /// Values that the generator's last activation gives; real images come in the same.
    pub range: Range,
}

/// A batch, as the discriminator's move sees it.
#[derive(Clone, Copy, Debug)]
pub struct Round<'t> {
    /// Real images `[N, ..]`.
    pub real: Var<'t>,
    /// Generated images `[N, ..]`; no gradient flows back into them.
    pub fake: Var<'t>,
    /// `[N]`, uniform in [0, 1): where between real and generated images the gradient penalty is taken.
    pub mix: Var<'t>,
}

/// How a round went for the discriminator; all of shape `[]`.
#[derive(Clone, Copy, Debug)]
pub struct Verdict<'t> {
    /// The loss alone.
    pub loss: Var<'t>,
    /// The penalty, if there is one.
    pub penalty: Option<Var<'t>>,
    /// Mean verdict on real images: the probability of being real (of being the real one of a pair, where the loss compares), or the score where
    /// the loss knows no probability.
    pub real: Var<'t>,
    /// Mean verdict on generated images.
    pub fake: Var<'t>,
}

impl<'t> Verdict<'t> {
    /// What the discriminator minimises: the loss and the penalty.
    pub fn total(&self) -> Var<'t> {
        self.penalty.map_or(self.loss, |penalty| self.loss + penalty)
    }
}

/// How a discriminator with parameters `d` sees a round: real and generated images in one batch, each treated alone (see [`Gan`]).
pub fn judge<'t>(discriminator: &Model, d: &[Var<'t>], loss: Loss, penalty: Penalty, round: Round<'t>) -> Verdict<'t> {
    let (real, fake) = (round.real, round.fake.stop_gradient());
    // One pass over both: a large batch fills the kernels' tiles better, and the weights' gradients come out added up.
    let scores = discriminator.forward(d, concat(&[real, fake], 0));
    let [n, all] = [real.shape()[0], scores.shape()[0]];
    let (on_real, on_fake) = (scores.slice(0, 0, n), scores.slice(0, n, all - n));
    let penalty = penalty.term(|x| discriminator.forward(d, x), real, fake, round.mix);
    let shown = |scores: Var<'t>| match loss {
        Loss::NonSaturating | Loss::Minimax | Loss::Relativistic => scores.sigmoid().mean(),
        Loss::Wasserstein => scores.mean(),
    };
    let (of_real, of_fake) = match loss {
        Loss::Relativistic => (differences(on_real, on_fake), -differences(on_real, on_fake)),
        _ => (on_real, on_fake),
    };
    Verdict { loss: loss.discriminator(on_real, on_fake), penalty, real: shown(of_real), fake: shown(of_fake) }
}

impl Gan {
    /// How the discriminator `d` sees a round against the generator `g`, to which no gradient flows.
    pub fn discriminator_loss<'t>(
        &self,
        g: &[Var<'t>],
        d: &[Var<'t>],
        real: Var<'t>,
        noise: Var<'t>,
        mix: Var<'t>,
    ) -> Verdict<'t> {
        let fake = self.generator.forward(g, noise);
        judge(&self.discriminator, d, self.loss, self.penalty, Round { real, fake, mix })
    }

    /// What the generator `g` minimises against the discriminator `d`, of shape `[]`. The real images matter only to a loss that
    /// compares.
    pub fn generator_loss<'t>(&self, g: &[Var<'t>], d: &[Var<'t>], real: Var<'t>, noise: Var<'t>) -> Var<'t> {
        let fake = self.discriminator.forward(d, self.generator.forward(g, noise));
        self.loss.generator(|| self.discriminator.forward(d, real), fake, self.best)
    }

    /// Images of noise with values in 0..=1.
    pub(crate) fn unit_images<'t>(&self, g: &[Var<'t>], noise: Var<'t>) -> Var<'t> {
        let images = self.generator.forward(g, noise);
        match self.range {
            Range::Unit => images,
            Range::Signed => images.affine(0.5, 0.5),
        }
    }

    /// Length of the noise vector.
    pub fn noise(&self) -> usize {
        self.generator.input()[1..].iter().product()
    }
}

/// How a player improves its parameters.
#[derive(Clone)]
pub struct Rule {
    /// Turns gradients into steps.
    pub optimizer: Arc<dyn Optimizer>,
    /// Learning rate by step.
    pub rate: Schedule,
    /// The gradient is shortened to this norm, if it is longer.
    pub clip: Option<f64>,
}

impl Rule {
    /// A rule that does not clip.
    pub fn new(optimizer: impl Optimizer + 'static, rate: impl Into<Schedule>) -> Rule {
        Rule { optimizer: Arc::new(optimizer), rate: rate.into(), clip: None }
    }

    /// Adam at a constant rate, as GANs take it.
    pub fn adam(rate: f64, beta1: f64, beta2: f64) -> Rule {
        Rule::new(Adam::betas(beta1, beta2), rate)
    }

    /// State of the optimiser before the first step.
    pub fn start(&self, params: &[Aval]) -> Params {
        self.optimizer.init(params)
    }

    /// One step down `loss`: new parameters, new state of the optimiser. `rate` has shape `[]`.
    ///
    /// Only the gradient of these parameters is taken: what the loss passed through on its way stays as it is.
    pub fn descend<'t>(
        &self,
        loss: Var<'t>,
        params: &[Var<'t>],
        state: &[Var<'t>],
        rate: Var<'t>,
    ) -> (Vec<Var<'t>>, Vec<Var<'t>>) {
        self.move_along(&grad_detached(loss, params), params, state, rate)
    }

    /// One step against a direction that is given for every parameter, of which only the rule's clipping is left to do.
    pub fn move_along<'t>(
        &self,
        direction: &[Var<'t>],
        params: &[Var<'t>],
        state: &[Var<'t>],
        rate: Var<'t>,
    ) -> (Vec<Var<'t>>, Vec<Var<'t>>) {
        match self.clip {
            Some(most) => self.optimizer.update(params, &clip_by_global_norm(direction, most), state, rate),
            None => self.optimizer.update(params, direction, state, rate),
        }
    }
}

impl fmt::Debug for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rule").field("rate", &self.rate).field("clip", &self.clip).finish_non_exhaustive()
    }
}
