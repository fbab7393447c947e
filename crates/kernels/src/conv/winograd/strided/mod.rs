//! Convolutions of 3 x 3 taps and stride 2 with fewer multiplications (Winograd's minimal filtering on the phases of the stride), all three passes.
//!
//! [`lines`] has the algorithms of one axis, of which both are nested: tiles of 4 pixels of y take 9 multiplications an axis where the direct way takes 12,
//! those of 3 take 7 instead of 9, and 4 between paddings 8 instead of 10. Of both axes together that is 56 to 64 % for each pair of channels. The
//! products of the four phases add up at a point before it is read off, so a point is one matrix product over four times the channels;
//! and as the middle tap is the same at all points, 36 matrices of transformed weights (25 without the point `C`) serve all of them.
//!
//! Transforms and memory take some of that back, because pixels are read once more for each of a few channels' products. Channels are therefore taken some at a
//! time, so that pixels, weights and products or sums stay in the second-level cache, and what meets in one product in the first-level cache.
//! [`Plan::if_worth`] says where it is worth it.
//!
//! The price is rounding, as in [`super`]: the largest errors of a result in f32, in units of the root of its mean square (forward, input
//! gradient, weight gradient), of 8 images:
//!
//! | channels | 14 x 14 to 7 x 7       | 7 x 7 to 4 x 4         |
//! |----------|------------------------|------------------------|
//! | 64       | 6.3e-6, 6.6e-6, 2.4e-6 | 5.2e-6, 3.3e-6, 1.1e-6 |
//! | 128      | 6.2e-6, 6.8e-6, 2.5e-6 | 4.8e-6, 4.7e-6, 1.4e-6 |
//! | 256      | 7.8e-6, 7.0e-6, 3.0e-6 | 4.4e-6, 4.9e-6, 1.5e-6 |
//!
//! The input gradient is the adjoint, map by map: tiles of it meet in one row of pixels, and are added there. The weight gradient is the
//! adjoint in the weights: the sums of all products with one matrix are one sum.

mod correlate;
mod gather;
mod lines;
#[cfg(test)]
mod tests;
mod weight_grad;

pub(in crate::conv) use correlate::Correlation;
use correlate::block;
pub(in crate::conv) use weight_grad::weight_grad;

use super::tiles::{Grid, Tiling};
use super::{ROW, gap};
use crate::conv::ConvDims;

/// A value of an axis: the point whose product it is part of, and the weight that it meets.
#[derive(Clone, Copy)]
struct Value {
    point: usize,
    weight: usize,
}

const fn value(point: usize, weight: usize) -> Value {
    Value { point, weight }
}

/// Points are 0, `A`, `-A`, infinity, `C`; weights the middle tap and the outer two at each point. Tiles of 3 have the first seven of these values, tiles of
/// 4 all.
const VALUES: [Value; 9] = [
    value(0, 1),
    value(1, 2),
    value(2, 3),
    value(3, 4),
    value(0, 0),
    value(1, 0),
    value(2, 0),
    value(4, 5),
    value(4, 0),
];

/// The values of 4 pixels between paddings.
const BETWEEN: [Value; 8] =
    [value(0, 1), value(1, 2), value(2, 3), value(3, 4), value(0, 0), value(1, 0), value(2, 0), value(3, 0)];

/// What a value of a transform costs, in registers of multiply-adds: most of it is waiting for memory.
const TRANSFORM: usize = 32;
/// What a transformed weight costs each block of images, which makes it anew, and the sum that a weight's gradient is collected from.
const WEIGHT: usize = 12;
const SUM: usize = 24;

/// Images from which on there is something to share among threads.
const IMAGES: usize = 16;
/// Elements of the values of an image, the least that is transformed at a time, that are too many to be kept by each thread.
const LARGE: usize = 1 << 20;

/// A pass of a convolution.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::conv) enum Pass {
    Forward,
    InputGrad,
    WeightGrad,
}

impl Pass {
    /// What the direct way takes, in percent of its multiply-adds, as measured on one and two threads. More threads make more of the weights anew, but their number
    /// must not decide what is computed.
    fn direct(self) -> usize {
        match self {
            Pass::Forward | Pass::InputGrad => 112,
            Pass::WeightGrad => 120,
        }
    }
}

/// A kind of tile along an axis.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// 4 pixels of y, of which the first and the last reach onto padding.
    Between,
    Four,
    Three,
}

