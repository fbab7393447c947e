//! Normalisation over the middle axis of `[outer, R, C]`, and its gradient.
//!
//! Batch norm is `[1, N*H*W, C]`, layer norm `[N, D, 1]`, instance norm `[N, H*W, C]`. The variance is biased and computed from distances to the mean,
//! so a large mean costs no accuracy.

use crate::fold::{Centered, Plain, PlainAndProduct, fold};
use crate::par::{self, Par};
use crate::real::Real;
use crate::scratch::{self, Slot};
use crate::simd::{Kernel, Simd, dispatch};

/// `out` `[outer, C]` = 1 / sqrt(variance over R + eps). Panics if lengths do not fit.
#[track_caller]
pub fn rstd<T: Real>(par: Par, x: &[T], outer: usize, r: usize, c: usize, eps: f64, out: &mut [T]) {
    check("rstd", [outer, r, c], x.len(), out.len(), outer * c);
    scratch::with(Slot::Spare, outer * c, |mean| statistics(par, x, [outer, r, c], eps, mean, out));
}

/// `out` `[outer, R, C]` = (x - mean) * rstd. Panics if lengths do not fit.
#[track_caller]
pub fn normalize<T: Real>(par: Par, x: &[T], outer: usize, r: usize, c: usize, eps: f64, out: &mut [T]) {
    check("normalize", [outer, r, c], x.len(), out.len(), x.len());
    scratch::with(Slot::Spare, 2 * outer * c, |both| {
        let (mean, rstd) = both.split_at_mut(outer * c);
        statistics(par, x, [outer, r, c], eps, mean, rstd);
        let (mean, rstd) = (&*mean, &*rstd);
        par::for_each_chunk(par, out, grain::<T>(c), |start, out| {
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
pub fn normalize_grad<T: Real>(
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
    scratch::with(Slot::Spare, 2 * outer * c, |both| {
        let (mean, product) = both.split_at_mut(outer * c);
        fold(par, PlainAndProduct(g, xhat), [outer, r, c], &[], [&mut *mean, &mut *product]);
        scale(mean, r);
        scale(product, r);
        let (mean, product) = (&*mean, &*product);
        par::for_each_chunk(par, out, grain::<T>(c), |start, out| {
            let (xhat, g) = (&xhat[start..start + out.len()], &g[start..start + out.len()]);
            let place = Place { start: start / c, r, c };
            dispatch(NormalizeGrad { xhat, g, rstd, mean, product, place, out });
        });
    });
}

#[track_caller]
fn check(what: &str, dims: [usize; 3], x: usize, out: usize, expected: usize) {
    assert_eq!(x, dims.iter().product::<usize>(), "{what}: input of {dims:?}");
    assert_eq!(out, expected, "{what}: output for {dims:?}");
}

fn scale<T: Real>(x: &mut [T], r: usize) {
    let factor = T::from_f64(1.0 / r.max(1) as f64);
    x.iter_mut().for_each(|x| *x *= factor);
}

fn statistics<T: Real>(par: Par, x: &[T], dims: [usize; 3], eps: f64, mean: &mut [T], rstd: &mut [T]) {
    fold(par, Plain(x), dims, &[], [&mut *mean]);
    scale(mean, dims[1]);
    fold(par, Centered(x), dims, mean, [&mut *rstd]);
    scale(rstd, dims[1]);
    let eps = T::from_f64(eps);
    rstd.iter_mut().for_each(|v| *v = T::ONE / (*v + eps).sqrt());
}

/// Elements per task: whole rows of `[outer * R, C]`.
fn grain<T>(c: usize) -> usize {
    (par::CHEAP_GRAIN_BYTES / size_of::<T>()).div_ceil(c.max(1)) * c
}

/// Where a piece of `[outer, R, C]` stands: it starts with row `start` of `[outer * R, C]`.
#[derive(Clone, Copy)]
struct Place {
    start: usize,
    r: usize,
    c: usize,
}

impl Place {
    /// Calls `f(a, from, to)` for the parts of `0..len` that lie in one `a` each.
    #[inline(always)]
    fn for_each_outer(self, len: usize, mut f: impl FnMut(usize, usize, usize)) {
        let (mut row, mut from) = (self.start, 0);
        while from < len {
            let a = row / self.r;
            let end = (a + 1) * self.r;
            let to = (from + (end - row) * self.c).min(len);
            f(a, from, to);
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
        let c = self.place.c;
        self.place.for_each_outer(self.out.len(), |a, from, to| {
            let (x, out) = (&self.x[from..to], &mut self.out[from..to]);
            let (mean, rstd) = (&self.mean[a * c..][..c], &self.rstd[a * c..][..c]);
            if c == 1 {
                let (mean, rstd) = (mean[0], rstd[0]);
                for (o, &x) in out.iter_mut().zip(x) {
                    *o = (x - mean) * rstd;
                }
            } else {
                for (out, x) in out.chunks_exact_mut(c).zip(x.chunks_exact(c)) {
                    for (((o, &x), &mean), &rstd) in out.iter_mut().zip(x).zip(mean).zip(rstd) {
                        *o = (x - mean) * rstd;
                    }
                }
            }
        });
    }
}

struct NormalizeGrad<'a, T> {
    xhat: &'a [T],
    g: &'a [T],
    rstd: &'a [T],
    mean: &'a [T],
    product: &'a [T],
    place: Place,
    out: &'a mut [T],
}

impl<T: Real> Kernel for NormalizeGrad<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let c = self.place.c;
        let value = |g: T, xhat: T, rstd: T, mean: T, product: T| rstd * (-xhat).fma::<S>(product, g - mean);
        self.place.for_each_outer(self.out.len(), |a, from, to| {
            let (xhat, g, out) = (&self.xhat[from..to], &self.g[from..to], &mut self.out[from..to]);
            let rstd = &self.rstd[a * c..][..c];
            let (mean, product) = (&self.mean[a * c..][..c], &self.product[a * c..][..c]);
            if c == 1 {
                let (rstd, mean, product) = (rstd[0], mean[0], product[0]);
                for ((o, &h), &g) in out.iter_mut().zip(xhat).zip(g) {
                    *o = value(g, h, rstd, mean, product);
                }
            } else {
                let rows = out.chunks_exact_mut(c).zip(xhat.chunks_exact(c)).zip(g.chunks_exact(c));
                for ((out, xhat), g) in rows {
                    for j in 0..c {
                        out[j] = value(g[j], xhat[j], rstd[j], mean[j], product[j]);
                    }
                }
            }
        });
    }
}
