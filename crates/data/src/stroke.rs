//! Pen strokes: polylines, the affine maps that place them, and an anti-aliased pen that draws them.

use rand::Rng;
use rand_distr::{Distribution, StandardNormal};

/// How far a hand strays: normal noise, no further than 2.5 deviations, where a character would be another one.
pub(crate) fn noise(rng: &mut impl Rng, deviation: f32) -> f32 {
    let z: f32 = StandardNormal.sample(rng);
    z.clamp(-2.5, 2.5) * deviation
}

/// A point, x to the right and y downward.
pub(crate) type Point = [f32; 2];

/// Polylines in one buffer, a pen-down to pen-up stretch each.
#[derive(Clone, Debug, Default)]
pub(crate) struct Strokes {
    pub(crate) points: Vec<Point>,
    ends: Vec<usize>,
}

impl Strokes {
    /// Lifts the pen: what was pushed since the last lift is one stroke.
    pub(crate) fn lift(&mut self) {
        self.ends.push(self.points.len());
    }

    /// The points of the stroke that is being pushed.
    pub(crate) fn open(&mut self) -> &mut [Point] {
        let start = self.ends.last().copied().unwrap_or(0);
        &mut self.points[start..]
    }

    /// Every lifted stroke.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &[Point]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(a, &b)| &self.points[a..b])
    }

    /// Moves every point.
    pub(crate) fn map(&mut self, f: impl Fn(Point) -> Point) {
        self.points.iter_mut().for_each(|p| *p = f(*p));
    }

    /// Smallest and largest corner. Of no points: `[inf, inf]`, `[-inf, -inf]`.
    pub(crate) fn bounds(&self) -> [Point; 2] {
        self.points.iter().fold([[f32::INFINITY; 2], [f32::NEG_INFINITY; 2]], |[lo, hi], p| {
            [[lo[0].min(p[0]), lo[1].min(p[1])], [hi[0].max(p[0]), hi[1].max(p[1])]]
        })
    }

    /// Centre of the ink (each stretch weighs its length). Of ink without length: `[NaN, NaN]`.
    pub(crate) fn centre(&self) -> Point {
        let (mut sum, mut total) = ([0.0f32; 2], 0.0);
        for s in self.iter().flat_map(|stroke| stroke.windows(2)) {
            let length = (s[1][0] - s[0][0]).hypot(s[1][1] - s[0][1]);
            sum = [sum[0] + length * 0.5 * (s[0][0] + s[1][0]), sum[1] + length * 0.5 * (s[0][1] + s[1][1])];
            total += length;
        }
        [sum[0] / total, sum[1] / total]
    }

    /// Draws with a round pen of the given radius, all in pixels (pixel `[0, 0]` is centred at 0.5, 0.5), into `out`
    /// `[height, width]`, taking the maximum with what is there.
    ///
    /// The grey level is the overlap of the pen's profile with a pixel-wide box: exact for a straight stroke along an
    /// axis, and a stroke thinner than a pixel is pale rather than broken.
    pub(crate) fn draw(&self, radius: f32, out: &mut [f32], width: usize) {
        for stroke in self.iter() {
            for s in stroke.windows(2) {
                segment(s[0], s[1], radius, out, width);
            }
        }
    }
}

/// One straight stretch of the pen.
fn segment(a: Point, b: Point, radius: f32, out: &mut [f32], width: usize) {
    let reach = radius + 0.5;
    let height = out.len() / width;
    let first = |v: f32| (v - reach - 0.5).ceil().max(0.0) as usize;
    let last = |v: f32, n: usize| (v + reach + 0.5).floor().clamp(0.0, n as f32) as usize;
    let (x0, x1) = (first(a[0].min(b[0])), last(a[0].max(b[0]), width));
    let (y0, y1) = (first(a[1].min(b[1])), last(a[1].max(b[1]), height));
    if x0 >= x1 {
        return;
    }
    let d = [b[0] - a[0], b[1] - a[1]];
    let inverse = 1.0 / (d[0] * d[0] + d[1] * d[1]).max(1e-12);
    for y in y0..y1 {
        let ry = y as f32 + 0.5 - a[1];
        for (x, pixel) in out[y * width + x0..y * width + x1].iter_mut().enumerate() {
            let rx = (x + x0) as f32 + 0.5 - a[0];
            let t = ((rx * d[0] + ry * d[1]) * inverse).clamp(0.0, 1.0);
            let (ex, ey) = (rx - t * d[0], ry - t * d[1]);
            let far = (ex * ex + ey * ey).sqrt();
            let cover = (far + 0.5).min(radius) - (far - 0.5).max(-radius);
            *pixel = pixel.max(cover);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_straight_stroke_holds_its_area_of_ink() {
        for radius in [0.3f32, 0.8, 1.5] {
            let mut s = Strokes { points: vec![[-40.0, 9.3], [80.0, 9.3]], ends: vec![] };
            s.lift();
            let mut out = vec![0.0; 20 * 20];
            s.draw(radius, &mut out, 20);
            let ink: f32 = out.iter().sum();
            assert!((ink - 20.0 * 2.0 * radius).abs() < 1e-3, "radius {radius}: {ink}");
            assert!(out.iter().all(|v| (0.0..=1.0).contains(v)));
        }
    }

    #[test]
    fn strokes_off_the_page_leave_no_ink() {
        let mut s = Strokes { points: vec![[-9.0, -9.0], [-5.0, 40.0]], ends: vec![] };
        s.lift();
        let mut out = vec![0.0; 100];
        s.draw(1.0, &mut out, 10);
        assert!(out.iter().all(|&v| v == 0.0));
    }
}
