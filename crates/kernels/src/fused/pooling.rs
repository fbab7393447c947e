//! Max-pooling over windows that tile an image, within a fused pass: a unit is a band of windows, or a whole image where the
//! windows leave some rows over.
//!
//! An index names one of the few elements of its window, so that picking and placing are comparisons over whole registers of
//! channels instead of memory accesses one by one.

use std::ops::BitOr;

use bytemuck::Pod;

use super::BLOCK;
use super::patch::{MAX_ROWS, Patch};
use crate::pool::is_better;
use crate::real::Real;

/// Windows of `kernel` pixels, side by side without padding, over images `[hw, channels]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pooling {
    /// Rows and columns of an image, each at least the kernel's.
    pub hw: [usize; 2],
    /// Channels of an image.
    pub channels: usize,
    /// Rows (at most four) and columns of a window, which are also the steps from one to the next.
    pub kernel: [usize; 2],
}

impl Pooling {
    /// Elements of an image.
    pub(super) fn pixels(&self) -> usize {
        self.hw[0] * self.hw[1] * self.channels
    }

    pub(super) fn bands(&self) -> Bands {
        let (Pooling { hw: [h, w], channels: c, kernel }, [kh, kw]) = (*self, self.kernel);
        let is_band = h.is_multiple_of(kh);
        let (height, rows, across) = (if is_band { kh } else { h }, if is_band { 1 } else { h / kh }, w / kw);
        let unit = [height * w * c, rows * across * c];
        Bands { unit, per_image: h / height, rows, across, channels: c, pitch: w * c, kernel }
    }
}

/// The windows of a unit, with everything counted out once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bands {
    /// Elements of a unit, for each pixel and for each window.
    pub(super) unit: [usize; 2],
    /// Units of an image.
    per_image: usize,
    /// Rows of windows, and windows in a row.
    pub(super) rows: usize,
    pub(super) across: usize,
    pub(super) channels: usize,
    /// From one row of pixels to the next.
    pub(super) pitch: usize,
    pub(super) kernel: [usize; 2],
}

impl Bands {
    /// The elements of its image that stand before a unit.
    #[inline(always)]
    pub(super) fn origin(&self, unit: usize) -> usize {
        unit % self.per_image * self.unit[0]
    }

    /// Windows of a tile of about `elements` elements.
    #[inline(always)]
    pub(super) fn windows_of_patch(&self, elements: usize) -> usize {
        (elements / (self.kernel[0] * self.kernel[1] * self.channels)).clamp(1, self.across)
    }

    /// Elements of a row of a tile from `column` on in rows without windows.
    #[inline(always)]
    pub(super) fn rest_len(&self, column: usize) -> usize {
        (self.windows_of_patch(super::TILE) * self.kernel[1] * self.channels).min(self.pitch - column)
    }

    /// Elements of the largest tile.
    pub(super) fn largest_patch(&self, elements: usize) -> usize {
        let [kh, kw] = self.kernel;
        let beside = self.pitch - self.across * kw * self.channels;
        kh * (self.windows_of_patch(elements) * kw * self.channels + beside)
    }

    /// The offsets of a window's elements of one channel: rows, and elements within a row.
    #[inline(always)]
    fn taps(&self) -> impl Iterator<Item = (usize, usize)> + Clone {
        let (c, [kh, kw]) = (self.channels, self.kernel);
        (0..kh).flat_map(move |i| (0..kw).map(move |j| (i, j * c)))
    }

    /// For each window of a tile: the first elements of its rows, and the name of its first element in the image.
    #[inline(always)]
    fn window(&self, patch: &Patch, w: usize) -> (usize, usize) {
        let at = w * self.kernel[1] * self.channels;
        (at, patch.origin + patch.start + at)
    }

