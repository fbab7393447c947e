//! The two loops that every matrix product and convolution ends in, compiled for each instruction set and each tile size.
//!
//! `tile`: `C[i, j] = sum over segments, over k: A[i][k] * B[k][j]`, the lanes running over j. The rows of A are pointers, so a row may be a row of a matrix
//! or a patch of an image (the indirect convolution of Dukhan, 2019, arXiv:1907.02129), and nothing is packed.
//! `dot`: the same sum with the lanes running over k, for when there are too few columns to fill a register.
//!
//! An element's sum is one chain of multiply-adds over k in ascending order (`tile`), whatever tile it falls into: how work is cut into
//! tiles never changes a bit.

use std::marker::PhantomData;

use pulp::MemMask;

use crate::Real;
use crate::simd::{Isa, Simd, isa};

/// Rows of the largest tile.
pub(crate) const ROWS: usize = 6;
/// Registers across the largest tile. 6 x 4 accumulators, 4 of B and 1 of A are 29 of AVX-512's 32; with 16 registers a tile is 6 x 2.
const WIDE: usize = 4;
/// Registers across a flat tile, which has [`FLAT_ROWS`]. With 16 registers, five across would be two tiles and a half, and one register across six rows
/// is too few sums at once for the two that a processor begins in each of the four or five cycles that it takes to end them.
const FLAT: usize = 5;
/// Rows of a flat tile: 2 x 5 accumulators.
const FLAT_ROWS: usize = 2;
/// Of a tile's last register there are some lanes, which a mask says.
const PART: usize = 0;
/// There are all.
const WHOLE: usize = 1;
/// There is half, as a register of half the size. A processor that takes two steps for a large register takes one for it, and none waits for a mask.
const HALF: usize = 2;
/// Rows and columns of the largest `dot` tile.
pub(crate) const DOT: usize = 4;

/// A run of k: `len` steps from these offsets (in elements) to the rows of A and to B.
#[derive(Clone, Copy, Debug, Default, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub(crate) struct Segment {
    pub(crate) a: isize,
    pub(crate) b: isize,
    pub(crate) len: usize,
}

/// A tile of a product, at most [`ROWS`] x [`Kernels::wide`] columns, but for flat ones.
pub(crate) struct Tile<'a, T> {
    /// Each row of A at offset 0.
    pub(crate) a: [*const T; ROWS],
    /// From one k to the next in A.
    pub(crate) a_step: isize,
    /// The first column of B at offset 0; columns are contiguous.
    pub(crate) b: *const T,
    /// From one k to the next in B.
    pub(crate) b_step: isize,
    pub(crate) segments: &'a [Segment],
    /// Where each row of the result goes; columns are contiguous.
    pub(crate) c: [*mut T; ROWS],
    /// Add to what is there instead of overwriting it.
    pub(crate) add: bool,
}

/// Tiles one below the other, whose rows are evenly spaced.
pub(crate) struct Strip<'a, T> {
    /// The first row of A at offset 0.
    pub(crate) a: *const T,
    /// From one row of a tile to the next in A, and from one tile to the next.
    pub(crate) a_row: usize,
    pub(crate) a_tile: usize,
    /// From one k to the next in A.
    pub(crate) a_step: isize,
    /// See [`Tile`].
    pub(crate) b: *const T,
    pub(crate) b_step: isize,
    pub(crate) segments: &'a [Segment],
    /// Where the first row of the result goes, and from one row to the next; columns are contiguous.
    pub(crate) c: *mut T,
    pub(crate) c_row: usize,
    /// Add to what is there instead of overwriting it.
    pub(crate) add: bool,
}

impl<'a, T> Strip<'a, T> {
    /// The first tile.
    #[inline(always)]
    fn first(&self) -> Tile<'a, T> {
        Tile {
            a: std::array::from_fn(|i| self.a.wrapping_add(i * self.a_row)),
            a_step: self.a_step,
            b: self.b,
            b_step: self.b_step,
            segments: self.segments,
            c: std::array::from_fn(|i| self.c.wrapping_add(i * self.c_row)),
            add: self.add,
        }
    }
}

/// A tile of dot products, at most [`DOT`] x [`DOT`].
pub(crate) struct DotTile<'a, T> {
    /// Each row of A at offset 0; contiguous along k.
    pub(crate) a: [*const T; DOT],
    /// Each column of B at offset 0; contiguous along k.
    pub(crate) b: [*const T; DOT],
    pub(crate) segments: &'a [Segment],
    /// Where each row of the result goes; columns are contiguous.
    pub(crate) c: [*mut T; DOT],
}

