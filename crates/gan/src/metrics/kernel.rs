//! Kernel classifier distance: the unbiased squared maximum mean discrepancy of Bińkowski et al. 2018, in the features of a
//! stated classifier. Unlike the Fréchet distance its expected value does not depend on the number of images.

use metaforge_autodiff::Key;
use rand::seq::index;
use rayon::prelude::*;

use super::{Distance, Features, dot};

/// Mean and standard deviation over `subsets` pairs of random subsets of `size` images (less where a set has less), with
/// the kernel `(x.y / D + 1)^3`. Where a subset would be the whole of both sets, there is but one, and no deviation.
///
/// It is unbiased: for two sets of one source it is as often below zero as above, and is not clamped.
///
/// # Panics
/// If the features are of different extractors, there are fewer than two images, or `size` is below 2 or `subsets` 0.
#[track_caller]
pub fn kcd(a: &Features, b: &Features, size: usize, subsets: usize, key: Key) -> Distance {
    a.comparable(b, 2);
    assert!(size >= 2 && subsets > 0, "{subsets} subsets of {size} images");
    let size = size.min(a.len()).min(b.len());
    let (subsets, of) = if size == a.len() && size == b.len() {
        (1, "all images".into())
    } else {
        (subsets, format!("subsets of {size}"))
    };
    let estimates: Vec<f64> = (0..subsets as u64)
        .into_par_iter()
        .map(|i| {
            let rng = &mut key.fold(i).rng();
            let x = index::sample(rng, a.len(), size).into_vec();
            let y = index::sample(rng, b.len(), size).into_vec();
            mmd2(a, &x, b, &y)
        })
        .collect();
    let n = subsets as f64;
    let mean = estimates.iter().sum::<f64>() / n;
    let variance = estimates.iter().map(|e| (e - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0);
    let (deviation, samples) = ((subsets > 1).then(|| variance.sqrt()), [a.len(), b.len()]);
    Distance { name: "KCD", value: mean, deviation, extractor: format!("{}, {of}", a.extractor), samples }
}

fn mmd2(a: &Features, x: &[usize], b: &Features, y: &[usize]) -> f64 {
    let m = x.len() as f64;
    let kernel = |u: &[f64], v: &[f64]| (dot(u, v) / a.dim as f64 + 1.0).powi(3);
    // The diagonals are left out: they would add the bias.
    let within = |f: &Features, s: &[usize]| {
        let pairs = s.iter().enumerate().flat_map(|(i, &p)| s[..i].iter().map(move |&q| (p, q)));
        2.0 * pairs.map(|(p, q)| kernel(f.row(p), f.row(q))).sum::<f64>() / (m * (m - 1.0))
    };
    let across: f64 = x.iter().map(|&p| y.iter().map(|&q| kernel(a.row(p), b.row(q))).sum::<f64>()).sum();
    within(a, x) + within(b, y) - 2.0 * across / (m * m)
}

#[cfg(test)]
mod tests {
    use super::super::normal;
    use super::*;

    #[test]
    fn it_is_unbiased_so_it_goes_below_zero() {
        let of = |seed| {
            let (x, y) = (normal(2 * seed, 40, &[1.0; 3], 0.0), normal(2 * seed + 1, 40, &[1.0; 3], 0.0));
            kcd(&x, &y, 40, 1, Key::new(seed)).value
        };
        let values: Vec<f64> = (0..400).map(of).collect();
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let error = (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n / n).sqrt();
        assert!(mean.abs() < 4.0 * error, "{mean} ± {error}");
        assert!(values.iter().any(|&v| v < 0.0));
    }

    #[test]
    fn two_points_a_side_can_be_done_by_hand() {
        let f = |v: Vec<f64>| Features { extractor: "test".into(), dim: 1, values: v };
        // k(x, y) = (xy + 1)^3: within {0, 1}: 1; within {1, 2}: 27; across: 1, 1, 8, 27.
        let d = kcd(&f(vec![0.0, 1.0]), &f(vec![1.0, 2.0]), 9, 3, Key::new(0));
        assert!((d.value - (1.0 + 27.0 - 2.0 * 37.0 / 4.0)).abs() < 1e-12);
        // Nine images were asked for and there are two: that is all of them, and not a mean over subsets.
        assert_eq!((d.deviation, d.extractor.as_str()), (None, "test, all images"));
    }

    #[test]
    fn it_grows_with_a_shift() {
        let x = normal(1, 300, &[1.0; 4], 0.0);
        let at = |shift| kcd(&x, &normal(2, 300, &[1.0; 4], shift), 100, 10, Key::new(0)).value;
        assert!(at(0.5) > at(0.1) && at(1.0) > at(0.5));
    }
}
