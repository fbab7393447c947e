//! Transforms `L x H^T` of tiles of pixels, the lanes running over channels: from images to planes, from planes to images, and from
//! planes to planes.
//!
//! A plane holds one of the n^2 values of every tile that has it, `[tile, channel]`, so that a plane of inputs times a plane of weights is a
//! matrix product. The pixels of a tile may stand some apart, so that the tiles cover only every second pixel of an image, say. What
//! lies outside an image is read from a row of zeros and written to a row that nobody reads, as what a short tile lacks is.

use std::marker::PhantomData;

use super::lines::Line;
use super::tiles::{Block, Grid};
use crate::Real;
use crate::conv::window::Images;
use crate::microkernel::Mask;
use crate::simd::{Isa, Kernel, Simd, dispatch_on};

/// From tiles of pixels to planes.
pub(super) struct Gather<'a, T> {
    pub(super) images: Images<'a, T>,
    pub(super) grid: Grid,
    pub(super) block: Block,
    /// Whether the last column of planes is that at infinity, as the last row is; asked only of short tiles.
    pub(super) infinity: bool,
    /// First and last channel.
    pub(super) channels: [usize; 2],
    /// As many zeros as there are channels.
    pub(super) zeros: &'a [T],
    /// As many elements as there are channels, if there are short tiles: room for what they lack.
    pub(super) spill: &'a mut [T],
    /// The first row of the first plane.
    pub(super) to: *mut T,
    /// From one row of a plane to the next.
    pub(super) row: usize,
    /// From one row of planes to the next, and from one plane to the next in a row.
    pub(super) plane: [usize; 2],
}

impl<T: Real> Gather<'_, T> {
    /// By `L` along the columns of a tile of `F x G` pixels and `H` along its rows, to `O x J` planes.
    ///
    /// # Safety
    /// The channels are writable for each tile in each plane, and nobody else uses them meanwhile.
    pub(super) unsafe fn run<
        L: Line<F, O>,
        H: Line<G, J>,
        const F: usize,
        const G: usize,
        const O: usize,
        const J: usize,
    >(
        self,
        isa: Isa,
    ) {
        dispatch_on(isa, Vouched::<_, L, H, F, G, O, J>(self, PhantomData));
    }
}

/// Work whose pointers its caller vouched for, and its maps.
struct Vouched<K, L, H, const F: usize, const G: usize, const O: usize, const J: usize>(K, PhantomData<(L, H)>);

impl<T: Real, L: Line<F, O>, H: Line<G, J>, const F: usize, const G: usize, const O: usize, const J: usize> Kernel
    for Vouched<Gather<'_, T>, L, H, F, G, O, J>
{
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Gather { images, grid, block, infinity, channels: [c0, c1], zeros, spill, to, row, plane } = self.0;
        let c = images.c;
        assert!(images.hw == grid.hw && c0 <= c1 && c1 <= c && c1 - c0 <= zeros.len());
        assert!(block.tiling.short == [0, 0] || c1 - c0 <= spill.len());
        let spill = spill.as_mut_ptr();
        let mut from = [[zeros.as_ptr(); G]; F];
        let all = planes::<T, O, J>(to, plane);
        for place in grid.places(&block) {
            let image = images.data[place.image * images.image_len()..][..images.image_len()].as_ptr();
            grid.pixels::<F, G>(&place, |i, j, pixel| {
                from[i][j] = pixel.map_or(zeros.as_ptr(), |p| image.wrapping_add(p * c + c0));
            });
            let at = place.row * row;
            let mut short;
            let mut to = &all;
            if place.short[0] || place.short[1] && infinity {
                let spill = spill.wrapping_sub(at);
                short = all;
                if place.short[0] {
                    short[O - 1] = [spill; J];
                }
                if place.short[1] && infinity {
                    short.iter_mut().for_each(|row| row[J - 1] = spill);
                }
                to = &short;
            }
            // SAFETY: each pixel lies in the image or is a row of zeros, and what a short tile lacks has room (checked above); the caller of
            // `Gather::run` vouches for the planes.
            unsafe { sandwich::<T, S, L, H, F, G, O, J>(simd, [0, at], &from, to, c1 - c0) }
        }
    }
}

