//! The weight gradient, the adjoint of the forward pass in the weights: `dw = G^T [sum over tiles of (B^T x B) * (A g A^T)] G`, where all products with
//! one matrix of weights are one sum.
//!
//! As in [`crate::conv::winograd::weight_grad`] threads share neither tiles nor sums: each has some channels.

use super::gather::Source;
use super::lines::Collect;
use super::{Plan, gap};
use crate::Real;
use crate::conv::window::Images;
use crate::conv::winograd::for_each_piece;
use crate::conv::winograd::lines::Line;
use crate::conv::winograd::transform::Planes;
use crate::conv::winograd::weight_grad::cuts;
use crate::microkernel::{Kernels, ROWS, Segment, Tile};
use crate::par::{Par, SendPtr, for_each_range};
use crate::scratch::{self, Slot};

/// Elements of the values of a block of images, and of their gradients at the points: as many as there are sums, which each block reads and writes, but
/// not fewer than these.
const BLOCK: usize = 1 << 19;

/// Channels of x that are taken at a time, so that their values stay in the second-level cache: whole tiles of a product.
const STRIP: usize = 8 * ROWS;

/// Tiles whose products are summed at a time, so that those of x and of g, and the sums, come from the first-level cache.
const TILES: usize = 64;

struct WeightGrad<'a, T: 'static> {
    kernels: &'static Kernels<T>,
    plan: Plan,
    n: usize,
    x: Images<'a, T>,
    g: Images<'a, T>,
    /// Images of a block.
    block: usize,
    /// A plane `[c of x, c of g]` for each pair of weights, and from one to the next.
    sums: SendPtr<T>,
    plane: usize,
}

/// `dw[3, 3, ci, co]` from x and g.
pub(in crate::conv) fn weight_grad<T: Real>(
    kernels: &'static Kernels<T>,
    par: Par,
    plan: Plan,
    x: Images<T>,
    g: Images<T>,
    dw: &mut [T],
) {
    let n = x.data.len() / x.image_len();
    assert!(x.data.len() == n * x.image_len() && g.data.len() == n * g.image_len() && dw.len() == 9 * x.c * g.c);
    let [values, points] = [plan.values(), plan.points()].map(|[i, j]| i * j);
    let plane = x.c * g.c + gap::<T>();
    let weights = plan.weights().iter().product::<usize>();
    // Sums are cut by the shape alone.
    let block = (BLOCK.max(weights * plane) / (plan.tiles() * (values * x.c + points * g.c))).clamp(1, n);
    scratch::with::<T, _>(Slot::Spare, weights * plane, |sums| {
        let job = WeightGrad { kernels, plan, n, x, g, block, sums: SendPtr::new(sums), plane };
        let threads = if par == Par::Seq { 1 } else { rayon::current_num_threads() };
        let registers = [x.c, g.c].map(|c| c.div_ceil(kernels.lanes));
        let cuts = cuts(threads, 1, registers);
        for_each_range(par, cuts[0] * cuts[1], 1, |low, high| {
            for piece in low..high {
                let channels = [0, 1].map(|i| {
                    let place = if i == 0 { piece % cuts[0] } else { piece / cuts[0] };
                    let bound = |cut: usize| (cut * registers[i] / cuts[i] * kernels.lanes).min([x.c, g.c][i]);
                    [bound(place), bound(place + 1)]
                });
                // SAFETY: pieces are disjoint parts of the sums, which are ours.
                unsafe { job.channels(channels) }
            }
        });
        match plan.weights() {
            [5, 5] => collect::<T, 5, 5>(kernels, par, sums, plane, dw),
            [5, _] => collect::<T, 5, 6>(kernels, par, sums, plane, dw),
            [_, 5] => collect::<T, 6, 5>(kernels, par, sums, plane, dw),
            _ => collect::<T, 6, 6>(kernels, par, sums, plane, dw),
        }
    });
}

