//! Holding the discriminator to gentle slopes: the gradient penalty (Gulrajani et al. 2017), R1 and R2 (Mescheder et al. 2018).
//! A penalty needs a derivative of a derivative; taken in one move of n with n times its weight it costs an n-th (lazy
//! regularisation, Karras et al. 2020, appendix B). It is not quite the same: Adam divides by the root of mean squares, which
//! rare large gradients raise. The seed GAN on MNIST loses digits in its first thousands of steps with n = 16, not with 4.
//!
//! The norm of a slope is that of one image's gradient over all its pixels and channels. Taken over another set of axes
//! it penalises something else, which many published programs do.

use metaforge_autodiff::{Var, concat, grad};
use serde::{Deserialize, Serialize};

/// Added under the root, so that a discriminator that is flat has a derivative (0) instead of 0/0.
pub const EPS: f64 = 1e-10;

/// A term added to the discriminator's loss.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Penalty {
    /// Nothing.
    #[default]
    None,
    /// `weight * mean((|dD/dx| - 1)^2)` at random points between real and generated images; published weight 10.
    Gradient {
        /// Its factor.
        weight: f64,
    },
    /// `weight / 2 * mean(|dD/dx|^2)` at real images; published weights 0.1 to 10.
    R1 {
        /// Its factor, called gamma.
        weight: f64,
    },
    /// The same at real images and at generated ones, added (R1 and R2): a relativistic game needs both to converge (Huang et al.
    /// 2024).
    R1R2 {
        /// Its factor, called gamma.
        weight: f64,
    },
}

impl Penalty {
    /// The term, of shape `[]`, or None when there is none. `real`, `fake` `[N, ..]`; `mix` `[N]` uniform in [0, 1).
    ///
    /// No gradient flows into `fake`. The discriminator must treat each image alone: with batch norm the slope of
    /// one image is not defined.
    ///
    /// # Panics
    /// If `real` and `fake` differ in shape and the penalty sees both.
    #[track_caller]
    pub fn term<'t>(
        self,
        discriminator: impl FnOnce(Var<'t>) -> Var<'t>,
        real: Var<'t>,
        fake: Var<'t>,
        mix: Var<'t>,
    ) -> Option<Var<'t>> {
        match self {
            Penalty::None => None,
            Penalty::Gradient { weight } => Some(gradient_penalty(discriminator, real, fake, mix) * weight),
            Penalty::R1 { weight } => Some(squared_slope(discriminator, real).mean() * (weight / 2.0)),
            Penalty::R1R2 { weight } => {
                assert_eq!(real.shape(), fake.shape(), "R1 and R2 are of as many real as generated images");
                let both = concat(&[real, fake.stop_gradient()], 0);
                Some(squared_slope(discriminator, both).mean() * weight)
            }
        }
    }
}

/// `mean((|dD/dx| - 1)^2)` at `mix * real + (1 - mix) * fake`, one `mix` an image: shape `[]`, differentiable in the
/// discriminator's parameters.
///
/// # Panics
/// If `real` and `fake` differ in shape or `mix` is not `[N]`.
#[track_caller]
pub fn gradient_penalty<'t>(
    discriminator: impl FnOnce(Var<'t>) -> Var<'t>,
    real: Var<'t>,
    fake: Var<'t>,
    mix: Var<'t>,
) -> Var<'t> {
    let shape = real.shape();
    let mut one_an_image = vec![1; shape.len()];
    one_an_image[0] = shape[0];
    let mix = mix.reshape(one_an_image);
    let (real, fake) = (real.stop_gradient(), fake.stop_gradient());
    let between = fake + mix * (real - fake);
    ((squared_slope(discriminator, between) + EPS).sqrt() - 1.0).square().mean()
}

