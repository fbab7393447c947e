//! Alphabets, their characters, and one character written by many hands.

use std::f32::consts::{FRAC_PI_2, PI};

use metaforge_autodiff::Key;
use rand::Rng;

use super::part::{Hand, Kind, Part, pick};
use crate::stroke::{Point, Strokes, noise};

/// A style: which pen movements there are, how many a character has, how they hang together.
#[derive(Clone, Debug)]
pub struct Alphabet {
    key: Key,
    library: Vec<(Part, f32)>,
    /// Numbers of strokes and their weights.
    strokes: [(usize, f32); 5],
    /// Chance that a stroke touches an earlier one.
    attach: f64,
    /// Width over height of the nominal box, and half its height in half pages.
    aspect: f32,
    large: f32,
}

/// A character: its pen movements and where they lie.
#[derive(Clone, Debug)]
pub struct Character {
    key: Key,
    writers: Key,
    parts: Vec<Placed>,
}

/// A pen movement, its scale and where the mean of its points lies, in half pages from the middle.
#[derive(Clone, Debug)]
struct Placed {
    part: Part,
    scale: f32,
    place: Point,
}

/// The sub-stream of an alphabet's writers, beyond all its characters.
const WRITERS: u64 = 1 << 40;

/// What a character has at least, of [`Part::effort`].
const LEAST_EFFORT: f32 = 2.6;

impl Alphabet {
    /// Alphabet `number` of the world that `world` is the key of.
    pub fn new(world: Key, number: u64) -> Self {
        let key = world.fold(number);
        let rng = &mut key.rng();
        let mean = rng.random_range(1.0f32..4.0);
        let strokes = [1, 2, 3, 4, 5].map(|n| (n, (-0.8 * (n as f32 - mean).powi(2)).exp()));
        // Some alphabets are of long movements, some of many short ones.
        let cursive = f64::from((0.75 - 0.2 * mean).max(0.0));
        let kinds = Kind::ALL.map(|(kind, liked)| (kind, liked * noise(rng, 1.0).exp()));
        let loose = pick(&[(0.04, 2.0), (0.3, 1.0)], rng);
        let library = (0..rng.random_range(5..=9))
            .map(|_| {
                let mut part = Part::new(pick(&kinds, rng), loose, rng);
                if rng.random_bool(cursive) {
                    part = part.then(Part::new(pick(&kinds, rng), loose, rng));
                }
                (part, noise(rng, 0.5).exp())
            })
            .collect();
        let attach = rng.random_range(0.5..0.95);
        let (aspect, large) = (noise(rng, 0.2).exp(), (0.62 * noise(rng, 0.2).exp()).min(0.78));
        Alphabet { key, library, strokes, attach, aspect, large }
    }

