//! The weight gradient, the adjoint of the forward pass in the weights: `dw = G^T [sum over tiles of (B^T x B) * (A g A^T)] G`, where all products with
//! one matrix of weights are one sum.
//!
//! As in [`crate::conv::winograd::weight_grad`] threads share neither tiles nor sums: each has some channels. The sums of some of these are collected while they
//! lie in the second-level cache.

use super::gather::Source;
use super::lines::Collect;
use super::{Plan, Value, gap};
use crate::Real;
use crate::conv::window::Images;
use crate::conv::winograd::lines::Line;
use crate::conv::winograd::transform::{Planes, transform};
use crate::conv::winograd::weight_grad::cuts;
use crate::microkernel::{Kernels, ROWS, Segment, Strip};
use crate::par::{Par, SendPtr, for_each_range};
use crate::scratch::{self, Slot};

/// Elements of some channels of a block's values, and of their gradients at the points of a panel: with f32 half of a second-level cache of 2 MB; sums have room
/// beside them.
const BLOCK: usize = 1 << 18;

/// Channels of x that are taken at a time: so few that the sums of a panel stay in that cache; if one block has all images, until they are collected.
const STRIP: usize = 32;
/// Columns of g that a panel has, as far as blocks are concerned.
const PANEL: usize = 64;

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
    /// The gradient, `[3, 3, c of x, c of g]`.
    dw: SendPtr<T>,
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
    // Sums are cut by the shape alone.
    let image = plan.tiles() * (values * x.c.min(STRIP) + points * g.c.min(PANEL));
    let block = (BLOCK / image).clamp(1, n);
    let job = WeightGrad { kernels, plan, n, x, g, block, dw: SendPtr::new(dw) };
    let threads = par.threads();
    let registers = [x.c, g.c].map(|c| c.div_ceil(kernels.lanes));
    let cuts = cuts(threads, 1, registers);
    for_each_range(par, cuts[0] * cuts[1], 1, |low, high| {
        for piece in low..high {
            let channels = [0, 1].map(|i| {
                let place = if i == 0 { piece % cuts[0] } else { piece / cuts[0] };
                let bound = |cut: usize| (cut * registers[i] / cuts[i] * kernels.lanes).min([x.c, g.c][i]);
                [bound(place), bound(place + 1)]
            });
            // SAFETY: pieces are disjoint parts of dw, which is ours.
            unsafe { job.channels(channels) }
        }
    });
}

