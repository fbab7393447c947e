//! Shuffled epochs over an image set, every batch replayable by number, with augmentation.

use std::sync::Arc;

use metaforge_autodiff::{Key, Tensor};
use rand::Rng;
use rand_distr::{Distribution, StandardNormal};
use rayon::prelude::*;

use crate::{Error, ImageSet};

/// What the pixel values 0..=255 become. It has to be the range of the generator's last activation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Range {
    /// 0..=1, of a sigmoid.
    #[default]
    Unit,
    /// -1..=1, of a tanh.
    Signed,
}

/// Random changes of every image at every visit; the default changes nothing. What comes in from outside the frame is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Augment {
    /// Shift by up to that many pixels along both axes, uniform.
    pub shift: f32,
    /// Turn by up to that many degrees either way, uniform.
    pub rotate: f32,
    /// Mirror left and right every second time.
    pub flip: bool,
    /// Add normal noise of that deviation (of the range 0..=1), then clip.
    pub noise: f32,
}

/// Images with their labels.
#[derive(Clone, Debug)]
pub struct Batch {
    /// `[B, H, W, C]`.
    pub x: Tensor,
    /// `[B]`, u32.
    pub y: Tensor,
}

/// Deals an image set in shuffled epochs.
#[derive(Clone, Debug)]
pub struct BatchSampler {
    set: Arc<ImageSet>,
    size: usize,
    range: Range,
    augment: Augment,
    key: Key,
}

impl BatchSampler {
    /// Batches of `size` images. Each epoch is a permutation by (seed, epoch); what does not fill a batch at its end is left out.
    ///
    /// Fails when the set does not fill one batch or `size` is 0.
    pub fn new(set: Arc<ImageSet>, size: usize, seed: u64) -> Result<Self, Error> {
        if size == 0 || set.len() < size {
            return Err(Error::Setting(format!("{} images do not fill a batch of {size}", set.len())));
        }
        Ok(BatchSampler { set, size, range: Range::Unit, augment: Augment::default(), key: Key::new(seed) })
    }

    /// The same in another range of values.
    pub fn range(mut self, range: Range) -> Self {
        self.range = range;
        self
    }

    /// The same with augmentation.
    pub fn augment(mut self, augment: Augment) -> Self {
        self.augment = augment;
        self
    }

    /// Batches in an epoch.
    pub fn per_epoch(&self) -> usize {
        self.set.len() / self.size
    }

    /// Batch `number`, counted through all epochs: depends on the set, the settings, the seed and the number alone.
    pub fn batch(&self, number: u64) -> Batch {
        let shape @ [h, w, c] = self.set.shape();
        let per_epoch = self.per_epoch() as u64;
        let epoch = self.key.fold(number / per_epoch);
        let first = (number % per_epoch) as usize * self.size;
        let mut x = vec![0.0; self.size * h * w * c];
        let mut y = vec![0; self.size];
        let rows = x.par_chunks_mut((h * w * c).max(1)).zip(&mut y);
        rows.enumerate().with_min_len(16).for_each(|(row, (out, label))| {
            let place = first + row;
            let i = permute(epoch.fold(0), self.set.len(), place);
            *label = self.set.labels()[i];
            for (o, &b) in out.iter_mut().zip(self.set.image(i)) {
                *o = f32::from(b) / 255.0;
            }
            self.augment.apply(out, shape, epoch.fold(1).fold(place as u64));
            if self.range == Range::Signed {
                out.iter_mut().for_each(|v| *v = 2.0 * *v - 1.0);
            }
        });
        Batch { x: Tensor::new([self.size, h, w, c], x), y: Tensor::from_u32([self.size], y) }
    }
}

impl Augment {
    /// Changes an image `[H, W, C]` with values 0..=1; the key decides how.
    pub fn apply(&self, image: &mut [f32], shape: [usize; 3], key: Key) {
        if *self == Augment::default() {
            return;
        }
        let [h, w, c] = shape;
        let rng = &mut key.rng();
        let mut within = |limit: f32| limit * (2.0 * rng.random::<f32>() - 1.0);
        let (dx, dy, angle) = (within(self.shift), within(self.shift), within(self.rotate).to_radians());
        if self.flip && rng.random_bool(0.5) {
            for row in image.chunks_exact_mut(w * c) {
                for x in 0..w / 2 {
                    (0..c).for_each(|k| row.swap(x * c + k, (w - 1 - x) * c + k));
                }
            }
        }
        if self.shift != 0.0 || self.rotate != 0.0 {
            let from = image.to_vec();
            let (sin, cos) = angle.sin_cos();
            let (my, mx) = ((h as f32 - 1.0) / 2.0, (w as f32 - 1.0) / 2.0);
            for (i, pixel) in image.chunks_exact_mut(c).enumerate() {
                let (y, x) = ((i / w) as f32 - my - dy, (i % w) as f32 - mx - dx);
                bilinear(&from, shape, cos * y - sin * x + my, sin * y + cos * x + mx, pixel);
            }
        }
        if self.noise > 0.0 {
            for v in image {
                let z: f32 = StandardNormal.sample(rng);
                *v = (*v + self.noise * z).clamp(0.0, 1.0);
            }
        }
    }
}

