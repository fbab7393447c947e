//! Max-pooling over windows that tile an image, within a fused pass: a unit is a band of windows, or a whole image where the
//! windows leave a rest.
//!
//! An index names one of the few elements of its window, so that picking and placing are comparisons over whole registers of
//! channels instead of memory accesses one by one.

use super::BLOCK;
use crate::real::Real;

/// Windows of `kernel` pixels, side by side without padding, over images `[hw, channels]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pooling {
    /// Rows and columns of an image, each at least the kernel's.
    pub hw: [usize; 2],
    /// Channels of an image.
    pub channels: usize,
    /// Rows and columns of a window, which are also the steps from one to the next.
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
        let has_rest = !is_band || !w.is_multiple_of(kw);
        Bands { unit, per_image: h / height, rows, across, channels: c, pitch: w * c, kernel, has_rest }
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
    rows: usize,
    across: usize,
    channels: usize,
    /// From one row of pixels to the next.
    pitch: usize,
    kernel: [usize; 2],
    /// Whether some pixels are in no window.
    has_rest: bool,
}

impl Bands {
    /// The elements of its image that stand before a unit.
    #[inline(always)]
    fn origin(&self, unit: usize) -> usize {
        unit % self.per_image * self.unit[0]
    }

    /// The first element of a window in its unit.
    #[inline(always)]
    fn corner(&self, row: usize, column: usize) -> usize {
        row * self.kernel[0] * self.pitch + column * self.kernel[1] * self.channels
    }

    /// The offsets of a window's elements of one channel, row by row.
    #[inline(always)]
    fn taps(&self) -> impl Iterator<Item = usize> + Clone {
        let (pitch, c, [kh, kw]) = (self.pitch, self.channels, self.kernel);
        (0..kh).flat_map(move |i| (0..kw).map(move |j| i * pitch + j * c))
    }

    /// The index of the first maximum of each window within its image, NaN counting as a maximum; units from `first` on.
    #[inline(always)]
    pub(super) fn indices<T: Real>(&self, first: usize, x: &[T], out: &mut [u32]) {
        let &Bands { unit: [full, windows], rows, across, channels: c, pitch, .. } = self;
        for (i, (x, out)) in x.chunks_exact(full).zip(out.chunks_exact_mut(windows)).enumerate() {
            let origin = self.origin(first + i);
            for row in 0..rows {
                for (column, out) in out[row * across * c..][..across * c].chunks_exact_mut(c).enumerate() {
                    let at = self.corner(row, column);
                    if self.kernel == [2, 2] {
                        let (blocks, rest) = out.as_chunks_mut::<BLOCK>();
                        let done = blocks.len() * BLOCK;
                        for (b, out) in blocks.iter_mut().enumerate() {
                            let taps = [0, c, pitch, pitch + c].map(|t| at + t + b * BLOCK);
                            let Some(values) = quad::<T, BLOCK>(x, taps) else { return };
                            first_of_four(values.map(|v| &v[..]), taps.map(|t| (origin + t) as u32), out);
                        }
                        let taps = [0, c, pitch, pitch + c].map(|t| at + t + done);
                        first_of_four(taps.map(|t| &x[t..][..c - done]), taps.map(|t| (origin + t) as u32), rest);
                        continue;
                    }
                    for (j, out) in out.iter_mut().enumerate() {
                        let (mut best, mut place) = (x[at + j], at + j);
                        for tap in self.taps() {
                            let v = x[at + tap + j];
                            if is_better(v, best) {
                                (best, place) = (v, at + tap + j);
                            }
                        }
                        *out = (origin + place) as u32;
                    }
                }
            }
        }
    }