type TileFn<T> = unsafe fn(&Tile<T>, usize);
type StripFn<T> = unsafe fn(&Strip<T>, usize, usize);
type DotFn<T> = unsafe fn(&DotTile<T>, usize);

/// The micro-kernels of one instruction set.
pub(crate) struct Kernels<T: 'static> {
    /// The instruction set.
    pub(crate) isa: Isa,
    /// Elements of a register.
    pub(crate) lanes: usize,
    /// Columns of the widest tile that is not flat.
    pub(crate) wide: usize,
    /// For each number of rows and of registers: with the last register in part, as a whole, and as half of one.
    tile: [[[TileFn<T>; 3]; WIDE]; ROWS],
    /// Strips of flat tiles, if registers are few: with the last register in part, and as a whole.
    flat: Option<[StripFn<T>; 2]>,
    /// One row or [`DOT`], one column or [`DOT`].
    dot: [[DotFn<T>; 2]; 2],
}

impl<T: Real> Kernels<T> {
    /// Computes the first `rows` rows and `cols` columns of a tile.
    ///
    /// # Safety
    /// `rows` is 1..=[`ROWS`], `cols` 1..=[`Kernels::wide`]. For each row, segment and k the element of A is readable, for each
    /// segment and k so are `cols` elements of B, and `cols` elements of each row of C are writable (readable and initialised too when adding) and no part of A or B.
    #[inline]
    pub(crate) unsafe fn tile(&self, rows: usize, cols: usize, tile: &Tile<T>) {
        debug_assert!((1..=ROWS).contains(&rows) && (1..=self.wide).contains(&cols));
        // SAFETY: the caller vouches for the memory, the table for the instruction set.
        unsafe { self.tile_of(rows, cols)(tile, cols) }
    }

    /// What computes a tile of so many rows and columns.
    #[inline]
    fn tile_of(&self, rows: usize, cols: usize) -> TileFn<T> {
        // A register has a power of two of lanes; to divide would take as long as a short sum.
        let (registers, rest) = ((cols - 1) >> self.lanes.trailing_zeros(), cols & (self.lanes - 1));
        let last = if rest == 0 {
            WHOLE
        } else if 2 * rest == self.lanes {
            HALF
        } else {
            PART
        };
        self.tile[rows - 1][registers][last]
    }

    /// Columns of the next strip, of `left`: as many as the widest tile has, or all if that is a flat tile.
    #[inline]
    pub(crate) fn width(&self, left: usize) -> usize {
        let is_flat = self.flat.is_some() && left.div_ceil(self.lanes) == FLAT;
        if is_flat { left } else { left.min(self.wide) }
    }

    /// Computes the first `rows` rows and `cols` columns of a strip, tile by tile.
    ///
    /// # Safety
    /// As [`Kernels::tile`] for each of its tiles, but that there may be any number of rows; and as many columns as [`Kernels::width`] says, if all rows
    /// of A are evenly spaced.
    #[inline]
    pub(crate) unsafe fn strip(&self, mut rows: usize, cols: usize, strip: &Strip<T>) {
        let &Strip { a_row, a_tile, c_row, .. } = strip;
        if let (Some(flat), true) = (&self.flat, cols > self.wide) {
            debug_assert!(self.width(cols) == cols && a_tile == ROWS * a_row);
            let is_whole = cols.is_multiple_of(self.lanes);
            // SAFETY: the caller vouches for the memory, the table for the instruction set.
            return unsafe { flat[usize::from(is_whole)](strip, rows, cols) };
        }
        debug_assert!((1..=self.wide).contains(&cols));
        let mut tile = strip.first();
        let whole = self.tile_of(ROWS, cols);
        while rows >= ROWS {
            // SAFETY: the caller vouches for the memory, the table for the instruction set.
            unsafe { whole(&tile, cols) }
            tile.a.iter_mut().for_each(|a| *a = a.wrapping_add(a_tile));
            tile.c.iter_mut().for_each(|c| *c = c.wrapping_add(ROWS * c_row));
            rows -= ROWS;
        }
        if rows > 0 {
            // SAFETY: as above; rows beyond are not accessed.
            unsafe { self.tile(rows, cols, &tile) }
        }
    }

    /// Computes the first `rows` rows and `cols` columns of a tile of dot products.
    ///
    /// # Safety
    /// `rows` and `cols` are 1..=[`DOT`]; the pointers beyond them repeat earlier ones. For each segment, `len` elements of each row and column are
    /// readable, and `cols` elements of each row of C are writable and no part of A or B.
    #[inline]
    pub(crate) unsafe fn dot(&self, rows: usize, cols: usize, tile: &DotTile<T>) {
        debug_assert!((1..=DOT).contains(&rows) && (1..=DOT).contains(&cols));
        // SAFETY: the caller vouches for the memory, the table for the instruction set.
        unsafe { self.dot[usize::from(rows > 1)][usize::from(cols > 1)](tile, cols) }
    }
}

