//! Coverage of a mixture whose modes are known, by the rule of VEEGAN (Srivastava et al. 2017) and PacGAN (Lin et al. 2018).

use metaforge_autodiff::Tensor;
use metaforge_data::Mixture;

/// How a sample of points lies on the modes of a mixture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Modes {
    /// Modes with at least one point within three standard deviations.
    pub covered: usize,
    /// Modes of the mixture.
    pub of: usize,
    /// Part of the points within three standard deviations of a mode. The mixture itself scores 0.9889 = 1 - exp(-9/2);
    /// more means a shrunken variance, not a better generator.
    pub high_quality: f64,
    /// Kullback-Leibler divergence of the modes of those points from equal shares, in nats; infinite without such points.
    pub reverse_kl: f64,
    /// Number of points.
    pub samples: usize,
}

/// Measures `points` `[N, 2]`, f32.
///
/// # Panics
/// If the points have another shape or the mixture no mode.
#[track_caller]
pub fn mode_coverage(points: &Tensor, mixture: &Mixture) -> Modes {
    let &[samples, 2] = points.shape() else { panic!("points are [N, 2], not {:?}", points.shape()) };
    let mut counts = vec![0usize; mixture.centres.len()];
    for p in points.f32s().chunks_exact(2) {
        let (mode, far) = mixture.nearest([p[0], p[1]]);
        counts[mode] += usize::from(far < 3.0 * mixture.sigma);
    }
    let near: usize = counts.iter().sum();
    let equal = 1.0 / counts.len() as f64;
    let shares = counts.iter().filter(|&&c| c > 0).map(|&c| c as f64 / near as f64);
    let reverse_kl = if near == 0 { f64::INFINITY } else { shares.map(|p| p * (p / equal).ln()).sum() };
    Modes {
        covered: counts.iter().filter(|&&c| c > 0).count(),
        of: counts.len(),
        high_quality: near as f64 / samples.max(1) as f64,
        reverse_kl,
        samples,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use metaforge_autodiff::Key;

    #[test]
    fn true_samples_score_the_ceiling() {
        for mixture in [Mixture::ring_pacgan(), Mixture::grid_pacgan()] {
            let modes = mode_coverage(&mixture.sample(Key::new(1), 40_000), &mixture);
            assert_eq!(modes.covered, modes.of);
            assert!((modes.high_quality - 0.98889).abs() < 0.003);
            assert!(modes.reverse_kl < 2e-3);
        }
    }

    #[test]
    fn a_collapsed_sample_covers_one_mode() {
        let ring = Mixture::ring_pacgan();
        let at = ring.centres[3];
        let modes = mode_coverage(&Tensor::new([50, 2], at.repeat(50)), &ring);
        assert_eq!((modes.covered, modes.of, modes.high_quality), (1, 8, 1.0));
        assert!((modes.reverse_kl - 8f64.ln()).abs() < 1e-12);
        let nowhere = mode_coverage(&Tensor::new([5, 2], vec![0.0; 10]), &ring);
        assert_eq!((nowhere.covered, nowhere.high_quality, nowhere.reverse_kl), (0, 0.0, f64::INFINITY));
    }
}
