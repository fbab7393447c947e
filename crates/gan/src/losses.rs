//! What each player of an adversarial game minimises, on the discriminator's logits: Goodfellow et al. 2014 (minimax and
//! non-saturating), Arjovsky et al. 2017 (Wasserstein), Jolicoeur-Martineau 2019 (relativistic); and which images teach the generator.
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
    /// Cross-entropy of the difference of two logits: each real image of a batch against each generated one (RpGAN compares it with one of them;
    /// the mean is the same, and steadier). A generator that draws some kinds of images only is nowhere at rest in this game, as it can be
    /// in the others (Huang et al. 2024, with [`crate::Penalty::R1R2`]).
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

    /// What the discriminator minimises, of shape `[]`: means over the scores of real and of generated images, each of any shape.
    pub fn discriminator<'t>(self, real: Var<'t>, fake: Var<'t>) -> Var<'t> {
        match self {
            Loss::NonSaturating | Loss::Minimax => (-real).softplus().mean() + fake.softplus().mean(),
            Loss::Wasserstein => fake.mean() - real.mean(),
            Loss::Relativistic => (-differences(real, fake)).softplus().mean(),
        }
    }

    /// What the generator minimises, of shape `[]`, from the scores of its images, one each; those of real images are asked for only by a
    /// loss that compares. With `best`, only so many of the generated images count, those with the highest scores (Sinha et al. 2020, "Top-k
    /// training of GANs", without their annealing of the number from all images on): the way from the others to a real image is often the wrong
    /// one. With more than there are images, all count.
    ///
    /// # Panics
    /// If `best` is 0.
    #[track_caller]
    pub fn generator<'t>(self, real: impl FnOnce() -> Var<'t>, fake: Var<'t>, best: Option<usize>) -> Var<'t> {
        let fake = fake.reshape([fake.shape().elements()]);
        let each = match self {
            Loss::NonSaturating => (-fake).softplus(),
            Loss::Minimax => -fake.softplus(),
            Loss::Wasserstein => -fake,
            Loss::Relativistic => {
                let losses = differences(real(), fake).softplus();
                losses.sum_axes(&[0], false) / losses.shape()[0] as f64
            }
        };
        match best {
            None => each.mean(),
            Some(best) => {
                assert!(best > 0, "a generator that learns from none of its images");
                let chosen = among_highest(fake, best);
                (each * chosen).sum() / chosen.sum()
            }
        }
    }
}

/// Score of each real image minus that of each generated one, `[real, fake]`.
pub(crate) fn differences<'t>(real: Var<'t>, fake: Var<'t>) -> Var<'t> {
    real.reshape([real.shape().elements(), 1]) - fake.reshape([1, fake.shape().elements()])
}

/// 1 for each of the `count` highest scores `[N]` (and for those that equal the last of them), otherwise 0. No gradient flows.
fn among_highest(scores: Var<'_>, count: usize) -> Var<'_> {
    let n = scores.shape()[0];
    let scores = scores.stop_gradient();
    let higher = scores.reshape([n, 1]).greater(scores.reshape([1, n])).sum_axes(&[0], false);
    (count as f64 - 0.5 - higher).step()
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
        grad(loss.generator(|| x * 0.0, x, None), &[x])[0].value().f64s()[0]
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
                let both = loss.generator(|| -x, x, Some(1)) + loss.discriminator(x, x);
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
        let mean = |sign: f64| [1.0, -0.5, -0.75, -2.25].map(|d| minus_log(sign * d)).iter().sum::<f64>() / 4.0;
        let want = [mean(1.0), mean(-1.0)];
        for shift in [0.0, 7.0] {
            let (real, fake) = (real + shift, fake + shift);
            let got = [loss.discriminator(real, fake), loss.generator(|| real, fake, None)];
            for (got, want) in got.iter().zip(want) {
                assert!((got.value().item() - want).abs() < 1e-12, "{} is not {want}", got.value().item());
            }
        }
        // No other loss looks at real images in the generator's move.
        for loss in [Loss::NonSaturating, Loss::Minimax, Loss::Wasserstein] {
            loss.generator(|| unreachable!("{loss:?} does not compare"), fake, None);
        }
    }

    #[test]
    fn the_best_images_alone_teach_the_generator() {
        let tape = Tape::eager();
        let real = tape.var(&Tensor::from_f64([2, 1], vec![0.5, 1.0]));
        let fake = tape.var(&Tensor::from_f64([4, 1], vec![0.3, -2.0, 1.5, 0.1]));
        let best = tape.var(&Tensor::from_f64([2, 1], vec![0.3, 1.5]));
        for loss in Loss::NAMES.map(|(_, loss)| loss) {
            let (some, alone) = (loss.generator(|| real, fake, Some(2)), loss.generator(|| real, best, None));
            assert!((some.value().item() - alone.value().item()).abs() < 1e-12, "{loss:?}");
            let (slopes, of_best) = (grad(some, &[fake])[0].value(), grad(alone, &[best])[0].value());
            let (slopes, of_best) = (slopes.f64s(), of_best.f64s());
            assert!([0, 2].iter().zip(of_best).all(|(&i, want)| (slopes[i] - want).abs() < 1e-12), "{slopes:?}");
            assert_eq!([slopes[1], slopes[3]], [0.0, 0.0]);
            let all = loss.generator(|| real, fake, Some(4)).value().item();
            assert!((all - loss.generator(|| real, fake, None).value().item()).abs() < 1e-12);
        }
        // Equal scores all count.
        let same = tape.var(&Tensor::from_f64([3], vec![1.0; 3]));
        assert_eq!(
            grad(Loss::Wasserstein.generator(|| real, same, Some(1)), &[same])[0].value().f64s(),
            [-1.0 / 3.0; 3]
        );
    }

    #[test]
    fn names_are_those_of_recipes() {
        assert_eq!("wasserstein".parse::<Loss>().unwrap(), Loss::Wasserstein);
        assert!("hinge".parse::<Loss>().unwrap_err().to_string().contains("non-saturating"));
    }
}
