//! Pooling over windows of NHWC images: where the maximum is, sums, and the adjoint of the sums. The lanes run over channels.

use crate::Real;
use crate::par::{Par, for_each_chunk};
use crate::simd::{Kernel, Simd, dispatch};

/// The windows of a pooling: output pixel (i, j) covers `kernel` input pixels from `(i, j) * stride - pad`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Window {
    /// Height and width of a window.
    pub kernel: [usize; 2],
    /// Vertical and horizontal stride.
    pub stride: [usize; 2],
    /// Padding: `[[top, bottom], [left, right]]`, each less than the kernel so that every window holds a pixel.
    pub pad: [[usize; 2]; 2],
}

impl Window {
    /// Output height and width for an image of size `hw`; `None` if the image is empty, a stride is 0, a padding is not less than the
    /// kernel or the kernel is larger than the padded image.
    pub fn out_size(&self, hw: [usize; 2]) -> Option<[usize; 2]> {
        let axis = |i: usize| {
            let [before, after] = self.pad[i];
            if hw[i] == 0 || before.max(after) >= self.kernel[i] {
                return None;
            }
            let room = (hw[i] + before + after).checked_sub(self.kernel[i])?;
            Some(room.checked_div(self.stride[i])? + 1)
        };
        Some([axis(0)?, axis(1)?])
    }

    /// The input rows (or columns) `[first, last)` of output row `o`.
    #[inline(always)]
    fn inputs(&self, axis: usize, o: usize, size: usize) -> [usize; 2] {
        let start = o * self.stride[axis];
        let first = start.saturating_sub(self.pad[axis][0]);
        [first, (start + self.kernel[axis] - self.pad[axis][0]).min(size)]
    }

    /// The output rows (or columns) `[first, last)` whose windows hold input row `i`.
    #[inline(always)]
    fn outputs(&self, axis: usize, i: usize, size: usize) -> [usize; 2] {
        let at = i + self.pad[axis][0];
        let first = (at + 1).saturating_sub(self.kernel[axis]).div_ceil(self.stride[axis]);
        [first, (at / self.stride[axis] + 1).min(size)]
    }

    #[track_caller]
    fn check(&self, op: &str, input: usize, n: usize, hw: [usize; 2], c: usize, output: usize) -> [usize; 2] {
        let Some([oh, ow]) = self.out_size(hw) else {
            panic!("{op}: no output for an image of {hw:?} and {self:?}");
        };
        assert_eq!(input, n * hw[0] * hw[1] * c, "{op}: length of the image for [{n}, {}, {}, {c}]", hw[0], hw[1]);
        assert_eq!(output, n * oh * ow * c, "{op}: length of the pooled image for [{n}, {oh}, {ow}, {c}]");
        [oh, ow]
    }
}

/// Elements of output that a thread gets at least: some 10 us of comparing.
const GRAIN: usize = 1 << 14;
/// Channels that are compared at a time: the best values and their places stay in the first-level cache.
const CHANNELS: usize = 64;

/// Where the maximum of each window is, as an index into its image's `h * w * c` elements; the first one if several are equal. NaN counts as the
/// maximum; padding never wins. x `[n, h, w, c]`, out `[n, oh, ow, c]`.
///
/// # Panics
/// If a length does not fit, an image has more than `u32::MAX` elements, or there is no output (see [`Window::out_size`]).
#[track_caller]
pub(crate) fn max_pool_indices<T: Real>(
    par: Par,
    x: &[T],
    n: usize,
    hw: [usize; 2],
    c: usize,
    window: &Window,
    out: &mut [u32],
) {
    let [oh, ow] = window.check("max_pool_indices", x.len(), n, hw, c, out.len());
    assert!(u32::try_from(hw[0] * hw[1] * c).is_ok(), "max_pool_indices: an image of {hw:?} x {c} is too large");
    let row = ow * c;
    if row == 0 {
        return;
    }
    for_each_chunk(par, out, GRAIN.div_ceil(row) * row, |start, out| {
        dispatch(MaxRows { x, hw, c, oh, window, first: start / row, row, out });
    });
}

struct MaxRows<'a, T> {
    x: &'a [T],
    hw: [usize; 2],
    c: usize,
    oh: usize,
    window: &'a Window,
    first: usize,
    row: usize,
    out: &'a mut [u32],
}

impl<T: Real> Kernel for MaxRows<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let Self { hw: [h, w], c, .. } = self;
        for (i, row) in self.out.chunks_exact_mut(self.row).enumerate() {
            let (image, o) = ((self.first + i) / self.oh, (self.first + i) % self.oh);
            let x = &self.x[image * h * w * c..][..h * w * c];
            let ys = self.window.inputs(0, o, h);
            for (o, pixel) in row.chunks_exact_mut(c).enumerate() {
                let xs = self.window.inputs(1, o, w);
                if ys[1] - ys[0] == 2 && xs[1] - xs[0] == 2 {
                    max_of_four(x, (ys[0] * w + xs[0]) * c, w * c, pixel);
                } else {
                    max_of_window(x, w, ys, xs, pixel);
                }
            }
        }
    }
}

