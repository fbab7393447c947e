//! Transforms `L x H^T` of tiles of pixels, the lanes running over channels: from images to planes, from planes to images, and from
//! planes to planes.
//!
//! A plane holds one of the n^2 values of every tile that has it, `[tile, channel]`, so that a plane of inputs times a plane of weights is a
//! matrix product. The pixels of a tile may stand some apart, so that the tiles cover only every second pixel of an image, say. What
//! lies outside an image is read from a row of zeros.
//!
//! A job that `ASKS` asks for the pixels of the next tile while one is transformed: the processor does not foresee where they lie.

use std::marker::PhantomData;
use std::mem::MaybeUninit;

use super::lines::Line;
use super::tiles::{Block, Grid, Place};
use crate::Real;
use crate::conv::window::Images;
use crate::microkernel::Mask;
use crate::prefetch::one;
use crate::simd::{Isa, Kernel, Simd, dispatch_on};

/// From tiles of pixels to planes. The channels are writable for each tile in each plane.
pub(super) struct Gather<'a, T, const ASKS: bool> {
    pub(super) images: Images<'a, T>,
    pub(super) grid: Grid,
    pub(super) block: Block,
    /// Whether the last column of planes is that at infinity, as the last row is; asked only of short tiles.
    pub(super) infinity: bool,
    /// First and last channel.
    pub(super) channels: [usize; 2],
    /// As many zeros as there are channels.
    pub(super) zeros: &'a [T],
    /// The first row of the first plane.
    pub(super) to: *mut T,
    /// From one row of a plane to the next.
    pub(super) row: usize,
    /// From one row of planes to the next, and from one plane to the next in a row.
    pub(super) plane: [usize; 2],
}

/// Does a job by `L` along the columns of its `F x G` pixels or planes, and `H` along their rows, to `O x J`.
///
/// # Panics
/// If a length does not fit.
///
/// # Safety
/// What the job demands of its memory holds, and nobody else uses what is written meanwhile.
pub(super) unsafe fn transform<K, L, H, const F: usize, const G: usize, const O: usize, const J: usize>(
    isa: Isa,
    job: K,
) where
    Vouched<K, L, H, F, G, O, J>: Kernel<Output = ()>,
{
    dispatch_on(isa, Vouched(job, PhantomData));
}

/// A job whose pointers its caller vouched for, and its maps.
pub(super) struct Vouched<K, L, H, const F: usize, const G: usize, const O: usize, const J: usize>(
    K,
    PhantomData<(L, H)>,
);

impl<
    T: Real,
    L: Line<F, O>,
    H: Line<G, J>,
    const ASKS: bool,
    const F: usize,
    const G: usize,
    const O: usize,
    const J: usize,
> Kernel for Vouched<Gather<'_, T, ASKS>, L, H, F, G, O, J>
{
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Gather { images, grid, block, infinity, channels: [c0, c1], zeros, to, row, plane } = self.0;
        let c = images.c;
        assert!(images.hw == grid.hw && c0 <= c1 && c1 <= c && c1 - c0 <= zeros.len());
        let zeros = zeros.as_ptr().cast_mut();
        let find = |place: &Place, from: &mut [[*mut T; G]; F]| {
            let image = images.data[place.image * images.image_len()..][..images.image_len()].as_ptr();
            *from = [[zeros; G]; F];
            grid.pixels::<F, G>(place, |i, j, pixel| from[i][j] = image.wrapping_add(pixel * c + c0).cast_mut());
        };
        let all = Planar::<T, O, J>::new(to, plane);
        let planes =
            |place: &Place| all.at_element(place.row * row).having([!place.short[0], !(place.short[1] && infinity)]);
        let mut places = grid.places(&block);
        // Two places that take turns: to move what they hold takes as long as a step.
        let [here, next] = &mut [[[zeros; G]; F]; 2];
        let (mut here, mut next) = (here, next);
        let mut rest = places.next();
        if let Some(place) = &rest {
            find(place, here);
        }
        while let Some(place) = rest {
            rest = places.next();
            if let Some(place) = &rest {
                find(place, next);
            }
            // SAFETY: each pixel lies in the image or is a row of zeros (checked above); the caller of `transform` vouches for the planes.
            unsafe {
                if ASKS {
                    let from = Asking { here, next };
                    sandwich::<T, S, L, H, F, G, O, J>(simd, &from, &planes(&place), c1 - c0);
                } else {
                    sandwich::<T, S, L, H, F, G, O, J>(simd, here, &planes(&place), c1 - c0);
                }
            }
            std::mem::swap(&mut here, &mut next);
        }
    }
}

