//! One kernel for everything that only moves data: permute, broadcast, slice, flip, pad (after a fill) and concatenate are copies between
//! strided views.

use bytemuck::Pod;

use crate::layout::{Layout, MAX_RANK};
use crate::par::{self, Par, SendPtr};
use crate::real::Real;
use crate::transpose::transpose_raw;

/// Side of the squares of a plane that are transposed one after the other, and rows of it that a task takes.
const BAND: usize = 64;

/// Sides from which on a plane is worth being transposed in blocks.
const SIDE: usize = 4;

/// Copies `shape` elements from `src` to `dst`, each addressed by an offset and strides in elements (negative strides go
/// backwards, a source stride of 0 repeats). Elements of `dst` that are not addressed stay as they are.
///
/// Panics if an address lies outside its slice, if ranks differ, or if two axes of the destination overlap (each stride, in order
/// of size, must step over all that the smaller ones reach, as it does in any view of a contiguous array).
#[allow(clippy::too_many_arguments)]
#[track_caller]
pub fn copy_strided<T: Pod + Send + Sync>(
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
        src_strides.len() == shape.len() && dst_strides.len() == shape.len() && shape.len() <= MAX_RANK,
        "copy_strided: strides {src_strides:?} and {dst_strides:?} for shape {shape:?}"
    );
    if shape.contains(&0) {
        return;
    }
    check(src.len(), src_offset, src_strides, shape, "source");
    check(dst.len(), dst_offset, dst_strides, shape, "destination");
    let axes = order(shape, src_strides, dst_strides);
    let axes = &axes[..shape.len()];
    let mut reach = 0;
    for &axis in axes.iter().rev().filter(|&&axis| shape[axis] > 1) {
        let stride = dst_strides[axis].unsigned_abs();
        assert!(stride > reach, "copy_strided: destination strides {dst_strides:?} overlap over shape {shape:?}");
        reach += stride * (shape[axis] - 1);
    }
    let mut sorted = [1; MAX_RANK];
    for (to, &axis) in sorted.iter_mut().zip(axes) {
        *to = shape[axis];
    }
    let layout = Layout::<2>::new(&sorted[..axes.len()], |k, i| [src_strides, dst_strides][k][axes[i]]);
    let job = Copy2 { src, offsets: [src_offset as isize, dst_offset as isize], dst: SendPtr::new(dst), layout };
    job.run(par);
}

/// Fills `to` with copies of `x`, which is not empty, and no longer.
pub(crate) fn repeat<T: Copy>(x: &[T], to: &mut [T]) {
    debug_assert!(!x.is_empty());
    to[..x.len()].copy_from_slice(x);
    let mut done = x.len();
    while done < to.len() {
        let more = done.min(to.len() - done);
        to.copy_within(..more, done);
        done += more;
    }
}

/// The axes by falling stride of the destination: elements are written in the order in which they stand.
fn order(shape: &[usize], src_strides: &[isize], dst_strides: &[isize]) -> [usize; MAX_RANK] {
    let mut axes: [usize; MAX_RANK] = std::array::from_fn(|i| i);
    let key = |axis: usize| (dst_strides[axis].unsigned_abs(), src_strides[axis].unsigned_abs());
    for i in 1..shape.len() {
        let mut j = i;
        while j > 0 && key(axes[j - 1]) < key(axes[j]) {
            axes.swap(j - 1, j);
            j -= 1;
        }
    }
    axes
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

/// A copy whose addresses have been checked: those of the source lie in `src`, those of the destination in its slice, and no two of the latter are
/// the same.
struct Copy2<'a, T> {
    src: &'a [T],
    offsets: [isize; 2],
    dst: SendPtr<T>,
    layout: Layout<2>,
}