/// Whether `v` replaces `best`, which stands before it.
#[inline(always)]
pub(crate) fn is_better<T: Real>(v: T, best: T) -> bool {
    #[expect(clippy::eq_op, reason = "tests for NaN without a branch")]
    let (v_nan, best_nan) = (v != v, best != best);
    (v > best) | (v_nan & !best_nan)
}

/// A whole 2 x 2 window from element `at`, by far the most common.
#[inline(always)]
fn max_of_four<T: Real>(x: &[T], at: usize, pitch: usize, out: &mut [u32]) {
    let c = out.len();
    let taps = [at, at + c, at + pitch, at + pitch + c];
    let [p, q, r, s] = taps.map(|t| &x[t..][..c]);
    for (i, out) in out.iter_mut().enumerate() {
        let (mut best, mut place) = (p[i], taps[0]);
        for (v, tap) in [(q[i], taps[1]), (r[i], taps[2]), (s[i], taps[3])] {
            let better = is_better(v, best);
            best = if better { v } else { best };
            place = if better { tap } else { place };
        }
        *out = place as u32 + i as u32;
    }
}

#[inline(always)]
fn max_of_window<T: Real>(x: &[T], w: usize, ys: [usize; 2], xs: [usize; 2], out: &mut [u32]) {
    let c = out.len();
    for (block, out) in out.chunks_mut(CHANNELS).enumerate() {
        let from = block * CHANNELS;
        let corner = (ys[0] * w + xs[0]) * c + from;
        let mut best = [T::ZERO; CHANNELS];
        let best = &mut best[..out.len()];
        best.copy_from_slice(&x[corner..][..out.len()]);
        for (i, out) in out.iter_mut().enumerate() {
            *out = (corner + i) as u32;
        }
        for y in ys[0]..ys[1] {
            for column in xs[0]..xs[1] {
                let at = (y * w + column) * c + from;
                let values = &x[at..][..out.len()];
                for i in 0..out.len() {
                    let better = is_better(values[i], best[i]);
                    best[i] = if better { values[i] } else { best[i] };
                    out[i] = if better { at as u32 + i as u32 } else { out[i] };
                }
            }
        }
    }
}

/// The sum of each window; padding counts as 0. x `[n, h, w, c]`, out `[n, oh, ow, c]`.
///
/// # Panics
/// If a length does not fit or there is no output (see [`Window::out_size`]).
#[track_caller]
pub(crate) fn sum_pool<T: Real>(par: Par, x: &[T], n: usize, hw: [usize; 2], c: usize, window: &Window, out: &mut [T]) {
    let size = window.check("sum_pool", x.len(), n, hw, c, out.len());
    sums(par, x, hw, size, c, out, |axis, o| window.inputs(axis, o, hw[axis]));
}

/// The adjoint of [`sum_pool`]: every pixel gets the sum of the gradients of the windows that hold it. g `[n, oh, ow, c]`, out
/// `[n, h, w, c]`, `hw` the size of the latter.
///
/// # Panics
/// If a length does not fit or there is no output (see [`Window::out_size`]).
#[track_caller]
pub(crate) fn sum_unpool<T: Real>(
    par: Par,
    g: &[T],
    n: usize,
    hw: [usize; 2],
    c: usize,
    window: &Window,
    out: &mut [T],
) {
    let size = window.check("sum_unpool", out.len(), n, hw, c, g.len());
    sums(par, g, size, hw, c, out, |axis, i| window.outputs(axis, i, size[axis]));
}

/// Each pixel of images of `out_hw` is the sum of a rectangle of pixels of images of `x_hw`, rows and columns given by `range(axis, index)`.
fn sums<T: Real>(
    par: Par,
    x: &[T],
    x_hw: [usize; 2],
    out_hw: [usize; 2],
    c: usize,
    out: &mut [T],
    range: impl Fn(usize, usize) -> [usize; 2] + Sync + Send,
) {
    let row = out_hw[1] * c;
    if row == 0 {
        return;
    }
    for_each_chunk(par, out, GRAIN.div_ceil(row) * row, |start, out| {
        dispatch(SumRows { x, x_hw, out_h: out_hw[0], c, first: start / row, row, out, range: &range });
    });
}

struct SumRows<'a, T, F> {
    x: &'a [T],
    x_hw: [usize; 2],
    out_h: usize,
    c: usize,
    first: usize,
    row: usize,
    out: &'a mut [T],
    range: &'a F,
}