    /// Character `number` of this alphabet.
    pub fn character(&self, number: u64) -> Character {
        let key = self.key.fold(number);
        let rng = &mut key.rng();
        let mut all = Strokes::default();
        let mut parts = Vec::new();
        let count = pick(&self.strokes, rng);
        // A bare line or bow is too little to tell characters apart: another stroke, then.
        while parts.len() < count || parts.iter().map(|p: &Placed| p.part.effort()).sum::<f32>() < LEAST_EFFORT {
            let first = parts.is_empty();
            let part = &self.library[pick_at(&self.library, rng)].0;
            let part = if rng.random_bool(0.2) { part.mirrored() } else { part.clone() };
            let turn = pick(&[(0.0, 4.0), (FRAC_PI_2, 1.0), (-FRAC_PI_2, 1.0), (PI, 0.7)], rng);
            let part = part.varied(turn, 0.2, rng);
            let scale = noise(rng, 0.2).exp() * if first { 1.0 } else { 0.8 };
            let before = all.points.len();
            let [lo, hi] = all.bounds();
            part.walk(scale, 0.1, Hand::STEADY, rng, &mut all);
            let open = all.points.len() - before;
            let ends = [(0, 3.0), (open / 2, 1.5), (open - 1, 1.5)];
            let (from, to): (usize, Point) = if first {
                (0, [0.0; 2])
            } else if rng.random_bool(self.attach) {
                // An end or the middle meets an earlier point: ends, middles and quarters stand more often than chance.
                (pick(&ends, rng), all.points[rng.random_range(0..=8) * (before - 1) / 8])
            } else {
                // Beside, above or below what is there.
                let side = rng.random_range(0..2);
                let mut to =
                    [lo[0] + (hi[0] - lo[0]) * rng.random::<f32>(), lo[1] + (hi[1] - lo[1]) * rng.random::<f32>()];
                to[side] = if rng.random_bool(0.5) { lo[side] - 0.35 } else { hi[side] + 0.35 };
                (open / 2, to)
            };
            let from = all.points[before + from];
            all.open().iter_mut().for_each(|p| *p = [p[0] + to[0] - from[0], p[1] + to[1] - from[1]]);
            all.lift();
            parts.push(Placed { part, scale, place: [0.0; 2] });
        }
        // Fit the page: the box of the whole is centred and brought to the nominal size; a dot stays small.
        let [lo, hi] = all.bounds();
        let middle = [0.5 * (lo[0] + hi[0]), 0.5 * (lo[1] + hi[1])];
        let reach = (0.5 * (hi[0] - lo[0]) / self.aspect).max(0.5 * (hi[1] - lo[1]));
        let fit = (self.large * noise(rng, 0.12).exp() / reach).min(1.3).min(0.8 / (0.5 * (hi[0] - lo[0])).max(reach));
        for (placed, stroke) in parts.iter_mut().zip(all.iter()) {
            let mean = mean(stroke);
            placed.place = [fit * (mean[0] - middle[0]), fit * (mean[1] - middle[1])];
            placed.scale *= fit;
        }
        Character { key, writers: self.key.fold(WRITERS), parts }
    }
}

/// The place of one of the weighted values.
fn pick_at<T>(weighted: &[(T, f32)], rng: &mut impl Rng) -> usize {
    let places: Vec<(usize, f32)> = weighted.iter().enumerate().map(|(i, w)| (i, w.1)).collect();
    pick(&places, rng)
}

fn mean(points: &[Point]) -> Point {
    let n = points.len() as f32;
    points.iter().fold([0.0; 2], |m, p| [m[0] + p[0] / n, m[1] + p[1] / n])
}

impl Character {
    /// Writes drawing `number` of this character into `out` `[size, size]`: ink 1, background 0.
    ///
    /// Drawing `n` of every character of an alphabet is by the same writer, as in Omniglot. The pen is Omniglot's: about a
    /// twentieth of the page wide.
    pub fn draw(&self, number: u64, out: &mut [f32], size: usize) {
        let writer = &mut self.writers.fold(number).rng();
        let (lean, tall, large) = (noise(writer, 0.08), noise(writer, 0.07), noise(writer, 0.14));
        let care = noise(writer, 0.25).exp();
        let half = size as f32 / 2.0;
        let radius = 0.024 * size as f32 * noise(writer, 0.06).exp();

        let rng = &mut self.key.fold(number).rng();
        let hand = Hand { stretch: 0.075 * care, turn: 0.06 * care, tremble: 0.12 * care };
        let mut strokes = Strokes::default();
        for Placed { part, scale, place } in &self.parts {
            part.walk(scale * noise(rng, 0.06 * care).exp(), 3.0 / size as f32, hand, rng, &mut strokes);
            let open = strokes.open();
            let mean = mean(open);
            let by = [place[0] - mean[0] + noise(rng, 0.04 * care), place[1] - mean[1] + noise(rng, 0.04 * care)];
            open.iter_mut().for_each(|p| *p = [p[0] + by[0], p[1] + by[1]]);
            strokes.lift();
        }
        let large = (large + noise(rng, 0.08)).exp();
        let (wide, tall) = (large * (noise(rng, 0.06) - tall).exp(), large * (noise(rng, 0.06) + tall).exp());
        let (sin, cos) = noise(rng, 0.05).sin_cos();
        let shear = lean + noise(rng, 0.05);
        let shift = [noise(rng, 0.1), noise(rng, 0.1)];
        strokes.map(|[x, y]| {
            let (x, y) = (wide * (x - shear * y), tall * y);
            [half * (1.0 + cos * x - sin * y + shift[0]), half * (1.0 + sin * x + cos * y + shift[1])]
        });
        out.fill(0.0);
        strokes.draw(radius, out, size);
    }
}