/// From planes to tiles of pixels, for `channels` of the images' channels. What lies beyond an image, or what a short tile does not have, is written to the last
/// pixels that the tile has, and these after it. Tiles begin in their images, of which these channels of their pixels are writable.
pub(super) struct Emit<'a, T, const ASKS: bool> {
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
}

impl<'a, T> Emit<'a, T, false> {
    /// The same, but that it asks.
    pub(super) fn asking(self) -> Emit<'a, T, true> {
        let Emit { from, plane, grid, block, channels, to, c } = self;
        Emit { from, plane, grid, block, channels, to, c }
    }
}

impl<T: Real, const ASKS: bool> Emit<'_, T, ASKS> {
    /// Checks that the planes hold all tiles, and gives what they are for a tile: what a short one lacks goes only into what it does not have, so any number
    /// will do.
    #[inline(always)]
    fn planes<const F: usize, const G: usize>(&self) -> impl Fn(&Place) -> Planar<T, F, G> {
        let (from, [row, col], channels) = (self.from, self.plane, self.channels);
        assert!((F - 1) * row + (G - 1) * col + self.block.len() * channels <= from.len());
        let all = Planar::<T, F, G>::new(from.as_ptr().cast_mut(), [row, col]);
        move |place| all.at_element(place.row * channels).repeating(place.short)
    }
}

impl<
    T: Real,
    L: Line<F, O>,
    H: Line<G, J>,
    const ASKS: bool,
    const F: usize,
    const G: usize,
    const O: usize,
    const J: usize,
> Kernel for Vouched<Emit<'_, T, ASKS>, L, H, F, G, O, J>
{
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let planes = self.0.planes::<F, G>();
        let Emit { grid, block, channels, to: images, c, .. } = self.0;
        let pixels = grid.places(&block).map(|place| {
            let image = images.wrapping_add(place.image * grid.hw[0] * grid.hw[1] * c);
            let to = Planar {
                rows: grid.line::<O>(&place, 0).map(|row| image.wrapping_add(row * grid.hw[1] * c)),
                cols: grid.line::<J>(&place, 1).map(|col| col * c),
                last: [true; 2],
            };
            (place, to)
        });
        // SAFETY: the planes hold the tiles, and the rows and columns are those of pixels of the image, for which the caller of `transform` vouches.
        unsafe {
            if ASKS {
                for (place, here, next) in with_next(pixels) {
                    let to = Asking { here: &here, next: &next };
                    sandwich::<T, S, L, H, F, G, O, J>(simd, &planes(&place), &to, channels);
                }
            } else {
                for (place, to) in pixels {
                    sandwich::<T, S, L, H, F, G, O, J>(simd, &planes(&place), &to, channels);
                }
            }
        }
    }
}

/// From planes to tiles of pixels whose first row and first column lie on the last of the tile before, and are added to what is there. Tiles may begin outside of
/// their images, which are initialised where tiles overlap.
pub(super) struct EmitOver<'a, T> {
    /// It asks in any case.
    pub(super) tiles: Emit<'a, T, true>,
    /// Whether there is a tile above the first, and one to the left of it.
    pub(super) before: [bool; 2],
}

impl<T: Real, L: Line<F, O>, H: Line<G, J>, const F: usize, const G: usize, const O: usize, const J: usize> Kernel
    for Vouched<EmitOver<'_, T>, L, H, F, G, O, J>
{
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let EmitOver { tiles, before } = self.0;
        let planes = tiles.planes::<F, G>();
        let Emit { grid, block, channels, to: images, c, .. } = tiles;
        let pixels = grid.places(&block).map(|place| {
            let image = images.wrapping_add(place.image * grid.hw[0] * grid.hw[1] * c);
            let shared = [0, 1].map(|i| before[i] || place.tile[i] > 0);
            (place, Pixels::<T, O, J>::new(&grid, &place, image, c, shared))
        });
        for (place, here, next) in with_next(pixels) {
            let to = Asking { here: &here, next: &next };
            // SAFETY: the planes hold the tiles, and the pixels lie in the image, initialised where tiles overlap, for which the caller of `transform` vouches.
            unsafe { sandwich::<T, S, L, H, F, G, O, J>(simd, &planes(&place), &to, channels) }
        }
    }
}

/// From planes to planes, `len` elements of each of some rows, which are readable and writable.
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