    /// The index of the first maximum of each window within its image, NaN counting as a maximum.
    #[inline(always)]
    pub(super) fn indices<T: Real>(&self, patch: &Patch, x: &[&[T]; MAX_ROWS], out: &mut [u32]) {
        let &Bands { channels: c, pitch, .. } = self;
        for (w, out) in out.chunks_exact_mut(c).enumerate() {
            let (at, name) = self.window(patch, w);
            if self.kernel == [2, 2] {
                let (blocks, rest) = out.as_chunks_mut::<BLOCK>();
                let done = blocks.len() * BLOCK;
                let names = |b: usize| [0, c, pitch, pitch + c].map(|t| (name + t + b) as u32);
                for (b, out) in blocks.iter_mut().enumerate() {
                    let Some(values) = quad::<T, BLOCK>([x[0], x[1]], at + b * BLOCK, c) else { return };
                    first_of_four(values.map(|v| &v[..]), names(b * BLOCK), out);
                }
                let values = [&x[0][at..], &x[0][at + c..], &x[1][at..], &x[1][at + c..]];
                first_of_four(values.map(|v| &v[done..c]), names(done), rest);
                continue;
            }
            for (j, out) in out.iter_mut().enumerate() {
                let (mut best, mut place) = (x[0][at + j], name + j);
                for (row, tap) in self.taps() {
                    let v = x[row][at + tap + j];
                    if is_better(v, best) {
                        (best, place) = (v, name + row * pitch + tap + j);
                    }
                }
                *out = place as u32;
            }
        }
    }

    /// The element of each window that its index names.
    #[inline(always)]
    pub(super) fn gather<T: Real>(&self, patch: &Patch, x: &[&[T]; MAX_ROWS], indices: &[u32], out: &mut [T]) {
        let &Bands { channels: c, pitch, .. } = self;
        for (w, (indices, out)) in indices.chunks_exact(c).zip(out.chunks_exact_mut(c)).enumerate() {
            let (at, name) = self.window(patch, w);
            if self.kernel == [2, 2] {
                let ((blocks, rest), (in_blocks, in_rest)) =
                    (out.as_chunks_mut::<BLOCK>(), indices.as_chunks::<BLOCK>());
                let done = blocks.len() * BLOCK;
                let names = |b: usize| [0, c, pitch, pitch + c].map(|t| (name + t + b) as u32);
                for ((b, out), indices) in blocks.iter_mut().enumerate().zip(in_blocks) {
                    let Some(values) = quad::<T, BLOCK>([x[0], x[1]], at + b * BLOCK, c) else { return };
                    pick_of_four(values.map(|v| &v[..]), names(b * BLOCK), indices, out);
                }
                let values = [&x[0][at..], &x[0][at + c..], &x[1][at..], &x[1][at + c..]];
                pick_of_four(values.map(|v| &v[done..c]), names(done), in_rest, rest);
                continue;
            }
            out.fill(T::ZERO);
            for (row, tap) in self.taps() {
                let (x, name) = (&x[row][at + tap..][..c], (name + row * pitch + tap) as u32);
                for (((j, out), &index), &x) in out.iter_mut().enumerate().zip(indices).zip(x) {
                    *out = if index == name.wrapping_add(j as u32) { x } else { *out };
                }
            }
        }
    }

    /// Row `row` of a tile: zeros, but for each window's element where its index says so.
    #[inline(always)]
    pub(super) fn scatter<T: Real>(&self, patch: &Patch, row: usize, g: &[T], indices: &[u32], out: &mut [T]) {
        let &Bands { channels: c, pitch, kernel: [_, kw], .. } = self;
        let (out, beside) = out.split_at_mut(patch.windows * kw);
        beside.fill(T::ZERO);
        let windows = g.chunks_exact(c).zip(indices.chunks_exact(c)).zip(out.chunks_exact_mut(kw * c));
        for (w, ((g, indices), out)) in windows.enumerate() {
            let name = (self.window(patch, w).1 + row * pitch) as u32;
            let ((gs, g_rest), (in_blocks, in_rest)) = (g.as_chunks::<BLOCK>(), indices.as_chunks::<BLOCK>());
            let done = gs.len() * BLOCK;
            // Two pixels at a time read indices and values once.
            let mut pairs = out.chunks_exact_mut(2 * c);
            let mut tap = name;
            for pair in &mut pairs {
                let (left, right) = pair.split_at_mut(c);
                let ((lefts, left_rest), (rights, right_rest)) =
                    (left.as_chunks_mut::<BLOCK>(), right.as_chunks_mut::<BLOCK>());
                let blocks = lefts.iter_mut().zip(rights).zip(in_blocks).zip(gs);
                for (b, (((left, right), indices), g)) in blocks.enumerate() {
                    let name = tap.wrapping_add((b * BLOCK) as u32);
                    place_pair([name, name.wrapping_add(c as u32)], indices, g, left, right);
                }
                place(tap.wrapping_add(done as u32), in_rest, g_rest, left_rest);
                place(tap.wrapping_add((done + c) as u32), in_rest, g_rest, right_rest);
                tap = tap.wrapping_add(2 * c as u32);
            }
            let last = pairs.into_remainder();
            if !last.is_empty() {
                place(tap, indices, g, last);
            }
        }
    }
}