impl<T: Real, F: Fn(usize, usize) -> [usize; 2]> Kernel for SumRows<'_, T, F> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let Self { x_hw: [h, w], c, .. } = self;
        for (i, row) in self.out.chunks_exact_mut(self.row).enumerate() {
            let (image, o) = ((self.first + i) / self.out_h, (self.first + i) % self.out_h);
            let x = &self.x[image * h * w * c..][..h * w * c];
            let ys = (self.range)(0, o);
            for (o, pixel) in row.chunks_exact_mut(c).enumerate() {
                let xs = (self.range)(1, o);
                pixel.fill(T::ZERO);
                for y in ys[0]..ys[1] {
                    for column in xs[0]..xs[1] {
                        let values = &x[(y * w + column) * c..][..c];
                        for (sum, &value) in pixel.iter_mut().zip(values) {
                            *sum += value;
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn noise(len: usize) -> Vec<f32> {
        // Few different values, so that there are ties.
        (0..len).map(|i| ((i * 7919 + 13) % 101 % 17) as f32 - 8.0).collect()
    }

    /// The pixels of window (i, j), in order.
    fn pixels(window: &Window, hw: [usize; 2], i: usize, j: usize) -> Vec<[usize; 2]> {
        let mut list = Vec::new();
        for a in 0..window.kernel[0] {
            for b in 0..window.kernel[1] {
                let y = (i * window.stride[0] + a).checked_sub(window.pad[0][0]);
                let x = (j * window.stride[1] + b).checked_sub(window.pad[1][0]);
                if let (Some(y), Some(x)) = (y, x)
                    && y < hw[0]
                    && x < hw[1]
                {
                    list.push([y, x]);
                }
            }
        }
        list
    }

    fn check(n: usize, hw: [usize; 2], c: usize, window: &Window) {
        let [oh, ow] = window.out_size(hw).unwrap();
        let mut x = noise(n * hw[0] * hw[1] * c);
        if x.len() > 40 {
            x[11] = f32::NAN;
            x[40] = f32::NEG_INFINITY;
        }
        let image = hw[0] * hw[1] * c;
        let mut places = vec![0; n * oh * ow * c];
        max_pool_indices(Par::Seq, &x, n, hw, c, window, &mut places);
        let finite: Vec<f32> = x.iter().map(|&v| if v.is_finite() { v } else { 1.0 }).collect();
        let mut sums = vec![f32::NAN; n * oh * ow * c];
        sum_pool(Par::Seq, &finite, n, hw, c, window, &mut sums);
        for (at, (&place, &sum)) in places.iter().zip(&sums).enumerate() {
            let (pixel, channel) = (at / c.max(1), at % c.max(1));
            let (image_at, i, j) = (pixel / (oh * ow), pixel / ow % oh, pixel % ow);
            let list: Vec<usize> =
                pixels(window, hw, i, j).iter().map(|[y, x]| (y * hw[1] + x) * c + channel).collect();
            let value = |&p: &usize| x[image_at * image + p];
            let mut best = list[0];
            for p in &list {
                if value(p) > value(&best) || (value(p).is_nan() && !value(&best).is_nan()) {
                    best = *p;
                }
            }
            assert_eq!(place as usize, best, "{window:?} {hw:?} {c}");
            assert_eq!(sum, list.iter().map(|p| finite[image_at * image + p]).sum::<f32>());
        }
        // Small integers: the inner products are exact.
        let g = noise(sums.len());
        let mut dx = vec![f32::NAN; x.len()];
        sum_unpool(Par::Seq, &g, n, hw, c, window, &mut dx);
        let inner = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&a, &b)| f64::from(a * b)).sum::<f64>();
        assert_eq!(inner(&sums, &g), inner(&finite, &dx));
        let mut again = vec![0; places.len()];
        max_pool_indices(Par::Rayon, &x, n, hw, c, window, &mut again);
        assert_eq!(places, again);
    }

    #[test]
    fn the_usual_pooling_in_several_threads() {
        let window = Window { kernel: [2, 2], stride: [2, 2], pad: [[0, 0], [0, 0]] };
        assert_eq!(window.out_size([7, 28]), Some([3, 14]));
        check(40, [14, 14], 64, &window);
        check(3, [7, 7], 70, &window);
        check(2, [9, 9], 3, &Window { kernel: [3, 3], stride: [2, 2], pad: [[1, 1], [1, 1]] });
    }

    #[test]
    fn impossible_windows_have_no_output() {
        let window = Window { kernel: [2, 2], stride: [2, 2], pad: [[0, 0], [0, 0]] };
        assert_eq!(window.out_size([1, 4]), None);
        assert_eq!(Window { stride: [0, 1], ..window }.out_size([4, 4]), None);
        assert_eq!(Window { pad: [[2, 0], [0, 0]], ..window }.out_size([4, 4]), None);
    }

    proptest! {
        #[test]
        fn agrees_with_the_definition(
            n in 0..3usize,
            hw in [1..9usize, 1..9usize],
            c in 0..70usize,
            kernel in [1..4usize, 1..4usize],
            stride in [1..4usize, 1..4usize],
            pad in [[0..3usize, 0..3usize], [0..3usize, 0..3usize]],
        ) {
            let window = Window { kernel, stride, pad };
            prop_assume!(window.out_size(hw).is_some());
            check(n, hw, c, &window);
        }
    }
}
