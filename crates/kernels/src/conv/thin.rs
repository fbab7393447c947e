//! Convolutions whose result has so few channels that they would leave most lanes idle: an image of one or three channels from the last layer of a
//! generator, or as the input gradient of a critic.
//!
//! The lanes run over (tap, channel) instead: one product gives what every source pixel contributes through every tap, and each pixel of the result then
//! gathers its share, tap after tap.

use super::ConvDims;
use crate::Real;
use crate::microkernel::{Kernels, ROWS, Segment, Strip};
use crate::par::{Par, SendPtr, for_each_range};
use crate::scratch::{self, Slot};
use crate::transpose::{transpose, transpose_strided};

/// Contributions kept at a time: an eighth of the second-level cache in f32.
const PARTIAL: usize = 1 << 15;
/// What gathering a contribution costs, in registers of multiply-adds.
const GATHER: usize = 2;

/// Which pass: y from x, or dx from the gradient of y.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Pass {
    Forward,
    InputGrad,
}

/// Whether this way is the faster one, by counting registers of multiply-adds for each image.
pub(super) fn is_thin(pass: Pass, dims: &ConvDims, out: [usize; 2], lanes: usize) -> bool {
    let (ci, co) = (dims.group_ci(), dims.group_co());
    let (source, channels, depth) = match pass {
        Pass::Forward => (dims.hw, co, ci),
        Pass::InputGrad => (out, ci, co),
    };
    let thick = out[0] * out[1] * dims.taps() * channels.div_ceil(lanes) * depth;
    let columns = dims.taps() * channels;
    source[0] * source[1] * (columns.div_ceil(lanes) * depth + GATHER * columns) < thick
}

pub(super) struct Thin<'a, T: 'static> {
    pub(super) kernels: &'static Kernels<T>,
    pub(super) pass: Pass,
    pub(super) dims: &'a ConvDims,
    /// Size of y.
    pub(super) out: [usize; 2],
    /// x or the gradient of y.
    pub(super) source: &'a [T],
    /// y or dx.
    pub(super) result: SendPtr<T>,
}

/// One side of the pass: an image's size, its channels and those of a group.
#[derive(Clone, Copy)]
struct Side {
    hw: [usize; 2],
    c: usize,
    group: usize,
}

impl Side {
    fn image_len(&self) -> usize {
        self.hw[0] * self.hw[1] * self.c
    }
}

