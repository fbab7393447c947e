//! Normalisation over the middle axis of `[outer, R, C]`, and its gradient.
//!
//! Batch norm is `[1, N*H*W, C]`, layer norm `[N, D, 1]`, instance norm `[N, H*W, C]`. The variance is biased and computed from distances to the mean,
//! so a large mean costs no accuracy.

use crate::conv::{ConvDims, OnDemand, conv_telling, tells};
use crate::fold::{fold, has_blocks, line_moments, moments, moments_behind, moments_of};
use crate::par::{self, Par};
use crate::real::Real;
use crate::scratch::{self, Slot};
use crate::simd::{Kernel, Simd, dispatch};
use crate::term::{PlainAndProduct, line};

/// `out` `[outer, C]` = 1 / sqrt(variance over R + eps). Panics if lengths do not fit.
#[track_caller]
pub(crate) fn rstd<T: Real>(par: Par, x: &[T], outer: usize, r: usize, c: usize, eps: f64, out: &mut [T]) {
    check("rstd", [outer, r, c], x.len(), out.len(), outer * c);
    scratch::with(Slot::Spare, outer * c, |mean| {
        moments(par, x, [outer, r, c], mean, out);
        invert(out, eps);
    });
}

/// `out` `[outer, R, C]` = (x - mean) * rstd. Panics if lengths do not fit.
#[track_caller]
pub(crate) fn normalize<T: Real>(par: Par, x: &[T], outer: usize, r: usize, c: usize, eps: f64, out: &mut [T]) {
    check("normalize", [outer, r, c], x.len(), out.len(), x.len());
    if c == 1 && r > 0 {
        let rows = grain::<T>().div_ceil(r);
        par::for_each_chunk(par, out, rows * r, |start, out| {
            dispatch(NormalizeLines { x: &x[start..start + out.len()], r, eps, out });
        });
        return;
    }
    scratch::with(Slot::Spare, 2 * outer * c, |both| {
        let (mean, rstd) = both.split_at_mut(outer * c);
        moments(par, x, [outer, r, c], mean, rstd);
        invert(rstd, eps);
        let (mean, rstd) = (&*mean, &*rstd);
        par::for_each_chunk(par, out, grain::<T>().div_ceil(c.max(1)) * c, |start, out| {
            let x = &x[start..start + out.len()];
            let place = Place { start: start / c, r, c };
            dispatch(Normalize { x, mean, rstd, place, out });
        });
    });
}

/// The gradient of [`normalize`] for cotangent `g` `[outer, R, C]`, from its output `xhat` and [`rstd`]:
/// `out = rstd * (g - mean(g) - xhat * mean(g * xhat))`, means over R. Panics if lengths do not fit.
#[allow(clippy::too_many_arguments)]
#[track_caller]
pub(crate) fn normalize_grad<T: Real>(
    par: Par,
    xhat: &[T],
    rstd: &[T],
    g: &[T],
    outer: usize,
    r: usize,
    c: usize,
    out: &mut [T],
) {
    check("normalize_grad", [outer, r, c], xhat.len(), out.len(), xhat.len());
    assert_eq!(g.len(), xhat.len(), "normalize_grad: cotangent of [{outer}, {r}, {c}]");
    assert_eq!(rstd.len(), outer * c, "normalize_grad: rstd of [{outer}, {c}]");
    if c == 1 && r > 0 {
        let rows = grain::<T>().div_ceil(r);
        par::for_each_chunk(par, out, rows * r, |start, out| {
            let (xhat, g) = (&xhat[start..start + out.len()], &g[start..start + out.len()]);
            dispatch(GradLines { xhat, g, rstd: &rstd[start / r..], r, out });
        });
        return;
    }
    scratch::with(Slot::Spare, 2 * outer * c, |both| {
        let (shift, slope) = both.split_at_mut(outer * c);
        fold(par, PlainAndProduct(g, xhat), [outer, r, c], [&mut *shift, &mut *slope]);
        for ((shift, slope), &rstd) in shift.iter_mut().zip(slope.iter_mut()).zip(rstd) {
            [*shift, *slope] = coefficients([*shift, *slope], rstd, r);
        }
        let (shift, slope) = (&*shift, &*slope);
        par::for_each_chunk(par, out, grain::<T>().div_ceil(c.max(1)) * c, |start, out| {
            let (xhat, g) = (&xhat[start..start + out.len()], &g[start..start + out.len()]);
            let place = Place { start: start / c, r, c };
            dispatch(NormalizeGrad { xhat, g, rstd, shift, slope, place, out });
        });
    });
}

