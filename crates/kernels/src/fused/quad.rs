//! Windows of two by two pixels, by far the most common, a register of channels at a time: where the first maximum is, picking it, and its adjoint.
//!
//! A pixel's name is the index of its channel 0 in the image. Within a window it is that of the window's first pixel and one of four [`Quad::steps`],
//! which stay in registers for a whole row of windows.

use bytemuck::{cast_slice, cast_slice_mut};

use crate::pool::is_better;
use crate::real::Real;
use crate::simd::Simd;

/// Numbers from 0 on, for a register of any instruction set.
const COUNT: [u32; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];

/// The shape of all windows of an image.
#[derive(Clone, Copy)]
pub(super) struct Quad {
    channels: usize,
    /// From the name of a window's first pixel to those of its four.
    steps: [u32; 4],
}

impl Quad {
    /// Windows of images with rows of `pitch` elements.
    #[inline(always)]
    pub(super) fn new(channels: usize, pitch: usize) -> Quad {
        Quad { channels, steps: [0, channels, pitch, pitch + channels].map(|step| step as u32) }
    }

    /// The four pixels of a window that begins at `at` of two rows.
    #[inline(always)]
    fn pixels<'a, T>(&self, [upper, lower]: [&'a [T]; 2], at: usize) -> [&'a [T]; 4] {
        let c = self.channels;
        let ((p, q), (r, s)) = (upper[at..at + 2 * c].split_at(c), lower[at..at + 2 * c].split_at(c));
        [p, q, r, s]
    }

    /// For each channel of a row of windows the index of the first maximum, NaN counting as one; and the maximum itself, if `best` has room for it. The first
    /// window's name is `name`. `beside` is told of the pixels of each window.
    #[inline(always)]
    pub(super) fn max<S: Simd, T: Real>(
        &self,
        simd: S,
        rows: [&[T]; 2],
        mut name: u32,
        indices: &mut [u32],
        best: &mut [T],
        beside: &mut impl FnMut(usize),
    ) {
        let (c, [_, right, below, across]) = (self.channels, self.steps);
        let mut best = best.chunks_exact_mut(c);
        for (w, indices) in indices.chunks_exact_mut(c).enumerate() {
            beside(4 * c);
            let (values, best) = (self.pixels(rows, 2 * w * c), best.next().unwrap_or_default());
            let mut done = 0;
            if T::IS_F32 {
                let [p, q, r, s] = self::values(values);
                let (p, q, r, s) =
                    (S::as_simd_f32s(p).0, S::as_simd_f32s(q).0, S::as_simd_f32s(r).0, S::as_simd_f32s(s).0);
                let out = S::as_mut_simd_u32s(indices).0;
                let best = S::as_mut_simd_f32s(cast_slice_mut(best)).0;
                let [first, right, below, across] = self.splat(simd);
                let mut names = simd.add_u32s(simd.splat_u32s(name), S::as_simd_u32s(&COUNT).0[0]);
                for (i, ((((out, &p), &q), &r), &s)) in out.iter_mut().zip(p).zip(q).zip(r).zip(s).enumerate() {
                    let is_right = is_better_than(simd, q, p);
                    let (upper, upper_name) =
                        (simd.select_f32s(is_right, q, p), simd.select_u32s(is_right, right, first));
                    let is_right = is_better_than(simd, s, r);
                    let (lower, lower_name) =
                        (simd.select_f32s(is_right, s, r), simd.select_u32s(is_right, across, below));
                    let is_lower = is_better_than(simd, lower, upper);
                    *out = simd.add_u32s(simd.select_u32s(is_lower, lower_name, upper_name), names);
                    if let Some(best) = best.get_mut(i) {
                        *best = simd.select_f32s(is_lower, lower, upper);
                    }
                    names = simd.add_u32s(names, simd.splat_u32s(S::U32_LANES as u32));
                }
                done = c - c % S::F32_LANES;
            }
            for j in done..c {
                let [p, q, r, s] = [values[0][j], values[1][j], values[2][j], values[3][j]];
                let (upper, upper_name) = if is_better(q, p) { (q, right) } else { (p, 0) };
                let (lower, lower_name) = if is_better(s, r) { (s, across) } else { (r, below) };
                let (value, step) = if is_better(lower, upper) { (lower, lower_name) } else { (upper, upper_name) };
                indices[j] = name.wrapping_add(step).wrapping_add(j as u32);
                if let Some(best) = best.get_mut(j) {
                    *best = value;
                }
            }
            name = name.wrapping_add(2 * c as u32);
        }
    }

    /// For each channel of a row of windows the element that its index names.
    #[inline(always)]
    pub(super) fn gather<S: Simd, T: Real>(
        &self,
        simd: S,
        rows: [&[T]; 2],
        mut name: u32,
        indices: &[u32],
        out: &mut [T],
    ) {
        let c = self.channels;
        for (w, (indices, out)) in indices.chunks_exact(c).zip(out.chunks_exact_mut(c)).enumerate() {
            let values = self.pixels(rows, 2 * w * c);
            let mut done = 0;
            if T::IS_F32 {
                let [p, q, r, s] = self::values(values);
                let (p, q, r, s) =
                    (S::as_simd_u32s(p).0, S::as_simd_u32s(q).0, S::as_simd_u32s(r).0, S::as_simd_u32s(s).0);
                let (indices, out) = (S::as_simd_u32s(indices).0, S::as_mut_simd_u32s(cast_slice_mut(out)).0);
                let (zero, [first, right, below, across]) = (simd.splat_u32s(0), self.splat(simd));
                let mut names = simd.add_u32s(simd.splat_u32s(name), S::as_simd_u32s(&COUNT).0[0]);
                let places = out.iter_mut().zip(indices).zip(p).zip(q).zip(r).zip(s);
                for (((((out, &index), &p), &q), &r), &s) in places {
                    let step = simd.sub_u32s(index, names);
                    // All but one are masked away.
                    let p = simd.select_u32s(simd.equal_u32s(step, first), p, zero);
                    let q = simd.select_u32s(simd.equal_u32s(step, right), q, zero);
                    let r = simd.select_u32s(simd.equal_u32s(step, below), r, zero);
                    let s = simd.select_u32s(simd.equal_u32s(step, across), s, zero);
                    *out = simd.or_u32s(simd.or_u32s(p, q), simd.or_u32s(r, s));
                    names = simd.add_u32s(names, simd.splat_u32s(S::U32_LANES as u32));
                }
                done = c - c % S::F32_LANES;
            }
            for j in done..c {
                let step = indices[j].wrapping_sub(j as u32).wrapping_sub(name);
                let mut value = T::ZERO;
                for (pixel, place) in values.into_iter().zip(self.steps) {
                    value = if step == place { pixel[j] } else { value };
                }
                out[j] = value;
            }
            name = name.wrapping_add(2 * c as u32);
        }
    }

    /// Zeros in the two rows of a row of windows, but for each window's element where its index says. A sum, as of scattered rows: it turns -0 into 0.
    /// `beside` is told of the pixels of each window.
    #[inline(always)]
    pub(super) fn scatter<S: Simd, T: Real>(
        &self,
        simd: S,
        g: &[T],
        mut name: u32,
        indices: &[u32],
        [upper, lower]: [&mut [T]; 2],
        beside: &mut impl FnMut(usize),
    ) {
        let c = self.channels;
        let rows = upper.chunks_exact_mut(2 * c).zip(lower.chunks_exact_mut(2 * c));
        for ((g, indices), (upper, lower)) in g.chunks_exact(c).zip(indices.chunks_exact(c)).zip(rows) {
            beside(4 * c);
            let ((p, q), (r, s)) = (upper.split_at_mut(c), lower.split_at_mut(c));
            let mut done = 0;
            if T::IS_F32 {
                let (g, indices) = (S::as_simd_f32s(cast_slice(g)).0, S::as_simd_u32s(indices).0);
                let [p, q] = [S::as_mut_simd_f32s(cast_slice_mut(p)).0, S::as_mut_simd_f32s(cast_slice_mut(q)).0];
                let [r, s] = [S::as_mut_simd_f32s(cast_slice_mut(r)).0, S::as_mut_simd_f32s(cast_slice_mut(s)).0];
                let (zero, [first, right, below, across]) = (simd.splat_f32s(0.0), self.splat(simd));
                let mut names = simd.add_u32s(simd.splat_u32s(name), S::as_simd_u32s(&COUNT).0[0]);
                for (((((&g, &index), p), q), r), s) in g.iter().zip(indices).zip(p).zip(q).zip(r).zip(s) {
                    let (g, step) = (simd.add_f32s(zero, g), simd.sub_u32s(index, names));
                    *p = simd.select_f32s(simd.equal_u32s(step, first), g, zero);
                    *q = simd.select_f32s(simd.equal_u32s(step, right), g, zero);
                    *r = simd.select_f32s(simd.equal_u32s(step, below), g, zero);
                    *s = simd.select_f32s(simd.equal_u32s(step, across), g, zero);
                    names = simd.add_u32s(names, simd.splat_u32s(S::U32_LANES as u32));
                }
                done = c - c % S::F32_LANES;
            }
            for j in done..c {
                let step = indices[j].wrapping_sub(j as u32).wrapping_sub(name);
                let g = T::ZERO + g[j];
                let [first, right, below, across] = self.steps;
                p[j] = if step == first { g } else { T::ZERO };
                q[j] = if step == right { g } else { T::ZERO };
                r[j] = if step == below { g } else { T::ZERO };
                s[j] = if step == across { g } else { T::ZERO };
            }
            name = name.wrapping_add(2 * c as u32);
        }
    }

    /// The steps, each in all lanes.
    #[inline(always)]
    fn splat<S: Simd>(&self, simd: S) -> [S::u32s; 4] {
        let [first, right, below, across] = self.steps;
        [simd.splat_u32s(first), simd.splat_u32s(right), simd.splat_u32s(below), simd.splat_u32s(across)]
    }
}

/// The four as numbers of 32 bits.
#[inline(always)]
fn values<T: Real, E: bytemuck::Pod>([p, q, r, s]: [&[T]; 4]) -> [&[E]; 4] {
    [cast_slice(p), cast_slice(q), cast_slice(r), cast_slice(s)]
}

/// [`is_better`] of each lane: `v` is neither as small as `best` nor smaller, and `best` is a number.
#[inline(always)]
fn is_better_than<S: Simd>(simd: S, v: S::f32s, best: S::f32s) -> S::m32s {
    simd.and_m32s(simd.not_m32s(simd.less_than_or_equal_f32s(v, best)), simd.equal_f32s(best, best))
}