/// From planes to tiles of pixels, for `channels` of the images' channels.
pub(super) struct Emit<'a, T> {
    /// The first row of the first plane, `channels` of each.
    pub(super) from: &'a [T],
    /// From one row of planes to the next, and from one plane to the next in a row.
    pub(super) plane: [usize; 2],
    pub(super) grid: Grid,
    pub(super) block: Block,
    pub(super) channels: usize,
    /// The first of these channels in the first image.
    pub(super) to: *mut T,
    /// Channels of the images.
    pub(super) c: usize,
    /// Whether the first row and the first column of a tile lie on the last of the tile before: is there one above, to the left? They are then added to what
    /// is there.
    pub(super) overlap: Option<[bool; 2]>,
    /// Room for what lies outside, `channels` long, and with overlaps for what is added, `O + J` times as much.
    pub(super) spill: &'a mut [T],
}

impl<T: Real> Emit<'_, T> {
    /// By `L` along the columns and `H` along the rows of `F x G` planes, to tiles of `O x J` pixels.
    ///
    /// # Safety
    /// The images of these tiles are writable, and initialised where tiles overlap; nobody else uses these channels of the tiles' pixels meanwhile.
    pub(super) unsafe fn run<
        L: Line<F, O>,
        H: Line<G, J>,
        const F: usize,
        const G: usize,
        const O: usize,
        const J: usize,
    >(
        self,
        isa: Isa,
    ) {
        dispatch_on(isa, Vouched::<_, L, H, F, G, O, J>(self, PhantomData));
    }
}

impl<T: Real, L: Line<F, O>, H: Line<G, J>, const F: usize, const G: usize, const O: usize, const J: usize> Kernel
    for Vouched<Emit<'_, T>, L, H, F, G, O, J>
{
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Emit { from, plane, grid, block, channels, to: images, c, overlap, spill } = self.0;
        assert!((F - 1) * plane[0] + (G - 1) * plane[1] + block.len() * channels <= from.len());
        assert!(channels * if overlap.is_some() { 1 + O + J } else { 1 } <= spill.len());
        let spill = spill.as_mut_ptr();
        let mut to = [[spill; J]; O];
        let all = planes::<T, F, G>(from.as_ptr().cast_mut(), plane).map(|row| row.map(|p| p.cast_const()));
        for place in grid.places(&block) {
            let image = images.wrapping_add(place.image * grid.hw[0] * grid.hw[1] * c);
            grid.pixels::<O, J>(&place, |i, j, pixel| to[i][j] = pixel.map_or(spill, |p| image.wrapping_add(p * c)));
            let at = [place.row * channels, 0];
            let mut short;
            let mut from = &all;
            if place.short.contains(&true) {
                short = all;
                // What a short tile lacks goes only into what it does not have: any number will do.
                if place.short[0] {
                    short[F - 1] = short[F - 2];
                }
                if place.short[1] {
                    short.iter_mut().for_each(|row| row[G - 1] = row[G - 2]);
                }
                from = &short;
            }
            let shared = overlap.map(|before| [0, 1].map(|i| before[i] || place.tile[i] > 0));
            let Some(shared) = shared.filter(|shared| shared.contains(&true)) else {
                // SAFETY: the planes hold the tiles (checked above); the caller of `Emit::run` vouches for the pixels.
                unsafe { sandwich::<T, S, L, H, F, G, O, J>(simd, at, from, &to, channels) }
                continue;
            };
            // What is added goes aside first.
            let whole = to;
            let mut aside = 0;
            for i in 0..O {
                for j in 0..J {
                    if (i == 0 && shared[0] || j == 0 && shared[1]) && whole[i][j] != spill {
                        aside += 1;
                        to[i][j] = spill.wrapping_add(aside * channels);
                    }
                }
            }
            // SAFETY: as above; at most O + J - 1 pixels are aside, for which there is room.
            unsafe {
                sandwich::<T, S, L, H, F, G, O, J>(simd, at, from, &to, channels);
                for i in 0..O {
                    for j in 0..J {
                        if to[i][j] != whole[i][j] {
                            let added = std::slice::from_raw_parts(to[i][j], channels);
                            let sum = std::slice::from_raw_parts_mut(whole[i][j], channels);
                            sum.iter_mut().zip(added).for_each(|(sum, &x)| *sum += x);
                        }
                    }
                }
            }
        }
    }
}

