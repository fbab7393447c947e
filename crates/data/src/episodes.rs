//! N-way K-shot episodes over any source of classes, replayable by number.

use std::sync::Arc;

use metaforge_autodiff::{Key, Tensor};
use rand::Rng;
use rand::seq::index;
use rayon::prelude::*;

use crate::Error;

/// A source of images by class: embedded glyphs and digits, or an [`crate::ImageSet`] read from outside.
pub trait Classes: Send + Sync {
    /// Number of classes.
    fn classes(&self) -> usize;

    /// Name of a class, for messages and reports.
    fn class_name(&self, class: usize) -> String;

    /// Number of images of a class.
    fn images(&self, class: usize) -> usize;

    /// `[H, W, C]`, the same for every image.
    fn image_shape(&self) -> [usize; 3];

    /// Writes the images `picks` of a class into `out` `[picks, H, W, C]`, values 0..=1. Panics when there is no such image.
    fn read(&self, class: usize, picks: &[usize], out: &mut [f32]);
}

/// What quarter turns do. Papers differ, and a number means little without it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rotations {
    /// Nothing is turned.
    #[default]
    None,
    /// Every class is four classes (Vinyals et al. 2016, prototypical networks): one character at two turns can be two
    /// classes of an episode.
    AsClasses,
    /// Every class of an episode is turned by a drawn angle (MAML): a character stands in an episode once.
    PerEpisode,
}

/// The shape of an episode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct EpisodeConfig {
    /// Classes N.
    pub ways: usize,
    /// Support images K of a class.
    pub shots: usize,
    /// Query images Q of a class.
    pub queries: usize,
    /// What quarter turns do.
    #[serde(default)]
    pub rotations: Rotations,
}

/// One few-shot task. Rows are class by class: the support images of label 0, then those of label 1, ...; the same for the query.
#[derive(Clone, Debug)]
pub struct Episode {
    /// `[N * K, H, W, C]`.
    pub support_x: Tensor,
    /// `[N * K]`, u32.
    pub support_y: Tensor,
    /// `[N * Q, H, W, C]`.
    pub query_x: Tensor,
    /// `[N * Q]`, u32.
    pub query_y: Tensor,
    /// N.
    pub ways: usize,
    /// K.
    pub shots: usize,
    /// Q.
    pub queries: usize,
    /// Class and quarter turns (counter-clockwise) behind every label.
    pub classes: Vec<(usize, usize)>,
}

/// Draws episodes from a source.
#[derive(Clone)]
pub struct EpisodeSampler {
    source: Arc<dyn Classes>,
    config: EpisodeConfig,
    key: Key,
}

impl EpisodeSampler {
    /// Episodes of shape `config` from `source`; episode `i` of a seed is always the same.
    ///
    /// Fails when there are too few classes or a class has too few images for an episode, when N, K or Q is 0, or when images that are not
    /// square are to be turned.
    pub fn new(source: Arc<dyn Classes>, config: EpisodeConfig, seed: u64) -> Result<Self, Error> {
        let EpisodeConfig { ways, shots, queries, rotations } = config;
        if ways == 0 || shots == 0 || queries == 0 {
            return Err(Error::Setting("an episode has at least one way, one shot and one query".into()));
        }
        let [h, w, _] = source.image_shape();
        if rotations != Rotations::None && h != w {
            return Err(Error::Setting(format!("images of {h}x{w} cannot be turned by quarters: choose no rotations")));
        }
        let sampler = EpisodeSampler { source, config, key: Key::new(seed) };
        let have = sampler.virtual_classes();
        if have < ways {
            return Err(Error::TooFewClasses { have, need: ways });
        }
        let source = &sampler.source;
        let need = shots + queries;
        // Endless sources are uniform; the first classes stand for the rest.
        match (0..source.classes().min(1 << 16)).find(|&c| source.images(c) < need) {
            Some(c) => Err(Error::TooFewImages { class: source.class_name(c), have: source.images(c), need }),
            None => Ok(sampler),
        }
    }

    /// The shape of its episodes.
    pub fn config(&self) -> EpisodeConfig {
        self.config
    }

    /// `[H, W, C]` of its images.
    pub fn image_shape(&self) -> [usize; 3] {
        self.source.image_shape()
    }

    fn virtual_classes(&self) -> usize {
        let turns = if self.config.rotations == Rotations::AsClasses { 4 } else { 1 };
        self.source.classes() * turns
    }

    /// Episode `number`: depends on the source, the configuration, the seed and the number alone.
    ///
    /// Classes are drawn without replacement in random order (their place is their label), then K + Q different images of
    /// each, the first K for the support.
    pub fn episode(&self, number: u64) -> Episode {
        let EpisodeConfig { ways, shots, queries, rotations } = self.config;
        let shape = self.source.image_shape();
        let [h, w, c] = shape;
        let size = h * w * c;
        let rng = &mut self.key.fold(number).rng();
        let mut classes = Vec::with_capacity(ways);
        let mut support = vec![0.0; ways * shots * size];
        let mut query = vec![0.0; ways * queries * size];
        let drawn = index::sample(rng, self.virtual_classes(), ways);
        let rows = support.chunks_exact_mut(shots * size).zip(query.chunks_exact_mut(queries * size));
        for (class, (support, query)) in drawn.iter().zip(rows) {
            let (class, turns) = match rotations {
                Rotations::None => (class, 0),
                Rotations::AsClasses => (class / 4, class % 4),
                Rotations::PerEpisode => (class, rng.random_range(0..4)),
            };
            let picks = index::sample(rng, self.source.images(class), shots + queries).into_vec();
            self.source.read(class, &picks[..shots], support);
            self.source.read(class, &picks[shots..], query);
            for image in support.chunks_exact_mut(size).chain(query.chunks_exact_mut(size)) {
                turn(image, h, c, turns);
            }
            classes.push((class, turns));
        }
        let images = |n: usize, data| Tensor::new([ways * n, h, w, c], data);
        let labels = |n: usize| Tensor::from_u32([ways * n], (0..ways * n).map(|i| (i / n) as u32).collect());
        Episode {
            support_x: images(shots, support),
            support_y: labels(shots),
            query_x: images(queries, query),
            query_y: labels(queries),
            ways,
            shots,
            queries,
            classes,
        }
    }

    /// The `count` episodes from `first` on, drawn in parallel: the meta-batch `first / count`.
    pub fn episodes(&self, first: u64, count: usize) -> Vec<Episode> {
        (0..count as u64).into_par_iter().map(|i| self.episode(first + i)).collect()
    }
}

/// Turns a square image `[side, side, c]` by quarters, counter-clockwise.
fn turn(image: &mut [f32], side: usize, c: usize, quarters: usize) {
    if quarters.is_multiple_of(4) {
        return;
    }
    let from = image.to_vec();
    let last = side - 1;
    for (y, row) in image.chunks_exact_mut(side * c).enumerate() {
        for (x, pixel) in row.chunks_exact_mut(c).enumerate() {
            let (sy, sx) = match quarters % 4 {
                1 => (x, last - y),
                2 => (last - y, last - x),
                _ => (last - x, y),
            };
            pixel.copy_from_slice(&from[(sy * side + sx) * c..][..c]);
        }
    }
}

#[cfg(test)]
#[path = "episodes_tests.rs"]
mod tests;