impl Kind {
    /// Pixels of y.
    fn size(self) -> usize {
        if self == Kind::Three { 3 } else { 4 }
    }
}

/// The tiles along an axis: some of one kind, and tiles of 3 after them.
#[derive(Clone, Copy, Debug)]
struct Axis {
    first: Kind,
    tiles: [usize; 2],
    pad: usize,
}

impl Axis {
    fn new(out: usize, pad: usize) -> Self {
        let all = out.div_ceil(4);
        let threes = all.min(4 * all - out);
        Axis { first: Kind::Four, tiles: [all - threes, threes], pad }
    }

    /// Whether all of y are 4 pixels of which the first and the last reach onto padding.
    fn is_between(out: usize, hw: usize, pad: usize) -> bool {
        out == 4 && pad >= 1 && hw + pad <= 8
    }

    fn values(&self) -> &'static [Value] {
        match self.first {
            Kind::Between => &BETWEEN,
            _ if self.tiles[0] == 0 => &VALUES[..7],
            _ => &VALUES,
        }
    }

    fn points(&self) -> usize {
        if self.values().len() == VALUES.len() { 5 } else { 4 }
    }

    /// Multiplications for a pair of channels and one position along the other axis.
    fn products(&self) -> usize {
        self.tiles[0] * if self.first == Kind::Between { 8 } else { 9 } + self.tiles[1] * 7
    }

    /// The kind of the tiles before, or of those after, where they begin in y, and how many there are.
    fn part(&self, after: bool) -> (Kind, usize, usize) {
        if after { (Kind::Three, 4 * self.tiles[0], self.tiles[1]) } else { (self.first, 0, self.tiles[0]) }
    }

    /// Where the pixels of x end that tiles cover.
    fn end(&self) -> isize {
        let last = if self.first == Kind::Between { 8 } else { 1 + 8 * self.tiles[0] + 6 * self.tiles[1] };
        last as isize - self.pad as isize
    }

    /// The pixel of x that a tile which begins with this pixel of y begins with.
    fn source(&self, kind: Kind, first: usize) -> isize {
        (2 * first + usize::from(kind == Kind::Between)) as isize - self.pad as isize
    }
}

/// The tiles of one kind along both axes.
#[derive(Clone, Copy, Debug)]
struct Tiles {
    kinds: [Kind; 2],
    /// Tiles of an image.
    tiles: [usize; 2],
    /// Tiles of an image that lie before these in the planes.
    before: usize,
    /// Their first pixels, of y and of x.
    first: [usize; 2],
    source: [isize; 2],
}

impl Tiles {
    fn count(&self) -> usize {
        self.tiling().count()
    }

    /// By themselves they are all of one size.
    fn tiling(&self) -> Tiling {
        Tiling { tiles: self.tiles, short: [0, 0] }
    }

    /// These tiles over images of x.
    fn of_x(&self, hw: [usize; 2]) -> Grid {
        let step = self.kinds.map(|kind| 2 * kind.size());
        Grid { step, stride: 1, origin: self.source, hw }
    }

    /// These tiles over images of y.
    fn of_y(&self, out: [usize; 2]) -> Grid {
        let step = self.kinds.map(Kind::size);
        Grid { step, stride: 1, origin: self.first.map(|x| x as isize), hw: out }
    }
}

/// How the images of a convolution fall into tiles.
#[derive(Clone, Copy, Debug)]
pub(in crate::conv) struct Plan {
    axes: [Axis; 2],
}

impl Plan {
    /// If the convolution is one of these.
    pub(in crate::conv) fn new(dims: &ConvDims, out: [usize; 2]) -> Option<Plan> {
        if (dims.kernel, dims.stride, dims.dilation, dims.groups) != ([3, 3], [2, 2], [1, 1], 1) {
            return None;
        }
        let pad = dims.pad.map(|pad| pad[0]);
        let axes = if (0..2).all(|i| Axis::is_between(out[i], dims.hw[i], pad[i])) {
            pad.map(|pad| Axis { first: Kind::Between, tiles: [1, 0], pad })
        } else {
            [0, 1].map(|i| Axis::new(out[i], pad[i]))
        };
        Some(Plan { axes })
    }

