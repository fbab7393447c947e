//! A pen movement as a turtle would walk it: lengths, bends and corners, which is also where the hand's noise enters.

use std::f32::consts::{FRAC_PI_2, PI, TAU};

use rand::Rng;
use rand_distr::{Distribution, StandardNormal};

use crate::stroke::{Point, Strokes};

/// Normal noise of the given deviation.
pub(super) fn noise(rng: &mut impl Rng, deviation: f32) -> f32 {
    let z: f32 = StandardNormal.sample(rng);
    z * deviation
}

/// A smooth stretch of a movement.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    /// Change of heading before it, in radians.
    corner: f32,
    /// Length, in units of half the page.
    length: f32,
    /// Change of heading along it.
    bend: f32,
    /// -1..1: whether the bend sits at the beginning or at the end.
    curl: f32,
}

/// The kinds of movement that alphabets prefer to different degrees.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Line,
    Arc,
    Hook,
    Loop,
    Wave,
    Zigzag,
    Dot,
}

impl Kind {
    pub(super) const ALL: [Kind; 7] =
        [Kind::Line, Kind::Arc, Kind::Hook, Kind::Loop, Kind::Wave, Kind::Zigzag, Kind::Dot];
}

/// A pen movement without its place on the page.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) heading: f32,
    pieces: Vec<Piece>,
}

/// How far one hand strays from a movement, in standard deviations.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hand {
    /// Relative, of lengths and bends.
    pub(super) stretch: f32,
    /// Radians, of headings, corners and bends.
    pub(super) turn: f32,
    /// Radians a square root of unit length: the tremble along the way.
    pub(super) tremble: f32,
}

impl Hand {
    /// No noise.
    pub(super) const STEADY: Hand = Hand { stretch: 0.0, turn: 0.0, tremble: 0.0 };
}

impl Part {
    /// A new movement of a kind. `quantum` is the angle that headings and corners are multiples of (0 = any).
    pub(super) fn new(kind: Kind, quantum: f32, rng: &mut impl Rng) -> Part {
        let snap = |angle: f32| if quantum > 0.0 { (angle / quantum).round() * quantum } else { angle };
        let side = if rng.random_bool(0.5) { 1.0 } else { -1.0 };
        let heading = snap(rng.random_range(-FRAC_PI_2..PI));
        let piece = |corner: f32, length: f32, bend: f32| Piece { corner, length, bend, curl: 0.0 };
        let pieces = match kind {
            Kind::Line => vec![piece(0.0, rng.random_range(0.6..1.8), noise(rng, 0.12))],
            Kind::Arc => vec![Piece {
                curl: rng.random_range(-0.6..0.6),
                ..piece(0.0, rng.random_range(0.8..2.2), side * rng.random_range(0.9..4.0))
            }],
            Kind::Hook => {
                let stem = piece(0.0, rng.random_range(0.6..1.5), noise(rng, 0.2));
                let hook = piece(0.0, rng.random_range(0.3..0.9), side * rng.random_range(1.6..4.0));
                if rng.random_bool(0.6) { vec![stem, hook] } else { vec![hook, stem] }
            }
            Kind::Loop => vec![Piece {
                curl: rng.random_range(-0.3..0.3),
                ..piece(0.0, rng.random_range(1.0..3.2), side * rng.random_range(0.9 * TAU..1.15 * TAU))
            }],
            Kind::Wave => {
                let bend = rng.random_range(1.2..3.6);
                let (a, b) = (rng.random_range(0.5..1.2), rng.random_range(0.5..1.2));
                vec![piece(0.0, a, side * bend), piece(0.0, b, -side * bend * rng.random_range(0.7..1.3))]
            }
            Kind::Zigzag => {
                let mut pieces = vec![piece(0.0, rng.random_range(0.5..1.4), noise(rng, 0.15))];
                let mut side = side;
                for _ in 0..rng.random_range(1..=3) {
                    let corner = snap(side * rng.random_range(0.9..2.6));
                    pieces.push(piece(corner, rng.random_range(0.4..1.3), noise(rng, 0.15)));
                    if rng.random_bool(0.6) {
                        side = -side;
                    }
                }
                pieces
            }
            Kind::Dot => vec![piece(0.0, 0.06, 0.0)],
        };
        Part { heading, pieces }
    }

    /// This movement and another one without lifting the pen.
    pub(super) fn then(mut self, next: Part) -> Part {
        let mut pieces = next.pieces;
        pieces[0].corner += next.heading - self.heading;
        self.pieces.append(&mut pieces);
        self
    }

    /// The movement seen in a mirror.
    pub(super) fn mirrored(&self) -> Part {
        let pieces = self.pieces.iter().map(|p| Piece { corner: -p.corner, bend: -p.bend, ..*p }).collect();
        Part { heading: PI - self.heading, pieces }
    }

    /// The movement with other proportions: each length and bend varied by the relative deviation.
    pub(super) fn varied(&self, heading: f32, deviation: f32, rng: &mut impl Rng) -> Part {
        let vary = |p: &Piece, rng: &mut _| Piece {
            length: p.length * noise(rng, deviation).exp(),
            bend: p.bend * noise(rng, 0.7 * deviation).exp(),
            ..*p
        };
        Part { heading: self.heading + heading, pieces: self.pieces.iter().map(|p| vary(p, rng)).collect() }
    }

    /// Walks the movement at `scale` from the origin with a hand's noise, in steps of about `step`; one stroke more in `out`.
    pub(super) fn walk(&self, scale: f32, step: f32, hand: Hand, rng: &mut impl Rng, out: &mut Strokes) {
        let mut heading = self.heading + noise(rng, hand.turn);
        let mut at: Point = [0.0; 2];
        out.points.push(at);
        for piece in &self.pieces {
            let length = scale * piece.length * noise(rng, hand.stretch).exp();
            let bend = piece.bend * noise(rng, hand.stretch).exp() + noise(rng, hand.turn);
            let steps = ((length / step).ceil() as usize).clamp(1, 200);
            let n = steps as f32;
            if piece.corner != 0.0 {
                heading += piece.corner + noise(rng, hand.turn);
            }
            let tremble = hand.tremble * (length / n).sqrt();
            for i in 0..steps {
                let t = (i as f32 + 0.5) / n;
                heading += bend / n * (1.0 + piece.curl * (2.0 * t - 1.0)) + noise(rng, tremble);
                let (sin, cos) = heading.sin_cos();
                at = [at[0] + cos * length / n, at[1] + sin * length / n];
                out.points.push(at);
            }
        }
    }
}