impl<T: Real> Thin<'_, T> {
    /// Computes the whole result.
    ///
    /// # Safety
    /// The source, the weights and the result have the lengths that `dims` says, and nobody else uses the result meanwhile.
    pub(super) unsafe fn run(&self, par: Par, w: &[T]) {
        let (source, result) = self.sides();
        let columns = self.dims.taps() * result.group;
        // Some rows of one image or some whole images.
        let rows = (PARTIAL / (columns * source.hw[1])).clamp(1, result.hw[0]);
        let fit = PARTIAL / (columns * source.hw[0] * source.hw[1]);
        let images = if rows == result.hw[0] { fit.clamp(1, self.dims.n.max(1)) } else { 1 };
        let images = if par == Par::Rayon { images.min(self.dims.n.div_ceil(16).max(1)) } else { images };
        let strips = result.hw[0].div_ceil(rows);
        scratch::with::<T, _>(Slot::Weights, w.len(), |turned| {
            self.turn(w, turned);
            let turned = &*turned;
            for_each_range(par, self.dims.n.div_ceil(images) * strips, 1, |first, last| {
                for job in first..last {
                    let n0 = job / strips * images;
                    let n1 = (n0 + images).min(self.dims.n);
                    let r0 = job % strips * rows;
                    for group in 0..self.dims.groups {
                        // SAFETY: jobs are disjoint rows of the result; the rest is the caller's word.
                        unsafe { self.rows([n0, n1], [r0, (r0 + rows).min(result.hw[0])], group, turned) }
                    }
                }
            });
        });
    }

    fn sides(&self) -> (Side, Side) {
        let d = self.dims;
        let x = Side { hw: d.hw, c: d.ci, group: d.group_ci() };
        let y = Side { hw: self.out, c: d.co, group: d.group_co() };
        match self.pass {
            Pass::Forward => (x, y),
            Pass::InputGrad => (y, x),
        }
    }

    /// The weights as `[group, source channel, tap, result channel]`.
    fn turn(&self, w: &[T], turned: &mut [T]) {
        let d = self.dims;
        let (ci, co) = (d.group_ci(), d.group_co());
        let columns = d.taps() * self.sides().1.group;
        for (group, to) in turned.chunks_exact_mut(d.taps() * ci * co).enumerate() {
            match self.pass {
                Pass::Forward => {
                    for (i, row) in to.chunks_exact_mut(columns).enumerate() {
                        for (tap, cell) in row.chunks_exact_mut(co).enumerate() {
                            cell.copy_from_slice(&w[(tap * ci + i) * d.co + group * co..][..co]);
                        }
                    }
                }
                Pass::InputGrad => transpose_strided(&w[group * co..], d.co, columns, co, to, columns),
            }
        }
    }

    /// The pairs (y index, x index) of an axis that tap `index` joins: y indices `[first, last)`, and the x index of y index o is
    /// `o * stride + offset`.
    fn pairs(&self, axis: usize, index: usize) -> (usize, usize, isize) {
        let d = self.dims;
        let stride = d.stride[axis];
        let (shift, pad) = (index * d.dilation[axis], d.pad[axis][0]);
        let first = pad.saturating_sub(shift).div_ceil(stride);
        let last = (d.hw[axis] + pad).saturating_sub(shift).div_ceil(stride).min(self.out[axis]);
        (first, last.max(first), shift as isize - pad as isize)
    }

    /// The (source, result) index pair of y index `o`.
    fn order(&self, axis: usize, o: usize, offset: isize) -> (usize, usize) {
        let x = ((o * self.dims.stride[axis]) as isize + offset) as usize;
        match self.pass {
            Pass::Forward => (x, o),
            Pass::InputGrad => (o, x),
        }
    }

    /// # Safety
    /// See [`Thin::run`]; nobody else uses these rows of these images.
    unsafe fn rows(&self, [n0, n1]: [usize; 2], [r0, r1]: [usize; 2], group: usize, weights: &[T]) {
        let (source, result) = self.sides();
        let [kh, kw] = self.dims.kernel;
        let columns = self.dims.taps() * result.group;
        let row_pairs = |a: usize| {
            let (first, last, offset) = self.pairs(0, a);
            (first..last).map(move |o| self.order(0, o, offset)).filter(move |&(_, r)| r0 <= r && r < r1)
        };
        let used = (0..kh).flat_map(row_pairs).map(|(s, _)| s);
        let (low, high) = (used.clone().min().unwrap_or(0), used.max().map_or(0, |s| s + 1));
        let pixels = (high - low) * source.hw[1];
        let weights = &weights[group * source.group * columns..][..source.group * columns];
        // One channel is turned to `[columns, pixels]`, so that neighbours contribute side by side.
        let turned = result.group == 1;
        let [by_pixel, by_column] = if turned { [1, pixels] } else { [columns, 1] };
        scratch::with::<T, _>(Slot::Window, 2 * pixels * columns, |partial| {
            let (product, partial) = partial.split_at_mut(pixels * columns);
            for image in n0..n1 {
                let from = image * source.image_len() + low * source.hw[1] * source.c;
                self.product(&self.source[from..from + pixels * source.c], source, group, weights, product);
                if turned {
                    transpose(product, pixels, columns, partial);
                }
                // SAFETY: rows r0..r1 of an image of the result, which are ours.
                let rows = unsafe {
                    let at = image * result.image_len() + r0 * result.hw[1] * result.c;
                    std::slice::from_raw_parts_mut(self.result.get().add(at), (r1 - r0) * result.hw[1] * result.c)
                };
                for pixel in rows.chunks_exact_mut(result.c) {
                    pixel[group * result.group..][..result.group].fill(T::ZERO);
                }
                for tap in 0..kh * kw {
                    let (first, last, offset) = self.pairs(1, tap % kw);
                    if first == last {
                        continue;
                    }
                    let (s, r) = self.order(1, first, offset);
                    let stride = self.dims.stride[1];
                    let (s_step, r_step) = if self.pass == Pass::Forward { (stride, 1) } else { (1, stride) };
                    for (source_row, row) in row_pairs(tap / kw) {
                        let from = ((source_row - low) * source.hw[1] + s) * by_pixel + tap * result.group * by_column;
                        let from = if turned { &partial[from..] } else { &product[from..] };
                        let to = &mut rows[((row - r0) * result.hw[1] + r) * result.c + group * result.group..];
                        add_steps(from, s_step * by_pixel, to, r_step * result.c, last - first, result.group);
                    }
                }
            }
        });
    }

    /// What each pixel contributes through each tap: `[pixels, columns]`.
    fn product(&self, pixels: &[T], source: Side, group: usize, weights: &[T], out: &mut [T]) {
        let columns = weights.len() / source.group;
        let (rows, wide) = (pixels.len() / source.c, self.kernels.wide);
        assert_eq!(out.len(), rows * columns);
        let a = pixels.as_ptr().wrapping_add(group * source.group);
        let segments = [Segment { a: 0, b: 0, len: source.group }];
        for col in (0..columns).step_by(wide) {
            let strip = Strip {
                a,
                a_row: source.c,
                a_tile: ROWS * source.c,
                a_step: 1,
                b: weights.as_ptr().wrapping_add(col),
                b_step: columns as isize,
                segments: &segments,
                c: out.as_mut_ptr().wrapping_add(col),
                c_row: columns,
                add: false,
            };
            // SAFETY: row i of the pixels has the group's channels, the weights `columns` for each, and out `columns` for each pixel.
            unsafe { self.kernels.strip(rows, (columns - col).min(wide), &strip) }
        }
    }
}

/// `to[i * to_step..][..c] += from[i * from_step..][..c]` for i < count.
fn add_steps<T: Real>(from: &[T], from_step: usize, to: &mut [T], to_step: usize, count: usize, c: usize) {
    if c == 1 && from_step == 1 && to_step == 1 {
        for (to, &from) in to[..count].iter_mut().zip(&from[..count]) {
            *to += from;
        }
    } else if c == 1 {
        for (to, &from) in to.iter_mut().step_by(to_step).zip(from.iter().step_by(from_step)).take(count) {
            *to += from;
        }
    } else {
        for i in 0..count {
            for (to, &from) in to[i * to_step..][..c].iter_mut().zip(&from[i * from_step..][..c]) {
                *to += from;
            }
        }
    }
}