/// From planes to planes, `len` elements of each of some rows.
pub(super) struct Planes<T> {
    pub(super) from: *const T,
    /// From one row of planes to the next, and from one plane to the next in a row.
    pub(super) from_step: [usize; 2],
    pub(super) to: *mut T,
    pub(super) to_step: [usize; 2],
    pub(super) len: usize,
    pub(super) rows: usize,
    /// From one row of elements to the next, of `from` and of `to`.
    pub(super) row: [usize; 2],
}

impl<T: Real> Planes<T> {
    /// From `F x G` planes to `O x J`, by `L` and `H`.
    ///
    /// # Safety
    /// The elements are readable and writable, and nobody else uses those of `to` meanwhile.
    pub(super) unsafe fn run<
        L: Line<F, O>,
        H: Line<G, J>,
        const F: usize,
        const G: usize,
        const O: usize,
        const J: usize,
    >(
        self,
        isa: Isa,
    ) {
        dispatch_on(isa, Vouched::<_, L, H, F, G, O, J>(self, PhantomData));
    }
}

impl<T: Real, L: Line<F, O>, H: Line<G, J>, const F: usize, const G: usize, const O: usize, const J: usize> Kernel
    for Vouched<Planes<T>, L, H, F, G, O, J>
{
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Planes { from, from_step, to, to_step, len, rows, row } = self.0;
        let from = planes::<T, F, G>(from.cast_mut(), from_step).map(|row| row.map(|p| p.cast_const()));
        let to = planes::<T, O, J>(to, to_step);
        for i in 0..rows {
            // SAFETY: the caller of `Planes::run` vouches for the elements.
            unsafe { sandwich::<T, S, L, H, F, G, O, J>(simd, row.map(|row| i * row), &from, &to, len) }
        }
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

/// `to = L from H^T` for `len` elements, from these places after each pointer on.
///
/// # Safety
/// They are readable and writable.
#[inline(always)]
unsafe fn sandwich<
    T: Real,
    S: Simd,
    L: Line<F, O>,
    H: Line<G, J>,
    const F: usize,
    const G: usize,
    const O: usize,
    const J: usize,
>(
    simd: S,
    [first, to_first]: [usize; 2],
    from: &[[*const T; G]; F],
    to: &[[*mut T; J]; O],
    len: usize,
) {
    let lanes = T::lanes::<S>();
    let whole = len - len % lanes;
    for i in (0..whole).step_by(lanes) {
        let at = [first + i, to_first + i];
        // SAFETY: `lanes` elements from there on are of the `len`.
        unsafe { step::<T, S, L, H, F, G, O, J>(simd, from, to, at, |p| T::load(simd, p), |p, v| T::store(simd, p, v)) }
    }
    if whole < len {
        let rest = Mask::first(simd, len - whole);
        let at = [first + whole, to_first + whole];
        // SAFETY: the mask ends with the `len`.
        unsafe {
            step::<T, S, L, H, F, G, O, J>(simd, from, to, at, |p| rest.load(simd, p), |p, v| rest.store(simd, p, v))
        }
    }
}

/// One register of each tile.
///
/// # Safety
/// `load` and `store` may be called so many elements after each pointer.
#[inline(always)]
unsafe fn step<
    T: Real,
    S: Simd,
    L: Line<F, O>,
    H: Line<G, J>,
    const F: usize,
    const G: usize,
    const O: usize,
    const J: usize,
>(
    simd: S,
    from: &[[*const T; G]; F],
    to: &[[*mut T; J]; O],
    [at, to_at]: [usize; 2],
    load: impl Fn(*const T) -> T::Reg<S>,
    store: impl Fn(*mut T, T::Reg<S>),
) {
    let zero = T::splat(simd, T::ZERO);
    let mut half = [[zero; J]; F];
    for i in 0..F {
        let mut row = [zero; G];
        for j in 0..G {
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
            store(to[i][j].wrapping_add(to_at), col[i]);
        }
    }
}