    /// The element of each window that its index names.
    #[inline(always)]
    pub(super) fn gather<T: Real>(&self, first: usize, x: &[T], indices: &[u32], out: &mut [T]) {
        let &Bands { unit: [full, windows], rows, across, channels: c, pitch, .. } = self;
        let units = x.chunks_exact(full).zip(indices.chunks_exact(windows)).zip(out.chunks_exact_mut(windows));
        for (i, ((x, indices), out)) in units.enumerate() {
            let origin = self.origin(first + i);
            for row in 0..rows {
                for column in 0..across {
                    let (at, to) = (self.corner(row, column), (row * across + column) * c);
                    let (indices, out) = (&indices[to..][..c], &mut out[to..][..c]);
                    if self.kernel == [2, 2] {
                        let ((blocks, rest), (names, names_rest)) = (out.as_chunks_mut::<BLOCK>(), indices.as_chunks::<BLOCK>());
                        let done = blocks.len() * BLOCK;
                        for ((b, out), indices) in blocks.iter_mut().enumerate().zip(names) {
                            let taps = [0, c, pitch, pitch + c].map(|t| at + t + b * BLOCK);
                            let Some(values) = quad::<T, BLOCK>(x, taps) else { return };
                            pick_of_four(values.map(|v| &v[..]), taps.map(|t| (origin + t) as u32), indices, out);
                        }
                        let taps = [0, c, pitch, pitch + c].map(|t| at + t + done);
                        let values = taps.map(|t| &x[t..][..c - done]);
                        pick_of_four(values, taps.map(|t| (origin + t) as u32), names_rest, rest);
                        continue;
                    }
                    out.fill(T::ZERO);
                    for tap in self.taps() {
                        let (x, name) = (&x[at + tap..][..c], (origin + at + tap) as u32);
                        for (((j, out), &index), &x) in out.iter_mut().enumerate().zip(indices).zip(x) {
                            *out = if index == name.wrapping_add(j as u32) { x } else { *out };
                        }
                    }
                }
            }
        }
    }

    /// Zeros, but for each window's element where its index says.
    #[inline(always)]
    pub(super) fn scatter<T: Real>(&self, first: usize, g: &[T], indices: &[u32], out: &mut [T]) {
        let &Bands { unit: [full, windows], rows, across, channels: c, .. } = self;
        let units = g.chunks_exact(windows).zip(indices.chunks_exact(windows)).zip(out.chunks_exact_mut(full));
        for (i, ((g, indices), out)) in units.enumerate() {
            let origin = self.origin(first + i);
            if self.has_rest {
                out.fill(T::ZERO);
            }
            for row in 0..rows {
                for column in 0..across {
                    let (at, to) = (self.corner(row, column), (row * across + column) * c);
                    let (indices, g) = (&indices[to..][..c], &g[to..][..c]);
                    for tap in self.taps() {
                        let (to, name) = (&mut out[at + tap..][..c], (origin + at + tap) as u32);
                        let (blocks, rest) = to.as_chunks_mut::<BLOCK>();
                        let ((names, names_rest), (gs, g_rest)) = (indices.as_chunks::<BLOCK>(), g.as_chunks::<BLOCK>());
                        for (b, ((out, indices), g)) in blocks.iter_mut().zip(names).zip(gs).enumerate() {
                            place(name.wrapping_add((b * BLOCK) as u32), indices, g, out);
                        }
                        place(name.wrapping_add((names.len() * BLOCK) as u32), names_rest, g_rest, rest);
                    }
                }
            }
        }
    }
}

/// Runs of `L` elements from four places; None if they are not there.
#[inline(always)]
fn quad<T, const L: usize>(x: &[T], at: [usize; 4]) -> Option<[&[T; L]; 4]> {
    let [a, b, c, d] = at.map(|t| x.get(t..).and_then(|x| x.first_chunk()));
    Some([a?, b?, c?, d?])
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
    // One after the other: a choice between two elements in memory would be compiled as a choice between their addresses.
    out.copy_from_slice(values[0]);
    for (x, name) in values.into_iter().zip(names).skip(1) {
        for (((j, out), &index), &x) in out.iter_mut().enumerate().zip(indices).zip(x) {
            *out = if index == name.wrapping_add(j as u32) { x } else { *out };
        }
    }
}

/// The channels whose index says this place, 0 for the others. A sum, as of scattered rows: it turns -0 into 0.
#[inline(always)]
fn place<T: Real>(name: u32, indices: &[u32], g: &[T], out: &mut [T]) {
    for (((j, out), &index), &g) in out.iter_mut().enumerate().zip(indices).zip(g) {
        *out = if index == name.wrapping_add(j as u32) { T::ZERO + g } else { T::ZERO };
    }
}

/// Whether `v` replaces `best`, which stands before it.
#[inline(always)]
fn is_better<T: Real>(v: T, best: T) -> bool {
    #[expect(clippy::eq_op, reason = "tests for NaN without a branch")]
    let (v_nan, best_nan) = (v != v, best != best);
    (v > best) | (v_nan & !best_nan)
}
