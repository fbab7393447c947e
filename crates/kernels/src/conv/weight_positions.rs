//! The weight gradient of small maps and large strides, where many taps fall on padding: the pixels are copied position by position, all images of a
//! position side by side, and a tap sums only over the positions at which it lies inside.

use super::weight_grad::Product;
use super::window::Images;
use crate::Real;
use crate::microkernel::{ROWS, Segment, Strip};
use crate::panels::panels_len;
use crate::par::SendPtr;
use crate::scratch::{self, Slot};

/// Elements of x and g that are copied at a time: with f32 half of the second-level cache.
const BLOCK: usize = 1 << 17;
/// Images below which the runs are too short.
const MIN_IMAGES: usize = 8;

impl<T: Real> Product<'_, T> {
    /// Whether this way takes less than 7 / 8 of the multiply-adds, counting that tiles do not reach from tap to tap.
    pub(super) fn is_by_position(&self) -> bool {
        let ci = self.x.c / self.groups;
        let inside = |axis: usize| -> usize {
            let taps = 0..self.kernel[axis];
            taps.map(|tap| (0..self.g.hw[axis]).filter(|&o| self.source(axis, o, tap).is_some()).count()).sum()
        };
        let all = self.g.hw[0] * self.g.hw[1] * self.kernel[0] * self.kernel[1];
        self.n >= MIN_IMAGES && 8 * inside(0) * inside(1) * ci.next_multiple_of(ROWS) < 7 * all * ci
    }

    /// Columns of g that are copied side by side: those of a tile, or all where groups share them.
    fn g_wide(&self) -> usize {
        if self.groups == 1 { self.g.c.min(self.kernels.wide) } else { self.g.c }
    }

    /// The index in x, along an axis, that a tap joins with index `o` in g, if it lies inside.
    fn source(&self, axis: usize, o: usize, tap: usize) -> Option<usize> {
        let at = (o * self.stride[axis] + tap * self.dilation[axis]) as isize + self.origin[axis];
        (0..self.x.hw[axis] as isize).contains(&at).then_some(at as usize)
    }

    /// Sums over all pixels for a range of the rows (tap, channel of x) of each group.
    ///
    /// # Safety
    /// See [`Product::run`]; nobody else writes these rows.
    pub(super) unsafe fn rows_by_position(&self, range: [usize; 2], dw: SendPtr<T>) {
        let (x_len, g_len) = (self.x.image_len(), panels_len(self.g.hw[0] * self.g.hw[1], self.g.c, self.g_wide()));
        let together = (BLOCK / (x_len + g_len).max(1)).clamp(MIN_IMAGES, self.n.max(MIN_IMAGES));
        scratch::with::<T, _>(Slot::Window, together * (x_len + g_len), |window| {
            for n0 in (0..self.n).step_by(together) {
                let images = [n0, (n0 + together).min(self.n)];
                let (x, g) = window.split_at_mut(together * x_len);
                by_position(self.x, images, self.x.c, x);
                by_position(self.g, images, self.g_wide(), g);
                for group in 0..self.groups {
                    // SAFETY: passed on.
                    unsafe { self.add_positions([x, g], images, group, range, dw) }
                }
            }
        });
    }

    /// # Safety
    /// See [`Product::rows_by_position`].
    unsafe fn add_positions(
        &self,
        [x, g]: [&[T]; 2],
        [n0, n1]: [usize; 2],
        group: usize,
        range: [usize; 2],
        dw: SendPtr<T>,
    ) {
        let (ci, co) = (self.x.c / self.groups, self.g.c / self.groups);
        let [oh, ow] = self.g.hw;
        let len = n1 - n0;
        let wide = self.g_wide();
        let panel = oh * ow * len * wide;
        assert!(x.len() >= len * self.x.image_len() && g.len() >= self.g.c.div_ceil(wide) * panel);
        scratch::with::<Segment, _>(Slot::Index, oh * ow, |buffer| {
            for tap in range[0] / ci..range[1].div_ceil(ci) {
                let mut count = 0;
                for (i, j) in (0..oh).flat_map(|i| (0..ow).map(move |j| (i, j))) {
                    let row = self.source(0, i, tap / self.kernel[1]);
                    let col = self.source(1, j, tap % self.kernel[1]);
                    let (Some(row), Some(col)) = (row, col) else { continue };
                    let a = (row * self.x.hw[1] + col) * len * self.x.c;
                    let b = (i * ow + j) * len * wide;
                    buffer[count] = Segment { a: a as isize, b: b as isize, len };
                    count += 1;
                }
                let [first, last] = [range[0].max(tap * ci), range[1].min((tap + 1) * ci)];
                for (i, col) in (0..co).step_by(self.kernels.wide).enumerate() {
                    let columns = if self.groups == 1 { i * panel } else { group * co + col };
                    let strip = Strip {
                        a: x.as_ptr().wrapping_add(group * ci + first - tap * ci),
                        a_row: 1,
                        a_tile: ROWS,
                        a_step: self.x.c as isize,
                        b: g.as_ptr().wrapping_add(columns),
                        b_step: wide as isize,
                        segments: &buffer[..count],
                        c: dw.get().wrapping_add(first * self.g.c + group * co + col),
                        c_row: self.g.c,
                        add: n0 > 0,
                    };
                    // SAFETY: the segments are positions inside, `len` images of each were copied, and the caller vouches for dw.
                    unsafe { self.kernels.strip(last - first, (co - col).min(self.kernels.wide), &strip) }
                }
            }
        });
    }
}

/// Copies some images to panels `[channel / wide, pixel, image, wide]`. What lies beyond the last channel is left as it is.
fn by_position<T: Real>(images: Images<T>, [n0, n1]: [usize; 2], wide: usize, out: &mut [T]) {
    let (c, len) = (images.c, n1 - n0);
    let panel = images.hw[0] * images.hw[1] * len * wide;
    for n in n0..n1 {
        let image = &images.data[n * images.image_len()..][..images.image_len()];
        for (pixel, from) in image.chunks_exact(c).enumerate() {
            for (i, from) in from.chunks(wide).enumerate() {
                out[i * panel + (pixel * len + n - n0) * wide..][..from.len()].copy_from_slice(from);
            }
        }
    }
}