/// Means and 1 / sqrt(variance + eps) over R, both `[outer, C]`: what [`normalize`] uses. Panics if lengths do not fit.
#[allow(clippy::too_many_arguments)]
#[track_caller]
pub(crate) fn statistics<T: Real>(
    par: Par,
    x: &[T],
    outer: usize,
    r: usize,
    c: usize,
    eps: f64,
    mean: &mut [T],
    rstd: &mut [T],
) {
    check("statistics", [outer, r, c], x.len(), rstd.len(), outer * c);
    assert_eq!(mean.len(), outer * c, "statistics: means of [{outer}, {c}]");
    moments(par, x, [outer, r, c], mean, rstd);
    invert(rstd, eps);
}

/// [`statistics`] of a convolution over all its pixels, without having it in memory: the same bits. Panics if lengths do not fit.
#[track_caller]
pub(crate) fn statistics_of<T: Real>(par: Par, x: &OnDemand<'_, T>, eps: f64, mean: &mut [T], rstd: &mut [T]) {
    let c = x.channels();
    assert!(mean.len() == c && rstd.len() == c, "statistics of {c} columns");
    moments_of(par, x, mean, rstd);
    invert(rstd, eps);
}

impl ConvDims {
    /// Whether [`crate::conv_statistics`] can take such a convolution: its pixels are many, and
    /// written some rows, images or tiles at a time.
    pub fn comes_with_statistics<T: Real>(&self) -> bool {
        self.out_hw().is_some_and(|[h, w]| has_blocks([self.n * h * w, self.co])) && tells::<T>(self)
    }
}

/// y, the convolution of x with w, and its [`statistics`] over all pixels, taken while they lie in the cache: the same bits.
///
/// # Panics
/// If a length does not fit, or unless [`ConvDims::comes_with_statistics`].
#[expect(clippy::too_many_arguments, reason = "the arguments are those of the two operations")]
#[track_caller]
pub(crate) fn conv_statistics<T: Real>(
    par: Par,
    dims: &ConvDims,
    x: &[T],
    w: &[T],
    eps: f64,
    y: &mut [T],
    mean: &mut [T],
    rstd: &mut [T],
) {
    let c = dims.co;
    assert!(dims.comes_with_statistics::<T>(), "conv_statistics: {dims:?}");
    assert!(mean.len() == c && rstd.len() == c, "conv_statistics of {c} columns");
    moments_behind([y.len() / c, c], mean, rstd, |behind| {
        // SAFETY: the convolution tells each pixel of y once, and does not touch it any more.
        conv_telling(par, dims, x, w, y, &|y, pixels| unsafe { behind.rows(y, pixels) });
    });
    invert(rstd, eps);
}

/// The slope and the shift of [`normalize_grad`] from the sums over R of g and of g * xhat. Panics if lengths differ.
#[track_caller]
pub(crate) fn grad_coefficients<T: Real>(
    sum: &[T],
    product: &[T],
    rstd: &[T],
    r: usize,
    slope: &mut [T],
    shift: &mut [T],
) {
    assert!([product.len(), rstd.len(), slope.len(), shift.len()] == [sum.len(); 4], "grad_coefficients: lengths");
    for i in 0..sum.len() {
        [shift[i], slope[i]] = coefficients([sum[i], product[i]], rstd[i], r);
    }
}

#[track_caller]
fn check(what: &str, dims: [usize; 3], x: usize, out: usize, expected: usize) {
    assert_eq!(x, dims.iter().product::<usize>(), "{what}: input of {dims:?}");
    assert_eq!(out, expected, "{what}: output for {dims:?}");
}

/// Elements per task.
fn grain<T>() -> usize {
    par::CHEAP_GRAIN_BYTES / size_of::<T>()
}

/// Turns variances into 1 / sqrt(variance + eps).
fn invert<T: Real>(variance: &mut [T], eps: f64) {
    let eps = T::from_f64(eps);
    variance.iter_mut().for_each(|v| *v = T::ONE / (*v + eps).sqrt());
}

/// From the sums of g and of g * xhat: the gradient is `rstd * g + (slope * xhat + shift)`.
#[inline(always)]
fn coefficients<T: Real>([g, product]: [T; 2], rstd: T, r: usize) -> [T; 2] {
    let factor = -rstd * T::from_f64(1.0 / r.max(1) as f64);
    [g * factor, product * factor]
}

/// Layer norm: each line is read from memory once.
struct NormalizeLines<'a, T> {
    x: &'a [T],
    r: usize,
    eps: f64,
    out: &'a mut [T],
}