impl<T: Real> WeightGrad<'_, T> {
    /// Some channels of x and of g.
    ///
    /// # Safety
    /// Nobody else uses this part of dw meanwhile.
    unsafe fn channels(&self, [of_x, of_g]: [[usize; 2]; 2]) {
        let plan = &self.plan;
        let [rows, cols] = [of_x, of_g].map(|[first, last]| last - first);
        let (strip, width) = (rows.min(STRIP), cols.min(self.kernels.wide));
        let [values, points, weights] = [plan.values(), plan.points(), plan.weights()].map(|[i, j]| i * j);
        let tiles = plan.tiles() * self.block;
        let (v_plane, q_plane) = (tiles * strip + gap::<T>(), tiles * width + gap::<T>());
        let panels = cols.div_ceil(width);
        // If one block has all images, all strips share their gradients, and the sums of a panel are collected before those of the next begin; of several, sums
        // last from block to block and gradients do not.
        let is_whole = self.block == self.n;
        let [of_q, of_z] = if is_whole { [panels, 1] } else { [1, panels] };
        let (gradients, sums) = (points * q_plane, weights * (strip * width + gap::<T>()));
        let sizes = [values * v_plane, of_q * gradients, of_z * sums];
        scratch::with::<T, _>(Slot::Window, sizes.iter().sum::<usize>() + strip.max(width), |room| {
            let (v, rest) = room.split_at_mut(sizes[0]);
            let (q, rest) = rest.split_at_mut(sizes[1]);
            let (z, zeros) = rest.split_at_mut(sizes[2]);
            zeros.fill(T::ZERO);
            for c in (0..rows).step_by(strip) {
                let of_x = [of_x[0] + c, (of_x[0] + c + strip).min(of_x[1])];
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
                    // SAFETY: each plane has a row for each tile.
                    unsafe { of(self.x, of_x, v.as_mut_ptr(), of_x[1] - of_x[0], v_plane).values() }
                    for panel in 0..panels {
                        let of_g = [0, 1].map(|i| (of_g[0] + (panel + i) * width).min(of_g[1]));
                        let q = &mut q[panel % of_q * gradients..][..gradients];
                        let z = &mut z[panel % of_z * sums..][..sums];
                        if !is_whole || c == 0 {
                            // SAFETY: as above.
                            unsafe { of(self.g, of_g, q.as_mut_ptr(), width, q_plane).points() }
                        }
                        self.products(range, [v, q], [v_plane, q_plane], [of_x, of_g], width, z);
                        if range[1] == self.n {
                            // SAFETY: passed on.
                            unsafe { self.collect([of_x, of_g], width, z) }
                        }
                    }
                }
            }
        });
    }

    /// `z[weight, c, o] (+)= sum over values of this weight and tiles of v[t, c] q[t, o]`; the first block sets it.
    fn products(
        &self,
        range: [usize; 2],
        [v, q]: [&[T]; 2],
        [v_plane, q_plane]: [usize; 2],
        [of_x, of_g]: [[usize; 2]; 2],
        width: usize,
        z: &mut [T],
    ) {
        let plan = &self.plan;
        let [values, points, weights] = [plan.values(), plan.points(), plan.weights()];
        let [rows, cols] = [of_x, of_g].map(|[first, last]| last - first);
        let (count, plane) = (range[1] - range[0], z.len() / (weights[0] * weights[1]));
        assert!(v.len() == values[0] * values[1] * v_plane && plan.tiles() * count * rows <= v_plane);
        assert!(q.len() == points[0] * points[1] * q_plane && plan.tiles() * count * width <= q_plane);
        assert!(z.len() == weights[0] * weights[1] * plane && rows * width <= plane && cols <= width);
        let [of_rows, of_cols] = plan.axes.map(|axis| axis.values());
        for weight in (0..weights[0]).flat_map(|row| (0..weights[1]).map(move |col| [row, col])) {
            let z = z[(weight[0] * weights[1] + weight[1]) * plane..].as_mut_ptr();
            let mut add = range[0] > 0;
            let of_weight = |values: &'static [Value], weight: usize| {
                values.iter().enumerate().filter(move |(_, value)| value.weight == weight)
            };
            for ((i, row), (j, col)) in
                of_weight(of_rows, weight[0]).flat_map(|row| of_weight(of_cols, weight[1]).map(move |col| (row, col)))
            {
                let [first, last] = plan.having([row.point, col.point]).map(|tile| tile * count);
                for t in (first..last).step_by(TILES) {
                    let segments = [Segment { a: 0, b: 0, len: (last - t).min(TILES) }];
                    let v = v[(i * values[1] + j) * v_plane + t * rows..].as_ptr();
                    let q = q[(row.point * points[1] + col.point) * q_plane + t * width..].as_ptr();
                    let strip = Strip {
                        a: v,
                        a_row: 1,
                        a_tile: ROWS,
                        a_step: rows as isize,
                        b: q,
                        b_step: width as isize,
                        segments: &segments,
                        c: z,
                        c_row: width,
                        add,
                    };
                    // SAFETY: the planes have these tiles, and z these sums (checked above), which the first product of the first block sets.
                    unsafe { self.kernels.strip(rows, cols, &strip) }
                    add = true;
                }
            }
        }
    }

    /// The gradient of the taps from that of the transformed weights.
    ///
    /// # Safety
    /// Nobody else uses this part of dw meanwhile.
    unsafe fn collect(&self, channels: [[usize; 2]; 2], width: usize, z: &[T]) {
        // SAFETY: passed on.
        unsafe {
            match self.plan.weights() {
                [5, 5] => self.collect_by::<5, 5>(channels, width, z),
                [5, _] => self.collect_by::<5, 6>(channels, width, z),
                [_, 5] => self.collect_by::<6, 5>(channels, width, z),
                _ => self.collect_by::<6, 6>(channels, width, z),
            }
        }
    }

    /// # Safety
    /// See [`WeightGrad::collect`].
    unsafe fn collect_by<const N: usize, const M: usize>(&self, [of_x, of_g]: [[usize; 2]; 2], width: usize, z: &[T])
    where
        Collect: Line<N, 3> + Line<M, 3>,
    {
        let [rows, cols] = [of_x, of_g].map(|[first, last]| last - first);
        let (tap, plane) = (self.x.c * self.g.c, z.len() / (N * M));
        assert!(z.len() == N * M * plane && rows * width <= plane && cols <= width);
        assert!(of_x[1] <= self.x.c && of_g[1] <= self.g.c);
        let job = Planes {
            from: z.as_ptr(),
            from_step: [M * plane, plane],
            to: self.dw.get().wrapping_add(of_x[0] * self.g.c + of_g[0]),
            to_step: [3 * tap, tap],
            len: cols,
            rows,
            row: [width, self.g.c],
        };
        // SAFETY: N x M planes, whose size was checked, and some columns of some rows of 9 taps, which are ours by the caller's word.
        unsafe { transform::<_, Collect, Collect, N, M, 3, 3>(self.kernels.isa, job) }
    }
}
