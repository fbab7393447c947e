//! Convolutions with fewer multiplications: F(m x m, k x k) for 3 x 3 taps at stride 1 and 4 x 4 taps at stride 2 (Winograd's minimal filtering;
//! Lavin & Gray 2016, arXiv:1509.09308), all three passes.
//!
//! A tile of m x m pixels of the result takes n^2 = (m + k - 1)^2 multiplications for each pair of channels instead of k^2 m^2. With 3 x 3 taps, m is 2,
//! 3 or 4: 2.25, 3.24 or 4 times fewer. A kernel of 4 x 4 at stride 2 falls apart into four phases, each a correlation of 2 x 2 taps at stride 1 with
//! every second pixel; m is 3, 4 or 5: 2.25, 2.56 or 2.78 times fewer. The forward pass sums over the phases, as over so many times as many
//! channels; the input gradient, which is the transposed convolution, makes every second pixel of the result from one phase; the weight gradient has the
//! taps of each phase for itself.
//!
//! Sizes are seldom multiples of m: tiles at the edges are then a pixel smaller, which takes fewer products still ([`tiles`]). Transforms take some of it
//! back: on one core of a Xeon that others used too, 64 images of 64 channels and 3 x 3 taps are 2.2 to 2.7 times as fast as the direct way with 14 x 14
//! and with 28 x 28 pixels (m = 4), 1.9 times with 7 x 7, 1.2 to 1.3 times with 3 x 3 (m = 3). With 4 x 4 taps the passes between 64 channels of 28 x 28
//! pixels and 128 of 14 x 14 are 1.2 to 1.5 times as fast there, those between 128 of 14 x 14 and 256 of 7 x 7 1.2 to 1.4 times; an earlier version was 1.6 to
//! 1.8 and 1.4 to 1.6 times as fast on a Zen 5 core. [`points`] says which m it is to be, or none. 3 x 3 taps at stride 2, whose phases have different
//! numbers of taps, are in [`strided`].
//!
//! The price is rounding, and a pixel that is not finite spoils its whole tile. The largest errors of a result in f32, in units of the root of its
//! mean square, over 14 x 14 pixels of y of 8 images, for normal images and weights after He et al. (forward, input gradient, weight
//! gradient):
//!
//! | taps, channels | direct                 | n = 4                  | n = 5                  | n = 6                  |
//! |----------------|------------------------|------------------------|------------------------|------------------------|
//! | 3 x 3, 64      | 3.6e-6, 4.2e-6, 2.9e-6 | 1.5e-6, 1.6e-6, 1.3e-6 | 5.9e-6, 5.9e-6, 3.5e-6 | 6.3e-6, 6.3e-6, 2.7e-6 |
//! | 3 x 3, 128     | 3.8e-6, 4.6e-6, 2.5e-6 | 2.2e-6, 2.3e-6, 1.4e-6 | 9.5e-6, 7.5e-6, 4.5e-6 | 9.9e-6, 1.1e-5, 4.8e-6 |
//! | 3 x 3, 256     | 4.0e-6, 4.1e-6, 2.7e-6 | 2.2e-6, 2.2e-6, 2.2e-6 | 8.5e-6, 7.2e-6, 7.2e-6 | 6.4e-6, 7.7e-6, 7.1e-6 |
//! | 4 x 4, 64      | 4.9e-6, 3.3e-6, 2.2e-6 | 3.5e-6, 2.1e-6, 1.0e-6 | 1.4e-5, 1.0e-5, 2.9e-6 | 1.7e-5, 1.1e-5, 4.8e-6 |
//! | 4 x 4, 128     | 4.8e-6, 4.7e-6, 2.3e-6 | 2.8e-6, 3.0e-6, 1.7e-6 | 8.8e-6, 1.5e-5, 5.5e-6 | 8.5e-6, 1.6e-5, 4.6e-6 |
//! | 4 x 4, 256     | 4.9e-6, 7.3e-6, 3.0e-6 | 2.1e-6, 2.7e-6, 2.9e-6 | 9.0e-6, 1.1e-5, 6.7e-6 | 9.8e-6, 1.1e-5, 5.6e-6 |

mod correlate;
mod lines;
pub(super) mod strided;
#[cfg(test)]
mod tests;
mod tiles;
mod transform;
mod weight_grad;

pub(super) use correlate::Correlation;
pub(super) use weight_grad::WeightGrad;

use super::ConvDims;
use crate::microkernel::ROWS;
use crate::par::{Par, for_each_range};
use tiles::Tiling;

/// How many tiles make a block of at most `size` elements, with so many elements each.
fn tile_block(size: usize, elements: usize) -> usize {
    (size / elements / ROWS * ROWS).max(2 * ROWS)
}

