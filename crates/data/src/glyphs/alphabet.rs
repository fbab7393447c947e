//! Alphabets, their characters, and one character written by many hands.

use metaforge_autodiff::Key;
use rand::Rng;

use super::part::{Hand, Kind, Part, noise};
use crate::stroke::{Point, Strokes};

/// A style: which pen movements there are, how many a character has, how they hang together.
#[derive(Clone, Debug)]
pub struct Alphabet {
    key: Key,
    library: Vec<Part>,
    /// Weights of 1, 2, ... 5 strokes.
    strokes: [f32; 5],
    /// Chance that a stroke touches an earlier one.
    attach: f64,
    /// Width over height of the nominal box.
    aspect: f32,
    slant: f32,
}

/// A character: its pen movements and where they lie.
#[derive(Clone, Debug)]
pub struct Character {
    key: Key,
    writers: Key,
    parts: Vec<(Part, f32, Point)>,
}

const WRITERS: u64 = 1 << 40;

/// A number in 0..weights.len(), with chances in proportion to the weights.
fn choose(weights: &[f32], rng: &mut impl Rng) -> usize {
    let mut left = rng.random::<f32>() * weights.iter().sum::<f32>();
    weights
        .iter()
        .position(|&w| {
            left -= w;
            left < 0.0
        })
        .unwrap_or(weights.len() - 1)
}

impl Alphabet {
    /// Alphabet `number` of the world that `world` is the key of.
    pub fn new(world: Key, number: u64) -> Self {
        let key = world.fold(number);
        let rng = &mut key.rng();
        // How much each kind of movement is liked varies by e^2 and more between alphabets.
        let lean: Vec<f32> =
            [1.5f32, 1.3, 1.0, 0.7, 0.5, 0.8, 0.15].iter().map(|w| w * noise(rng, 1.0).exp()).collect();
        let quantum = [0.0, std::f32::consts::FRAC_PI_4, std::f32::consts::FRAC_PI_6][choose(&[2.0, 2.0, 1.0], rng)];
        let cursive = rng.random_range(0.0..0.5);
        let library = (0..rng.random_range(5..=9))
            .map(|_| {
                let part = Part::new(Kind::ALL[choose(&lean, rng)], quantum, rng);
                if rng.random_bool(cursive) {
                    part.then(Part::new(Kind::ALL[choose(&lean, rng)], quantum, rng))
                } else {
                    part
                }
            })
            .collect();
        let mean = rng.random_range(1.2f32..3.4);
        let strokes = [1.0f32, 2.0, 3.0, 4.0, 5.0].map(|n| (-0.8 * (n - mean).powi(2)).exp());
        let attach = rng.random_range(0.4..0.95);
        Alphabet { key, library, strokes, attach, aspect: noise(rng, 0.2).exp(), slant: noise(rng, 0.12) }
    }

    /// Character `number` of this alphabet.
    pub fn character(&self, number: u64) -> Character {
        let key = self.key.fold(number);
        let rng = &mut key.rng();
        let mut all = Strokes::default();
        let mut parts = Vec::new();
        for i in 0..=choose(&self.strokes, rng) {
            let part = &self.library[rng.random_range(0..self.library.len())];
            let part = if rng.random_bool(0.25) { part.mirrored() } else { part.clone() };
            let turn = [0.0, std::f32::consts::FRAC_PI_2, -std::f32::consts::FRAC_PI_2][choose(&[4.0, 1.0, 1.0], rng)];
            let part = part.varied(turn + noise(rng, 0.1), 0.25, rng);
            let scale = noise(rng, 0.25).exp() * if i == 0 { 1.0 } else { 0.75 };
            let before = all.points.len();
            part.walk(scale, 0.1, Hand::STEADY, rng, &mut all);
            let to: Point = if i == 0 {
                [0.0; 2]
            } else if rng.random_bool(self.attach) {
                // One of the stroke's ends or its middle meets a point of what is there, ends and middles preferred.
                all.points[(rng.random_range(0..=8) * (before - 1)) / 8]
            } else {
                [noise(rng, 0.7), noise(rng, 0.7)]
            };
            let open = all.open();
            let from = open[[0, open.len() / 2, open.len() - 1][choose(&[3.0, 1.0, 1.0], rng)]];
            open.iter_mut().for_each(|p| *p = [p[0] + to[0] - from[0], p[1] + to[1] - from[1]]);
            all.lift();
            parts.push((part, scale, [0.0; 2]));
        }
        // Fit the page: the box of the whole is centred and brought to a nominal size.
        let [lo, hi] = all.bounds();
        let middle = [0.5 * (lo[0] + hi[0]), 0.5 * (lo[1] + hi[1])];
        let reach = (0.5 * (hi[0] - lo[0]) / self.aspect.sqrt()).max(0.5 * (hi[1] - lo[1]) * self.aspect.sqrt());
        let fit = (0.62 * noise(rng, 0.15).exp() / reach.max(0.25)).min(1.6);
        for ((_, scale, place), stroke) in parts.iter_mut().zip(all.iter()) {
            let n = stroke.len() as f32;
            let mean = stroke.iter().fold([0.0f32; 2], |m, p| [m[0] + p[0] / n, m[1] + p[1] / n]);
            *place = [fit * (mean[0] - middle[0]), fit * (mean[1] - middle[1])];
            *scale *= fit;
        }
        let _ = self.slant;
        Character { key, writers: self.key.fold(WRITERS), parts }
    }
}

impl Character {
    /// Writes drawing `number` of this character into `out` `[size, size]`: ink 1, background 0.
    ///
    /// Drawing `n` of every character of an alphabet is by the same writer, as in Omniglot.
    pub fn draw(&self, number: u64, out: &mut [f32], size: usize) {
        let writer = &mut self.writers.fold(number).rng();
        let (lean, tall, large) = (noise(writer, 0.12), noise(writer, 0.1), noise(writer, 0.13));
        let care = noise(writer, 0.3).exp();
        let half = size as f32 / 2.0;
        let radius = 0.0125 * size as f32 * noise(writer, 0.1).exp();

        let rng = &mut self.key.fold(number).rng();
        let hand = Hand { stretch: 0.13 * care, turn: 0.13 * care, tremble: 0.25 * care };
        let mut strokes = Strokes::default();
        for (part, scale, place) in &self.parts {
            let scale = scale * noise(rng, 0.08 * care).exp();
            part.walk(scale, 3.0 / size as f32, hand, rng, &mut strokes);
            let open = strokes.open();
            let n = open.len() as f32;
            let mean = open.iter().fold([0.0f32; 2], |m, p| [m[0] + p[0] / n, m[1] + p[1] / n]);
            let by = [place[0] - mean[0] + noise(rng, 0.05 * care), place[1] - mean[1] + noise(rng, 0.05 * care)];
            open.iter_mut().for_each(|p| *p = [p[0] + by[0], p[1] + by[1]]);
            strokes.lift();
        }
        let large = (large + noise(rng, 0.06)).exp();
        let (wide, tall) = (large * (-tall + noise(rng, 0.05)).exp(), large * tall.exp());
        let (sin, cos) = noise(rng, 0.06).sin_cos();
        let shear = lean + noise(rng, 0.05);
        let shift = [noise(rng, 0.09), noise(rng, 0.09)];
        strokes.map(|[x, y]| {
            let (x, y) = (wide * (x - shear * y), tall * y);
            [half * (1.0 + cos * x - sin * y + shift[0]), half * (1.0 + sin * x + cos * y + shift[1])]
        });
        out.fill(0.0);
        strokes.draw(radius, out, size);
    }
}
