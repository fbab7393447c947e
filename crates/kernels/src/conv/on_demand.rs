//! The forward pass, some pixels at a time, where somebody reads them.
//!
//! With few terms a pixel, as in a network's first layer, which makes 64 channels of one, it takes less time to compute a large result again than to fetch it
//! from memory. So it is never kept: a pass that reads it has a [`Reader`], which writes the next pixels into the cache.

use super::ConvDims;
use super::forward::is_plain;
use super::window::{Images, Rect};
use crate::Real;
use crate::microkernel::{Kernels, ROWS, Segment, Tile, kernels};

/// Terms of a number's sum, at most, those of idle lanes included: with 16 lanes and two multiply-adds a cycle they take as long as a byte or two from
/// memory.
const MAX_TERMS: usize = 12;
/// Numbers of the result for each of the image, at least: the image is read instead.
const LEAST_GAIN: usize = 4;
/// Numbers of an image with its padding, at most: each reader copies it for itself.
const MAX_ROOM: usize = 1 << 13;

/// A convolution `y [n, oh, ow, co]` of `x [n, h, w, ci]` that is not in memory.
#[derive(Clone, Copy, Debug)]
pub struct OnDemand<'a, T> {
    dims: &'a ConvDims,
    out: [usize; 2],
    x: &'a [T],
    w: &'a [T],
}

impl<'a, T: Real> OnDemand<'a, T> {
    /// The convolution of `x` with `w [kh, kw, ci, co]`.
    ///
    /// # Panics
    /// If a length does not fit, or the shape is not one of [`OnDemand::fits`].
    #[track_caller]
    pub fn new(dims: &'a ConvDims, x: &'a [T], w: &'a [T]) -> OnDemand<'a, T> {
        assert!(Self::fits(dims), "a convolution on demand: {dims:?}");
        let Some(out) = dims.out_hw() else { unreachable!("a shape that fits has an output") };
        dims.check("a convolution on demand", x.len(), w.len(), dims.n * out[0] * out[1] * dims.co);
        OnDemand { dims, out, x, w }
    }

    /// Whether such a convolution can be computed on demand, with the bits of [`crate::conv`], and is worth it where the result is large: it has few
    /// terms, small images, many channels, and no way of its own.
    pub fn fits(dims: &ConvDims) -> bool {
        let Some(out) = dims.out_hw() else { return false };
        if dims.is_empty() || dims.groups != 1 || dims.dilation != [1, 1] {
            return false;
        }
        let terms = dims.taps() * dims.ci * dims.co.next_multiple_of(kernels::<T>().lanes);
        let [x, y] = [dims.hw[0] * dims.hw[1] * dims.ci, out[0] * out[1] * dims.co];
        terms <= MAX_TERMS * dims.co && LEAST_GAIN * x <= y && room(dims, out) <= MAX_ROOM && is_plain::<T>(dims, out)
    }

    /// Pixels of y.
    pub(crate) fn pixels(&self) -> usize {
        self.dims.n * self.out[0] * self.out[1]
    }

    /// Channels of y.
    pub(crate) fn channels(&self) -> usize {
        self.dims.co
    }

    /// Rows and columns that the pixels of an image read, and where they begin.
    fn rect(&self) -> Rect {
        Rect { origin: [0, 1].map(|i| -(self.dims.pad[i][0] as isize)), size: span(self.dims, self.out) }
    }

    /// Numbers that a reader needs room for.
    pub(crate) fn room(&self) -> usize {
        room(self.dims, self.out)
    }

    /// A reader with this room, [`OnDemand::room`] long.
    pub(crate) fn reader<'r>(&'r self, window: &'r mut [T]) -> Reader<'r, T> {
        assert_eq!(window.len(), self.room(), "room of a reader");
        let [kh, kw] = self.dims.kernel;
        let pitch = self.rect().size[1] * self.dims.ci;
        // The taps of a row follow each other in the window and in the weights.
        let len = kw * self.dims.ci;
        let mut segments = [Segment::default(); MAX_TERMS];
        for (row, segment) in segments[..kh].iter_mut().enumerate() {
            *segment = Segment { a: (row * pitch) as isize, b: (row * len * self.dims.co) as isize, len };
        }
        Reader { conv: self, kernels: kernels(), segments, window, image: None }
    }
}

/// Rows and columns that the pixels of an image read.
fn span(dims: &ConvDims, out: [usize; 2]) -> [usize; 2] {
    [0, 1].map(|i| (out[i] - 1) * dims.stride[i] + dims.kernel[i])
}

/// The numbers there.
fn room(dims: &ConvDims, out: [usize; 2]) -> usize {
    let [height, width] = span(dims, out);
    height * width * dims.ci
}

/// Computes pixels of a convolution; it knows the image that it was in last.
pub(crate) struct Reader<'r, T: 'static> {
    conv: &'r OnDemand<'r, T>,
    kernels: &'static Kernels<T>,
    segments: [Segment; MAX_TERMS],
    /// An image with its padding.
    window: &'r mut [T],
    image: Option<usize>,
}

impl<T: Real> Reader<'_, T> {
    /// Writes pixels `first..last`, counted over all images, to `y`.
    ///
    /// # Panics
    /// If there are not so many, or `y` has another length.
    pub(crate) fn read(&mut self, [first, last]: [usize; 2], y: &mut [T]) {
        let co = self.conv.dims.co;
        assert!(first <= last && last <= self.conv.pixels() && y.len() == (last - first) * co, "pixels on demand");
        let per_image = self.conv.out[0] * self.conv.out[1];
        let mut at = first;
        while at < last {
            let image = at / per_image;
            let end = last.min((image + 1) * per_image);
            if self.image != Some(image) {
                let dims = self.conv.dims;
                let images = Images { data: self.conv.x, hw: dims.hw, c: dims.ci };
                images.copy_rect(image, image + 1, self.conv.rect(), self.window);
                self.image = Some(image);
            }
            self.of_image(
                [at - image * per_image, end - image * per_image],
                &mut y[(at - first) * co..(end - first) * co],
            );
            at = end;
        }
    }

