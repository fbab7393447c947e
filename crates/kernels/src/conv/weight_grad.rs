//! The adjoint of the convolution in its weights: `dw[a, b, c, o] = sum over pixels of x[pixel, shifted by (a, b), c] * g[pixel, o]`.
//!
//! The rows of the product are all (tap, input channel) pairs and its summed axis is the pixels, taken in blocks that stay in the
//! second-level cache and are added one after the other: the order is fixed by the shape, and the sums stay short.

use super::window::{Images, Rect};
use super::{ConvDims, PAR_WORK};
use crate::Real;
use crate::microkernel::{Kernels, ROWS, Segment, Tile, kernels};
use crate::par::{Par, SendPtr, for_each_range};
use crate::scratch::{self, Slot};

/// Pixels of a block: with 64 channels on both sides, a quarter of a megabyte in f32.
const BLOCK: usize = 512;

/// dw, the adjoint of [`super::conv`] in w: `<conv(x, w), g> = <w, dw>`.
///
/// # Panics
/// If a length does not fit `dims` or the output would be empty (see [`ConvDims::out_hw`]).
#[track_caller]
pub fn conv_weight_grad<T: Real>(par: Par, dims: &ConvDims, x: &[T], g: &[T], dw: &mut [T]) {
    let out = dims.check("conv_weight_grad", x.len(), dw.len(), g.len());
    let par = if dims.work(out) < PAR_WORK { Par::Seq } else { par };
    weight_grad(kernels(), par, dims, out, x, g, dw);
}

pub(super) fn weight_grad<T: Real>(
    kernels: &'static Kernels<T>,
    par: Par,
    dims: &ConvDims,
    out: [usize; 2],
    x: &[T],
    g: &[T],
    dw: &mut [T],
) {
    if dims.n == 0 || dw.is_empty() {
        dw.fill(T::ZERO);
        return;
    }
    let (ci, co) = (dims.group_ci(), dims.group_co());
    let taps = dims.taps();
    // The lanes run over the output channels unless those would leave more lanes idle than the input channels do.
    let idle = |c: usize| (c.next_multiple_of(kernels.lanes) - c) as f64 / c as f64;
    let swapped = idle(ci) + 1.0 < 0.7 * (idle(co) + 1.0);
    let run = |dw: &mut [T], layout: Layout| {
        let job =
            Job { kernels, dims, out, x: Images { data: x, hw: dims.hw, c: dims.ci }, g, dw: SendPtr::new(dw), layout };
        // SAFETY: the lengths fit the shape (checked by the caller) and dw is ours alone.
        unsafe { job.run(par) }
    };
    if !swapped {
        run(dw, Layout::Normal);
    } else if dims.co == 1 {
        run(dw, Layout::Swapped);
    } else {
        scratch::with::<T, _>(Slot::Weights, dw.len(), |turned| {
            run(turned, Layout::Swapped);
            // [tap, group, co, ci] to [tap, ci, group, co].
            for tap in 0..taps {
                let at = tap * ci * dims.co;
                for group in 0..dims.groups {
                    let from = &turned[at + group * co * ci..][..co * ci];
                    for (i, row) in dw[at..at + ci * dims.co].chunks_exact_mut(dims.co).enumerate() {
                        for (o, value) in row[group * co..][..co].iter_mut().enumerate() {
                            *value = from[o * ci + i];
                        }
                    }
                }
            }
        });
    }
}

/// Which channels are rows of the product and which are lanes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Layout {
    /// Rows (tap, ci), lanes co: the layout of the weights.
    Normal,
    /// Rows (tap, group, co), lanes ci.
    Swapped,
}

struct Job<'a, T: 'static> {
    kernels: &'static Kernels<T>,
    dims: &'a ConvDims,
    out: [usize; 2],
    x: Images<'a, T>,
    g: &'a [T],
    dw: SendPtr<T>,
    layout: Layout,
}

/// Where a block's pixels are.
struct Block<'a, T> {
    /// The window of x, at tap (0, 0).
    x: *const T,
    /// From row to row in x.
    pitch: usize,
    g: *const T,
    segments: &'a [Segment],
    /// Whether earlier blocks have been added up in dw.
    add: bool,
}