/// Weights of a tap that a task transforms, or gathers the gradient of: with 6 x 6 values for each, a third of a megabyte is read and written.
const WEIGHTS_GRAIN: usize = 1 << 11;

/// Calls `f(phase, first, count)` for pieces of the `len` weights of a tap in each phase: which phase, and which of them.
fn for_each_piece(par: Par, phases: usize, len: usize, f: impl Fn(usize, usize, usize) + Sync + Send) {
    let pieces = len.div_ceil(WEIGHTS_GRAIN);
    for_each_range(par, phases * pieces, 1, |low, high| {
        for piece in low..high {
            let (phase, first) = (piece / pieces, piece % pieces * WEIGHTS_GRAIN);
            f(phase, first, WEIGHTS_GRAIN.min(len - first));
        }
    });
}

/// Elements between planes that would otherwise lie at a distance of a power of two and meet in the same lines of the cache: one line.
const fn gap<T>() -> usize {
    64 / size_of::<T>()
}

/// The points of an algorithm F(m, k), whose number is n = m + k - 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Points {
    Four = 4,
    Five = 5,
    Six = 6,
}

impl Points {
    pub(super) const ALL: [Points; 3] = [Points::Four, Points::Five, Points::Six];
}

/// A part of a convolution that is a correlation of stride 1: the taps whose distance is the stride, and the pixels that they meet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Phase {
    /// The first of the taps.
    pub(super) tap: [usize; 2],
    /// The pixel that it reads for the first pixel of the result.
    pub(super) origin: [isize; 2],
}

impl Phase {
    /// The phases that the forward pass sums over; the first `stride` squared of these.
    pub(super) fn all(dims: &ConvDims) -> [Phase; 4] {
        let stride = dims.stride[0];
        std::array::from_fn(|i| {
            let tap = [i / stride, i % stride];
            Phase { tap, origin: [0, 1].map(|axis| tap[axis] as isize - dims.pad[axis][0] as isize) }
        })
    }

    /// The phase of the turned weights that gives every stride-th pixel of the input gradient, from `first` on.
    pub(super) fn of_class(dims: &ConvDims, first: [usize; 2]) -> Phase {
        let stride = dims.stride[0];
        let at = [0, 1].map(|axis| first[axis] + dims.pad[axis][0]);
        Phase {
            tap: at.map(|at| stride - 1 - at % stride),
            origin: at.map(|at| (at / stride) as isize - (taps(dims) - 1) as isize),
        }
    }
}

/// Rows and columns of a phase's taps.
pub(super) fn taps(dims: &ConvDims) -> usize {
    dims.kernel[0] / dims.stride[0]
}

/// What a value of a transform costs, in registers of multiply-adds.
const TRANSFORM: usize = 8;
/// What a row of a product costs beside its multiply-adds: sums are as short as there are channels.
const ROW: usize = 24;
/// What a value of the transformed weights costs: while they stay in the cache, and beyond, where blocks of tiles make them, or read the sums of their
/// gradients, anew.
const WEIGHT: [usize; 2] = [4, 48];
/// So many transformed weights stay in the second-level cache.
const LARGE: usize = 3 << 18;

/// The points with which this way takes less than four fifths of the direct way's time, if there are any, by counting registers of
/// multiply-adds; `depth` channels are summed into `cols`, each phase having its own, and the tiles cover images of `hw` pixels. For the
/// weight gradient these are the channels of x and y and the size of y.
pub(super) fn points(dims: &ConvDims, hw: [usize; 2], [depth, cols]: [usize; 2], lanes: usize) -> Option<Points> {
    let is_known = matches!((dims.kernel, dims.stride), ([3, 3], [1, 1]) | ([4, 4], [2, 2]));
    if !is_known || dims.dilation != [1, 1] || dims.groups != 1 {
        return None;
    }
    let [from, to] = [depth, cols].map(|c| c.div_ceil(lanes));
    let direct = dims.n * hw[0] * hw[1] * taps(dims).pow(2) * depth * to;
    let cost = |&points: &Points| {
        let n = points as usize;
        let m = n + 1 - taps(dims);
        let tiling = Tiling::new(hw, m);
        let [tiles, products] = [tiling.count(), tiling.products(n)].map(|count| dims.n * count);
        let weight = WEIGHT[usize::from(n.pow(2) * depth * cols > LARGE)];
        products * (depth * to + ROW) + n.pow(2) * (tiles * TRANSFORM * (from + to) + weight * depth * to)
    };
    let best = Points::ALL.into_iter().min_by_key(cost)?;
    (5 * cost(&best) < 4 * direct).then_some(best)
}