impl<T: Pod + Send + Sync> Copy2<'_, T> {
    fn run(&self, par: Par) {
        let layout = &self.layout;
        let cols = layout.size(0);
        let grain = par::CHEAP_GRAIN_BYTES / size_of::<T>().max(1);
        if layout.rank() < 2 {
            return par::for_each_range(par, cols, grain, |start, end| self.row([0, 0], start, end));
        }
        if let Some(planes) = self.planes() {
            let [height, bands] = [planes.size(1), planes.size(1).div_ceil(BAND)];
            let tasks = planes.rows() / height * bands;
            par::for_each_range(par, tasks, grain.div_ceil(BAND.min(height) * cols), |start, end| {
                for task in start..end {
                    let top = task % bands * BAND;
                    let rows = (height - top).min(BAND);
                    planes.for_rows(task / bands * height + top, task / bands * height + top + 1, |offsets| {
                        self.transposed(&planes, offsets, rows);
                    });
                }
            });
            return;
        }
        par::for_each_range(par, layout.rows(), grain.div_ceil(cols), |start, end| {
            layout.for_rows(start, end, |offsets| self.row(offsets, 0, cols));
        });
    }

    /// The layout as planes to be transposed, if it is that: the destination runs along the last axis, the source along the last but one.
    fn planes(&self) -> Option<Layout<2>> {
        let layout = &self.layout;
        if layout.stride(1, 0) != 1 || layout.stride(0, 0) < SIDE as isize || layout.size(0) < SIDE {
            return None;
        }
        let back = (1..layout.rank()).find(|&back| layout.stride(0, back) == 1 && layout.stride(1, back) > 0)?;
        let planes = layout.with_last_but_one(back);
        (planes.size(1) >= SIDE && planes.stride(0, 0) >= planes.size(1) as isize).then_some(planes)
    }

    /// Elements `start..end` of the row at `offsets`.
    #[inline]
    fn row(&self, offsets: [isize; 2], start: usize, end: usize) {
        let (s, d) = (self.layout.stride(0, 0), self.layout.stride(1, 0));
        let from = self.offsets[0] + offsets[0] + start as isize * s;
        let to = self.offsets[1] + offsets[1] + start as isize * d;
        let count = end - start;
        // SAFETY: every address of either side lies in its slice, and rows and parts of rows are each written by one task, in places of
        // their own; the slices are a shared and a mutable borrow, so they do not overlap.
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

    /// Writes `rows` rows of the destination from `offsets` on, which are columns of the source.
    fn transposed(&self, planes: &Layout<2>, offsets: [isize; 2], rows: usize) {
        let (src_stride, dst_stride) = (planes.stride(0, 0) as usize, planes.stride(1, 1) as usize);
        let cols = planes.size(0);
        // SAFETY: all elements of the shape have checked addresses, and this task alone writes these.
        unsafe {
            let src = self.src.as_ptr().offset(self.offsets[0] + offsets[0]);
            let dst = self.dst.get().offset(self.offsets[1] + offsets[1]);
            // Bits are moved, so any type of the size will do.
            match (size_of::<T>(), align_of::<T>()) {
                (4, 4) => transpose_bands::<f32>(src.cast(), src_stride, cols, rows, dst.cast(), dst_stride),
                (8, 8) => transpose_bands::<f64>(src.cast(), src_stride, cols, rows, dst.cast(), dst_stride),
                _ => {
                    for i in 0..rows {
                        for j in 0..cols {
                            *dst.add(i * dst_stride + j) = *src.add(j * src_stride + i);
                        }
                    }
                }
            }
        }
    }
}

/// Transposes [`BAND`] rows of the source after the other, so that a cache line of them is still there when its next columns are read.
///
/// # Safety
/// As of [`transpose_raw`].
unsafe fn transpose_bands<T: Real>(
    src: *const T,
    src_stride: usize,
    rows: usize,
    cols: usize,
    dst: *mut T,
    dst_stride: usize,
) {
    for first in (0..rows).step_by(BAND) {
        // SAFETY: a part of what the caller vouches for.
        unsafe {
            let count = (rows - first).min(BAND);
            transpose_raw(src.add(first * src_stride), src_stride, count, cols, dst.add(first), dst_stride);
        }
    }
}