/// The micro-kernels of the instruction set in use.
#[inline]
pub(crate) fn kernels<T: Real>() -> &'static Kernels<T> {
    kernels_of(isa())
}

/// The micro-kernels of an instruction set, which must be available.
#[inline]
pub(crate) fn kernels_of<T: Real>(isa: Isa) -> &'static Kernels<T> {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => Table::<T, pulp::x86::V4>::KERNELS,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => Table::<T, pulp::x86::V3>::KERNELS,
        _ => Table::<T, pulp::Scalar128b>::KERNELS,
    }
}

struct Table<T, S>(PhantomData<(T, S)>);

impl<T: Real, S: Simd> Table<T, S> {
    const LANES: usize = if T::IS_F32 { S::F32_LANES } else { S::F64_LANES };
    const WIDE: usize = if S::REGISTER_COUNT >= 32 { WIDE } else { 2 };
    const KERNELS: &'static Kernels<T> = &Kernels {
        isa: S::ISA,
        lanes: Self::LANES,
        wide: Self::LANES * Self::WIDE,
        tile: [
            Self::tiles::<1>(),
            Self::tiles::<2>(),
            Self::tiles::<3>(),
            Self::tiles::<4>(),
            Self::tiles::<5>(),
            Self::tiles::<6>(),
        ],
        flat: match Self::WIDE < WIDE {
            true => Some([run_flat::<T, S, PART>, run_flat::<T, S, WHOLE>]),
            false => None,
        },
        dot: [[run_dot::<T, S, 1, 1>, run_dot::<T, S, 1, DOT>], [run_dot::<T, S, DOT, 1>, run_dot::<T, S, DOT, DOT>]],
    };

    const fn tiles<const R: usize>() -> [[TileFn<T>; 3]; WIDE] {
        if Self::WIDE == WIDE {
            [Self::of::<R, 1>(), Self::of::<R, 2>(), Self::of::<R, 3>(), Self::of::<R, 4>()]
        } else {
            [Self::of::<R, 1>(), Self::of::<R, 2>(), Self::of::<R, 2>(), Self::of::<R, 2>()]
        }
    }

    const fn of<const R: usize, const V: usize>() -> [TileFn<T>; 3] {
        let [part, whole] = [run_tile::<T, S, R, V, PART> as TileFn<T>, run_tile::<T, S, R, V, WHOLE>];
        // Only AVX-512 has another set's registers for it.
        let has_half = 2 * <S::Half as pulp::Simd>::F32_LANES == S::F32_LANES;
        [part, whole, if has_half { run_tile::<T, S, R, V, HALF> } else { part }]
    }
}

/// # Safety
/// See [`Kernels::tile`]; `S` is available and `cols` needs exactly `V` registers, of the last of which there is `LAST`.
unsafe fn run_tile<T: Real, S: Simd, const R: usize, const V: usize, const LAST: usize>(tile: &Tile<T>, cols: usize) {
    struct Run<'a, T, S, const R: usize, const V: usize, const LAST: usize>(S, &'a Tile<'a, T>, usize);
    impl<T: Real, S: Simd, const R: usize, const V: usize, const LAST: usize> pulp::WithSimd for Run<'_, T, S, R, V, LAST> {
        type Output = ();
        #[inline(always)]
        fn with_simd<Same: pulp::Simd>(self, _: Same) {
            // SAFETY: passed on from `run_tile`.
            unsafe { tile_body::<T, S, R, V, LAST>(self.0, self.1, self.2) }
        }
    }
    // SAFETY: the caller vouches for the instruction set.
    let simd = unsafe { token::<S>() };
    simd.vectorize(Run::<T, S, R, V, LAST>(simd, tile, cols));
}

