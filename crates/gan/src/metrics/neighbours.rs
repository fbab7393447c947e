//! Precision and recall of a generator by nearest neighbours (Kynkäänniemi et al. 2019).

use rayon::prelude::*;

use super::Features;

/// How two sets of images overlap.
#[derive(Clone, Debug, PartialEq)]
pub struct Neighbours {
    /// Part of the generated images that lie among the real ones: fidelity.
    pub precision: f64,
    /// Part of the real images that lie among the generated ones: variety.
    pub recall: f64,
    /// Neighbours that make the radius of an image's ball.
    pub k: usize,
    /// What saw the images.
    pub extractor: String,
    /// Real and generated images.
    pub samples: [usize; 2],
}

/// An image lies among a set when it is within the ball of one of the set's images, whose radius is the distance to its
/// `k`-th neighbour (published: 3) in its own set, itself not counted.
///
/// # Panics
/// If the features are of different extractors, `k` is 0, or a set has not more than `k` images.
#[track_caller]
pub fn precision_recall(real: &Features, generated: &Features, k: usize) -> Neighbours {
    assert!(k > 0, "the zeroth neighbour of an image is the image");
    real.comparable(generated, k + 1);
    Neighbours {
        precision: among(generated, real, k),
        recall: among(real, generated, k),
        k,
        extractor: real.extractor.clone(),
        samples: [real.len(), generated.len()],
    }
}

/// Part of `points` that lie among `set`.
fn among(points: &Features, set: &Features, k: usize) -> f64 {
    let radii: Vec<f64> = (0..set.len())
        .into_par_iter()
        .map(|i| {
            let others = (0..set.len()).filter(|&j| j != i);
            let mut far: Vec<f64> = others.map(|j| squared(set.row(i), set.row(j))).collect();
            *far.select_nth_unstable_by(k - 1, f64::total_cmp).1
        })
        .collect();
    let inside = |i: usize| (0..set.len()).any(|j| squared(points.row(i), set.row(j)) <= radii[j]);
    (0..points.len()).into_par_iter().filter(|&i| inside(i)).count() as f64 / points.len() as f64
}

fn squared(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| (x - y) * (x - y)).sum()
}

#[cfg(test)]
mod tests {
    use super::super::normal;
    use super::*;

    #[test]
    fn a_set_lies_among_itself() {
        let x = normal(1, 50, &[1.0, 1.0], 0.0);
        let p = precision_recall(&x, &x, 3);
        assert_eq!((p.precision, p.recall), (1.0, 1.0));
    }

    #[test]
    fn collapse_costs_recall_and_noise_costs_precision() {
        let real = normal(1, 200, &[1.0, 1.0], 0.0);
        let collapsed = precision_recall(&real, &normal(2, 200, &[0.01, 0.01], 0.0), 3);
        assert!(collapsed.precision > 0.9 && collapsed.recall < 0.1, "{collapsed:?}");
        let noisy = precision_recall(&real, &normal(3, 200, &[30.0, 30.0], 0.0), 3);
        assert!(noisy.precision < 0.2 && noisy.recall > 0.9, "{noisy:?}");
    }

    #[test]
    fn an_image_is_not_its_own_neighbour() {
        let line = Features { extractor: "test".into(), dim: 1, values: vec![0.0, 1.0, 2.0] };
        let beside = Features { extractor: "test".into(), dim: 1, values: vec![2.9, 9.0] };
        // Each radius on the line is 1: 2.9 lies within that of 2, 9 within none; 2.9 reaches all, 9 reaches 2.9 to 15.1.
        let p = precision_recall(&line, &beside, 1);
        assert_eq!((p.precision, p.recall), (0.5, 1.0));
    }
}