    /// Pixels `first..last` of the image in the window.
    fn of_image(&self, [first, last]: [usize; 2], y: &mut [T]) {
        let dims = self.conv.dims;
        let (ow, co) = (self.conv.out[1], dims.co);
        let (down, across) = (dims.stride[0] * self.conv.rect().size[1] * dims.ci, dims.stride[1] * dims.ci);
        let (mut row, mut column) = (first / ow, first % ow);
        let mut tile = Tile {
            a: [self.window.as_ptr(); ROWS],
            a_step: 1,
            b: self.conv.w.as_ptr(),
            b_step: co as isize,
            segments: &self.segments[..dims.kernel[0]],
            c: [y.as_mut_ptr(); ROWS],
            add: false,
        };
        for done in (0..last - first).step_by(ROWS) {
            let rows = (last - first - done).min(ROWS);
            for a in &mut tile.a[..rows] {
                *a = self.window.as_ptr().wrapping_add(row * down + column * across);
                column += 1;
                if column == ow {
                    (row, column) = (row + 1, 0);
                }
            }
            let to: [*mut T; ROWS] = std::array::from_fn(|i| y.as_mut_ptr().wrapping_add((done + i) * co));
            for col in (0..co).step_by(self.kernels.wide) {
                tile.b = self.conv.w.as_ptr().wrapping_add(col);
                tile.c = to.map(|to| to.wrapping_add(col));
                // SAFETY: a pixel's taps lie in the window, which holds all that the image's pixels read; w has a row for each term, and y one
                // for each pixel (`OnDemand::new` and `read` checked the lengths).
                unsafe { self.kernels.tile(rows, (co - col).min(self.kernels.wide), &tile) }
            }
        }
    }
}
