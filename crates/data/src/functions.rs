//! Regression tasks: the sinusoids of MAML (Finn et al. 2017, §5.1).

use metaforge_autodiff::{Key, Tensor};
use rand::Rng;

use crate::Split;

/// The distribution of tasks y = A sin(x - φ).
///
/// The ranges are those of the paper; Reptile's demo has φ in [0, 2π] and other authors shift differently, so a
/// comparison has to state them.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Sinusoids {
    /// Range of A.
    pub amplitude: [f32; 2],
    /// Range of φ.
    pub phase: [f32; 2],
    /// Range of x.
    pub x: [f32; 2],
    /// Support points K of a task.
    pub shots: usize,
    /// Query points of a task.
    pub queries: usize,
    /// Seed of all tasks.
    pub seed: u64,
    /// Which stream of tasks; no two share a task.
    pub split: Split,
}

/// One function to be learned from `support` and judged on `query`.
#[derive(Clone, Debug)]
pub struct FunctionEpisode {
    /// A.
    pub amplitude: f32,
    /// φ.
    pub phase: f32,
    /// `[K, 1]`.
    pub support_x: Tensor,
    /// `[K, 1]`.
    pub support_y: Tensor,
    /// `[Q, 1]`.
    pub query_x: Tensor,
    /// `[Q, 1]`.
    pub query_y: Tensor,
}

impl Sinusoids {
    /// The paper's distribution: A ~ U[0.1, 5], φ ~ U[0, π], x ~ U[-5, 5].
    pub fn new(shots: usize, queries: usize, seed: u64, split: Split) -> Self {
        let phase = [0.0, std::f32::consts::PI];
        Sinusoids { amplitude: [0.1, 5.0], phase, x: [-5.0, 5.0], shots, queries, seed, split }
    }

    /// Task `number`: depends on the ranges, the seed, the split and the number alone.
    pub fn episode(&self, number: u64) -> FunctionEpisode {
        let rng = &mut Key::new(self.seed).fold(self.split.deal(0) as u64).fold(number).rng();
        let mut between = |[low, high]: [f32; 2]| low + (high - low) * rng.random::<f32>();
        let (amplitude, phase) = (between(self.amplitude), between(self.phase));
        let mut points = |n: usize| {
            let x = Tensor::from_fn([n, 1], |_| between(self.x));
            let xs = x.f32s();
            let y = Tensor::from_fn([n, 1], |i| amplitude * (xs[i] - phase).sin());
            (x, y)
        };
        let (support_x, support_y) = points(self.shots);
        let (query_x, query_y) = points(self.queries);
        FunctionEpisode { amplitude, phase, support_x, support_y, query_x, query_y }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::f32::consts::PI;

    #[test]
    fn points_lie_on_the_sine_and_parameters_fill_their_ranges() {
        let tasks = Sinusoids::new(10, 5, 3, Split::Train);
        let all: Vec<FunctionEpisode> = (0..2000).map(|i| tasks.episode(i)).collect();
        for t in &all {
            for (x, y) in t.query_x.f32s().iter().zip(t.query_y.f32s()) {
                assert!((-5.0..=5.0).contains(x));
                assert!((y - t.amplitude * (x - t.phase).sin()).abs() < 1e-6);
            }
        }
        let mean = |f: fn(&FunctionEpisode) -> f32| all.iter().map(f).sum::<f32>() / 2000.0;
        // Five standard errors of a uniform's mean: 5 * width / sqrt(12 * 2000).
        assert!((mean(|t| t.amplitude) - 2.55).abs() < 5.0 * 4.9 / 155.0);
        assert!((mean(|t| t.phase) - PI / 2.0).abs() < 5.0 * PI / 155.0);
    }

    #[test]
    fn a_task_is_replayed_by_number_and_differs_by_split() {
        let tasks = Sinusoids::new(5, 5, 3, Split::Train);
        assert_eq!(tasks.episode(17).support_x, tasks.episode(17).support_x);
        assert_ne!(tasks.episode(17).support_x, tasks.episode(18).support_x);
        let test = Sinusoids { split: Split::Test, ..tasks.clone() };
        assert_ne!(tasks.episode(17).amplitude, test.episode(17).amplitude);
    }
}
