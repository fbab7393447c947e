//! A labelled set of images held as bytes, readable by position or by class.

use std::ops::Range;

use rayon::prelude::*;

use crate::episodes::Classes;

/// Images `[N, H, W, C]` as bytes (0..=255 stands for 0..=1) with a label each.
///
/// Images are sorted by class (stable), so a class is a range; `Classes` serves episodes from it and
/// [`crate::BatchSampler`] serves shuffled batches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageSet {
    shape: [usize; 3],
    pixels: Vec<u8>,
    labels: Vec<u32>,
    starts: Vec<usize>,
    names: Vec<String>,
}

impl ImageSet {
    /// Builds a set from `pixels` `[N, H, W, C]`, `labels` `[N]` and one name a class.
    ///
    /// Panics when the lengths do not fit `shape` or a label has no name.
    #[track_caller]
    pub fn new(shape: [usize; 3], pixels: Vec<u8>, labels: Vec<u32>, names: Vec<String>) -> Self {
        let size: usize = shape.iter().product();
        assert_eq!(
            pixels.len(),
            labels.len() * size,
            "{} bytes for {} images of {shape:?}",
            pixels.len(),
            labels.len()
        );
        let mut starts = vec![0; names.len() + 1];
        for &label in &labels {
            assert!((label as usize) < names.len(), "label {label} but {} class names", names.len());
            starts[label as usize + 1] += 1;
        }
        for c in 1..starts.len() {
            starts[c] += starts[c - 1];
        }
        if labels.is_sorted() {
            return ImageSet { shape, pixels, labels, starts, names };
        }
        let mut order: Vec<usize> = (0..labels.len()).collect();
        order.sort_by_key(|&i| labels[i]);
        let mut sorted = vec![0; pixels.len()];
        if size > 0 {
            sorted
                .par_chunks_mut(size)
                .zip(&order)
                .for_each(|(out, &i)| out.copy_from_slice(&pixels[i * size..][..size]));
        }
        let labels = order.iter().map(|&i| labels[i]).collect();
        ImageSet { shape, pixels: sorted, labels, starts, names }
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there is no image.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// `[H, W, C]`.
    pub fn shape(&self) -> [usize; 3] {
        self.shape
    }

    /// The label of every image, ascending.
    pub fn labels(&self) -> &[u32] {
        &self.labels
    }

    /// The name of every class.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The bytes of image `i`, `[H, W, C]`. Panics when there is no such image.
    pub fn image(&self, i: usize) -> &[u8] {
        let size: usize = self.shape.iter().product();
        &self.pixels[i * size..][..size]
    }

    /// Positions of the images of a class. Panics when there is no such class.
    pub fn class(&self, class: usize) -> Range<usize> {
        self.starts[class]..self.starts[class + 1]
    }

    /// The images of the given classes only, relabelled 0.. in the order given.
    pub fn keep(&self, classes: &[usize]) -> ImageSet {
        let (mut pixels, mut labels, mut names) = (Vec::new(), Vec::new(), Vec::new());
        for (label, &class) in classes.iter().enumerate() {
            for i in self.class(class) {
                pixels.extend_from_slice(self.image(i));
                labels.push(label as u32);
            }
            names.push(self.names[class].clone());
        }
        ImageSet::new(self.shape, pixels, labels, names)
    }
}

impl Classes for ImageSet {
    fn classes(&self) -> usize {
        self.names.len()
    }

    fn class_name(&self, class: usize) -> String {
        self.names[class].clone()
    }

    fn images(&self, class: usize) -> usize {
        self.class(class).len()
    }

    fn image_shape(&self) -> [usize; 3] {
        self.shape
    }

    fn read(&self, class: usize, picks: &[usize], out: &mut [f32]) {
        let size: usize = self.shape.iter().product();
        let range = self.class(class);
        for (&pick, out) in picks.iter().zip(out.chunks_exact_mut(size)) {
            assert!(pick < range.len(), "image {pick} of class {class}, which has {}", range.len());
            for (o, &b) in out.iter_mut().zip(self.image(range.start + pick)) {
                *o = f32::from(b) / 255.0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set() -> ImageSet {
        let names = ["a", "b", "c"].map(String::from).to_vec();
        ImageSet::new([1, 2, 1], vec![9, 1, 3, 2, 255, 4, 0, 5], vec![2, 0, 2, 1], names)
    }

    #[test]
    fn images_follow_their_labels_when_sorted_by_class() {
        let s = set();
        assert_eq!(s.labels(), [0, 1, 2, 2]);
        assert_eq!(
            (s.image(0), s.image(1), s.image(2), s.image(3)),
            (&[3u8, 2][..], &[0u8, 5][..], &[9u8, 1][..], &[255u8, 4][..])
        );
        assert_eq!(s.class(2), 2..4);
        let mut out = [0.0; 2];
        s.read(2, &[1], &mut out);
        assert_eq!(out, [1.0, 4.0 / 255.0]);
    }

    #[test]
    fn keep_relabels_in_the_order_given() {
        let s = set().keep(&[2, 0]);
        assert_eq!(s.labels(), [0, 0, 1]);
        assert_eq!(s.names(), ["c", "a"]);
        assert_eq!(s.image(2), [3, 2]);
    }
}