/// A strip of flat tiles. To call each would take as long as a tenth of it, if sums are short.
///
/// # Safety
/// See [`Kernels::strip`]; `S` is available and `cols` needs exactly [`FLAT`] registers, of the last of which there is `LAST`.
unsafe fn run_flat<T: Real, S: Simd, const LAST: usize>(strip: &Strip<T>, rows: usize, cols: usize) {
    struct Run<'a, T, S, const LAST: usize>(S, &'a Strip<'a, T>, [usize; 2]);
    impl<T: Real, S: Simd, const LAST: usize> pulp::WithSimd for Run<'_, T, S, LAST> {
        type Output = ();
        #[inline(always)]
        fn with_simd<Same: pulp::Simd>(self, _: Same) {
            let Run(simd, strip, [rows, cols]) = self;
            let mut tile = strip.first();
            for _ in 0..rows / FLAT_ROWS {
                // SAFETY: passed on from `run_flat`.
                unsafe { tile_body::<T, S, FLAT_ROWS, FLAT, LAST>(simd, &tile, cols) }
                for i in 0..FLAT_ROWS {
                    tile.a[i] = tile.a[i].wrapping_add(FLAT_ROWS * strip.a_row);
                    tile.c[i] = tile.c[i].wrapping_add(FLAT_ROWS * strip.c_row);
                }
            }
            if !rows.is_multiple_of(FLAT_ROWS) {
                // SAFETY: as above.
                unsafe { tile_body::<T, S, 1, FLAT, LAST>(simd, &tile, cols) }
            }
        }
    }
    // SAFETY: the caller vouches for the instruction set.
    let simd = unsafe { token::<S>() };
    simd.vectorize(Run::<T, S, LAST>(simd, strip, [rows, cols]));
}

/// # Safety
/// See [`Kernels::dot`]; `S` is available.
unsafe fn run_dot<T: Real, S: Simd, const R: usize, const C: usize>(tile: &DotTile<T>, cols: usize) {
    struct Run<'a, T, S, const R: usize, const C: usize>(S, &'a DotTile<'a, T>, usize);
    impl<T: Real, S: Simd, const R: usize, const C: usize> pulp::WithSimd for Run<'_, T, S, R, C> {
        type Output = ();
        #[inline(always)]
        fn with_simd<Same: pulp::Simd>(self, _: Same) {
            // SAFETY: passed on from `run_dot`.
            unsafe { dot_body::<T, S, R, C>(self.0, self.1, self.2) }
        }
    }
    // SAFETY: the caller vouches for the instruction set.
    let simd = unsafe { token::<S>() };
    simd.vectorize(Run::<T, S, R, C>(simd, tile, cols));
}

/// The proof that `S` is available, from nothing.
///
/// # Safety
/// `S` is available.
#[inline(always)]
unsafe fn token<S: Simd>() -> S {
    const { assert!(size_of::<S>() == 0) };
    // SAFETY: a value without bytes can be read from any aligned address; the caller vouches for what it stands for.
    unsafe { std::ptr::NonNull::<S>::dangling().read() }
}

/// # Safety
/// See [`run_tile`].
#[inline(always)]
#[expect(clippy::needless_range_loop, reason = "constant bounds over several arrays")]
unsafe fn tile_body<T: Real, S: Simd, const R: usize, const V: usize, const LAST: usize>(
    simd: S,
    t: &Tile<T>,
    cols: usize,
) {
    let lanes = T::lanes::<S>();
    let last = Mask::first(simd, cols - (V - 1) * lanes);
    let zero = T::splat(simd, T::ZERO);
    let mut acc = [[zero; V]; R];
    let half = simd.half();
    let mut halves = [T::splat(half, T::ZERO); R];
    let large = if LAST == HALF { V - 1 } else { V };
    for segment in t.segments {
        // Pointers step past the last element before the loop ends: hence the wrapping arithmetic.
        let mut a = [t.a[0]; R];
        for i in 0..R {
            a[i] = t.a[i].wrapping_offset(segment.a);
        }
        let mut b = t.b.wrapping_offset(segment.b);
        for _ in 0..segment.len {
            // SAFETY: the caller vouches for `cols` elements of this row of B and for this k in each row of A.
            unsafe {
                let mut row = [zero; V];
                for v in 0..large {
                    let p = b.wrapping_add(v * lanes);
                    row[v] = if LAST == PART && v + 1 == V { last.load(simd, p) } else { T::load(simd, p) };
                }
                for i in 0..R {
                    let x = T::splat(simd, *a[i]);
                    for v in 0..large {
                        acc[i][v] = T::vfma(simd, x, row[v], acc[i][v]);
                    }
                }
                if LAST == HALF {
                    let row = T::load(half, b.wrapping_add(large * lanes));
                    for i in 0..R {
                        halves[i] = T::vfma(half, T::splat(half, *a[i]), row, halves[i]);
                    }
                }
                for i in 0..R {
                    a[i] = a[i].wrapping_offset(t.a_step);
                }
            }
            b = b.wrapping_offset(t.b_step);
        }
    }
    for i in 0..R {
        for v in 0..large {
            let c = t.c[i].wrapping_add(v * lanes);
            let mut sum = acc[i][v];
            // SAFETY: the caller vouches for `cols` elements of this row of C.
            unsafe {
                if LAST == PART && v + 1 == V {
                    if t.add {
                        sum = T::vadd(simd, sum, last.load(simd, c));
                    }
                    last.store(simd, c, sum);
                } else {
                    if t.add {
                        sum = T::vadd(simd, sum, T::load(simd, c));
                    }
                    T::store(simd, c, sum);
                }
            }
        }
        if LAST == HALF {
            let c = t.c[i].wrapping_add(large * lanes);
            // SAFETY: as above.
            unsafe {
                let sum = if t.add { T::vadd(half, halves[i], T::load(half, c)) } else { halves[i] };
                T::store(half, c, sum);
            }
        }
    }
}

