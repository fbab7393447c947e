//! Matrix products, batched, with transposed operands: small ones straight from the operands, large ones from packed panels.

use crate::Real;
use crate::arena::LINE;
use crate::finish::Finish;
use crate::microkernel::{DOT, DotTile, Kernels, ROWS, Segment, Strip, kernels};
use crate::panels::{pack, panels_len};
use crate::par::{Par, SendPtr, for_each_chunk, for_each_range};
use crate::scratch::{self, Slot};
use crate::thin;
use crate::transpose::transpose_strided;

/// The shape of a batch of products `out[i] = op(a[i]) op(b[i])`, where op transposes if `ta` or `tb` says so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct MatMulDims {
    /// Products.
    pub batch: usize,
    /// Rows of the result.
    pub m: usize,
    /// Columns of the result.
    pub n: usize,
    /// Terms of each sum.
    pub k: usize,
    /// Whether a is stored `[k, m]` instead of `[m, k]`.
    pub ta: bool,
    /// Whether b is stored `[n, k]` instead of `[k, n]`.
    pub tb: bool,
    /// Whether there is one a for the whole batch.
    pub a_shared: bool,
    /// Whether there is one b for the whole batch.
    pub b_shared: bool,
    /// Whether the batch lies between rows and columns: a is `[m, batch, k]` (`[k, batch, m]` if `ta`), b and out likewise. Rows of all products
    /// then lie side by side, and what has one number for each column of each product runs through memory without a gap.
    pub interleaved: bool,
}

impl MatMulDims {
    /// One product of plain matrices.
    pub fn new(m: usize, n: usize, k: usize) -> MatMulDims {
        MatMulDims { batch: 1, m, n, k, ..MatMulDims::default() }
    }
}

/// Multiply-adds below which a call stays on one thread: about 30 us of arithmetic, a few times what it costs to wake the pool.
const PAR_WORK: usize = 1 << 20;
/// Blocks of rows that a large call is cut into for threads, unless they would be too large.
const BLOCKS: usize = 16;
/// Tiles, one below the other, that a block has at least.
const MIN_BLOCK_TILES: usize = 8;
/// And at most: with a sweep's terms a quarter of a megabyte in f32, which stays in the second-level cache while all panels pass.
const MAX_BLOCK_TILES: usize = 11;
/// Rows of the result below which a transposed b is read in place, by dot products, instead of being turned first.
const FEW_ROWS: usize = 4;
/// Columns of the result below which the same holds: they would fill half a register at best.
const FEW_COLS: usize = 8;
/// Terms summed in one sweep, and with the widest tile the size of a packed panel: 1024 x 64 f32 are a quarter of a megabyte of second-level cache. With
/// fewer the result is read and written again for every sweep, and large ones wait for it.
const PANEL_K: usize = 1024;
/// Multiply-adds from which panels of b are packed; below, b is small enough to be read where it lies.
const PACK_WORK: usize = 192 * 192 * 192;
/// And from which they are packed even if b's rows begin on cache lines and a panel's are several: up to there such rows are as good, and threads need not
/// wait for each other's panels. A panel's rows of one line or less share too few places of the first-level cache where they are a power of two apart.
const PACK_LINES_WORK: usize = 448 * 448 * 448;
/// Elements of a transposed b that a thread turns at a time, at least: some 10 us.
const TURN_GRAIN: usize = 1 << 15;

/// `out[i] = op(a[i]) op(b[i])` for each i of the batch: a `[batch, m, k]` (`[batch, k, m]` if `ta`), b `[batch, k, n]` (`[batch, n, k]` if `tb`),
/// out `[batch, m, n]`; a shared operand has no batch axis. If they are interleaved, the batch is the second axis.
///
/// # Panics
/// If a length does not fit `dims`.
#[track_caller]
pub(crate) fn matmul<T: Real>(par: Par, dims: &MatMulDims, a: &[T], b: &[T], out: &mut [T]) {
    check(dims, a, b, out);
    product(kernels(), par, dims, a, b, None, out);
}