impl<T: Real> Job<'_, T> {
    /// # Safety
    /// `dw` addresses all the weights, and nobody else uses them meanwhile.
    unsafe fn run(&self, par: Par) {
        let rows = self.rows();
        let grain = match par {
            Par::Seq => rows,
            // Every piece copies the window for itself, at the price of about `4 ci / co` rows of arithmetic.
            Par::Rayon => (64 * self.dims.ci / self.dims.group_co()).clamp(2 * ROWS, 16 * ROWS).next_multiple_of(ROWS),
        };
        for_each_range(par, rows, grain, |first, last| {
            // SAFETY: ranges of rows are disjoint.
            unsafe { self.some_rows(first, last) }
        });
    }

    /// Rows of the product within a group.
    fn rows(&self) -> usize {
        match self.layout {
            Layout::Normal => self.dims.taps() * self.dims.group_ci(),
            Layout::Swapped => self.dims.taps() * self.dims.group_co(),
        }
    }

    /// Sums over all pixels for a range of rows of each group.
    ///
    /// # Safety
    /// See [`Job::run`]; nobody else writes these rows.
    unsafe fn some_rows(&self, first: usize, last: usize) {
        let d = self.dims;
        let [oh, ow] = self.out;
        let block_rows = (BLOCK / ow).clamp(1, oh);
        let block_images = if block_rows == oh { (BLOCK / (oh * ow)).clamp(1, d.n) } else { 1 };
        let mut add = false;
        for n0 in (0..d.n).step_by(block_images) {
            let n1 = (n0 + block_images).min(d.n);
            for r0 in (0..oh).step_by(block_rows) {
                let r1 = (r0 + block_rows).min(oh);
                // SAFETY: passed on.
                unsafe { self.block([n0, n1], [r0, r1], [first, last], add) }
                add = true;
            }
        }
    }

    /// # Safety
    /// See [`Job::some_rows`].
    unsafe fn block(&self, images: [usize; 2], out_rows: [usize; 2], range: [usize; 2], add: bool) {
        let d = self.dims;
        let [n0, n1] = images;
        let [r0, r1] = out_rows;
        let [oh, ow] = self.out;
        let axis = |i: usize, first: usize, last: usize| {
            let size = (last - 1 - first) * d.stride[i] + (d.kernel[i] - 1) * d.dilation[i] + 1;
            ((first * d.stride[i]) as isize - d.pad[i][0] as isize, size)
        };
        let (top, height) = axis(0, r0, r1);
        let (left, width) = axis(1, 0, ow);
        let rect = Rect { origin: [top, left], size: [height, width] };
        let g = self.g[(n0 * oh + r0) * ow * d.co..].as_ptr();
        let run = |x: *const T, pitch: usize, image: usize| {
            scratch::with::<Segment, _>(Slot::Index, (n1 - n0) * (r1 - r0), |buffer| {
                let segments = self.segments([n1 - n0, r1 - r0], pitch, image, buffer);
                let block = Block { x, pitch, g, segments, add };
                for group in 0..d.groups {
                    // SAFETY: the window holds every pixel of the rectangle, and the rest is the caller's word.
                    unsafe { self.tiles(&block, group, range) }
                }
            });
        };
        if rect.is_inside(d.hw) {
            let pitch = d.hw[1] * d.ci;
            let first = n0 * self.x.image_len() + rect.origin[0] as usize * pitch + rect.origin[1] as usize * d.ci;
            run(self.x.data[first..].as_ptr(), pitch, self.x.image_len());
        } else {
            let image = height * width * d.ci;
            scratch::with::<T, _>(Slot::Window, (n1 - n0) * image, |window| {
                self.x.copy_rect(n0, n1, rect, window);
                run(window.as_ptr(), width * d.ci, image);
            });
        }
    }

    /// A run of k for each row of pixels: offsets in x (`a`) and g (`b`); rows that follow each other become one.
    fn segments<'b>(
        &self,
        [images, rows]: [usize; 2],
        pitch: usize,
        image: usize,
        buffer: &'b mut [Segment],
    ) -> &'b [Segment] {
        let d = self.dims;
        let [oh, ow] = self.out;
        let across = (d.stride[1] * d.ci) as isize;
        let mut count = 0;
        for i in 0..images {
            for r in 0..rows {
                let a = (i * image + r * d.stride[0] * pitch) as isize;
                let b = ((i * oh + r) * ow * d.co) as isize;
                if let Some(last) = buffer[..count].last_mut()
                    && last.a + last.len as isize * across == a
                    && last.b + (last.len * d.co) as isize == b
                {
                    last.len += ow;
                } else {
                    buffer[count] = Segment { a, b, len: ow };
                    count += 1;
                }
            }
        }
        if self.layout == Layout::Swapped {
            for s in &mut buffer[..count] {
                (s.a, s.b) = (s.b, s.a);
            }
        }
        &buffer[..count]
    }

    /// # Safety
    /// See [`Job::some_rows`].
    unsafe fn tiles(&self, block: &Block<T>, group: usize, [first, last]: [usize; 2]) {
        let d = self.dims;
        let (ci, co) = (d.group_ci(), d.group_co());
        let (x_step, g_step) = ((d.stride[1] * d.ci) as isize, d.co as isize);
        let x = block.x.wrapping_add(group * ci);
        let g = block.g.wrapping_add(group * co);
        let shifted = |tap: usize| {
            let [a, b] = [tap / d.kernel[1], tap % d.kernel[1]];
            x.wrapping_add(a * d.dilation[0] * block.pitch + b * d.dilation[1] * d.ci)
        };
        let lanes = if self.layout == Layout::Normal { co } else { ci };
        let mut col = 0;
        while col < lanes {
            let cols = (lanes - col).min(self.kernels.wide);
            let mut row = first;
            while row < last {
                let tile;
                let rows;
                match self.layout {
                    Layout::Normal => {
                        rows = (last - row).min(ROWS);
                        let at = |i: usize| (row + i.min(rows - 1)) / ci;
                        tile = Tile {
                            a: std::array::from_fn(|i| shifted(at(i)).wrapping_add((row + i.min(rows - 1)) % ci)),
                            a_step: x_step,
                            b: g.wrapping_add(col),
                            b_step: g_step,
                            segments: block.segments,
                            c: std::array::from_fn(|i| {
                                self.dw.get().wrapping_add((row + i.min(rows - 1)) * d.co + group * co + col)
                            }),
                            add: block.add,
                        };
                    }
                    Layout::Swapped => {
                        let (tap, o) = (row / co, row % co);
                        rows = (last - row).min(co - o).min(ROWS);
                        tile = Tile {
                            a: std::array::from_fn(|i| g.wrapping_add(o + i.min(rows - 1))),
                            a_step: g_step,
                            b: shifted(tap).wrapping_add(col),
                            b_step: x_step,
                            segments: block.segments,
                            c: std::array::from_fn(|i| {
                                let line = (tap * d.groups + group) * co + o + i.min(rows - 1);
                                self.dw.get().wrapping_add(line * ci + col)
                            }),
                            add: block.add,
                        };
                    }
                }
                // SAFETY: the rows' pixels lie in the window, the pixels' gradients in g, and the caller vouches for these rows of dw.
                unsafe { self.kernels.tile(rows, cols, &tile) }
                row += rows;
            }
            col += cols;
        }
    }
}
