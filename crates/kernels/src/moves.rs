//! One kernel for everything that only moves data: permute, broadcast, slice, flip, pad (after a fill) and concatenate are copies between
//! strided views.

use crate::layout::Layout;
use crate::par::{self, Par, SendPtr};

/// Side of the square that a transposition copies at a time: its rows and its columns fit the first-level cache.
const TILE: usize = 16;

/// Copies `shape` elements from `src` to `dst`, each addressed by an offset and strides in elements (negative strides go
/// backwards, a source stride of 0 repeats). Elements of `dst` that are not addressed stay as they are.
///
/// Panics if an address lies outside its slice, if ranks differ, or if two elements would go to one place of `dst` because of a stride of 0.
#[allow(clippy::too_many_arguments)]
#[track_caller]
pub fn copy_strided<T: Copy + Send + Sync>(
    par: Par,
    src: &[T],
    src_offset: usize,
    src_strides: &[isize],
    shape: &[usize],
    dst: &mut [T],
    dst_offset: usize,
    dst_strides: &[isize],
) {
    assert!(
        src_strides.len() == shape.len() && dst_strides.len() == shape.len(),
        "copy_strided: strides {src_strides:?} and {dst_strides:?} for shape {shape:?}"
    );
    if shape.contains(&0) {
        return;
    }
    check(src.len(), src_offset, src_strides, shape, "source");
    check(dst.len(), dst_offset, dst_strides, shape, "destination");
    assert!(
        shape.iter().zip(dst_strides).all(|(&n, &s)| n == 1 || s != 0),
        "copy_strided: destination strides {dst_strides:?} repeat an element of shape {shape:?}"
    );
    let layout = Layout::<2>::new(shape, |k, axis| [src_strides, dst_strides][k][axis]);
    let copy = Copy2 {
        src,
        src_offset: src_offset as isize,
        dst: SendPtr::new(dst),
        dst_offset: dst_offset as isize,
        layout,
    };
    copy.run(par);
}

/// Panics unless every address is inside a slice of `len` elements.
#[track_caller]
fn check(len: usize, offset: usize, strides: &[isize], shape: &[usize], what: &str) {
    let (mut low, mut high) = (offset as isize, offset as isize);
    for (&size, &stride) in shape.iter().zip(strides) {
        let reach = (size as isize - 1) * stride;
        if reach < 0 {
            low += reach;
        } else {
            high += reach;
        }
    }
    assert!(
        low >= 0 && (high as usize) < len,
        "copy_strided: {what} of {len} elements, but offset {offset} and strides {strides:?} over {shape:?} reach {low}..={high}"
    );
}

struct Copy2<'a, T> {
    src: &'a [T],
    src_offset: isize,
    dst: SendPtr<T>,
    dst_offset: isize,
    layout: Layout<2>,
}

impl<T: Copy + Send + Sync> Copy2<'_, T> {
    fn run(&self, par: Par) {
        let layout = &self.layout;
        let (rows, cols) = (layout.rows(), layout.size(0));
        let grain = (par::CHEAP_GRAIN_BYTES / size_of::<T>().max(1)).div_ceil(cols);
        if layout.rank() < 2 {
            // One run: cut along it.
            let grain = par::CHEAP_GRAIN_BYTES / size_of::<T>().max(1);
            par::for_each_range(par, cols, grain, |start, end| self.row([0, 0], start, end));
        } else if self.is_transposition() {
            // Whole planes of the last two axes, cut into bands of the second to last.
            let (height, planes) = (layout.size(1), rows / layout.size(1));
            let bands = height.div_ceil(TILE);
            par::for_each_range(par, planes * bands, grain.div_ceil(TILE), |start, end| {
                for task in start..end {
                    let (plane, band) = (task / bands, task % bands);
                    let top = plane * height + band * TILE;
                    let bottom = (top + TILE).min((plane + 1) * height);
                    let mut first = [0, 0];
                    layout.for_rows(top, top + 1, |offsets| first = offsets);
                    self.band(first, bottom - top);
                }
            });
        } else {
            par::for_each_range(par, rows, grain, |start, end| {
                layout.for_rows(start, end, |offsets| self.row(offsets, 0, cols));
            });
        }
    }

    /// Whether one side runs along the last axis and the other along the one before.
    fn is_transposition(&self) -> bool {
        let layout = &self.layout;
        let unit = |k, back| layout.stride(k, back).abs() == 1;
        (unit(0, 1) && !unit(0, 0) && layout.stride(0, 0) != 0) || (unit(1, 1) && !unit(1, 0))
    }

    /// Elements `start..end` of the row at `offsets`.
    #[inline]
    fn row(&self, offsets: [isize; 2], start: usize, end: usize) {
        let (s, d) = (self.layout.stride(0, 0), self.layout.stride(1, 0));
        let from = self.src_offset + offsets[0] + start as isize * s;
        let to = self.dst_offset + offsets[1] + start as isize * d;
        let count = end - start;
        // SAFETY: `copy_strided` checked that every address of either side lies in its slice, and that no two elements of the destination share
        // a place through a stride of 0; the two slices are a shared and a mutable borrow, so they do not overlap.
        unsafe {
            let src = self.src.as_ptr().offset(from);
            let dst = self.dst.get().offset(to);
            match (s, d) {
                (1, 1) => std::ptr::copy_nonoverlapping(src, dst, count),
                (0, 1) => std::slice::from_raw_parts_mut(dst, count).fill(*src),
                (_, 1) => {
                    for i in 0..count as isize {
                        *dst.offset(i) = *src.offset(i * s);
                    }
                }
                _ => {
                    for i in 0..count as isize {
                        *dst.offset(i * d) = *src.offset(i * s);
                    }
                }
            }
        }
    }

    /// `height` rows from `offsets` on, in squares.
    fn band(&self, offsets: [isize; 2], height: usize) {
        let layout = &self.layout;
        let (s0, d0) = (layout.stride(0, 0), layout.stride(1, 0));
        let (s1, d1) = (layout.stride(0, 1), layout.stride(1, 1));
        let cols = layout.size(0);
        let mut left = 0;
        while left < cols {
            let right = (left + TILE).min(cols);
            for i in 0..height as isize {
                for j in left as isize..right as isize {
                    // SAFETY: as in `row`: the addresses of all elements of the shape were checked.
                    unsafe {
                        let src = self.src.as_ptr().offset(self.src_offset + offsets[0] + i * s1 + j * s0);
                        let dst = self.dst.get().offset(self.dst_offset + offsets[1] + i * d1 + j * d0);
                        *dst = *src;
                    }
                }
            }
            left = right;
        }
    }
}