/// [`matmul`], whose result is then finished: each product of a batch while it is in the cache.
///
/// # Panics
/// As [`matmul`], and if there are too few numbers to add to.
#[track_caller]
pub(crate) fn matmul_finished<T: Real>(
    par: Par,
    dims: &MatMulDims,
    a: &[T],
    b: &[T],
    finish: &Finish<'_, T>,
    out: &mut [T],
) {
    check(dims, a, b, out);
    finish.check(dims);
    product(kernels(), par, dims, a, b, Some(finish), out);
}

#[track_caller]
fn check<T>(dims: &MatMulDims, a: &[T], b: &[T], out: &[T]) {
    let MatMulDims { batch, m, n, k, .. } = *dims;
    let copies = |shared: bool| if shared { 1 } else { batch };
    assert_eq!(a.len(), copies(dims.a_shared) * m * k, "matmul: length of a for {dims:?}");
    assert_eq!(b.len(), copies(dims.b_shared) * k * n, "matmul: length of b for {dims:?}");
    assert_eq!(out.len(), batch * m * n, "matmul: length of out for {dims:?}");
}

fn product<T: Real>(
    kernels: &'static Kernels<T>,
    par: Par,
    dims: &MatMulDims,
    a: &[T],
    b: &[T],
    finish: Option<&Finish<'_, T>>,
    out: &mut [T],
) {
    if at_once(kernels, par, dims, a, b, out) {
        if let Some(finish) = finish {
            finish.all(kernels.isa, par, dims, out);
        }
        return;
    }
    let MatMulDims { batch, m, n, k, .. } = *dims;
    let result = SendPtr::new(out);
    let spread = par == Par::Rayon && batch > 1 && batch * m * n * k >= PAR_WORK;
    let inner = if spread { Par::Seq } else { par };
    let one = |i: usize| {
        // SAFETY: the products are disjoint parts of out, which this call borrows mutably.
        unsafe {
            single(kernels, inner, dims, i, [a, b], result);
            if let Some(finish) = finish {
                finish.product(kernels.isa, inner, dims, i, result);
            }
        }
    };
    if spread {
        let grain = (PAR_WORK / 4).div_ceil(m * n * k);
        for_each_range(par, batch, grain, |first, last| (first..last).for_each(one));
    } else {
        (0..batch).for_each(one);
    }
}

/// Computes all products of the batch as one, or at least together, if that can be.
fn at_once<T: Real>(
    kernels: &'static Kernels<T>,
    par: Par,
    dims: &MatMulDims,
    a: &[T],
    b: &[T],
    out: &mut [T],
) -> bool {
    let MatMulDims { batch, m, n, k, ta, .. } = *dims;
    if out.is_empty() || k == 0 {
        out.fill(T::ZERO);
    } else if dims.a_shared && dims.b_shared && !dims.interleaved {
        // One product, copied.
        let (first, rest) = out.split_at_mut(m * n);
        // SAFETY: `first` is a whole product, borrowed mutably.
        unsafe { single(kernels, par, &MatMulDims { batch: 1, ..*dims }, 0, [a, b], SendPtr::new(first)) };
        for copy in rest.chunks_exact_mut(m * n) {
            copy.copy_from_slice(first);
        }
    } else if thin::is_thin(dims) && batch * m * n * k < PAR_WORK {
        thin::product(kernels.isa, dims, a, b, out);
    } else if dims.b_shared && !ta && !(dims.a_shared && dims.interleaved) {
        // The rows of all a's are the rows of one product.
        let dims = MatMulDims { m: m * batch, batch: 1, ..*dims };
        // SAFETY: out holds the rows of all products and is borrowed mutably.
        unsafe { single(kernels, par, &dims, 0, [a, b], SendPtr::new(out)) };
    } else {
        return false;
    }
    true
}

