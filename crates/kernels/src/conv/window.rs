//! A rectangle of an image, with what lies outside the image written out as zeros: after this copy the inner loops know no padding.
//!
//! The copy is `1 / (taps x output channels)` of the arithmetic that follows it, and leaves the patch in the cache.

use crate::Real;

/// A batch of images `[n, h, w, c]`.
#[derive(Clone, Copy)]
pub(super) struct Images<'a, T> {
    pub(super) data: &'a [T],
    pub(super) hw: [usize; 2],
    pub(super) c: usize,
}

/// Rows and columns of the images, from `origin` (which may lie outside).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rect {
    pub(super) origin: [isize; 2],
    pub(super) size: [usize; 2],
}

impl Rect {
    /// Whether it lies within an image of that size.
    pub(super) fn is_inside(&self, hw: [usize; 2]) -> bool {
        (0..2).all(|i| self.origin[i] >= 0 && self.origin[i] + self.size[i] as isize <= hw[i] as isize)
    }
}

impl<'a, T: Real> Images<'a, T> {
    /// Images `first..last`.
    pub(super) fn slice(self, first: usize, last: usize) -> Images<'a, T> {
        let len = self.image_len();
        Images { data: &self.data[first * len..last * len], ..self }
    }

    /// Elements of an image.
    pub(super) fn image_len(&self) -> usize {
        self.hw[0] * self.hw[1] * self.c
    }

    /// Copies the rectangle of each of the images `first..last` to `out`, `[last - first, size, c]`.
    pub(super) fn copy_rect(&self, first: usize, last: usize, rect: Rect, out: &mut [T]) {
        let [h, w] = self.hw.map(|x| x as isize);
        let row_len = rect.size[1] * self.c;
        if row_len == 0 {
            return;
        }
        // The part of a row that lies inside: columns [left, right) of the rectangle.
        let left = (-rect.origin[1]).clamp(0, rect.size[1] as isize) as usize;
        let right = ((w - rect.origin[1]).clamp(left as isize, rect.size[1] as isize)) as usize;
        let mut rows = out.chunks_exact_mut(row_len);
        for image in first..last {
            for i in 0..rect.size[0] {
                let Some(row) = rows.next() else { return };
                let y = rect.origin[0] + i as isize;
                if y < 0 || y >= h || left == right {
                    row.fill(T::ZERO);
                    continue;
                }
                let x = (rect.origin[1] + left as isize) as usize;
                let from = image * self.image_len() + (y as usize * self.hw[1] + x) * self.c;
                row[..left * self.c].fill(T::ZERO);
                row[left * self.c..right * self.c].copy_from_slice(&self.data[from..from + (right - left) * self.c]);
                row[right * self.c..].fill(T::ZERO);
            }
        }
    }
}
