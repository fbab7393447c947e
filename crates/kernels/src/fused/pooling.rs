//! Max-pooling over windows that tile an image, within a fused pass: a unit is a band of windows, or a whole image where the
//! windows leave a rest.
//!
//! An index names one of the few elements of its window, so that picking and placing are comparisons over whole registers of
//! channels instead of memory accesses one by one.

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

    /// Elements of a unit, for each pixel and for each window.
    #[inline(always)]
    pub(super) fn unit(&self) -> [usize; 2] {
        let ([h, w], [kh, kw]) = (self.hw, self.kernel);
        let rows = if h.is_multiple_of(kh) { 1 } else { h / kh };
        let height = if h.is_multiple_of(kh) { kh } else { h };
        [height * w * self.channels, rows * (w / kw) * self.channels]
    }

    /// The elements of image `index` that stand before a unit.
    #[inline(always)]
    fn origin(&self, unit: usize) -> usize {
        let full = self.unit()[0];
        unit % (self.pixels() / full) * full
    }

    /// Calls `f(first element of the window in the unit, first element in the pooled unit)` for each window of a unit.
    #[inline(always)]
    fn for_each_window(&self, mut f: impl FnMut(usize, usize)) {
        let ([_, w], c, [kh, kw]) = (self.hw, self.channels, self.kernel);
        let across = w / kw;
        for row in 0..self.unit()[1] / (across * c) {
            for column in 0..across {
                f((row * kh * w + column * kw) * c, (row * across + column) * c);
            }
        }
    }

    /// The offsets of a window's elements of one channel, row by row.
    #[inline(always)]
    fn taps(&self) -> impl Iterator<Item = usize> + Clone {
        let ([_, w], c, [kh, kw]) = (self.hw, self.channels, self.kernel);
        (0..kh).flat_map(move |i| (0..kw).map(move |j| (i * w + j) * c))
    }

    /// The index of the first maximum of each window within its image, NaN counting as a maximum; units from `first` on.
    #[inline(always)]
    pub(super) fn indices<T: Real>(&self, first: usize, x: &[T], out: &mut [u32]) {
        let ([full, windows], c) = (self.unit(), self.channels);
        for (i, (x, out)) in x.chunks_exact(full).zip(out.chunks_exact_mut(windows)).enumerate() {
            let origin = self.origin(first + i);
            if self.kernel == [2, 2] {
                let pitch = self.hw[1] * c;
                self.for_each_window(|at, to| {
                    let taps = [at, at + c, at + pitch, at + pitch + c];
                    let [p, q, r, s] = taps.map(|t| &x[t..][..c]);
                    for (j, out) in out[to..][..c].iter_mut().enumerate() {
                        let (mut best, mut place) = (p[j], taps[0]);
                        for (v, tap) in [(q[j], taps[1]), (r[j], taps[2]), (s[j], taps[3])] {
                            let better = is_better(v, best);
                            best = if better { v } else { best };
                            place = if better { tap } else { place };
                        }
                        *out = (origin + place) as u32 + j as u32;
                    }
                });
                continue;
            }
            self.for_each_window(|at, to| {
                for (j, out) in out[to..][..c].iter_mut().enumerate() {
                    let (mut best, mut place) = (x[at + j], at + j);
                    for tap in self.taps() {
                        let v = x[at + tap + j];
                        if is_better(v, best) {
                            (best, place) = (v, at + tap + j);
                        }
                    }
                    *out = (origin + place) as u32;
                }
            });
        }
    }

    /// The element of each window that its index names.
    #[inline(always)]
    pub(super) fn gather<T: Real>(&self, first: usize, x: &[T], indices: &[u32], out: &mut [T]) {
        let ([full, windows], c) = (self.unit(), self.channels);
        let units = x.chunks_exact(full).zip(indices.chunks_exact(windows)).zip(out.chunks_exact_mut(windows));
        for (i, ((x, indices), out)) in units.enumerate() {
            let origin = self.origin(first + i);
            self.for_each_window(|at, to| {
                let (indices, out) = (&indices[to..][..c], &mut out[to..][..c]);
                if self.kernel == [2, 2] {
                    let pitch = self.hw[1] * c;
                    let [p, q, r, s] = [at, at + c, at + pitch, at + pitch + c].map(|t| &x[t..][..c]);
                    let [b, d, e] = [at + c, at + pitch, at + pitch + c].map(|t| (origin + t) as u32);
                    for j in 0..c {
                        let index = indices[j].wrapping_sub(j as u32);
                        let mut y = p[j];
                        y = if index == b { q[j] } else { y };
                        y = if index == d { r[j] } else { y };
                        y = if index == e { s[j] } else { y };
                        out[j] = y;
                    }
                    return;
                }
                out.fill(T::ZERO);
                for tap in self.taps() {
                    let (x, name) = (&x[at + tap..][..c], (origin + at + tap) as u32);
                    for j in 0..c {
                        out[j] = if indices[j] == name + j as u32 { x[j] } else { out[j] };
                    }
                }
            });
        }
    }

    /// Zeros, but for each window's element where its index says.
    #[inline(always)]
    pub(super) fn scatter<T: Real>(&self, first: usize, g: &[T], indices: &[u32], out: &mut [T]) {
        let ([full, windows], c, [kh, kw]) = (self.unit(), self.channels, self.kernel);
        let has_rest = !self.hw[0].is_multiple_of(kh) || !self.hw[1].is_multiple_of(kw);
        let units = g.chunks_exact(windows).zip(indices.chunks_exact(windows)).zip(out.chunks_exact_mut(full));
        for (i, ((g, indices), out)) in units.enumerate() {
            let origin = self.origin(first + i);
            if has_rest {
                out.fill(T::ZERO);
            }
            self.for_each_window(|at, to| {
                let (indices, g) = (&indices[to..][..c], &g[to..][..c]);
                for tap in self.taps() {
                    let (out, name) = (&mut out[at + tap..][..c], (origin + at + tap) as u32);
                    for j in 0..c {
                        // A sum, as of scattered rows: it turns -0 into 0.
                        out[j] = if indices[j] == name + j as u32 { T::ZERO + g[j] } else { T::ZERO };
                    }
                }
            });
        }
    }
}

/// Whether `v` replaces `best`, which stands before it.
#[inline(always)]
fn is_better<T: Real>(v: T, best: T) -> bool {
    #[expect(clippy::eq_op, reason = "tests for NaN without a branch")]
    let (v_nan, best_nan) = (v != v, best != best);
    (v > best) | (v_nan & !best_nan)
}