impl MatMulDims {
    /// Where matrix `i` of an operand begins, and the distance between its rows, for matrices that are stored as `[rows, cols]`.
    #[inline(always)]
    fn place(&self, i: usize, is_shared: bool, [rows, cols]: [usize; 2]) -> [usize; 2] {
        match (is_shared, self.interleaved) {
            (true, _) => [0, cols],
            (false, false) => [i * rows * cols, cols],
            (false, true) => [i * cols, self.batch * cols],
        }
    }
}

/// Product `i` of the batch; no size is 0.
///
/// # Safety
/// `out` addresses the results of the whole batch, and nobody else uses those of this product meanwhile.
unsafe fn single<T: Real>(
    kernels: &'static Kernels<T>,
    par: Par,
    dims: &MatMulDims,
    i: usize,
    [a, b]: [&[T]; 2],
    out: SendPtr<T>,
) {
    let MatMulDims { m, n, k, ta, tb, .. } = *dims;
    let par = if m * n * k < PAR_WORK { Par::Seq } else { par };
    let [a_at, a_pitch] = dims.place(i, dims.a_shared, if ta { [k, m] } else { [m, k] });
    let [b_at, b_pitch] = dims.place(i, dims.b_shared, if tb { [n, k] } else { [k, n] });
    let [at, out_row] = dims.place(i, false, [m, n]);
    let (a, b, out) = (&a[a_at..], &b[b_at..], out.add(at));
    let (a_row, a_step) = if ta { (1, a_pitch) } else { (a_pitch, 1) };
    let (b_step, b_col) = if tb { (1, b_pitch) } else { (b_pitch, 1) };
    // Whether the terms of a sum lie side by side; a matrix of one row or column may do so both ways.
    let [a_runs, b_runs] = [a_step, b_step].map(|step| step == 1 || k == 1);
    if n == 1 && a_row == 1 && (!a_runs || k == 1) {
        // out^T = b^T a: the lanes run over the rows of out, as a lies.
        let row =
            |out| Job { kernels, m: 1, n: m, k, a: b, a_row: 0, a_step: b_step, b: a, b_row: a_step, out, out_row: 0 };
        if out_row == 1 {
            return row(out).run(par);
        }
        return scratch::with::<T, _>(Slot::Spare, m, |column| {
            row(SendPtr::new(column)).run(par);
            for (i, &x) in column.iter().enumerate() {
                // SAFETY: row i of this product, which is ours by the caller's word.
                unsafe { out.get().add(i * out_row).write(x) }
            }
        });
    }
    if k > 1 && a_runs && (n == 1 || b_runs && b_col != 1 && (n < FEW_COLS || m < FEW_ROWS)) {
        if b_runs {
            return dots(kernels, par, [m, n, k], (a, a_row), (b, b_col), (out, out_row));
        }
        return scratch::with::<T, _>(Slot::Weights, k, |column| {
            column.iter_mut().zip(b.iter().step_by(b_step)).for_each(|(to, &x)| *to = x);
            dots(kernels, par, [m, n, k], (a, a_row), (column, k), (out, out_row));
        });
    }
    if n > 1 && b_col != 1 {
        scratch::with::<T, _>(Slot::Weights, k * n, |turned| {
            for_each_chunk(par, turned, TURN_GRAIN.div_ceil(n) * n, |start, rows| {
                transpose_strided(&b[start / n..], b_col, n, rows.len() / n, rows, n);
            });
            Job { kernels, m, n, k, a, a_row, a_step, b: turned, b_row: n, out, out_row }.run(par);
        });
    } else {
        Job { kernels, m, n, k, a, a_row, a_step, b, b_row: b_step, out, out_row }.run(par);
    }
}

