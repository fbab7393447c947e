//! Ten digits written by endless hands, the embedded stand-in for MNIST.
//!
//! A digit is one of a few stroke programs (the ways in which people write it), its knots moved by the hand's noise, slanted,
//! narrowed and drawn with pens of different widths. Framed as MNIST is: scaled to fit a 20x20 box, the centre of its ink in
//! the middle of 28x28. As hard as MNIST for the nearest neighbour in pixels (`tests/worlds.rs`).

mod programs;

use std::ops::Range;

use metaforge_autodiff::Key;
use rand::Rng;
use rayon::prelude::*;

use crate::stroke::{Point, Strokes, noise};
use crate::{Classes, ImageSet, Split};
use programs::{Knot, PROGRAMS};

/// Side of the picture.
const SIDE: usize = 28;
/// Side of the box that the ink fits, as in MNIST.
const BOX: f32 = 20.0;
/// Steps of a curve between two knots.
const STEPS: usize = 6;

/// The digits of one part: digit `i % 10` is what picture `i` shows.
#[derive(Clone, Copy, Debug)]
pub struct Digits {
    seed: u64,
    split: Split,
    per_class: usize,
}

impl Digits {
    /// One part of the digits of `seed`; parts share no picture. A million writings of each digit.
    pub fn new(seed: u64, split: Split) -> Self {
        Digits { seed, split, per_class: 1_000_000 }
    }

    /// What picture `i` shows.
    pub fn label(i: usize) -> u32 {
        (i % 10) as u32
    }

    /// Draws picture `i` into `out` `[28, 28]`, ink 1, background 0. It depends on the seed, the part and `i` alone.
    pub fn draw(&self, i: usize, out: &mut [f32]) {
        write(Digits::label(i) as usize, &mut Key::new(self.seed).fold(self.split.deal(i) as u64).rng(), out);
    }

    /// The pictures of a range, as an [`ImageSet`] of ten classes `[N, 28, 28, 1]`.
    pub fn set(&self, range: Range<usize>) -> ImageSet {
        let mut pixels = vec![0; range.len() * SIDE * SIDE];
        pixels.par_chunks_mut(SIDE * SIDE).zip(range.clone()).for_each(|(bytes, i)| {
            let mut picture = [0.0; SIDE * SIDE];
            self.draw(i, &mut picture);
            bytes.iter_mut().zip(picture).for_each(|(b, v)| *b = (v * 255.0).round() as u8);
        });
        let names = (0..10).map(|d| d.to_string()).collect();
        ImageSet::new([SIDE, SIDE, 1], pixels, range.map(Digits::label).collect(), names)
    }
}

impl Classes for Digits {
    fn classes(&self) -> usize {
        10
    }

    fn class_name(&self, class: usize) -> String {
        class.to_string()
    }

    fn images(&self, _class: usize) -> usize {
        self.per_class
    }

    fn image_shape(&self) -> [usize; 3] {
        [SIDE, SIDE, 1]
    }

    fn read(&self, class: usize, picks: &[usize], out: &mut [f32]) {
        for (&pick, out) in picks.iter().zip(out.chunks_exact_mut(SIDE * SIDE)) {
            self.draw(pick * 10 + class, out);
        }
    }
}

/// Writes a digit: program, knots, slant and width, frame, pen.
fn write(digit: usize, rng: &mut impl Rng, out: &mut [f32]) {
    let programs = PROGRAMS[digit];
    let mut at = rng.random_range(0..programs.iter().map(|p| p.weight).sum());
    let program = programs.iter().find(|p| {
        let here = at < p.weight;
        at = at.saturating_sub(p.weight);
        here
    });
    let program = program.expect("weights add up to the draw's limit");

    let care = noise(rng, 0.35).exp();
    let mut strokes = Strokes::default();
    let mut knots: Vec<Knot> = Vec::new();
    for stroke in program.strokes {
        let shift = [noise(rng, 0.02 * care), noise(rng, 0.02 * care)];
        knots.clear();
        for &(x, y, corner) in *stroke {
            knots.push((x + shift[0] + noise(rng, 0.04 * care), y + shift[1] + noise(rng, 0.04 * care), corner));
        }
        spline(&knots, &mut strokes.points);
        strokes.lift();
    }

    // Proportions: which half is the larger, how the stem bows; then slant, width and turn.
    let (low, bow) = (noise(rng, 0.2).exp(), noise(rng, 0.25));
    let (slant, wide, (sin, cos)) =
        ((0.15 + noise(rng, 0.25)).clamp(-0.3, 0.6), noise(rng, 0.24).exp(), noise(rng, 0.12).sin_cos());
    strokes.map(|[x, y]| {
        let y = y.max(0.0).powf(low);
        let x = wide * (x + bow * (y - 0.5) * (y - 0.5) - slant * y);
        [cos * x - sin * y, sin * x + cos * y]
    });

    let radius = (1.2 * noise(rng, 0.3).exp()).clamp(0.65, 2.5);
    let [lo, hi] = strokes.bounds();
    let scale = (BOX - 2.0 * radius) / (hi[0] - lo[0]).max(hi[1] - lo[1]).max(1e-3);
    let centre = strokes.centre();
    let middle = SIDE as f32 / 2.0;
    strokes.map(|[x, y]| [middle + scale * (x - centre[0]), middle + scale * (y - centre[1])]);
    out.fill(0.0);
    strokes.draw(radius, out, SIDE);
}

/// A Catmull-Rom curve through the knots, its direction broken at those marked as corners.
fn spline(knots: &[Knot], out: &mut Vec<Point>) {
    let slope = |i: usize, side: usize| -> Point {
        // At an end or a corner the curve leaves along the chord, elsewhere along its neighbours' chord.
        let (a, b) = match (i == 0, i + 1 == knots.len(), knots[i].2) {
            (true, ..) => (0, 1),
            (_, true, _) => (i - 1, i),
            (_, _, true) => (i - 1 + side, i + side),
            _ => (i - 1, i + 1),
        };
        let n = (b - a) as f32;
        [(knots[b].0 - knots[a].0) / n, (knots[b].1 - knots[a].1) / n]
    };
    out.push([knots[0].0, knots[0].1]);
    for i in 0..knots.len() - 1 {
        let (p, q) = (knots[i], knots[i + 1]);
        let (m, n) = (slope(i, 1), slope(i + 1, 0));
        for s in 1..=STEPS {
            let t = s as f32 / STEPS as f32;
            let (t2, t3) = (t * t, t * t * t);
            let (a, b, c, d) = (2.0 * t3 - 3.0 * t2 + 1.0, t3 - 2.0 * t2 + t, 3.0 * t2 - 2.0 * t3, t3 - t2);
            out.push([a * p.0 + b * m[0] + c * q.0 + d * n[0], a * p.1 + b * m[1] + c * q.1 + d * n[1]]);
        }
    }
}
