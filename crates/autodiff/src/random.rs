//! Counter-based randomness: a seed and indices give the numbers, so any of them can be drawn again alone, in any order.

use ndarray_rand::RandomExt;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Normal, Uniform};

use crate::{Shape, Tensor};

/// Names one stream of random numbers. `Key::new(seed).fold(17).fold(3)` is sample 3 of task 17, whenever it is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key(u64);

impl Key {
    /// The root of all streams of a seed.
    pub fn new(seed: u64) -> Key {
        Key(mix(seed ^ 0x6a09_e667_f3bc_c908))
    }

    /// The sub-stream numbered `index`.
    pub fn fold(self, index: u64) -> Key {
        Key(mix(self.0.rotate_left(25) ^ mix(index.wrapping_add(0x9e37_79b9_7f4a_7c15))))
    }

    /// A generator of this stream's numbers.
    pub fn rng(self) -> ChaCha8Rng {
        ChaCha8Rng::seed_from_u64(self.0)
    }

    /// The key as the operand of [`Prim::Uniform`](crate::Prim::Uniform).
    pub fn words(self) -> [u32; 2] {
        [self.0 as u32, (self.0 >> 32) as u32]
    }

    /// The key as a `u32` tensor of shape `[2]`.
    pub fn tensor(self) -> Tensor {
        Tensor::from_u32([2], self.words().to_vec())
    }

    /// An `f32` tensor of numbers uniform in `[low, high)`.
    ///
    /// # Panics
    /// Unless `low < high` and both are finite.
    #[track_caller]
    pub fn uniform(self, shape: impl Into<Shape>, low: f32, high: f32) -> Tensor {
        self.sample(shape, Uniform::new(low, high).unwrap_or_else(|e| panic!("uniform in [{low}, {high}): {e}")))
    }

    /// An `f32` tensor of normal numbers.
    ///
    /// # Panics
    /// If `std` is negative or not finite.
    #[track_caller]
    pub fn normal(self, shape: impl Into<Shape>, mean: f32, std: f32) -> Tensor {
        self.sample(shape, Normal::new(mean, std).unwrap_or_else(|e| panic!("normal({mean}, {std}): {e}")))
    }

    /// An `f32` tensor drawn from any distribution.
    #[track_caller]
    pub fn sample(self, shape: impl Into<Shape>, distribution: impl Distribution<f32>) -> Tensor {
        let shape = shape.into();
        let array = ndarray::ArrayD::random_using(&*shape, distribution, &mut self.rng());
        Tensor::from_ndarray(&array.view())
    }
}

/// The finaliser of SplitMix64 (Steele, Lea, Flood 2014): a bijection with good avalanche.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_repeat_and_differ() {
        let key = Key::new(7).fold(17);
        assert_eq!(key.fold(3).normal([5], 0., 1.), key.fold(3).normal([5], 0., 1.));
        assert_ne!(key.fold(3), key.fold(4));
        assert_ne!(key.fold(3), Key::new(7).fold(3).fold(17));
    }

    #[test]
    fn normal_numbers_have_the_moments_asked_for() {
        let t = Key::new(1).normal([100_000], 2.0, 0.5);
        let n = t.len() as f64;
        let mean = t.f32s().iter().map(|&v| f64::from(v)).sum::<f64>() / n;
        let var = t.f32s().iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / n;
        // Five standard errors of each estimate.
        assert!((mean - 2.0).abs() < 5.0 * 0.5 / n.sqrt());
        assert!((var - 0.25).abs() < 5.0 * 0.25 * (2.0 / n).sqrt());
    }
}