impl<T: Real, L: Line<F, O>, H: Line<G, J>, const F: usize, const G: usize, const O: usize, const J: usize> Kernel
    for Vouched<Planes<T>, L, H, F, G, O, J>
{
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Planes { from, from_step, to, to_step, len, rows, row } = self.0;
        let (from, to) = (Planar::<T, F, G>::new(from.cast_mut(), from_step), Planar::<T, O, J>::new(to, to_step));
        for i in 0..rows {
            // SAFETY: the caller of `transform` vouches for the elements.
            unsafe {
                sandwich::<T, S, L, H, F, G, O, J>(simd, &from.at_element(i * row[0]), &to.at_element(i * row[1]), len)
            }
        }
    }
}

/// Where the numbers are that meet in a transform, those of `N x J` pixels or planes.
trait Matrix<T, const N: usize, const J: usize> {
    /// An element of one of them.
    fn at(&self, i: usize, j: usize, element: usize) -> *mut T;

    /// Whether there is such a one to write.
    fn has(&self, _i: usize, _j: usize) -> bool {
        true
    }

    /// Whether it is added to instead of overwritten.
    fn adds(&self, _i: usize, _j: usize) -> bool {
        false
    }

    /// Asks for what is read or written after it.
    fn ask(&self, _i: usize, _j: usize, _element: usize) {}
}

/// Pixels anywhere.
impl<T, const N: usize, const J: usize> Matrix<T, N, J> for [[*mut T; J]; N] {
    #[inline(always)]
    fn at(&self, i: usize, j: usize, element: usize) -> *mut T {
        self[i][j].wrapping_add(element)
    }
}

/// Pixels of a tile that may lie partly outside of its image.
#[derive(Clone, Copy)]
struct Pixels<T, const N: usize, const J: usize> {
    rows: [*mut T; N],
    cols: [usize; J],
    /// First and last row, and column, of those that are there.
    own: [[usize; 2]; 2],
    /// Whether the first row, and the first column, are the last of the tile before.
    shared: [bool; 2],
}

impl<T, const N: usize, const J: usize> Pixels<T, N, J> {
    /// The tile at a place, from the first element of its image on, whose pixels have so many channels.
    #[inline(always)]
    fn new(grid: &Grid, place: &Place, image: *mut T, c: usize, shared: [bool; 2]) -> Self {
        let [top, left] = place.pixel;
        let row = |i: usize| (top + (i * grid.stride) as isize) * grid.hw[1] as isize + left;
        Pixels {
            rows: std::array::from_fn(|i| image.wrapping_offset(row(i) * c as isize)),
            cols: std::array::from_fn(|j| j * grid.stride * c),
            own: [grid.own(place, 0, N), grid.own(place, 1, J)],
            shared,
        }
    }
}

impl<T, const N: usize, const J: usize> Matrix<T, N, J> for Pixels<T, N, J> {
    #[inline(always)]
    fn at(&self, i: usize, j: usize, element: usize) -> *mut T {
        self.rows[i].wrapping_add(self.cols[j] + element)
    }

    #[inline(always)]
    fn has(&self, i: usize, j: usize) -> bool {
        let [rows, cols] = self.own;
        rows[0] <= i && i < rows[1] && cols[0] <= j && j < cols[1]
    }

    #[inline(always)]
    fn adds(&self, i: usize, j: usize) -> bool {
        i == 0 && self.shared[0] || j == 0 && self.shared[1]
    }
}

/// The pixels of a tile, and those of the next one, which are asked for meanwhile.
struct Asking<'a, M> {
    here: &'a M,
    next: &'a M,
}

impl<T, M: Matrix<T, N, J>, const N: usize, const J: usize> Matrix<T, N, J> for Asking<'_, M> {
    #[inline(always)]
    fn at(&self, i: usize, j: usize, element: usize) -> *mut T {
        self.here.at(i, j, element)
    }

    #[inline(always)]
    fn has(&self, i: usize, j: usize) -> bool {
        self.here.has(i, j)
    }

    #[inline(always)]
    fn adds(&self, i: usize, j: usize) -> bool {
        self.here.adds(i, j)
    }

    #[inline(always)]
    fn ask(&self, i: usize, j: usize, element: usize) {
        one(self.next.at(i, j, element).cast());
    }
}

