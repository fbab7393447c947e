//! Measures of a generator. Each names what saw the images and how many there were: the same generator scores otherwise
//! under another extractor or sample size.

mod eigen;
mod frechet;
mod kernel;
mod modes;
mod neighbours;
mod readings;

pub use frechet::fcd;
pub use kernel::kcd;
pub use modes::{Modes, mode_coverage};
pub use neighbours::{Neighbours, precision_recall};
pub use readings::{CONFIDENT, Readings};

use std::fmt;

use metaforge_autodiff::Tensor;

/// What an extractor saw in a set of images: one row of numbers an image.
#[derive(Clone, Debug)]
pub struct Features {
    /// Name of the extractor and of its layer.
    extractor: String,
    dim: usize,
    values: Vec<f64>,
}

impl Features {
    /// Features `[N, D]` as an extractor gave them.
    ///
    /// # Panics
    /// If they are not of rank 2 or D is 0.
    #[track_caller]
    pub fn new(extractor: impl Into<String>, features: &Tensor) -> Features {
        let &[_, dim] = features.shape() else { panic!("features are [N, D], not {:?}", features.shape()) };
        assert!(dim > 0, "features of no number");
        Features { extractor: extractor.into(), dim, values: features.to_f64_vec() }
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.values.len() / self.dim
    }

    /// Whether there is no image.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Numbers of an image.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Name of the extractor.
    pub fn extractor(&self) -> &str {
        &self.extractor
    }

    fn row(&self, i: usize) -> &[f64] {
        &self.values[i * self.dim..][..self.dim]
    }

    #[track_caller]
    fn comparable(&self, other: &Features, least: usize) {
        assert_eq!((&self.extractor, self.dim), (&other.extractor, other.dim), "features of two different extractors");
        let fewer = self.len().min(other.len());
        assert!(fewer >= least, "{fewer} images are too few: it takes {least}");
    }
}

/// A distance between two sets of images.
#[derive(Clone, Debug, PartialEq)]
pub struct Distance {
    /// Its name.
    pub name: &'static str,
    /// The distance; the smaller, the more alike.
    pub value: f64,
    /// Its standard deviation over subsets, where it is a mean over subsets.
    pub deviation: Option<f64>,
    /// What saw the images.
    pub extractor: String,
    /// Images of either set.
    pub samples: [usize; 2],
}

impl fmt::Display for Distance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:.4}", self.name, self.value)?;
        if let Some(deviation) = self.deviation {
            write!(f, " ± {deviation:.4}")?;
        }
        write!(f, " ({}, {} and {} images)", self.extractor, self.samples[0], self.samples[1])
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    // Eight running sums, so that the additions need not wait for each other.
    let mut sums = [0.0; 8];
    let (a8, b8) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f64 = a8.remainder().iter().zip(b8.remainder()).map(|(x, y)| x * y).sum();
    for (x, y) in a8.zip(b8) {
        sums.iter_mut().zip(x.iter().zip(y)).for_each(|(sum, (x, y))| *sum += x * y);
    }
    sums.iter().sum::<f64>() + rest
}

#[cfg(test)]
fn normal(seed: u64, n: usize, deviations: &[f64], shift: f64) -> Features {
    let z = metaforge_autodiff::Key::new(seed).normal([n, deviations.len()], 0.0, 1.0);
    let values = z.f32s().iter().enumerate().map(|(i, &v)| shift + f64::from(v) * deviations[i % deviations.len()]);
    Features { extractor: "test".into(), dim: deviations.len(), values: values.collect() }
}
