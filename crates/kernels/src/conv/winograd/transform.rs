//! Transforms `L x L^T` of tiles of pixels, the lanes running over channels: from images to planes, from planes to images, and from
//! planes to planes.
//!
//! A plane holds one of the n^2 values of every tile, `[tile, channel]`, so that a plane of inputs times a plane of weights is a
//! matrix product. The pixels of a tile may stand some apart, so that the tiles cover only every second pixel of an image, say. What
//! lies outside an image is read from a row of zeros and written to a row that nobody reads.

use std::marker::PhantomData;

use super::lines::Line;
use crate::Real;
use crate::conv::window::Images;
use crate::microkernel::Mask;
use crate::simd::{Isa, Kernel, Simd, dispatch_on};

/// Tiles that cover images of `n x hw` pixels, or every `stride`-th of them, row by row, image by image.
#[derive(Clone, Copy)]
pub(super) struct Grid {
    /// Tiles of an image.
    pub(super) tiles: [usize; 2],
    /// From one tile to the next, in pixels of a tile.
    pub(super) step: usize,
    /// From one pixel of a tile to the next, in pixels of the image.
    pub(super) stride: usize,
    /// The first pixel of the first tile.
    pub(super) origin: [isize; 2],
    /// Size of the images.
    pub(super) hw: [usize; 2],
}

impl Grid {
    /// The image that tile `t` lies in, and its first pixel there.
    #[inline(always)]
    fn place(&self, t: usize) -> (usize, [isize; 2]) {
        let [th, tw] = self.tiles;
        let at = |i: usize, axis: usize| (i * self.step * self.stride) as isize + self.origin[axis];
        (t / (th * tw), [at(t / tw % th, 0), at(t % tw, 1)])
    }

    /// First and last pixel, over all images, of the rows that tiles of `side x side` pixels meet.
    pub(super) fn span(&self, [first, last]: [usize; 2], side: usize) -> [usize; 2] {
        if first == last {
            return [0, 0];
        }
        let [h, w] = self.hw;
        let row = |t: usize, down: usize| {
            let (image, [top, _]) = self.place(t);
            (image * h + (top + down as isize).clamp(0, h as isize) as usize) * w
        };
        [row(first, 0), row(last - 1, side * self.stride)]
    }

    /// Calls `f` for each pixel of the tile: its place in the tile, and its index in the image if it lies inside.
    #[inline(always)]
    fn pixels<const F: usize>(&self, [top, left]: [isize; 2], mut f: impl FnMut(usize, usize, Option<usize>)) {
        let [h, w] = self.hw.map(|x| x as isize);
        for i in 0..F {
            let row = top + (i * self.stride) as isize;
            for j in 0..F {
                let col = left + (j * self.stride) as isize;
                let inside = (0..h).contains(&row) && (0..w).contains(&col);
                f(i, j, inside.then_some((row * w + col) as usize));
            }
        }
    }
}

/// From tiles of `F x F` pixels to `O x J` planes, some columns of the `O x O`: `H` along the rows of a tile makes only these.
pub(super) struct Gather<'a, T, L, H, const F: usize, const O: usize, const J: usize> {
    pub(super) line: PhantomData<(L, H)>,
    pub(super) images: Images<'a, T>,
    pub(super) grid: Grid,
    /// First and last tile.
    pub(super) tiles: [usize; 2],
    /// First and last channel.
    pub(super) channels: [usize; 2],
    /// As many zeros as there are channels.
    pub(super) zeros: &'a [T],
    /// The first tile in the first plane.
    pub(super) to: *mut T,
    /// From one tile to the next, and from one plane to the next.
    pub(super) row: usize,
    pub(super) plane: usize,
}

impl<T: Real, L: Line<F, O>, H: Line<F, J>, const F: usize, const O: usize, const J: usize>
    Gather<'_, T, L, H, F, O, J>
{
    /// # Safety
    /// The channels are writable for each tile in each plane, and nobody else uses them meanwhile.
    pub(super) unsafe fn run(self, isa: Isa) {
        dispatch_on(isa, Vouched(self));
    }
}

/// Work whose pointers its caller vouched for.
struct Vouched<K>(K);

impl<T: Real, L: Line<F, O>, H: Line<F, J>, const F: usize, const O: usize, const J: usize> Kernel
    for Vouched<Gather<'_, T, L, H, F, O, J>>
{
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Gather { images, grid, tiles: [first, last], channels: [c0, c1], zeros, to, row, plane, .. } = self.0;
        let c = images.c;
        assert!(images.hw == grid.hw && c0 <= c1 && c1 <= c && c1 - c0 <= zeros.len());
        let mut from = [[zeros.as_ptr(); F]; F];
        for t in first..last {
            let (image, place) = grid.place(t);
            let image = images.data[image * images.image_len()..][..images.image_len()].as_ptr();
            grid.pixels::<F>(place, |i, j, pixel| {
                from[i][j] = pixel.map_or(zeros.as_ptr(), |p| image.wrapping_add(p * c + c0));
            });
            let to = planes::<T, O, J>(to.wrapping_add((t - first) * row), [J * plane, plane]);
            // SAFETY: each pixel lies in the image or is a row of zeros (checked above); the caller of `Gather::run` vouches for the planes.
            unsafe { sandwich::<T, S, L, H, F, O, J>(simd, &from, &to, c1 - c0) }
        }
    }
}

/// From `F x F` planes to tiles of `O x O` pixels, for `channels` of the images' channels.
pub(super) struct Emit<'a, T, L, const F: usize, const O: usize> {
    pub(super) line: PhantomData<L>,
    pub(super) from: &'a [T],
    /// From one plane to the next.
    pub(super) plane: usize,
    pub(super) grid: Grid,
    /// First and last tile.
    pub(super) tiles: [usize; 2],
    pub(super) channels: usize,
    /// The first of these channels in the first image.
    pub(super) to: *mut T,
    /// Channels of the images.
    pub(super) c: usize,
    /// Room for what lies outside, `channels` long.
    pub(super) spill: &'a mut [T],
}