/// The pixel at a place between pixels; 0 outside.
fn bilinear(from: &[f32], [h, w, c]: [usize; 3], y: f32, x: f32, out: &mut [f32]) {
    let (y0, x0) = (y.floor(), x.floor());
    let (fy, fx) = (y - y0, x - x0);
    out.fill(0.0);
    for (dy, wy) in [(0.0, 1.0 - fy), (1.0, fy)] {
        for (dx, wx) in [(0.0, 1.0 - fx), (1.0, fx)] {
            let (y, x) = (y0 + dy, x0 + dx);
            if y >= 0.0 && x >= 0.0 && y < h as f32 && x < w as f32 {
                let at = (y as usize * w + x as usize) * c;
                out.iter_mut().zip(&from[at..]).for_each(|(o, v)| *o += wy * wx * v);
            }
        }
    }
}

/// Place `i` of a permutation of 0..n that the key chooses.
///
/// A Feistel network over the next even power of two, walked until it falls below n: any place is found alone, without
/// shuffling the whole set.
fn permute(key: Key, n: usize, i: usize) -> usize {
    let half = (usize::BITS - n.saturating_sub(1).leading_zeros()).div_ceil(2).max(1);
    let mask = (1u64 << half) - 1;
    let mut at = i as u64;
    loop {
        let (mut left, mut right) = (at >> half, at & mask);
        for round in 0..4 {
            let mixed = u64::from(key.fold(round << 32 | right).words()[0]);
            (left, right) = (right, (left ^ mixed) & mask);
        }
        at = left << half | right;
        if (at as usize) < n {
            return at as usize;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(n: usize) -> Arc<ImageSet> {
        let labels: Vec<u32> = (0..n as u32).collect();
        let names = labels.iter().map(|l| l.to_string()).collect();
        let pixels = labels.iter().flat_map(|&l| [l as u8, (l >> 8) as u8]).collect();
        Arc::new(ImageSet::new([1, 2, 1], pixels, labels, names))
    }

    #[test]
    fn an_epoch_visits_every_image_once_and_epochs_differ() {
        for n in [1, 2, 3, 64, 100, 1000] {
            let batches = BatchSampler::new(set(n), 1, 9).unwrap();
            let epoch = |e: usize| (0..n).map(|i| batches.batch((e * n + i) as u64).y.u32s()[0]).collect::<Vec<_>>();
            let mut seen = epoch(0);
            assert!(n < 64 || seen != epoch(1));
            assert!(n < 64 || !seen.is_sorted());
            seen.sort_unstable();
            assert_eq!(seen, (0..n as u32).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_batch_is_replayed_by_number_and_pixels_belong_to_labels() {
        let batches = BatchSampler::new(set(300), 7, 1).unwrap();
        assert_eq!(batches.per_epoch(), 42);
        let (a, b) = (batches.batch(57), batches.batch(57));
        assert_eq!((a.x.f32s(), a.y.u32s()), (b.x.f32s(), b.y.u32s()));
        for (x, &y) in a.x.f32s().chunks_exact(2).zip(a.y.u32s()) {
            assert_eq!((x[0] * 255.0).round() as u32 + 256 * (x[1] * 255.0).round() as u32, y);
        }
        let signed = batches.range(Range::Signed).batch(57);
        assert!(signed.x.f32s().iter().zip(a.x.f32s()).all(|(s, u)| (s - (2.0 * u - 1.0)).abs() < 1e-6));
        assert!(BatchSampler::new(set(3), 4, 1).is_err());
    }

    #[test]
    fn the_first_places_of_an_epoch_are_spread_over_the_set() {
        let n = 60_000;
        let mean = (0..1000).map(|i| permute(Key::new(4), n, i) as f64).sum::<f64>() / 1000.0;
        assert!((mean - 30_000.0).abs() < 5.0 * 60_000.0 / (12.0f64 * 1000.0).sqrt(), "{mean}");
    }

    #[test]
    fn augmentations_do_what_they_say() {
        let shape = [9, 9, 1];
        let mut bar = vec![0.0; 81];
        (0..9).for_each(|y| bar[y * 9 + 2] = 1.0);
        let centre = |v: &[f32]| {
            let total: f32 = v.iter().sum();
            v.iter().enumerate().map(|(i, v)| v * (i % 9) as f32).sum::<f32>() / total
        };
        let with = |augment: Augment, k: u64| {
            let mut image = bar.clone();
            augment.apply(&mut image, shape, Key::new(k));
            image
        };
        assert_eq!(with(Augment::default(), 0), bar);
        let flips = (0..40).filter(|&k| centre(&with(Augment { flip: true, ..Default::default() }, k)) == 6.0).count();
        assert!((8..=32).contains(&flips), "{flips}");
        let shifts: Vec<f32> =
            (0..40).map(|k| centre(&with(Augment { shift: 1.0, ..Default::default() }, k))).collect();
        assert!(shifts.iter().all(|s| (1.0..=3.0).contains(s)) && shifts.iter().any(|s| (s - 2.0).abs() > 0.5));
        let turned = with(Augment { rotate: 20.0, ..Default::default() }, 3);
        let slope = (0..9).map(|x| turned[9 + x] * x as f32).sum::<f32>()
            - (0..9).map(|x| turned[63 + x] * x as f32).sum::<f32>();
        assert!(slope.abs() > 0.2, "a turned bar leans: {slope}");
        let noisy = with(Augment { noise: 0.1, ..Default::default() }, 3);
        assert!(noisy.iter().all(|v| (0.0..=1.0).contains(v)) && noisy != bar);
    }
}
