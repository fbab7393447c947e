//! Which images a generator is calm about: truncation by its Jacobian (Tanielian, Issenhuth, Dohmatob, Mary 2020, "Learning disconnected
//! manifolds: a no GAN's land", arXiv:2006.04596).
//!
//! A generator is continuous, so between the noise that gives one kind of image and the noise that gives another lies some that gives
//! neither. There a little noise changes much.

use metaforge_autodiff::{Key, Var, jvp};
use metaforge_nn::Init;

/// Directions along which the change is measured; all of them would tell little more.
const DIRECTIONS: usize = 8;

/// How much each of the images `[N, ..]`, in which 0 is empty, changes with the noise `[N, Z]` that it was made of: `[N]`.
///
/// The measure is the mean of `|J v|^2 / |x|^4` over some orthonormal directions v, the same for all images, with J the Jacobian at the noise
/// and x the image. The paper ranks by J's norm alone; the denominator is ours. Without it the images with the least on them are the calmest, whatever is on them: of digits the ones. Divided by
/// `|x|^2` they still come first, divided by `|x|^5` last. An empty image has NaN.
pub(crate) fn unrest<'t>(images: Var<'t>, noise: Var<'t>) -> Var<'t> {
    let [n, z] = [noise.shape()[0], noise.shape()[1]];
    let squares = |x: Var<'t>| x.square().reshape([n, x.shape().elements() / n]).sum_axes(&[1], false);
    let count = DIRECTIONS.min(z);
    let directions = Init::Orthogonal { gain: 1.0 }.sample([count, z], Key::new(0)).to_dtype(noise.dtype());
    let directions = noise.tape().constant(&directions);
    let along = |i: usize| squares(jvp(&[images], &[noise], &[directions.slice(0, i, 1).broadcast_to([n, z])])[0]);
    let change = (1..count).fold(along(0), |sum, i| sum + along(i));
    change / (squares(images).square() * count as f64)
}

/// The indices of the `n` smallest values, in their order; NaN counts as the largest.
pub(crate) fn calmest(unrest: &[f32], n: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..unrest.len()).collect();
    // Of equals the first.
    order.sort_by(|&a, &b| unrest[a].abs().total_cmp(&unrest[b].abs()));
    order.truncate(n);
    order.sort_unstable();
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use metaforge_autodiff::{Tape, Tensor};
    use metaforge_nn::{Linear, Model, Sequential, Sigmoid};

    /// By finite differences along these directions `[count, z]`.
    fn check(z: usize, directions: &[f64]) {
        let pixels = 7;
        let generator = Model::new(Sequential::new().then(Linear::new(pixels)).then(Sigmoid), [1, z]);
        let params = generator.init(Key::new(1)).to_dtype(metaforge_autodiff::DType::F64);
        let at = |noise: &[f64]| -> Vec<f64> {
            let tape = Tape::eager();
            let x = tape.constant(&Tensor::from_f64([1, z], noise.to_vec()));
            generator.forward(&params.bind(&tape), x).value().f64s().to_vec()
        };
        let noise = Key::new(2).normal([2, z], 0.0, 1.0).to_dtype(metaforge_autodiff::DType::F64);
        let tape = Tape::eager();
        let at_noise = tape.constant(&noise);
        let images = generator.forward(&params.bind(&tape), at_noise);
        let unrest = unrest(images, at_noise).value();
        for (row, noise) in noise.f64s().chunks(z).enumerate() {
            let image = at(noise);
            assert_eq!(&images.value().f64s()[row * pixels..][..pixels], image);
            let h = 1e-6;
            let along = |v: &[f64]| -> f64 {
                let moved = |by: f64| at(&noise.iter().zip(v).map(|(x, v)| x + by * v).collect::<Vec<_>>());
                moved(h).iter().zip(moved(-h)).map(|(a, b)| ((a - b) / (2.0 * h)).powi(2)).sum()
            };
            let change: f64 = directions.chunks(z).map(along).sum();
            let count = (directions.len() / z) as f64;
            let want = change / count / image.iter().map(|x| x * x).sum::<f64>().powi(2);
            let got = unrest.f64s()[row];
            assert!((got - want).abs() < 1e-7 * want, "{got} {want}");
        }
    }

    #[test]
    fn it_is_the_jacobians_norm_by_finite_differences() {
        // With fewer numbers of noise than directions, they span all noise: along the axes it is the same, the whole Frobenius norm.
        let axes: Vec<f64> = (0..25).map(|i| if i % 6 == 0 { 1.0 } else { 0.0 }).collect();
        check(5, &axes);
        // With more, those that are drawn for all images.
        let drawn = Init::Orthogonal { gain: 1.0 }.sample([DIRECTIONS, 20], Key::new(0));
        let drawn: Vec<f64> = drawn.f32s().iter().map(|&v| v.into()).collect();
        for (i, a) in drawn.chunks(20).enumerate() {
            for (j, b) in drawn.chunks(20).enumerate() {
                let dot: f64 = a.iter().zip(b).map(|(a, b)| a * b).sum();
                assert!((dot - f64::from(u8::from(i == j))).abs() < 1e-6, "{i} {j}: {dot}");
            }
        }
        check(20, &drawn);
    }

    #[test]
    fn the_smallest_are_kept_in_order() {
        assert_eq!(calmest(&[0.3, 0.1, f32::NAN, 0.2, 0.1, 0.0], 3), [1, 4, 5]);
        assert_eq!(calmest(&[-f32::NAN, 0.5], 1), [1]);
        assert_eq!(calmest(&[0.5, 0.5], 1), [0]);
        assert!(calmest(&[], 0).is_empty());
    }
}