impl<T: Real, L: Line<F, O>, const F: usize, const O: usize> Emit<'_, T, L, F, O> {
    /// # Safety
    /// The images of these tiles are writable and nobody else uses these channels of the tiles' pixels meanwhile.
    pub(super) unsafe fn run(self, isa: Isa) {
        dispatch_on(isa, Vouched(self));
    }
}

impl<T: Real, L: Line<F, O>, const F: usize, const O: usize> Kernel for Vouched<Emit<'_, T, L, F, O>> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Emit { from, plane, grid, tiles: [first, last], channels, to: images, c, spill, .. } = self.0;
        assert!((F * F - 1) * plane + (last - first) * channels <= from.len() && channels <= spill.len());
        let spill = spill.as_mut_ptr();
        let mut to = [[spill; O]; O];
        for t in first..last {
            let (image, place) = grid.place(t);
            let image = images.wrapping_add(image * grid.hw[0] * grid.hw[1] * c);
            grid.pixels::<O>(place, |i, j, pixel| to[i][j] = pixel.map_or(spill, |p| image.wrapping_add(p * c)));
            let from = from.as_ptr().wrapping_add((t - first) * channels);
            let from = planes::<T, F, F>(from.cast_mut(), [F * plane, plane]).map(|row| row.map(|p| p.cast_const()));
            // SAFETY: the planes hold the tiles (checked above); the caller of `Emit::run` vouches for the pixels.
            unsafe { sandwich::<T, S, L, L, F, O, O>(simd, &from, &to, channels) }
        }
    }
}

/// From `F x F` planes to `O x O` planes, `len` elements of each.
pub(super) struct Planes<T, L, const F: usize, const O: usize> {
    pub(super) line: PhantomData<L>,
    pub(super) from: *const T,
    /// From one row of planes to the next, and from one plane to the next in a row.
    pub(super) from_step: [usize; 2],
    pub(super) to: *mut T,
    pub(super) to_step: [usize; 2],
    pub(super) len: usize,
}

impl<T: Real, L: Line<F, O>, const F: usize, const O: usize> Planes<T, L, F, O> {
    /// # Safety
    /// The elements are readable and writable, and nobody else uses those of `to` meanwhile.
    pub(super) unsafe fn run(self, isa: Isa) {
        dispatch_on(isa, Vouched(self));
    }
}

impl<T: Real, L: Line<F, O>, const F: usize, const O: usize> Kernel for Vouched<Planes<T, L, F, O>> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Planes { from, from_step, to, to_step, len, .. } = self.0;
        let from = planes::<T, F, F>(from.cast_mut(), from_step).map(|row| row.map(|p| p.cast_const()));
        let to = planes::<T, O, O>(to, to_step);
        // SAFETY: the caller of `Planes::run` vouches for the elements.
        unsafe { sandwich::<T, S, L, L, F, O, O>(simd, &from, &to, len) }
    }
}

/// The same element of `N x J` planes.
#[inline(always)]
fn planes<T, const N: usize, const J: usize>(first: *mut T, [row, col]: [usize; 2]) -> [[*mut T; J]; N] {
    let mut all = [[first; J]; N];
    for i in 0..N {
        for j in 0..J {
            all[i][j] = first.wrapping_add(i * row + j * col);
        }
    }
    all
}

/// `to = L from H^T` for `len` elements from each pointer on.
///
/// # Safety
/// They are readable and writable.
#[inline(always)]
unsafe fn sandwich<T: Real, S: Simd, L: Line<F, O>, H: Line<F, J>, const F: usize, const O: usize, const J: usize>(
    simd: S,
    from: &[[*const T; F]; F],
    to: &[[*mut T; J]; O],
    len: usize,
) {
    let lanes = T::lanes::<S>();
    let whole = len - len % lanes;
    for at in (0..whole).step_by(lanes) {
        // SAFETY: `lanes` elements from `at` on are below `len`.
        unsafe { step::<T, S, L, H, F, O, J>(simd, from, to, at, |p| T::load(simd, p), |p, v| T::store(simd, p, v)) }
    }
    if whole < len {
        let rest = Mask::first(simd, len - whole);
        // SAFETY: the mask ends at `len`.
        unsafe {
            step::<T, S, L, H, F, O, J>(simd, from, to, whole, |p| rest.load(simd, p), |p, v| rest.store(simd, p, v))
        }
    }
}

/// One register of each tile.
///
/// # Safety
/// `load` and `store` may be called at element `at` of each pointer.
#[inline(always)]
unsafe fn step<T: Real, S: Simd, L: Line<F, O>, H: Line<F, J>, const F: usize, const O: usize, const J: usize>(
    simd: S,
    from: &[[*const T; F]; F],
    to: &[[*mut T; J]; O],
    at: usize,
    load: impl Fn(*const T) -> T::Reg<S>,
    store: impl Fn(*mut T, T::Reg<S>),
) {
    let zero = T::splat(simd, T::ZERO);
    let mut half = [[zero; J]; F];
    for i in 0..F {
        let mut row = [zero; F];
        for j in 0..F {
            row[j] = load(from[i][j].wrapping_add(at));
        }
        half[i] = H::apply::<T, S>(simd, row);
    }
    for j in 0..J {
        let mut col = [zero; F];
        for i in 0..F {
            col[i] = half[i][j];
        }
        let col = L::apply::<T, S>(simd, col);
        for i in 0..O {
            store(to[i][j].wrapping_add(at), col[i]);
        }
    }
}