impl<T: Real> Kernel for NormalizeLines<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (eps, factor) = (T::from_f64(self.eps), T::from_f64(1.0 / self.r as f64));
        for (row, out) in self.out.chunks_exact_mut(self.r).enumerate() {
            let [mean, variance] = line_moments(simd, self.x, row * self.r, self.r, factor);
            let rstd = T::ONE / (variance + eps).sqrt();
            for (o, &x) in out.iter_mut().zip(&self.x[row * self.r..]) {
                *o = (x - mean) * rstd;
            }
        }
    }
}

/// The gradient of layer norm, line by line.
struct GradLines<'a, T> {
    xhat: &'a [T],
    g: &'a [T],
    rstd: &'a [T],
    r: usize,
    out: &'a mut [T],
}

impl<T: Real> Kernel for GradLines<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let r = self.r;
        let term = PlainAndProduct(self.g, self.xhat);
        for ((row, out), &rstd) in self.out.chunks_exact_mut(r).enumerate().zip(self.rstd) {
            let sums = line(simd, term, row * r, r, T::ZERO);
            let [shift, slope] = coefficients(sums, rstd, r);
            for ((o, &g), &xhat) in out.iter_mut().zip(&self.g[row * r..]).zip(&self.xhat[row * r..]) {
                *o = rstd.fma::<S>(g, slope.fma::<S>(xhat, shift));
            }
        }
    }
}

/// Where a piece of `[outer, R, C]` stands: it starts with row `start` of `[outer * R, C]`.
#[derive(Clone, Copy)]
struct Place {
    start: usize,
    r: usize,
    c: usize,
}

/// Parameters of narrow rows are repeated up to this many elements, so that the arithmetic sees runs of that length.
const TILE: usize = 256;

impl Place {
    /// Calls `f(parameters, from, to)` for the parts of `0..len` that have the same parameters: some rows of one `a`. The parameters
    /// `[outer, C]` are repeated as often as the part has rows.
    #[inline(always)]
    fn for_each_run<T: Real, const N: usize>(
        self,
        len: usize,
        params: [&[T]; N],
        mut f: impl FnMut([&[T]; N], usize, usize),
    ) {
        let c = self.c;
        let beside = (TILE / c).max(1);
        let mut tiles = [[T::ZERO; TILE]; N];
        let (mut row, mut from) = (self.start, 0);
        while from < len {
            let a = row / self.r;
            let end = (a + 1) * self.r;
            let to = (from + (end - row) * c).min(len);
            let params = params.map(|p| &p[a * c..][..c]);
            let repeats = beside.min((to - from) / c);
            if repeats > 1 {
                for (tile, params) in tiles.iter_mut().zip(params) {
                    tile[..repeats * c].chunks_exact_mut(c).for_each(|row| row.copy_from_slice(params));
                }
            }
            for first in (from..to).step_by(repeats * c) {
                let last = (first + repeats * c).min(to);
                let run = std::array::from_fn(|n| if repeats > 1 { &tiles[n][..last - first] } else { params[n] });
                f(run, first, last);
            }
            (row, from) = (end, to);
        }
    }
}

struct Normalize<'a, T> {
    x: &'a [T],
    mean: &'a [T],
    rstd: &'a [T],
    place: Place,
    out: &'a mut [T],
}

impl<T: Real> Kernel for Normalize<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        self.place.for_each_run(self.out.len(), [self.mean, self.rstd], |[mean, rstd], from, to| {
            let (x, out) = (&self.x[from..to], &mut self.out[from..to]);
            for (((o, &x), &mean), &rstd) in out.iter_mut().zip(x).zip(mean).zip(rstd) {
                *o = (x - mean) * rstd;
            }
        });
    }
}

struct NormalizeGrad<'a, T> {
    xhat: &'a [T],
    g: &'a [T],
    rstd: &'a [T],
    shift: &'a [T],
    slope: &'a [T],
    place: Place,
    out: &'a mut [T],
}

impl<T: Real> Kernel for NormalizeGrad<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let params = [self.rstd, self.shift, self.slope];
        self.place.for_each_run(self.out.len(), params, |[rstd, shift, slope], from, to| {
            let (xhat, g, out) = (&self.xhat[from..to], &self.g[from..to], &mut self.out[from..to]);
            let params = rstd.iter().zip(shift).zip(slope);
            for (((o, &xhat), &g), ((&rstd, &shift), &slope)) in out.iter_mut().zip(xhat).zip(g).zip(params) {
                *o = rstd.fma::<S>(g, slope.fma::<S>(xhat, shift));
            }
        });
    }
}
