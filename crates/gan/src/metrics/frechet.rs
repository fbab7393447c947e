//! Fréchet classifier distance: the distance of Heusel et al. 2017 between two sets of images as Gaussians, in the features of a
//! stated classifier. It is not an FID, which is in the features of Inception and comparable with nothing else.

use rayon::prelude::*;

use super::{Distance, Features, dot, eigen};

/// `|m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2))` of the means and unbiased covariances, in f64.
///
/// The covariances have full rank only when there are more images than features; with fewer the value still exists, and is
/// larger than it should be. The expected value falls with the number of images: compare equal numbers only.
///
/// # Panics
/// If the features are of different extractors or there are fewer than two images.
#[track_caller]
pub fn fcd(a: &Features, b: &Features) -> Distance {
    a.comparable(b, 2);
    let d = a.dim;
    let ((m1, s1), (m2, s2)) = (moments(a), moments(b));
    let apart: f64 = m1.iter().zip(&m2).map(|(x, y)| (x - y).powi(2)).sum();
    let trace = |s: &[f64]| (0..d).map(|i| s[i * d + i]).sum::<f64>();
    let value = apart + trace(&s1) + trace(&s2) - 2.0 * trace_of_root_of_product(s1, &s2, d);
    // What is below zero is rounding: the distance of Gaussians is a metric.
    let (value, samples) = (value.max(0.0), [a.len(), b.len()]);
    Distance { name: "FCD", value, deviation: None, extractor: a.extractor.clone(), samples }
}

/// Mean `[d]` and unbiased covariance `[d, d]`.
fn moments(x: &Features) -> (Vec<f64>, Vec<f64>) {
    let (n, d) = (x.len(), x.dim);
    let mut mean = vec![0.0; d];
    for row in x.values.chunks_exact(d) {
        mean.iter_mut().zip(row).for_each(|(m, v)| *m += v / n as f64);
    }
    // Column by column, so that an entry of the covariance is one product of two contiguous columns.
    let mut columns = vec![0.0; n * d];
    for (i, row) in x.values.chunks_exact(d).enumerate() {
        (0..d).for_each(|j| columns[j * n + i] = row[j] - mean[j]);
    }
    let mut covariance = vec![0.0; d * d];
    covariance.par_chunks_mut(d).enumerate().for_each(|(i, out)| {
        for (j, out) in out.iter_mut().enumerate() {
            *out = dot(&columns[i * n..][..n], &columns[j * n..][..n]) / (n - 1) as f64;
        }
    });
    (mean, covariance)
}

/// `tr((S1 S2)^(1/2))` as the sum of the roots of the eigenvalues of `S1^(1/2) S2 S1^(1/2)`, which is symmetric.
fn trace_of_root_of_product(s1: Vec<f64>, s2: &[f64], d: usize) -> f64 {
    let (values, vectors) = eigen::symmetric(s1, d);
    // In the basis of S1's eigenvectors the root is diagonal.
    let mut turned = vec![0.0; d * d];
    turned.par_chunks_mut(d).enumerate().for_each(|(i, out)| {
        let row = &vectors[i * d..][..d];
        let product: Vec<f64> = s2.chunks_exact(d).map(|s| dot(s, row)).collect();
        let root = values[i].max(0.0).sqrt();
        for (j, out) in out.iter_mut().enumerate() {
            *out = root * dot(&product, &vectors[j * d..][..d]) * values[j].max(0.0).sqrt();
        }
    });
    eigen::symmetric(turned, d).0.into_iter().map(|v| v.max(0.0).sqrt()).sum()
}

#[cfg(test)]
mod tests {
    use super::super::normal;
    use super::*;

    #[test]
    fn a_set_has_no_distance_from_itself() {
        let x = normal(1, 400, &[1.0, 0.1, 3.0, 0.0, 2.0], 1.0);
        assert!(fcd(&x, &x).value < 1e-9);
        // Fewer images than features: the covariance has no full rank.
        let few = normal(2, 3, &[1.0; 7], 0.0);
        assert!(fcd(&few, &few).value < 1e-9);
    }

    #[test]
    fn a_translation_adds_its_squared_length() {
        let x = normal(1, 300, &[1.0, 0.5, 2.0], 0.0);
        let mut y = x.clone();
        y.values.iter_mut().for_each(|v| *v += 0.7);
        assert!((fcd(&x, &y).value - 3.0 * 0.49).abs() < 1e-9);
    }

    #[test]
    fn axis_aligned_scalings_have_a_closed_form() {
        // For commuting covariances: sum (sd1 - sd2)^2; scaling a sample scales its deviations exactly.
        let x = normal(3, 500, &[1.0, 1.0, 1.0, 1.0], 0.0);
        let mut y = x.clone();
        y.values.iter_mut().for_each(|v| *v *= 3.0);
        let (m, s) = moments(&x);
        let want: f64 = (0..4).map(|i| 4.0 * s[i * 4 + i] + 4.0 * m[i] * m[i]).sum();
        assert!((fcd(&x, &y).value - want).abs() < 1e-8 * want);
    }

    #[test]
    fn diagonal_gaussians_approach_their_closed_form() {
        let (x, y) = (normal(3, 200_000, &[1.0, 2.0], 0.0), normal(4, 200_000, &[3.0, 0.5], 0.0));
        assert!((fcd(&x, &y).value - (4.0 + 2.25)).abs() < 0.05, "{}", fcd(&x, &y).value);
        assert!((fcd(&x, &y).value - fcd(&y, &x).value).abs() < 1e-9);
    }

    #[test]
    fn it_names_its_extractor_and_its_images() {
        let text = fcd(&normal(1, 20, &[1.0], 0.0), &normal(2, 30, &[1.0], 0.0)).to_string();
        assert!(text.starts_with("FCD") && text.contains("(test, 20 and 30 images)"), "{text}");
    }
}