/// `out[i, j] = <a[i], b[j]>`, for few columns or few rows; the terms of each sum lie side by side, and with each operand comes the distance
/// between its rows.
fn dots<T: Real>(
    kernels: &'static Kernels<T>,
    par: Par,
    [m, n, k]: [usize; 3],
    (a, a_row): (&[T], usize),
    (b, b_row): (&[T], usize),
    (out, out_row): (SendPtr<T>, usize),
) {
    let segments = [Segment { a: 0, b: 0, len: k }];
    let columns = |first: usize, last: usize, rows: [usize; 2]| {
        for i in (rows[0]..rows[1]).step_by(DOT) {
            let r = (rows[1] - i).min(DOT);
            for j in (first..last).step_by(DOT) {
                let c = (last - j).min(DOT);
                let tile = DotTile {
                    a: std::array::from_fn(|d| a[(i + d.min(r - 1)) * a_row..].as_ptr()),
                    b: std::array::from_fn(|d| b[(j + d.min(c - 1)) * b_row..].as_ptr()),
                    segments: &segments,
                    c: std::array::from_fn(|d| out.get().wrapping_add((i + d.min(r - 1)) * out_row + j)),
                };
                // SAFETY: rows i..i + r of a and j..j + c of b have k elements each, and ranges of out are disjoint.
                unsafe { kernels.dot(r, c, &tile) }
            }
        }
    };
    if m >= n {
        for_each_range(par, m, (PAR_WORK / 4).div_ceil(n * k).next_multiple_of(DOT), |first, last| {
            columns(0, n, [first, last])
        });
    } else {
        for_each_range(par, n, (PAR_WORK / 4).div_ceil(m * k).next_multiple_of(DOT), |first, last| {
            columns(first, last, [0, m])
        });
    }
}

/// `out = a b` with any strides in a, and any distance between the rows of b and of out.
struct Job<'a, T: 'static> {
    kernels: &'static Kernels<T>,
    m: usize,
    n: usize,
    k: usize,
    a: &'a [T],
    a_row: usize,
    a_step: usize,
    b: &'a [T],
    b_row: usize,
    out: SendPtr<T>,
    out_row: usize,
}

/// Where the rows of a are: from one tile to the next, within a tile from row to row, and from one k to the next.
#[derive(Clone, Copy)]
struct Rows<T> {
    first: *const T,
    tile: usize,
    row: usize,
    step: usize,
}