impl<T: Real> WeightGrad<'_, T> {
    /// Sums over all tiles for some channels of x and of g.
    ///
    /// # Safety
    /// These parts of the sums are writable and nobody else uses them meanwhile.
    unsafe fn channels(&self, [of_x, of_g]: [[usize; 2]; 2]) {
        let plan = &self.plan;
        let [rows, cols] = [of_x, of_g].map(|[first, last]| last - first);
        let (strip, width) = (rows.min(STRIP), cols.min(self.kernels.wide));
        let [values, points] = [plan.values(), plan.points()].map(|[i, j]| i * j);
        let tiles = plan.tiles() * self.block;
        let (v_plane, q_plane) = (tiles * strip + gap::<T>(), tiles * width + gap::<T>());
        let panels = cols.div_ceil(width);
        scratch::with::<T, _>(Slot::Window, values * v_plane + panels * points * q_plane + strip.max(width), |room| {
            let (v, rest) = room.split_at_mut(values * v_plane);
            let (q, zeros) = rest.split_at_mut(panels * points * q_plane);
            zeros.fill(T::ZERO);
            for first in (0..self.n).step_by(self.block) {
                let range = [first, (first + self.block).min(self.n)];
                let of = |images, channels, to, row, plane| Source {
                    isa: self.kernels.isa,
                    plan,
                    images,
                    range,
                    channels,
                    zeros: &*zeros,
                    to,
                    row,
                    plane,
                };
                let cols_of = |panel: usize| [0, 1].map(|i| (of_g[0] + (panel + i) * width).min(of_g[1]));
                for (panel, q) in q.chunks_exact_mut(points * q_plane).enumerate() {
                    // SAFETY: each plane has a row for each tile.
                    unsafe { of(self.g, cols_of(panel), q.as_mut_ptr(), width, q_plane).points() }
                }
                for c in (of_x[0]..of_x[1]).step_by(strip) {
                    let of_x = [c, (c + strip).min(of_x[1])];
                    // SAFETY: as above.
                    unsafe { of(self.x, of_x, v.as_mut_ptr(), of_x[1] - of_x[0], v_plane).values() }
                    for (panel, q) in q.chunks_exact(points * q_plane).enumerate() {
                        // SAFETY: the caller vouches for these sums, which the first block set.
                        unsafe { self.products(range, [&*v, q], [v_plane, q_plane], [of_x, cols_of(panel)], width) }
                    }
                }
            }
        });
    }

    /// `sum[weight, c, o] (+)= sum over values of this weight and tiles of v[t, c] q[t, o]`.
    ///
    /// # Safety
    /// These channels of the sums are writable, and initialised when this is not the first block; nobody else uses them meanwhile.
    unsafe fn products(
        &self,
        range: [usize; 2],
        [v, q]: [&[T]; 2],
        [v_plane, q_plane]: [usize; 2],
        [of_x, of_g]: [[usize; 2]; 2],
        width: usize,
    ) {
        let plan = &self.plan;
        let [values, points] = [plan.values(), plan.points()];
        let [rows, cols] = [of_x, of_g].map(|[first, last]| last - first);
        let count = range[1] - range[0];
        assert!(v.len() == values[0] * values[1] * v_plane && plan.tiles() * count * rows <= v_plane);
        assert!(q.len() == points[0] * points[1] * q_plane && plan.tiles() * count * width <= q_plane);
        let mut started = [range[0] > 0; 36];
        plan.for_each_value(|value, point, weight| {
            let [first, last] = plan.having(point).map(|tile| tile * count);
            let sum = self.sums.get().wrapping_add(weight * self.plane + of_x[0] * self.g.c + of_g[0]);
            for t in (first..last).step_by(TILES) {
                let segments = [Segment { a: 0, b: 0, len: (last - t).min(TILES) }];
                let v = v[value * v_plane + t * rows..].as_ptr();
                let q = q[(point[0] * points[1] + point[1]) * q_plane + t * width..].as_ptr();
                for c in (0..rows).step_by(ROWS) {
                    let count = (rows - c).min(ROWS);
                    let row = |i: usize| c + i.min(count - 1);
                    let tile = Tile {
                        a: std::array::from_fn(|i| v.wrapping_add(row(i))),
                        a_step: rows as isize,
                        b: q,
                        b_step: width as isize,
                        segments: &segments,
                        c: std::array::from_fn(|i| sum.wrapping_add(row(i) * self.g.c)),
                        add: started[weight],
                    };
                    // SAFETY: the planes have these tiles (checked above); the caller vouches for the sums.
                    unsafe { self.kernels.tile(count, cols, &tile) }
                }
                started[weight] = true;
            }
        });
    }
}

/// The gradient of the taps from that of the transformed weights.
fn collect<T: Real, const N: usize, const M: usize>(
    kernels: &Kernels<T>,
    par: Par,
    sums: &[T],
    plane: usize,
    dw: &mut [T],
) where
    Collect: Line<N, 3> + Line<M, 3>,
{
    let len = dw.len() / 9;
    assert!(dw.len() == 9 * len && sums.len() == N * M * plane && len <= plane);
    let to = SendPtr::new(dw);
    for_each_piece(par, 1, len, |_, first, count| {
        let job = Planes {
            from: sums[first..].as_ptr(),
            from_step: [M * plane, plane],
            to: to.get().wrapping_add(first),
            to_step: [3 * len, len],
            len: count,
            rows: 1,
            row: [0, 0],
        };
        // SAFETY: elements of N x M planes and of 9 taps, whose sizes were checked; pieces are disjoint.
        unsafe { job.run::<Collect, Collect, N, M, 3, 3>(kernels.isa) }
    });
}