/// Tiles with their pixels, and those of the next one; of the last its own again.
#[inline(always)]
fn with_next<M: Copy>(mut tiles: impl Iterator<Item = (Place, M)>) -> impl Iterator<Item = (Place, M, M)> {
    let mut rest = tiles.next();
    std::iter::from_fn(move || {
        let (place, here) = rest?;
        rest = tiles.next();
        Some((place, here, rest.map_or(here, |(_, next)| next)))
    })
}

/// Planes that lie evenly, or the rows and columns of pixels: a pointer for each row and the distance of each column.
#[derive(Clone, Copy)]
struct Planar<T, const N: usize, const J: usize> {
    rows: [*mut T; N],
    cols: [usize; J],
    /// Whether there is a last row and a last column.
    last: [bool; 2],
}

impl<T, const N: usize, const J: usize> Planar<T, N, J> {
    #[inline(always)]
    fn new(first: *mut T, [row, col]: [usize; 2]) -> Self {
        Planar {
            rows: std::array::from_fn(|i| first.wrapping_add(i * row)),
            cols: std::array::from_fn(|j| j * col),
            last: [true; 2],
        }
    }

    /// From this element of each plane on.
    #[inline(always)]
    fn at_element(&self, element: usize) -> Self {
        Planar { rows: self.rows.map(|row| row.wrapping_add(element)), ..*self }
    }

    #[inline(always)]
    fn having(self, last: [bool; 2]) -> Self {
        Planar { last, ..self }
    }

    /// With the last row, or the last column, in the place of the one before.
    #[inline(always)]
    fn repeating(mut self, [row, col]: [bool; 2]) -> Self {
        if row {
            self.rows[N - 1] = self.rows[N - 2];
        }
        if col {
            self.cols[J - 1] = self.cols[J - 2];
        }
        self
    }
}

impl<T, const N: usize, const J: usize> Matrix<T, N, J> for Planar<T, N, J> {
    #[inline(always)]
    fn at(&self, i: usize, j: usize, element: usize) -> *mut T {
        self.rows[i].wrapping_add(self.cols[j] + element)
    }

    #[inline(always)]
    fn has(&self, i: usize, j: usize) -> bool {
        (i + 1 < N || self.last[0]) && (j + 1 < J || self.last[1])
    }
}

/// `to = L from H^T` for `len` elements.
///
/// # Safety
/// They are readable, and writable where there is a place for them, and initialised there if they are added to.
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
    from: &impl Matrix<T, F, G>,
    to: &impl Matrix<T, O, J>,
    len: usize,
) {
    let lanes = T::lanes::<S>();
    let whole = len - len % lanes;
    for i in (0..whole).step_by(lanes) {
        // SAFETY: `lanes` elements from there on are of the `len`.
        unsafe { step::<T, S, L, H, F, G, O, J>(simd, from, to, i, |p| T::load(simd, p), |p, v| T::store(simd, p, v)) }
    }
    if whole < len {
        let rest = Mask::first(simd, len - whole);
        // SAFETY: the mask ends with the `len`.
        unsafe {
            step::<T, S, L, H, F, G, O, J>(simd, from, to, whole, |p| rest.load(simd, p), |p, v| rest.store(simd, p, v))
        }
    }
}

/// One register of each tile.
///
/// # Safety
/// `load` and `store` may be called with this element of each that there is.
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
    from: &impl Matrix<T, F, G>,
    to: &impl Matrix<T, O, J>,
    element: usize,
    load: impl Fn(*const T) -> T::Reg<S>,
    store: impl Fn(*mut T, T::Reg<S>),
) {
    let zero = T::splat(simd, T::ZERO);
    // Too many for registers: set beforehand they would be written twice.
    let mut half = [const { MaybeUninit::<[T::Reg<S>; J]>::uninit() }; F];
    for i in 0..F {
        let mut row = [zero; G];
        for j in 0..G {
            from.ask(i, j, element);
            row[j] = load(from.at(i, j, element));
        }
        half[i].write(H::apply::<T, S>(simd, row));
    }
    // From the last on, because of what `Emit` writes to the last pixels of a tile.
    for j in (0..J).rev() {
        let mut col = [zero; F];
        for i in 0..F {
            // SAFETY: all rows have been written.
            col[i] = unsafe { half[i].assume_init_ref() }[j];
        }
        let col = L::apply::<T, S>(simd, col);
        for i in (0..O).rev() {
            if to.has(i, j) {
                to.ask(i, j, element);
                let p = to.at(i, j, element);
                store(p, if to.adds(i, j) { T::vadd(simd, load(p), col[i]) } else { col[i] });
            }
        }
    }
}
