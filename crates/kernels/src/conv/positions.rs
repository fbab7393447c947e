//! Small maps and large strides, where many taps fall on padding: the cells are taken position by position over many images, so that a tile has the same
//! position of several images, and its sum only the taps that lie inside. No window has to be copied either.

use super::correlate::{Correlation, Tap};
use crate::Real;
use crate::microkernel::{ROWS, Segment, Strip};
use crate::par::{Par, for_each_range};
use crate::scratch::{self, Slot};

/// Elements of the images that are swept at a time: with the weights they fit the second-level cache.
const IMAGES: usize = 1 << 16;
/// Positions above which counting their taps would itself take long, and padding is a small part.
const MAX_POSITIONS: usize = 256;

impl<T: Real> Correlation<'_, T> {
    /// Whether this way takes less than 15 / 16 of the multiply-adds of whole tiles; short sums and scattered pixels cost it something.
    pub(super) fn is_by_position(&self) -> bool {
        let [rows, cols] = self.cells;
        if rows * cols > MAX_POSITIONS || self.n < ROWS {
            return false;
        }
        let inside =
            |cell: usize| self.taps.iter().filter(|tap| self.source(tap, [cell / cols, cell % cols]).is_some()).count();
        let terms: usize = (0..rows * cols).map(inside).sum();
        16 * terms * self.n.next_multiple_of(ROWS) < 15 * rows * cols * self.taps.len() * self.n
    }

    /// The pixel that a tap reads for a cell, if it lies inside.
    fn source(&self, tap: &Tap, cell: [usize; 2]) -> Option<usize> {
        let [h, w] = self.images.hw;
        let [row, col] = [0, 1].map(|i| (cell[i] * self.step[i]) as isize + tap.at[i]);
        let inside = (0..h as isize).contains(&row) && (0..w as isize).contains(&col);
        inside.then_some((row * w as isize + col) as usize)
    }

    /// Computes every cell.
    ///
    /// # Safety
    /// See [`Correlation::run`].
    pub(super) unsafe fn by_position(&self, par: Par) {
        let fit = (IMAGES / self.images.image_len().max(1)).next_multiple_of(ROWS).max(ROWS);
        let blocks = self.n.div_ceil(fit);
        // A task is a row of cells of a block of images; the last block may be smaller, so it is every so many tasks.
        for_each_range(par, blocks * self.cells[0], 1, |first, last| {
            for task in first..last {
                let [row, block] = [task / blocks, task % blocks];
                let images = [block * fit, ((block + 1) * fit).min(self.n)];
                for group in 0..self.groups {
                    for panel in 0..self.cols.div_ceil(self.kernels.wide) {
                        for cell in 0..self.cells[1] {
                            // SAFETY: cells are disjoint parts of the result; the rest is the caller's word.
                            unsafe { self.position(images, [row, cell], group, panel) }
                        }
                    }
                }
            }
        });
    }

    /// One cell of some images, as many channels as a tile is wide.
    ///
    /// # Safety
    /// See [`Correlation::run`].
    unsafe fn position(&self, [n0, n1]: [usize; 2], cell: [usize; 2], group: usize, panel: usize) {
        let col = panel * self.kernels.wide;
        let weights = self.weights.tile(group, panel);
        scratch::with::<Segment, _>(Slot::Index, self.taps.len(), |buffer| {
            let mut count = 0;
            for tap in self.taps {
                let Some(pixel) = self.source(tap, cell) else { continue };
                buffer[count] = Segment {
                    a: (pixel * self.images.c) as isize,
                    b: tap.row * self.weights.row as isize,
                    len: self.depth,
                };
                count += 1;
            }
            let source = self.images.data.as_ptr().wrapping_add(group * self.depth);
            let out = self.out_origin + cell[0] * self.out_step[0] + cell[1] * self.out_step[1];
            let out = self.out.get().wrapping_add(out + group * self.cols + col);
            let image = self.images.image_len();
            let strip = Strip {
                a: source.wrapping_add(n0 * image),
                a_row: image,
                a_tile: ROWS * image,
                a_step: 1,
                b: weights,
                b_step: self.weights.row as isize,
                segments: &buffer[..count],
                c: out.wrapping_add(n0 * self.out_image),
                c_row: self.out_image,
                add: false,
            };
            // SAFETY: the segments are pixels inside the images, and the caller vouches for the result.
            unsafe { self.kernels.strip(n1 - n0, (self.cols - col).min(self.kernels.wide), &strip) }
        });
    }
}
