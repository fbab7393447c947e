//! A pen movement as a turtle would walk it: lengths, bends and corners, which is also where the hand's noise enters.

use std::f32::consts::{FRAC_PI_2, FRAC_PI_4, PI, TAU};

use rand::Rng;

use crate::stroke::{Point, Strokes, noise};

/// One of the values, with chances in proportion to their weights.
pub(super) fn pick<T: Copy>(weighted: &[(T, f32)], rng: &mut impl Rng) -> T {
    let mut left = rng.random::<f32>() * weighted.iter().map(|w| w.1).sum::<f32>();
    for &(value, weight) in weighted {
        left -= weight;
        if left < 0.0 {
            return value;
        }
    }
    weighted[weighted.len() - 1].0
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
    /// Every kind and how much it is liked on average.
    pub(super) const ALL: [(Kind, f32); 7] = [
        (Kind::Line, 1.6),
        (Kind::Arc, 1.2),
        (Kind::Hook, 1.0),
        (Kind::Loop, 0.6),
        (Kind::Wave, 0.5),
        (Kind::Zigzag, 1.3),
        (Kind::Dot, 0.15),
    ];
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
    /// A new movement of a kind. Hands write rightward and downward, mostly upright: headings and corners are multiples of
    /// 45 degrees but for a deviation of `loose` radians.
    pub(super) fn new(kind: Kind, loose: f32, rng: &mut impl Rng) -> Part {
        const HEADINGS: [(f32, f32); 5] =
            [(0.0, 4.0), (FRAC_PI_2, 4.0), (FRAC_PI_4, 1.2), (3.0 * FRAC_PI_4, 1.5), (PI, 1.2)];
        const CORNERS: [(f32, f32); 3] = [(FRAC_PI_2, 4.0), (3.0 * FRAC_PI_4, 1.5), (FRAC_PI_4, 0.7)];
        let side = if rng.random_bool(0.5) { 1.0 } else { -1.0 };
        let heading = pick(&HEADINGS, rng) + noise(rng, loose);
        let piece = |length: f32, bend: f32| Piece { corner: 0.0, length, bend, curl: 0.0 };
        let pieces = match kind {
            Kind::Line => vec![piece(rng.random_range(0.7..1.7), noise(rng, 0.08))],
            Kind::Arc => {
                let curl = rng.random_range(-0.6..0.6);
                vec![Piece { curl, ..piece(rng.random_range(1.0..2.2), side * rng.random_range(1.2..4.2)) }]
            }
            Kind::Hook => {
                let stem = piece(rng.random_range(0.7..1.4), noise(rng, 0.1));
                let hook = piece(rng.random_range(0.4..0.9), side * rng.random_range(1.6..3.6));
                if rng.random_bool(0.6) { vec![stem, hook] } else { vec![hook, stem] }
            }
            Kind::Loop => {
                let curl = rng.random_range(-0.3..0.3);
                vec![Piece {
                    curl,
                    ..piece(rng.random_range(1.3..3.2), side * rng.random_range(0.92 * TAU..1.1 * TAU))
                }]
            }
            Kind::Wave => {
                let bend = rng.random_range(1.4..3.8);
                let (a, b) = (rng.random_range(0.6..1.2), rng.random_range(0.6..1.2));
                vec![piece(a, side * bend), piece(b, -side * bend * rng.random_range(0.7..1.3))]
            }
            Kind::Zigzag => {
                let mut pieces = vec![piece(rng.random_range(0.5..1.4), noise(rng, 0.08))];
                let mut side = side;
                for _ in 0..=pick(&[(0.0, 3.0), (1.0, 3.0), (2.0, 1.0)], rng) as usize {
                    let corner = side * pick(&CORNERS, rng) + noise(rng, loose);
                    pieces.push(Piece { corner, ..piece(rng.random_range(0.4..1.3), noise(rng, 0.08)) });
                    if rng.random_bool(0.4) {
                        side = -side;
                    }
                }
                pieces
            }
            Kind::Dot => vec![piece(0.06, 0.0)],
        };
        Part { heading, pieces }
    }

    /// How much there is to it: 1 for a straight stretch, more the more it bends.
    pub(super) fn effort(&self) -> f32 {
        self.pieces.iter().map(|p| 1.0 + 0.5 * p.bend.abs()).sum()
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