/// Runs of `L` elements of the four pixels of a window, in two rows `c` elements apart; None if they are not there.
#[inline(always)]
fn quad<T, const L: usize>(rows: [&[T]; 2], at: usize, c: usize) -> Option<[&[T; L]; 4]> {
    let run = |row: usize, at: usize| rows[row].get(at..).and_then(|x| x.first_chunk());
    Some([run(0, at)?, run(0, at + c)?, run(1, at)?, run(1, at + c)?])
}

/// For each channel the name of the first largest of four, counted on from the names of channel 0.
#[inline(always)]
fn first_of_four<T: Real>([p, q, r, s]: [&[T]; 4], names: [u32; 4], out: &mut [u32]) {
    for (((((j, out), &p), &q), &r), &s) in out.iter_mut().enumerate().zip(p).zip(q).zip(r).zip(s) {
        let (upper, lower) = (is_better(q, p), is_better(s, r));
        let (a, a_name) = (if upper { q } else { p }, if upper { names[1] } else { names[0] });
        let (b, b_name) = (if lower { s } else { r }, if lower { names[3] } else { names[2] });
        *out = (if is_better(b, a) { b_name } else { a_name }).wrapping_add(j as u32);
    }
}

/// For each channel that of the four elements which its index names.
#[inline(always)]
fn pick_of_four<T: Real>(values: [&[T]; 4], names: [u32; 4], indices: &[u32], out: &mut [T]) {
    if T::IS_F32 {
        pick_bits::<u32>(values.map(bytemuck::cast_slice), names, indices, bytemuck::cast_slice_mut(out));
    } else {
        pick_bits::<u64>(values.map(bytemuck::cast_slice), names, indices, bytemuck::cast_slice_mut(out));
    }
}

/// On the elements' bits: all but one of the four are masked away. A choice between elements in memory would be compiled as a choice between their addresses.
#[inline(always)]
fn pick_bits<B: Pod + BitOr<Output = B>>([p, q, r, s]: [&[B]; 4], names: [u32; 4], indices: &[u32], out: &mut [B]) {
    let kept = |is_kept: bool, x: B| if is_kept { x } else { B::zeroed() };
    let places = indices.iter().enumerate().zip(p).zip(q).zip(r).zip(s);
    for (out, (((((j, &index), &p), &q), &r), &s)) in out.iter_mut().zip(places) {
        let index = index.wrapping_sub(j as u32);
        let upper = kept(index == names[0], p) | kept(index == names[1], q);
        *out = upper | (kept(index == names[2], r) | kept(index == names[3], s));
    }
}

/// The channels whose index says this place, 0 for the others. A sum, as of scattered rows: it turns -0 into 0.
#[inline(always)]
fn place<T: Real>(name: u32, indices: &[u32], g: &[T], out: &mut [T]) {
    for (((j, out), &index), &g) in out.iter_mut().enumerate().zip(indices).zip(g) {
        *out = if index == name.wrapping_add(j as u32) { T::ZERO + g } else { T::ZERO };
    }
}

/// [`place`] for two pixels.
#[inline(always)]
fn place_pair<T: Real>(
    names: [u32; 2],
    indices: &[u32; BLOCK],
    g: &[T; BLOCK],
    left: &mut [T; BLOCK],
    right: &mut [T; BLOCK],
) {
    for j in 0..BLOCK {
        let (index, g) = (indices[j].wrapping_sub(j as u32), T::ZERO + g[j]);
        left[j] = if index == names[0] { g } else { T::ZERO };
        right[j] = if index == names[1] { g } else { T::ZERO };
    }
}