/// # Safety
/// See [`run_dot`].
#[inline(always)]
#[expect(clippy::needless_range_loop, reason = "constant bounds over several arrays")]
unsafe fn dot_body<T: Real, S: Simd, const R: usize, const C: usize>(simd: S, t: &DotTile<T>, cols: usize) {
    let lanes = T::lanes::<S>();
    let zero = T::splat(simd, T::ZERO);
    let mut acc = [[zero; C]; R];
    for segment in t.segments {
        let whole = segment.len - segment.len % lanes;
        let rest = Mask::first(simd, segment.len % lanes);
        let mut k = 0;
        while k < segment.len {
            // SAFETY: the caller vouches for `len` elements of each row and column; the mask ends there.
            let load = |p: *const T| unsafe {
                let p = p.wrapping_add(k);
                if k < whole { T::load(simd, p) } else { rest.load(simd, p) }
            };
            let mut y = [zero; C];
            for j in 0..C {
                y[j] = load(t.b[j].wrapping_offset(segment.b));
            }
            for i in 0..R {
                let x = load(t.a[i].wrapping_offset(segment.a));
                for j in 0..C {
                    acc[i][j] = T::vfma(simd, x, y[j], acc[i][j]);
                }
            }
            k += lanes;
        }
    }
    for i in 0..R {
        for j in 0..C {
            if j < cols {
                // SAFETY: the caller vouches for `cols` elements of this row of C.
                unsafe { *t.c[i].add(j) = lane_sum::<T, S>(simd, acc[i][j]) }
            }
        }
    }
}

/// The first lanes of a register; for either element type, because the two have registers of one size.
#[derive(Clone, Copy)]
pub(crate) struct Mask<S: Simd> {
    f32s: MemMask<S::m32s>,
    f64s: MemMask<S::m64s>,
}

impl<S: Simd> Mask<S> {
    #[inline(always)]
    pub(crate) fn first(simd: S, count: usize) -> Self {
        // A fresh `MemMask` is loaded through by the masked instruction; the one that `mask_between` gives, by a jump into a table.
        Self {
            f32s: MemMask::new(simd.mask_between_m32s(0, count as u32).mask()),
            f64s: MemMask::new(simd.mask_between_m64s(0, count as u64).mask()),
        }
    }

    /// # Safety
    /// The elements of the mask are readable; the others are not accessed.
    #[inline(always)]
    pub(crate) unsafe fn load<T: Real>(self, simd: S, p: *const T) -> T::Reg<S> {
        // SAFETY: passed on; T is the type that IS_F32 says.
        unsafe {
            if T::IS_F32 {
                pulp::cast(simd.mask_load_ptr_f32s(self.f32s, p.cast()))
            } else {
                pulp::cast(simd.mask_load_ptr_f64s(self.f64s, p.cast()))
            }
        }
    }

    /// # Safety
    /// The elements of the mask are writable; the others are not accessed.
    #[inline(always)]
    pub(crate) unsafe fn store<T: Real>(self, simd: S, p: *mut T, v: T::Reg<S>) {
        // SAFETY: passed on; T is the type that IS_F32 says.
        unsafe {
            if T::IS_F32 {
                simd.mask_store_ptr_f32s(self.f32s, p.cast(), pulp::cast(v));
            } else {
                simd.mask_store_ptr_f64s(self.f64s, p.cast(), pulp::cast(v));
            }
        }
    }
}

/// The sum of a register's lanes.
#[inline(always)]
pub(crate) fn lane_sum<T: Real, S: Simd>(simd: S, v: T::Reg<S>) -> T {
    if T::IS_F32 {
        T::from_f64(simd.reduce_sum_f32s(pulp::cast(v)).into())
    } else {
        T::from_f64(simd.reduce_sum_f64s(pulp::cast(v)))
    }
}
