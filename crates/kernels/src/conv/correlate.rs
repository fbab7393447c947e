//! The driver of the forward pass and of the input gradient: for each cell of a grid, the sum over taps and channels of a source pixel
//! times a weight, written to a pixel of the result.

use super::window::{Images, Rect};
use super::{Taker, Then};
use crate::Real;
use crate::microkernel::{Kernels, ROWS, Segment, Tile};
use crate::panels::panels_len;
use crate::par::{Par, SendPtr, for_each_range};
use crate::scratch::{self, Slot};

/// Elements of B (a block of the weights, as wide as a tile) that one sweep over the cells uses: a quarter of the second-level cache of current
/// processors in f32, so that it stays there beside the window.
const PANEL: usize = 1 << 16;
/// Elements of a window: what a block of cells reads. With the panel it fits the second-level cache.
const WINDOW: usize = 1 << 16;
/// Blocks that a call is cut into for threads, if it is large enough.
const BLOCKS: usize = 16;
/// Cells that a block has at least: fewer would not repay streaming the weights.
const MIN_CELLS: usize = 96;

/// Cells from which weights with more columns than a tile are packed: that costs about as much as 8 cells.
const PACK_CELLS: usize = 512;

/// Whether `n` results of `image` elements may come some at a time: on as many threads as otherwise, and in memory that fits the second-level cache.
pub(super) fn are_many(n: usize, image: usize) -> bool {
    n >= BLOCKS && image <= 2 * WINDOW
}

/// The terms of the sum for one tap: the source pixel at `cell * step + at`, and the first row of its weights.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub(super) struct Tap {
    pub(super) at: [isize; 2],
    pub(super) row: isize,
}

/// The weights of all groups, a row for each term of the sum, columns side by side as far as a tile reaches.
#[derive(Clone, Copy)]
pub(super) struct Weights<'a, T> {
    pub(super) data: &'a [T],
    /// From one group to the next.
    pub(super) group: usize,
    /// From one row to the next.
    pub(super) row: usize,
    /// From the columns of a tile to those of the next.
    pub(super) panel: usize,
}

impl<'a, T: Real> Weights<'a, T> {
    /// Whether to pack weights of so many columns for so many cells.
    pub(super) fn worth_packing(cells: usize, cols: usize, wide: usize) -> bool {
        cells >= PACK_CELLS && cols > wide
    }

    /// `rows` rows of `cols` columns in panels; each group for itself.
    pub(super) fn packed(data: &'a [T], [rows, cols]: [usize; 2], wide: usize) -> Weights<'a, T> {
        Weights { data, group: panels_len(rows, cols, wide), row: wide, panel: rows * wide }
    }

    /// The first row of a group, from the columns of tile `panel` on.
    pub(super) fn tile(&self, group: usize, panel: usize) -> *const T {
        self.data[group * self.group + panel * self.panel..].as_ptr()
    }
}

pub(super) struct Correlation<'a, T: 'static> {
    pub(super) kernels: &'static Kernels<T>,
    pub(super) images: Images<'a, T>,
    pub(super) n: usize,
    /// Rows and columns of cells for each image.
    pub(super) cells: [usize; 2],
    /// From one cell to the next, in source pixels.
    pub(super) step: [usize; 2],
    pub(super) taps: &'a [Tap],
    /// Channels of a group in the source: terms of the sum for each tap.
    pub(super) depth: usize,
    pub(super) groups: usize,
    pub(super) weights: Weights<'a, T>,
    /// Channels of a group in the result.
    pub(super) cols: usize,
    pub(super) out: SendPtr<T>,
    /// Where cell (0, 0) of image 0 goes, and the distances between images, rows and columns of cells in the result.
    pub(super) out_origin: usize,
    pub(super) out_image: usize,
    pub(super) out_step: [usize; 2],
    /// What becomes of the result, if it has a pixel for each cell, in that order and without a gap, and they do not go by position.
    pub(super) then: Then<'a, T>,
}

/// What the tiles of a block share.
struct Block<'a, T> {
    /// The corner of the rectangle that the first image's cells read.
    source: *const T,
    /// From row to row and from image to image in the source.
    pitch: usize,
    image: usize,
    /// The result of the first cell.
    out: *mut T,
    segments: &'a [Segment],
    images: usize,
    rows: usize,
}

