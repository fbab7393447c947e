//! Max-pooling over windows that tile an image, within a fused pass: a unit is a band of windows, or a whole image where the
//! windows leave some rows over.
//!
//! An index names one of the few elements of its window, so that picking and placing are comparisons over whole registers of
//! channels instead of memory accesses one by one.

use super::TILE;
use super::patch::{MAX_ROWS, Patch};
use super::quad::Quad;
use crate::pool::is_better;
use crate::real::Real;
use crate::simd::Simd;

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
        let per_tile = (TILE / (kh * kw * c)).clamp(1, across);
        Bands { unit, per_image: h / height, height, rows, across, channels: c, pitch: w * c, kernel, per_tile }
    }
}

/// The windows of a unit, with everything counted out once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bands {
    /// Elements of a unit, for each pixel and for each window.
    pub(super) unit: [usize; 2],
    /// Units of an image.
    per_image: usize,
    /// Rows of pixels of a unit.
    pub(super) height: usize,
    /// Rows of windows, and windows in a row.
    pub(super) rows: usize,
    pub(super) across: usize,
    pub(super) channels: usize,
    /// From one row of pixels to the next.
    pub(super) pitch: usize,
    pub(super) kernel: [usize; 2],
    /// Windows of a tile of about [`TILE`] elements.
    pub(super) per_tile: usize,
}

impl Bands {
    /// The elements of its image that stand before a unit.
    #[inline(always)]
    pub(super) fn origin(&self, unit: usize) -> usize {
        unit % self.per_image * self.unit[0]
    }

    /// Elements of a row of a tile from `column` on in rows without windows.
    #[inline(always)]
    pub(super) fn rest_len(&self, column: usize) -> usize {
        (self.per_tile * self.kernel[1] * self.channels).min(self.pitch - column)
    }

    /// Elements of the largest tile.
    pub(super) fn largest_patch(&self) -> usize {
        let [kh, kw] = self.kernel;
        let beside = self.pitch - self.across * kw * self.channels;
        kh * (self.per_tile * kw * self.channels + beside)
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

    /// Its windows, if they are of two by two pixels.
    #[inline(always)]
    pub(super) fn quad(&self) -> Option<Quad> {
        (self.kernel == [2, 2]).then(|| Quad::new(self.channels, self.pitch))
    }

    /// For each window of a tile the index of its first maximum within its image, NaN counting as a maximum; and the maximum, if `best` has room for it.
    #[inline(always)]
    pub(super) fn max<S: Simd, T: Real>(
        &self,
        simd: S,
        patch: &Patch,
        x: &[&[T]; MAX_ROWS],
        indices: &mut [u32],
        best: &mut [T],
        beside: &mut impl FnMut(usize),
    ) {
        let &Bands { channels: c, pitch, .. } = self;
        if let Some(quad) = self.quad() {
            quad.max(simd, [x[0], x[1]], self.window(patch, 0).1 as u32, indices, best, beside);
            return beside(self.without_windows(patch));
        }
        beside(patch.rows * patch.len);
        for (w, indices) in indices.chunks_exact_mut(c).enumerate() {
            let (at, name) = self.window(patch, w);
            for (j, index) in indices.iter_mut().enumerate() {
                let (mut value, mut place) = (x[0][at + j], name + j);
                for (row, tap) in self.taps() {
                    let v = x[row][at + tap + j];
                    if is_better(v, value) {
                        (value, place) = (v, name + row * pitch + tap + j);
                    }
                }
                *index = place as u32;
                if let Some(best) = best.get_mut(w * c + j) {
                    *best = value;
                }
            }
        }
    }

    /// The element of each window that its index names.
    #[inline(always)]
    pub(super) fn gather<S: Simd, T: Real>(
        &self,
        simd: S,
        patch: &Patch,
        x: &[&[T]; MAX_ROWS],
        indices: &[u32],
        out: &mut [T],
    ) {
        let &Bands { channels: c, pitch, .. } = self;
        if let Some(quad) = self.quad() {
            return quad.gather(simd, [x[0], x[1]], self.window(patch, 0).1 as u32, indices, out);
        }
        for (w, (indices, out)) in indices.chunks_exact(c).zip(out.chunks_exact_mut(c)).enumerate() {
            let (at, name) = self.window(patch, w);
            out.fill(T::ZERO);
            for (row, tap) in self.taps() {
                let (x, name) = (&x[row][at + tap..][..c], (name + row * pitch + tap) as u32);
                for (((j, out), &index), &x) in out.iter_mut().enumerate().zip(indices).zip(x) {
                    *out = if index == name.wrapping_add(j as u32) { x } else { *out };
                }
            }
        }
    }

    /// Both rows of a tile of windows of two by two pixels: zeros, but for each window's element where its index says.
    #[inline(always)]
    pub(super) fn scatter_quads<S: Simd, T: Real>(
        &self,
        simd: S,
        patch: &Patch,
        quad: &Quad,
        g: &[T],
        indices: &[u32],
        [upper, lower]: [&mut [T]; 2],
        beside: &mut impl FnMut(usize),
    ) {
        let (upper, upper_rest) = upper.split_at_mut(2 * patch.windows);
        let (lower, lower_rest) = lower.split_at_mut(2 * patch.windows);
        quad.scatter(simd, g, self.window(patch, 0).1 as u32, indices, [upper, lower], beside);
        beside(self.without_windows(patch));
        upper_rest.fill(T::ZERO);
        lower_rest.fill(T::ZERO);
    }

    /// Pixels of a tile that lie in no window.
    #[inline(always)]
    fn without_windows(&self, patch: &Patch) -> usize {
        patch.rows * patch.len - patch.windows * self.kernel[0] * self.kernel[1]
    }

    /// Row `row` of a tile: zeros, but for each window's element where its index says. A sum, as of scattered rows: it turns -0 into 0.
    #[inline(always)]
    pub(super) fn scatter<T: Real>(&self, patch: &Patch, row: usize, g: &[T], indices: &[u32], out: &mut [T]) {
        let &Bands { channels: c, pitch, kernel: [_, kw], .. } = self;
        let (out, beside) = out.split_at_mut(patch.windows * kw);
        beside.fill(T::ZERO);
        let windows = g.chunks_exact(c).zip(indices.chunks_exact(c)).zip(out.chunks_exact_mut(kw * c));
        for (w, ((g, indices), out)) in windows.enumerate() {
            let mut name = (self.window(patch, w).1 + row * pitch) as u32;
            for out in out.chunks_exact_mut(c) {
                for (((j, out), &index), &g) in out.iter_mut().enumerate().zip(indices).zip(g) {
                    *out = if index == name.wrapping_add(j as u32) { T::ZERO + g } else { T::ZERO };
                }
                name = name.wrapping_add(c as u32);
            }
        }
    }
}
