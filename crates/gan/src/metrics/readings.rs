//! What a classifier reads in generated images: how surely, and which classes how often.

use metaforge_autodiff::Tensor;

/// A reading counts when the classifier gives it more than this probability.
pub const CONFIDENT: f64 = 0.9;

/// A classifier's readings of a set of images.
#[derive(Clone, Debug, PartialEq)]
pub struct Readings {
    /// Part of the images read with more than [`CONFIDENT`].
    pub read_rate: f64,
    /// Part of the images read as each class, sure or not.
    pub histogram: Vec<f64>,
    /// Mean of the largest probability.
    pub confidence: f64,
    /// What read the images.
    pub extractor: String,
    /// Number of images.
    pub samples: usize,
}

impl Readings {
    /// Readings from logits `[N, classes]` of a named classifier.
    ///
    /// # Panics
    /// If the logits have another shape.
    #[track_caller]
    pub fn new(extractor: impl Into<String>, logits: &Tensor) -> Readings {
        let &[samples, classes] = logits.shape() else { panic!("logits are [N, C], not {:?}", logits.shape()) };
        assert!(classes > 0, "logits of no class");
        // Counted first and divided once: sums of a share would end beside 1.
        let (mut sure, mut confidence, mut counts) = (0usize, 0.0, vec![0usize; classes]);
        let share = |count: usize| count as f64 / samples.max(1) as f64;
        for row in logits.to_f64_vec().chunks_exact(classes) {
            let best = (0..classes).max_by(|&i, &j| row[i].total_cmp(&row[j])).expect("there is a class");
            let p = 1.0 / row.iter().map(|v| (v - row[best]).exp()).sum::<f64>();
            sure += usize::from(p > CONFIDENT);
            confidence += p;
            counts[best] += 1;
        }
        confidence /= samples.max(1) as f64;
        let histogram = counts.into_iter().map(share).collect();
        Readings { read_rate: share(sure), histogram, confidence, extractor: extractor.into(), samples }
    }

    /// The part of the class that is read least.
    pub fn rarest(&self) -> f64 {
        self.histogram.iter().copied().fold(f64::INFINITY, f64::min)
    }

    /// Half the sum of the differences between the histogram and equal parts: 0 for equal ones, near 1 for one class only.
    pub fn imbalance(&self) -> f64 {
        let equal = 1.0 / self.histogram.len() as f64;
        self.histogram.iter().map(|p| (p - equal).abs()).sum::<f64>() / 2.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readings_are_counted() {
        let logits = Tensor::new([4, 2], vec![9.0, 0.0, 0.0, 9.0, 0.1, 0.0, 500.0, -500.0]);
        let r = Readings::new("test", &logits);
        assert_eq!((r.read_rate, r.samples, r.rarest()), (0.75, 4, 0.25));
        assert_eq!(r.histogram, [0.75, 0.25]);
        assert!((r.imbalance() - 0.25).abs() < 1e-12);
        let sure = 1.0 / (1.0 + (-9f64).exp());
        let half = 1.0 / (1.0 + (-0.1f32 as f64).exp());
        let alike = Readings::new("test", &Tensor::new([49, 2], [9.0, 0.0].repeat(49)));
        assert_eq!((alike.read_rate, alike.histogram[0]), (1.0, 1.0));
        assert!((r.confidence - (2.0 * sure + half + 1.0) / 4.0).abs() < 1e-9);
    }
}