    /// The plan with which this way takes less time than the direct one, if there is one, by counting registers of multiply-adds.
    pub(in crate::conv) fn if_worth(dims: &ConvDims, out: [usize; 2], pass: Pass, lanes: usize) -> Option<Plan> {
        let plan = Plan::new(dims, out)?;
        let [depth, cols] = if pass == Pass::InputGrad { [dims.co, dims.ci] } else { [dims.ci, dims.co] };
        let pairs = depth * cols.div_ceil(lanes);
        // Taps that do not lie on padding.
        let taps = |axis: usize| -> usize {
            let is_inside = |at: usize| (dims.pad[axis][0]..dims.pad[axis][0] + dims.hw[axis]).contains(&at);
            (0..out[axis]).map(|i| (0..3).filter(|tap| is_inside(2 * i + tap)).count()).sum()
        };
        let direct = dims.n * taps(0) * taps(1) * pairs * pass.direct() / 100;
        // An upper bound: tiles of 3 have fewer.
        let [values, points] = [plan.values(), plan.points()].map(|[i, j]| i * j * plan.tiles());
        let transforms = values * dims.ci.div_ceil(lanes) + points * dims.co.div_ceil(lanes);
        let image = plan.products() * (pairs + ROW) + TRANSFORM * transforms;
        let weight = match pass {
            Pass::WeightGrad => SUM,
            _ => WEIGHT * dims.n.div_ceil(block(&plan, pass, [depth, cols])),
        };
        let this = dims.n * image + weight * plan.weights().iter().product::<usize>() * pairs;
        let is_handy = dims.n >= IMAGES && values * dims.ci.max(dims.co) <= LARGE;
        (is_handy && this < direct).then_some(plan)
    }

    /// Whether it is worth it that each of two threads takes all channels of some images: there are fewer transformed weights, which they then both make, than
    /// transformed pixels.
    pub(in crate::conv) fn is_worth_by_images(&self, dims: &ConvDims) -> bool {
        let [weights, values] = [self.weights(), self.values()].map(|[i, j]| i * j);
        weights * dims.co <= dims.n * values * self.tiles()
    }

    /// Multiplications for a pair of channels.
    fn products(&self) -> usize {
        self.axes.iter().map(Axis::products).product()
    }

    /// The tiles by kind, in an order in which those above and to the left of others come before them. In the planes tiles of 3 x 4 come first, then
    /// 4 x 4, 4 x 3, 3 x 3: so those that have a value lie side by side.
    fn parts(&self) -> impl Iterator<Item = Tiles> {
        let axes = self.axes;
        let [rows, cols] = axes.map(|axis| axis.tiles);
        let before =
            [rows[1] * cols[0], (rows[1] + rows[0]) * cols[0], 0, (rows[1] + rows[0]) * cols[0] + rows[0] * cols[1]];
        let part = move |i: usize| {
            let sides = [axes[0].part(i / 2 == 1), axes[1].part(i % 2 == 1)];
            Tiles {
                kinds: sides.map(|side| side.0),
                tiles: sides.map(|side| side.2),
                before: before[i],
                first: sides.map(|side| side.1),
                source: [0, 1].map(|axis| axes[axis].source(sides[axis].0, sides[axis].1)),
            }
        };
        (0..4).map(part).filter(|part| part.count() > 0)
    }

    /// Tiles of an image.
    fn tiles(&self) -> usize {
        self.axes.iter().map(|axis| axis.tiles[0] + axis.tiles[1]).product()
    }

    /// First and last of the tiles in the planes that have a value whose points are these, for one image.
    fn having(&self, points: [usize; 2]) -> [usize; 2] {
        let [rows, cols] = self.axes.map(|axis| axis.tiles);
        let [low, high] = points.map(|point| point == 4);
        let fours = (rows[1] + rows[0]) * cols[0];
        let end = if high { fours } else { fours + rows[0] * cols[1] + if low { 0 } else { rows[1] * cols[1] } };
        [if low { rows[1] * cols[0] } else { 0 }, end]
    }

    /// Rows and columns of planes of values.
    fn values(&self) -> [usize; 2] {
        self.axes.map(|axis| axis.values().len())
    }

    /// Rows and columns of planes of points.
    fn points(&self) -> [usize; 2] {
        self.axes.map(|axis| axis.points())
    }

    /// Rows and columns of matrices of weights.
    fn weights(&self) -> [usize; 2] {
        self.points().map(|points| 1 + points)
    }
}