/// `|dD/dx|^2` of each image over all its axes: `[N]`, differentiable in the discriminator's parameters.
pub fn squared_slope<'t>(discriminator: impl FnOnce(Var<'t>) -> Var<'t>, x: Var<'t>) -> Var<'t> {
    // Images do not see each other, so the gradient of the sum holds the gradient of each score.
    let slope = grad(discriminator(x).sum(), &[x])[0];
    let axes: Vec<usize> = (1..slope.shape().len()).collect();
    slope.square().sum_axes(&axes, false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use metaforge_autodiff::{Conv, DType, Key, Tape, Tensor, check_grads};

    fn f64s(key: Key, shape: &[usize]) -> Tensor {
        key.normal(shape, 0.0, 1.0).to_dtype(DType::F64)
    }

    #[test]
    fn a_linear_critic_has_its_closed_form_for_any_shape() {
        // D(x) = w.x has slope |w| = a everywhere: the penalty is (a - 1)^2, its gradient 2 (a - 1) w / a.
        for shape in [vec![3, 5], vec![2, 4, 4, 1], vec![4, 3, 2, 3], vec![1, 7]] {
            let key = Key::new(3);
            let size: usize = shape[1..].iter().product();
            let w = f64s(key.fold(0), &[size, 1]);
            let a = w.f64s().iter().map(|v| v * v).sum::<f64>().sqrt();
            let tape = Tape::eager();
            let weights = tape.var(&w);
            let (real, fake) = (f64s(key.fold(1), &shape), f64s(key.fold(2), &shape));
            let mix = key.fold(3).uniform([shape[0]], 0.0, 1.0).to_dtype(DType::F64);
            let [real, fake, mix] = [real, fake, mix].map(|t| tape.constant(&t));
            let penalty = gradient_penalty(|x| x.reshape([shape[0], size]).matmul(weights), real, fake, mix);
            assert!((penalty.value().item() - (a - 1.0).powi(2)).abs() < 1e-8, "{shape:?}");
            let g = grad(penalty, &[weights])[0].value();
            for (g, w) in g.f64s().iter().zip(w.f64s()) {
                assert!((g - 2.0 * (a - 1.0) * w / a).abs() < 1e-8, "{shape:?}");
            }
        }
    }

    #[test]
    fn gradients_of_both_penalties_agree_with_differences_on_a_convolutional_critic() {
        let key = Key::new(11);
        let shapes: [&[usize]; 6] = [&[3, 3, 1, 4], &[3, 3, 4, 3], &[12, 1], &[2, 6, 6, 1], &[2, 6, 6, 1], &[2]];
        let mut inputs: Vec<Tensor> = shapes.iter().enumerate().map(|(i, s)| f64s(key.fold(i as u64), s)).collect();
        inputs[5] = Tensor::from_f64([2], vec![0.25, 0.7]);
        for penalty in [Penalty::Gradient { weight: 10.0 }, Penalty::R1 { weight: 1.0 }, Penalty::R1R2 { weight: 1.0 }]
        {
            // Only the critic's parameters are checked: images are constants of the game.
            let fixed = inputs[3..].to_vec();
            check_grads(
                |v| {
                    let tape = v[0].tape();
                    let mut all = v.to_vec();
                    all.extend(fixed.iter().map(|t| tape.constant(t)));
                    vec![penalised(penalty, &all)]
                },
                &inputs[..3],
                2,
                1e-6,
                key.fold(99),
            )
            .unwrap();
        }
    }

    /// Softplus and tanh instead of rectifiers: differences need a smooth critic.
    fn penalised<'t>(penalty: Penalty, v: &[Var<'t>]) -> Var<'t> {
        let conv = Conv::new().stride(2);
        let critic = |x: Var<'t>| {
            let h = x.conv2d(v[0], conv.same([6, 6], [3, 3])).softplus();
            h.conv2d(v[1], conv.same([3, 3], [3, 3])).tanh().reshape([x.shape()[0], 12]).matmul(v[2])
        };
        penalty.term(critic, v[3], v[4], v[5]).expect("there is a penalty")
    }

    #[test]
    fn a_flat_critic_has_a_finite_gradient() {
        let tape = Tape::eager();
        let w = tape.var(&Tensor::zeros([8, 1], DType::F32));
        let x = tape.constant(&Key::new(1).normal([4, 8], 0.0, 1.0));
        let mix = tape.constant(&Tensor::new([4], vec![0.5; 4]));
        for penalty in [Penalty::Gradient { weight: 10.0 }, Penalty::R1 { weight: 1.0 }, Penalty::R1R2 { weight: 1.0 }]
        {
            let term = penalty.term(|x| x.matmul(w).leaky_relu(0.2), x, x, mix).unwrap();
            assert!(grad(term, &[w])[0].value().is_finite());
        }
    }

    #[test]
    fn r1_and_r2_add_up() {
        let tape = Tape::eager();
        let w = tape.var(&f64s(Key::new(1), &[8, 1]));
        let [real, fake] = [2, 3].map(|seed| tape.constant(&f64s(Key::new(seed), &[4, 8])));
        let mix = tape.constant(&Tensor::from_f64([4], vec![0.5; 4]));
        let term =
            |penalty: Penalty, real| penalty.term(|x| x.square().matmul(w), real, fake, mix).unwrap().value().item();
        let apart = [real, fake].map(|x| term(Penalty::R1 { weight: 3.0 }, x));
        assert!((term(Penalty::R1R2 { weight: 3.0 }, real) - apart[0] - apart[1]).abs() < 1e-12);
    }

    #[test]
    fn no_gradient_flows_into_the_generated_images() {
        let tape = Tape::eager();
        let w = tape.var(&f64s(Key::new(1), &[8, 1]));
        let (real, fake) = (tape.var(&f64s(Key::new(2), &[4, 8])), tape.var(&f64s(Key::new(3), &[4, 8])));
        let mix = tape.constant(&Tensor::from_f64([4], vec![0.5; 4]));
        let penalty = gradient_penalty(|x| x.square().matmul(w), real, fake, mix);
        let g = grad(penalty, &[real, fake]);
        assert!(g.iter().all(|g| g.value().f64s().iter().all(|&v| v == 0.0)));
    }
}