impl<T: Real> Job<'_, T> {
    fn run(&self, par: Par) {
        let (whole, all) = ([0, self.m], [0, self.n]);
        if self.is_packed() {
            self.packed(par);
        } else if par == Par::Seq {
            self.direct(whole, all);
        } else if self.m >= self.n {
            let grain = self.m.div_ceil(BLOCKS).next_multiple_of(ROWS);
            for_each_range(par, self.m, grain, |first, last| self.direct([first, last], all));
        } else {
            let grain = self.n.div_ceil(BLOCKS).next_multiple_of(self.kernels.wide);
            for_each_range(par, self.n, grain, |first, last| self.direct(whole, [first, last]));
        }
    }

    /// Whether to pack panels of b. Where memory happens to lie may decide only if it changes no bit: a sum of one sweep is one chain either way.
    fn is_packed(&self) -> bool {
        let is_on_line = |bytes: usize| bytes.is_multiple_of(LINE);
        let on_lines = is_on_line(self.b.as_ptr().addr()) && is_on_line(self.b_row * size_of::<T>());
        let are_wide = self.kernels.wide * size_of::<T>() > LINE;
        let least = if on_lines && are_wide && self.k <= PANEL_K { PACK_LINES_WORK } else { PACK_WORK };
        self.m * self.n * self.k >= least && self.m >= MIN_BLOCK_TILES * ROWS
    }

    /// From the operands as they lie.
    fn direct(&self, rows: [usize; 2], cols: [usize; 2]) {
        let a = self.rows(rows[0], 0);
        let mut j = cols[0];
        while j < cols[1] {
            let width = self.kernels.width(cols[1] - j);
            self.column(rows, j, width, [0, self.k], a, &self.b[j..], self.b_row);
            j += width;
        }
    }

    /// The rows of a from `row` and `k` on, where they lie.
    fn rows(&self, row: usize, k: usize) -> Rows<T> {
        let first = self.a[row * self.a_row + k * self.a_step..].as_ptr();
        Rows { first, tile: ROWS * self.a_row, row: self.a_row, step: self.a_step }
    }

    /// All tiles of a column of tiles, for a range of k; a and b begin at the first of them.
    #[expect(clippy::too_many_arguments, reason = "a tile column has two ranges, two operands and their strides")]
    fn column(&self, rows: [usize; 2], col: usize, width: usize, ks: [usize; 2], a: Rows<T>, b: &[T], b_row: usize) {
        let len = ks[1] - ks[0];
        assert!((len - 1) * b_row + width <= b.len());
        let strip = Strip {
            a: a.first,
            a_row: a.row,
            a_tile: a.tile,
            a_step: a.step as isize,
            b: b.as_ptr(),
            b_step: b_row as isize,
            segments: &[Segment { a: 0, b: 0, len }],
            c: self.out.get().wrapping_add(rows[0] * self.out_row + col),
            c_row: self.out_row,
            add: ks[0] > 0,
        };
        // SAFETY: a's rows hold these k under their strides, b was checked above, and ranges of out are disjoint.
        unsafe { self.kernels.strip(rows[1] - rows[0], width, &strip) }
    }

    /// Panels of b are copied so that a tile reads them as one stream, and so are the rows of a transposed a.
    fn packed(&self, par: Par) {
        let wide = self.kernels.wide;
        // A power of two of blocks of nearly one size: threads halve them.
        let tiles = self.m.div_ceil(ROWS);
        let for_threads = 1 << (tiles / MIN_BLOCK_TILES).clamp(1, BLOCKS).ilog2();
        let blocks = tiles.div_ceil(MAX_BLOCK_TILES).next_power_of_two().max(for_threads);
        for k0 in (0..self.k).step_by(PANEL_K) {
            let ks = [k0, (k0 + PANEL_K).min(self.k)];
            let len = ks[1] - k0;
            scratch::with::<T, _>(Slot::Panels, panels_len(len, self.n, wide), |packed| {
                pack(par, &self.b[k0 * self.b_row..], self.b_row, self.n, wide, packed);
                let packed = &*packed;
                for_each_range(par, blocks, 1, |first, last| {
                    for block in first..last {
                        let rows = [block, block + 1].map(|block| (block * tiles / blocks * ROWS).min(self.m));
                        self.block(rows, ks, packed);
                    }
                });
            });
        }
    }

    /// A block of rows, for a range of k, by the packed panels of b.
    fn block(&self, [first, last]: [usize; 2], ks: [usize; 2], panels: &[T]) {
        let (wide, len) = (self.kernels.wide, ks[1] - ks[0]);
        let sweep = |a: Rows<T>| {
            for (p, panel) in panels.chunks_exact(wide * len).enumerate() {
                let width = (self.n - p * wide).min(wide);
                self.column([first, last], p * wide, width, ks, a, panel, wide);
            }
        };
        if self.a_step == 1 {
            return sweep(self.rows(first, ks[0]));
        }
        scratch::with::<T, _>(Slot::Window, (last - first).next_multiple_of(ROWS) * len, |packed| {
            self.pack_rows([first, last], ks, packed);
            sweep(Rows { first: packed.as_ptr(), tile: ROWS * len, row: 1, step: ROWS });
        });
    }

    /// Copies rows of a transposed a, which lie side by side, to `[tile, k, ROWS]`.
    fn pack_rows(&self, [first, last]: [usize; 2], ks: [usize; 2], out: &mut [T]) {
        let len = ks[1] - ks[0];
        for k in 0..len {
            let from = &self.a[(ks[0] + k) * self.a_step..][first..last];
            // To copy any number is a call that takes longer than so few.
            let (whole, rest) = from.as_chunks::<ROWS>();
            let mut places = out[k * ROWS..].chunks_mut(len * ROWS);
            for (rows, to) in whole.iter().zip(&mut places) {
                to[..ROWS].copy_from_slice(rows);
            }
            if let Some(to) = places.next() {
                to[..rest.len()].copy_from_slice(rest);
            }
        }
    }
}

#[cfg(test)]
#[path = "matmul_tests.rs"]
mod tests;