impl<T: Real> Correlation<'_, T> {
    /// Computes every cell.
    ///
    /// # Safety
    /// Unless it is given away, `out` with its origin and distances addresses `cols * groups` distinct writable elements for each cell, and nobody else
    /// uses them meanwhile, but for a listener those that it heard of; the weights hold `depth` x `cols` elements at each tap for each group.
    pub(super) unsafe fn run(&self, par: Par) {
        let [rows, cols] = self.cells;
        let total = self.n * rows * cols;
        if total == 0 || self.cols == 0 || self.groups == 0 {
            return;
        }
        // SAFETY: passed on.
        unsafe {
            match self.then {
                Then::Give(take) => self.by_images(par, take),
                _ if self.is_by_position() => self.by_position(par),
                Then::Stay | Then::Tell(_) => self.by_blocks(par),
            }
        }
    }

    /// Computes every cell, some rows of an image or some images at a time; there is at least one.
    ///
    /// # Safety
    /// See [`Correlation::run`].
    unsafe fn by_blocks(&self, par: Par) {
        let [rows, cols] = self.cells;
        let total = self.n * rows * cols;
        let pixels = self.step[0] * self.step[1] * self.images.c.max(1);
        let mut target = (WINDOW / pixels).max(MIN_CELLS);
        if par == Par::Rayon {
            target = target.min((total / BLOCKS).max(MIN_CELLS));
        }
        if let Then::Tell(_) = self.then {
            // Who hears of them finds them in the cache.
            target = target.min((2 * WINDOW / (self.cols * self.groups)).max(MIN_CELLS));
        }
        // A block is some rows of one image or some whole images.
        let block_rows = (target / cols).clamp(1, rows);
        let block_images = if block_rows == rows { (target / (rows * cols)).clamp(1, self.n) } else { 1 };
        let strips = rows.div_ceil(block_rows);
        let blocks = self.n.div_ceil(block_images) * strips;
        for_each_range(par, blocks, 1, |first, last| {
            for block in first..last {
                let n0 = block / strips * block_images;
                let n1 = (n0 + block_images).min(self.n);
                let r0 = block % strips * block_rows;
                let r1 = (r0 + block_rows).min(rows);
                // SAFETY: blocks are disjoint sets of cells; the rest is the caller's word.
                unsafe { self.block([n0, n1], [r0, r1]) }
                if let Then::Tell(listener) = self.then {
                    listener(self.out, [(n0 * rows + r0) * cols, ((n1 - 1) * rows + r1) * cols]);
                }
            }
        });
    }

    /// Computes every cell, some images at a time: each sum is the one that [`Correlation::run`] takes unless it goes by position.
    ///
    /// # Panics
    /// If not all of an image's elements are results.
    ///
    /// # Safety
    /// The weights hold `depth` x `cols` elements at each tap for each group.
    unsafe fn by_images(&self, par: Par, take: Taker<T>) {
        let image = self.out_image;
        debug_assert!(!self.is_by_position());
        assert!(self.out_step[1] == self.cols * self.groups && self.out_step[0] == self.cells[1] * self.out_step[1]);
        assert!(self.out_origin == 0 && image == self.cells[0] * self.out_step[0] && image > 0);
        let window = self.cells[0] * self.cells[1] * self.step[0] * self.step[1] * self.images.c;
        let mut at_once = (WINDOW / window.max(image)).max(MIN_CELLS.div_ceil(self.cells[0] * self.cells[1]));
        if par == Par::Rayon {
            at_once = at_once.min((self.n / BLOCKS).max(1));
        }
        let pieces = self.n.div_ceil(at_once);
        for_each_range(par, pieces, 1, |first, last| {
            for piece in first..last {
                let [n0, n1] = [piece, piece + 1].map(|i| i * self.n / pieces);
                scratch::with::<T, _>(Slot::Images, (n1 - n0) * image, |y| {
                    let (n, images) = (n1 - n0, self.images.slice(n0, n1));
                    // SAFETY: `y` has all elements of so many images, and is ours alone; the caller vouches for the weights.
                    unsafe {
                        Correlation { n, images, out: SendPtr::new(y), then: Then::Stay, ..*self }.by_blocks(Par::Seq)
                    }
                    take([n0, n1], y);
                });
            }
        });
    }

    /// The source pixels that a range of rows of cells reads.
    fn rect(&self, rows: [usize; 2]) -> Rect {
        let axis = |i: usize, first: usize, last: usize| {
            let at = self.taps.iter().map(|t| t.at[i]);
            let (Some(low), Some(high)) = (at.clone().min(), at.max()) else {
                return (0, 0);
            };
            let span = ((last - 1 - first) * self.step[i]) as isize + high - low + 1;
            ((first * self.step[i]) as isize + low, span as usize)
        };
        let (top, height) = axis(0, rows[0], rows[1]);
        let (left, width) = axis(1, 0, self.cells[1]);
        Rect { origin: [top, left], size: [height, width] }
    }

    /// # Safety
    /// See [`Correlation::run`].
    unsafe fn block(&self, images: [usize; 2], rows: [usize; 2]) {
        let [n0, n1] = images;
        let rect = self.rect(rows);
        let c = self.images.c;
        let out = self.out.get().wrapping_add(self.out_origin + n0 * self.out_image + rows[0] * self.out_step[0]);
        let low = |i: usize| self.taps.iter().map(|t| t.at[i]).min().unwrap_or(0);
        let low = [low(0), low(1)];
        let run = |source: *const T, pitch: usize, image: usize| {
            scratch::with::<Segment, _>(Slot::Index, self.taps.len(), |buffer| {
                let segments = self.segments(low, pitch, buffer);
                let block = Block { source, pitch, image, out, segments, images: n1 - n0, rows: rows[1] - rows[0] };
                // SAFETY: the source holds every pixel of the rectangle of each image; the rest is the caller's word.
                unsafe { self.sweep(&block) }
            });
        };
        if rect.is_inside(self.images.hw) {
            let pitch = self.images.hw[1] * c;
            let first = n0 * self.images.image_len() + rect.origin[0] as usize * pitch + rect.origin[1] as usize * c;
            run(self.images.data[first..].as_ptr(), pitch, self.images.image_len());
        } else {
            let image = rect.size[0] * rect.size[1] * c;
            scratch::with::<T, _>(Slot::Window, (n1 - n0) * image, |window| {
                self.images.copy_rect(n0, n1, rect, window);
                run(window.as_ptr(), rect.size[1] * c, image);
            });
        }
    }

    /// The taps as segments relative to the rectangle's corner; taps that follow each other in source and weights become one.
    fn segments<'b>(&self, low: [isize; 2], pitch: usize, buffer: &'b mut [Segment]) -> &'b [Segment] {
        let c = self.images.c as isize;
        let mut count = 0;
        let mut row = None;
        for tap in self.taps {
            // The next row may follow by chance in one block and not in another, and a sum is cut between segments.
            let is_beside = row.replace(tap.at[0]) == Some(tap.at[0]);
            let a = (tap.at[0] - low[0]) * pitch as isize + (tap.at[1] - low[1]) * c;
            let b = tap.row * self.weights.row as isize;
            if let Some(last) = buffer[..count].last_mut()
                && self.groups == 1
                && is_beside
                && last.a + last.len as isize == a
                && last.b + (last.len * self.weights.row) as isize == b
            {
                last.len += self.depth;
            } else {
                buffer[count] = Segment { a, b, len: self.depth };
                count += 1;
            }
        }
        &buffer[..count]
    }

    /// # Safety
    /// See [`Correlation::run`].
    unsafe fn sweep(&self, block: &Block<T>) {
        for group in 0..self.groups {
            // SAFETY: passed on.
            unsafe { self.sweep_group(block, group) }
        }
    }

    /// # Safety
    /// See [`Correlation::run`].
    unsafe fn sweep_group(&self, block: &Block<T>, group: usize) {
        let mut rest = block.segments;
        let mut add = false;
        // At least one round, so that cells without taps become zero.
        loop {
            let count = panel(rest, self.cols.min(self.kernels.wide));
            let (segments, later) = rest.split_at(count);
            for (panel, col) in (0..self.cols).step_by(self.kernels.wide).enumerate() {
                let cols = (self.cols - col).min(self.kernels.wide);
                let weights = self.weights.tile(group, panel);
                let tile = Tile {
                    a: [block.source.wrapping_add(group * self.depth); ROWS],
                    a_step: 1,
                    b: weights,
                    b_step: self.weights.row as isize,
                    segments,
                    c: [block.out.wrapping_add(group * self.cols + col); ROWS],
                    add,
                };
                // SAFETY: passed on.
                unsafe { self.sweep_tiles(block, cols, tile) }
            }
            rest = later;
            add = true;
            if rest.is_empty() {
                break;
            }
        }
    }

    /// Computes so many columns of all cells of a block by `tile`, whose rows are the first cell's. Tiles cross rows and images, so that small maps fill
    /// them.
    ///
    /// # Safety
    /// See [`Correlation::run`].
    unsafe fn sweep_tiles(&self, block: &Block<T>, cols: usize, mut tile: Tile<T>) {
        let (first_source, first_out) = (tile.a[0], tile.c[0]);
        let across = self.step[1] * self.images.c;
        let mut filled = 0;
        for image in 0..block.images {
            for row in 0..block.rows {
                let mut source = first_source.wrapping_add(image * block.image + row * self.step[0] * block.pitch);
                let mut out = first_out.wrapping_add(image * self.out_image + row * self.out_step[0]);
                for _ in 0..self.cells[1] {
                    (tile.a[filled], tile.c[filled]) = (source, out);
                    filled += 1;
                    if filled == ROWS {
                        // SAFETY: a cell's pixels lie in the block's rectangle and its result in `out`.
                        unsafe { self.kernels.tile(ROWS, cols, &tile) }
                        filled = 0;
                    }
                    source = source.wrapping_add(across);
                    out = out.wrapping_add(self.out_step[1]);
                }
            }
        }
        if filled > 0 {
            // SAFETY: as above; rows beyond are not accessed.
            unsafe { self.kernels.tile(filled, cols, &tile) }
        }
    }
}

/// How many leading segments make a panel of at most [`PANEL`] elements, at least one.
fn panel(segments: &[Segment], cols: usize) -> usize {
    let mut size = 0;
    for (i, segment) in segments.iter().enumerate() {
        size += segment.len * cols;
        if size > PANEL && i > 0 {
            return i;
        }
    }
    segments.len()
}
