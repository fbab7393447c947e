//! What each player of an adversarial game minimises, on the discriminator's logits: Goodfellow et al. 2014 (minimax and
//! non-saturating), Arjovsky et al. 2017 (Wasserstein), Jolicoeur-Martineau 2019 (relativistic).
//!
//! A logit goes straight into a softplus: a sigmoid followed by a logarithm loses its gradient where the discriminator is
//! sure, which is where the generator needs it most.

use std::str::FromStr;

use metaforge_autodiff::Var;
use serde::{Deserialize, Serialize};

use crate::Error;

/// A pair of losses. The discriminator's output is a logit, but for Wasserstein's, where it is a score without bounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Loss {
    /// Cross-entropy; the generator maximises `log D(G(z))`. Its gradient stays alive when the discriminator wins.
    #[default]
    NonSaturating,
    /// Cross-entropy; the generator minimises `log (1 - D(G(z)))`: the game of the theory. It saturates when the
    /// discriminator wins.
    Minimax,
    /// Difference of mean scores. It needs a critic held to bounded slope, by [`crate::Penalty::Gradient`] for one.
    Wasserstein,
    /// Cross-entropy of the difference of two logits: each real image against one generated image (RpGAN). A generator that
    /// draws some kinds of images only is nowhere at rest in this game, as it can be in the others (Huang et al. 2024, with
    /// [`crate::Penalty::R1R2`]).
    Relativistic,
}

impl Loss {
    /// All of them, with their names in a recipe.
    pub const NAMES: [(&'static str, Loss); 4] = [
        ("non-saturating", Loss::NonSaturating),
        ("minimax", Loss::Minimax),
        ("wasserstein", Loss::Wasserstein),
        ("relativistic", Loss::Relativistic),
    ];

    /// What the discriminator minimises, of shape `[]`: means over the scores of real and of generated images, each of any
    /// shape; of the same shape for a loss that compares them in pairs.
    #[track_caller]
    pub fn discriminator<'t>(self, real: Var<'t>, fake: Var<'t>) -> Var<'t> {
        match self {
            Loss::NonSaturating | Loss::Minimax => (-real).softplus().mean() + fake.softplus().mean(),
            Loss::Wasserstein => fake.mean() - real.mean(),
            Loss::Relativistic => pairs(fake, real).softplus().mean(),
        }
    }

    /// What the generator minimises, of shape `[]`, from the scores of its images; those of real images are asked for only by a
    /// loss that compares.
    #[track_caller]
    pub fn generator<'t>(self, real: impl FnOnce() -> Var<'t>, fake: Var<'t>) -> Var<'t> {
        match self {
            Loss::NonSaturating => (-fake).softplus().mean(),
            Loss::Minimax => -fake.softplus().mean(),
            Loss::Wasserstein => -fake.mean(),
            Loss::Relativistic => pairs(real(), fake).softplus().mean(),
        }
    }
}

/// `a - b`, score by score.
#[track_caller]
fn pairs<'t>(a: Var<'t>, b: Var<'t>) -> Var<'t> {
    assert_eq!(a.shape(), b.shape(), "a relativistic game compares as many real as generated images");
    a - b
}

impl FromStr for Loss {
    type Err = Error;

    fn from_str(name: &str) -> Result<Loss, Error> {
        let names = Loss::NAMES.map(|(n, _)| n).join(", ");
        let found = Loss::NAMES.into_iter().find(|(n, _)| *n == name);
        found
            .map(|(_, loss)| loss)
            .ok_or_else(|| Error::Setting(format!("there is no loss `{name}`; there are {names}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use metaforge_autodiff::{Tape, Tensor, grad};

    fn slope(loss: Loss, logit: f64) -> f64 {
        let tape = Tape::eager();
        let x = tape.var(&Tensor::from_f64([1], vec![logit]));
        grad(loss.generator(|| x * 0.0, x), &[x])[0].value().f64s()[0]
    }

    #[test]
    fn a_sure_discriminator_silences_the_minimax_generator_only() {
        // d/dx log(1 - sigmoid(x)) = -sigmoid(x), d/dx -log sigmoid(x) = sigmoid(x) - 1.
        let sigmoid = 1.0 / (1.0 + 20f64.exp());
        assert!((slope(Loss::Minimax, -20.0) / -sigmoid - 1.0).abs() < 1e-9, "{}", slope(Loss::Minimax, -20.0));
        assert!((slope(Loss::NonSaturating, -20.0) + 1.0).abs() < 1e-8);
        assert!((slope(Loss::Wasserstein, -20.0) + 1.0).abs() < 1e-15);
    }

    #[test]
    fn a_discriminator_that_knows_nothing_pays_two_bits() {
        let tape = Tape::eager();
        let (a, b) =
            (tape.zeros([4, 1], metaforge_autodiff::DType::F64), tape.zeros([3, 1], metaforge_autodiff::DType::F64));
        let loss = Loss::NonSaturating.discriminator(a, b).value().item();
        assert!((loss - 2.0 * 2f64.ln()).abs() < 1e-12);
        assert_eq!(Loss::Wasserstein.discriminator(a + 2.0, b).value().item(), -2.0);
    }

    #[test]
    fn extreme_logits_stay_finite_in_single_precision() {
        for loss in Loss::NAMES.map(|(_, l)| l) {
            for logit in [-1e4f32, 1e4] {
                let tape = Tape::eager();
                let x = tape.var(&Tensor::new([1], vec![logit]));
                let both = loss.generator(|| -x, x) + loss.discriminator(x, x);
                assert!(grad(both, &[x])[0].value().is_finite() && both.value().is_finite());
            }
        }
    }

    #[test]
    fn a_relativistic_game_is_of_differences() {
        // -log sigmoid(real - fake) for the discriminator, of the turned difference for the generator; a shift of all scores changes nothing.
        let tape = Tape::eager();
        let scores = |values: [f64; 2]| tape.var(&Tensor::from_f64([2], values.to_vec()));
        let (real, fake) = (scores([1.5, -0.25]), scores([0.5, 2.0]));
        let minus_log = |d: f64| (1.0 + (-d).exp()).ln();
        let loss = Loss::Relativistic;
        let want = [(1.0, -2.25), (-1.0, 2.25)].map(|(a, b)| (minus_log(a) + minus_log(b)) / 2.0);
        for shift in [0.0, 7.0] {
            let (real, fake) = (real + shift, fake + shift);
            let got = [loss.discriminator(real, fake), loss.generator(|| real, fake)];
            for (got, want) in got.iter().zip(want) {
                assert!((got.value().item() - want).abs() < 1e-12, "{} is not {want}", got.value().item());
            }
        }
        // No other loss looks at real images in the generator's move.
        for loss in [Loss::NonSaturating, Loss::Minimax, Loss::Wasserstein] {
            loss.generator(|| unreachable!("{loss:?} does not compare"), fake);
        }
    }

    #[test]
    fn names_are_those_of_recipes() {
        assert_eq!("wasserstein".parse::<Loss>().unwrap(), Loss::Wasserstein);
        assert!("hinge".parse::<Loss>().unwrap_err().to_string().contains("non-saturating"));
    }
}
