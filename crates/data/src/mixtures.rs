//! Mixtures of small round Gaussians in the plane, whose modes are known: the test bench of mode collapse.

use std::f32::consts::TAU;

use metaforge_autodiff::{Key, Tensor};
use rand::Rng;
use rand_distr::{Distribution, StandardNormal};

/// Equally likely Gaussians with one standard deviation.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Mixture {
    /// Centre of every mode.
    pub centres: Vec<[f32; 2]>,
    /// Standard deviation of every mode along both axes.
    pub sigma: f32,
}

impl Mixture {
    /// `modes` centres at the angles `arange(modes) * 2π / modes`: distinct ones, which `linspace(0, 2π, modes)` is not.
    pub fn ring(modes: usize, radius: f32, sigma: f32) -> Self {
        let at = |i: usize| {
            let (sin, cos) = (i as f32 * TAU / modes as f32).sin_cos();
            [radius * cos, radius * sin]
        };
        Mixture { centres: (0..modes).map(at).collect(), sigma }
    }

    /// The ring of PacGAN (Lin et al. 2018) and VEEGAN: 8 modes, radius 1, σ 0.01.
    pub fn ring_pacgan() -> Self {
        Mixture::ring(8, 1.0, 0.01)
    }

    /// The ring of Unrolled GAN (Metz et al. 2017): 8 modes, radius 2, σ 0.02.
    pub fn ring_unrolled() -> Self {
        Mixture::ring(8, 2.0, 0.02)
    }

    /// `side` x `side` centres around the origin.
    pub fn grid(side: usize, spacing: f32, sigma: f32) -> Self {
        let at = |i: usize| (i as f32 - (side as f32 - 1.0) / 2.0) * spacing;
        Mixture { centres: (0..side * side).map(|i| [at(i % side), at(i / side)]).collect(), sigma }
    }

    /// The grid of PacGAN: 5x5, spacing 2 (so -4..=4), σ 0.05.
    pub fn grid_pacgan() -> Self {
        Mixture::grid(5, 2.0, 0.05)
    }

    /// `modes` centres along an Archimedean spiral of that many turns, equally spaced along its length, out to `radius`.
    pub fn spiral(modes: usize, turns: f32, radius: f32, sigma: f32) -> Self {
        // For r = cθ the length grows as θ²/2 once θ is large, so equal steps of θ² are equal steps of length.
        let at = |i: usize| {
            let t = ((i + 1) as f32 / modes as f32).sqrt();
            let (sin, cos) = (t * turns * TAU).sin_cos();
            [radius * t * cos, radius * t * sin]
        };
        Mixture { centres: (0..modes).map(at).collect(), sigma }
    }

    /// The spiral preset: 20 modes on two turns out to radius 2, σ 0.02.
    pub fn spiral_preset() -> Self {
        Mixture::spiral(20, 2.0, 2.0, 0.02)
    }

    /// `n` points `[n, 2]`; point `i` depends on the key and `i` alone.
    pub fn sample(&self, key: Key, n: usize) -> Tensor {
        let rng = &mut key.rng();
        let mut points = Vec::with_capacity(2 * n);
        for _ in 0..n {
            let centre = self.centres[rng.random_range(0..self.centres.len())];
            for c in centre {
                let z: f32 = StandardNormal.sample(rng);
                points.push(c + self.sigma * z);
            }
        }
        Tensor::new([n, 2], points)
    }

    /// The nearest mode and the distance to its centre. Panics when the mixture has no mode.
    pub fn nearest(&self, point: [f32; 2]) -> (usize, f32) {
        let far = |c: &[f32; 2]| (point[0] - c[0]).hypot(point[1] - c[1]);
        let all = self.centres.iter().map(far).enumerate();
        all.min_by(|a, b| a.1.total_cmp(&b.1)).expect("a mixture has modes")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_of_eight_has_eight_distinct_modes() {
        let ring = Mixture::ring_pacgan();
        let side = 2.0 * (TAU / 16.0).sin();
        for (i, a) in ring.centres.iter().enumerate() {
            let b = ring.centres[(i + 1) % 8];
            assert!(((a[0] - b[0]).hypot(a[1] - b[1]) - side).abs() < 1e-6);
            assert!((a[0].hypot(a[1]) - 1.0).abs() < 1e-6);
            assert_eq!(ring.nearest(*a), (i, 0.0));
        }
    }

    #[test]
    fn true_samples_score_the_known_ceiling() {
        // Within three sigmas of the centre lies 1 - exp(-4.5) of a round Gaussian, an eighth of it at every mode.
        let ring = Mixture::ring_unrolled();
        let n = 40_000;
        let points = ring.sample(Key::new(1), n);
        let (mut near, mut count) = (0, [0; 8]);
        for p in points.f32s().chunks_exact(2) {
            let (mode, far) = ring.nearest([p[0], p[1]]);
            near += usize::from(far < 3.0 * ring.sigma);
            count[mode] += 1;
        }
        assert!((near as f64 / n as f64 - 0.98889).abs() < 0.003);
        assert!(count.iter().all(|&c: &i32| (c - 5000).abs() < 350), "{count:?}");
    }

    #[test]
    fn presets_span_what_they_say() {
        let grid = Mixture::grid_pacgan();
        assert_eq!((grid.centres.len(), grid.centres[0], grid.centres[24]), (25, [-4.0, -4.0], [4.0, 4.0]));
        let spiral = Mixture::spiral_preset();
        let gap = |i: usize| spiral.nearest_other(i);
        assert!((0..20).all(|i| gap(i) > 10.0 * spiral.sigma));
        let head = Mixture::ring(8, 1.0, 0.1).sample(Key::new(2), 3);
        let more = Mixture::ring(8, 1.0, 0.1).sample(Key::new(2), 5);
        assert_eq!(head.f32s(), &more.f32s()[..6]);
    }

    impl Mixture {
        fn nearest_other(&self, i: usize) -> f32 {
            let mut others = self.clone();
            let centre = others.centres.remove(i);
            others.nearest(centre).1
        }
    }
}
