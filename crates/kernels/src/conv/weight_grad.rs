//! The adjoint of the convolution in its weights: `dw[a, b, c, o] = sum over pixels of x[pixel, shifted by (a, b), c] * g[pixel, o]`.
//!
//! The rows of the product are all (tap, input channel) pairs and its summed axis is the pixels, taken in blocks that stay in the
//! second-level cache and are added one after the other: the order is fixed by the shape, and the sums stay short. With few output channels
//! x and g change places, so that the lanes run over the input channels.

use super::window::{Images, Rect};
use super::winograd::strided::{self, Plan};
use super::winograd::{self, Phase, Points};
use super::{ConvDims, PAR_WORK};
use crate::Real;
use crate::microkernel::{Kernels, ROWS, Segment, Tile, kernels};
use crate::panels::{pack, panels_len};
use crate::par::{Par, SendPtr, for_each_range};
use crate::scratch::{self, Slot};
use crate::transpose::transpose_strided;

/// Pixels of a block: with 64 channels on both sides, a quarter of a megabyte in f32.
const BLOCK: usize = 512;

/// Pixels from which a row is a run that is long enough by itself.
const LONG: usize = 16;
/// Elements that are gathered at a time: with those of g they fit the second-level cache.
const GATHERED: usize = 1 << 16;

/// Rows from which on it is worth it to gather the pixels of x and to pack those of g.
const MANY_ROWS: usize = 8 * ROWS;
/// Rows that are too few to be cut: the images are, instead.
const FEW_ROWS: usize = 4 * ROWS;
/// Parts that the images are then cut into; sums are added part by part, whatever the threads.
const PARTS: usize = 8;

/// dw, the adjoint of [`super::conv`] in w: `<conv(x, w), g> = <w, dw>`.
///
/// # Panics
/// If a length does not fit `dims` or the output would be empty (see [`ConvDims::out_hw`]).
#[track_caller]
pub(crate) fn conv_weight_grad<T: Real>(par: Par, dims: &ConvDims, x: &[T], g: &[T], dw: &mut [T]) {
    let out = dims.check("conv_weight_grad", x.len(), dw.len(), g.len());
    let par = if dims.work(out) < PAR_WORK { Par::Seq } else { par };
    weight_grad(kernels(), par, dims, out, x, g, dw);
}

/// [`conv_weight_grad`] by a g that is computed image by image where it is needed, and is never in memory as a whole: `g_of([first, last], g)` leaves
/// that of these images in g. The bits are the same.
///
/// # Panics
/// If a length does not fit, or the shape is one that goes another way (see [`goes_by_images`]).
#[track_caller]
pub(crate) fn conv_weight_grad_of<T: Real>(
    par: Par,
    dims: &ConvDims,
    x: &[T],
    g_of: &(dyn Fn([usize; 2], &mut [T]) + Sync),
    dw: &mut [T],
) {
    let Some(out) = dims.out_hw() else { panic!("conv_weight_grad_of: no output for {dims:?}") };
    dims.check("conv_weight_grad_of", x.len(), dw.len(), dims.n * out[0] * out[1] * dims.co);
    assert!(goes_by_images::<T>(dims), "conv_weight_grad_of: {dims:?}");
    let par = if dims.work(out) < PAR_WORK { Par::Seq } else { par };
    let product = Product::new(kernels(), dims, out, x, &[]);
    let image = product.g.image_len();
    let together = product.images_of_block();
    let sum = |[n0, n1]: [usize; 2], to: SendPtr<T>| {
        scratch::with::<T, _>(Slot::Images, together.min(n1 - n0) * image, |g| {
            for first in (n0..n1).step_by(together) {
                let last = (first + together).min(n1);
                let g = &mut g[..(last - first) * image];
                g_of([first, last], g);
                let g = Images { data: &*g, ..product.g };
                let block = Product { n: last - first, x: product.x.slice(first, last), g, ..product };
                // SAFETY: `by_parts` gives room for these sums to this call alone.
                unsafe { block.add_images([0, product.rows()], first > n0, to) }
            }
        });
    };
    // SAFETY: the lengths fit the shape and dw is ours alone.
    unsafe { product.by_parts(par, SendPtr::new(dw), &sum) }
}

/// Whether [`conv_weight_grad`] cuts the images of such a shape and sums them in order: few rows, of a map that is worth no other way.
pub(crate) fn goes_by_images<T: Real>(dims: &ConvDims) -> bool {
    let kernels = kernels::<T>();
    let Some(out) = dims.out_hw() else { return false };
    let product = Product::new(kernels, dims, out, &[], &[]);
    !dims.is_empty() && matches!(way(kernels, dims, out), Way::Direct) && product.parts() > 1
}

/// How a weight gradient is computed.
#[derive(Clone, Copy)]
enum Way {
    Direct,
    /// With x and g in each other's place.
    Mirrored,
    Winograd(Points),
    Strided(Plan),
}

fn way<T: Real>(kernels: &Kernels<T>, dims: &ConvDims, out: [usize; 2]) -> Way {
    let (ci, co) = (dims.group_ci(), dims.group_co());
    // At stride 1 x and g may change places: dw[tap] = sum over pixels of x of x[pixel] g[pixel - tap], which is the weight gradient of the
    // convolution of g with the taps backwards. Whichever leaves fewer lanes idle.
    let registers = |[h, w]: [usize; 2], lanes: usize, rows: usize| h * w * rows * lanes.div_ceil(kernels.lanes);
    if dims.stride == [1, 1] && 5 * registers(dims.hw, ci, co) < 4 * registers(out, co, ci) {
        return Way::Mirrored;
    }
    if let Some(plan) = Plan::if_worth(dims, out, strided::Pass::WeightGrad, kernels.lanes) {
        return Way::Strided(plan);
    }
    let phases = dims.stride[0] * dims.stride[1];
    winograd::points(dims, out, [phases * dims.ci, dims.co], kernels.lanes).map_or(Way::Direct, Way::Winograd)
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
    if x.is_empty() || g.is_empty() || dw.is_empty() {
        dw.fill(T::ZERO);
        return;
    }
    let (ci, co) = (dims.group_ci(), dims.group_co());
    let taps = dims.taps();
    let direct = Product::new(kernels, dims, out, x, g);
    match way(kernels, dims, out) {
        Way::Winograd(points) => return by_winograd(kernels, par, dims, out, points, x, g, dw),
        Way::Strided(plan) => return strided::weight_grad(kernels, par, plan, direct.x, direct.g, dw),
        // SAFETY: the lengths fit the shape (checked by the caller) and dw is ours alone.
        Way::Direct => return unsafe { direct.run(par, SendPtr::new(dw)) },
        Way::Mirrored => {}
    }
    let reach = |i: usize| (dims.dilation[i] * (dims.kernel[i] - 1)) as isize;
    let product =
        Product { origin: [0, 1].map(|i| dims.pad[i][0] as isize - reach(i)), x: direct.g, g: direct.x, ..direct };
    scratch::with::<T, _>(Slot::Weights, dw.len(), |turned| {
        // SAFETY: as above; `turned` is as long as dw.
        unsafe { product.run(par, SendPtr::new(turned)) };
        // [tap backwards, co of the group, ci] to [tap, ci of the group, co].
        for tap in 0..taps {
            for group in 0..dims.groups {
                let from = &turned[(taps - 1 - tap) * co * dims.ci + group * ci..];
                let to = &mut dw[tap * ci * dims.co + group * co..];
                transpose_strided(from, dims.ci, co, ci, to, dims.co);
            }
        }
    });
}

/// [`weight_grad`] by these points; there is at least one image.
#[expect(clippy::too_many_arguments, reason = "the arguments are those of the operation")]
pub(super) fn by_winograd<T: Real>(
    kernels: &'static Kernels<T>,
    par: Par,
    dims: &ConvDims,
    out: [usize; 2],
    points: Points,
    x: &[T],
    g: &[T],
    dw: &mut [T],
) {
    let stride = dims.stride[0];
    let job = winograd::WeightGrad {
        kernels,
        n: dims.n,
        x: Images { data: x, hw: dims.hw, c: dims.ci },
        phases: &Phase::all(dims)[..stride * stride],
        stride,
        g: Images { data: g, hw: out, c: dims.co },
    };
    job.run(winograd::taps(dims), points, par, dw);
}

/// `dw[a, b, c, o] = sum over pixels p of g of x[origin + p stride + (a, b) dilation, c] g[p, o]`, groups as in a convolution; x is zero outside.
pub(super) struct Product<'a, T: 'static> {
    pub(super) kernels: &'static Kernels<T>,
    pub(super) kernel: [usize; 2],
    pub(super) stride: [usize; 2],
    pub(super) dilation: [usize; 2],
    pub(super) origin: [isize; 2],
    pub(super) groups: usize,
    pub(super) n: usize,
    pub(super) x: Images<'a, T>,
    pub(super) g: Images<'a, T>,
}

/// A block of pixels, all of whose neighbours lie in memory.
struct Block<'a, T> {
    /// The pixels of x at tap (0, 0).
    x: *const T,
    /// From tap to tap in x, downwards and to the right, and from pixel to pixel.
    taps: [usize; 2],
    step: usize,
    /// The pixels of g, and from one to the next; with panels, those of a tile's columns lie `panel` further than those before.
    g: *const T,
    g_step: usize,
    panel: usize,
    segments: &'a [Segment],
    /// Whether earlier blocks have been added up in dw.
    add: bool,
}

impl<'a, T: Real> Product<'a, T> {
    fn new(kernels: &'static Kernels<T>, dims: &ConvDims, out: [usize; 2], x: &'a [T], g: &'a [T]) -> Self {
        Product {
            kernels,
            kernel: dims.kernel,
            stride: dims.stride,
            dilation: dims.dilation,
            origin: [0, 1].map(|i| -(dims.pad[i][0] as isize)),
            groups: dims.groups,
            n: dims.n,
            x: Images { data: x, hw: dims.hw, c: dims.ci },
            g: Images { data: g, hw: out, c: dims.co },
        }
    }

    /// The product over images `first..last`.
    fn slice(&self, first: usize, last: usize) -> Product<'a, T> {
        Product { n: last - first, x: self.x.slice(first, last), g: self.g.slice(first, last), ..*self }
    }

    /// Rows of the product: all (tap, channel of x) pairs of a group.
    fn rows(&self) -> usize {
        self.kernel[0] * self.kernel[1] * self.x.c / self.groups
    }

    /// Parts that the images are cut into.
    fn parts(&self) -> usize {
        if self.rows() <= FEW_ROWS && !self.is_by_position() { self.n.min(PARTS) } else { 1 }
    }

    /// # Safety
    /// `dw` addresses all the weights, and nobody else uses them meanwhile.
    unsafe fn run(&self, par: Par, dw: SendPtr<T>) {
        if self.parts() == 1 {
            // SAFETY: passed on.
            return unsafe { self.by_rows(par, dw) };
        }
        let sum = |[n0, n1]: [usize; 2], to: SendPtr<T>| {
            // SAFETY: `by_parts` gives room for these sums to this call alone.
            unsafe { self.slice(n0, n1).by_rows(Par::Seq, to) }
        };
        // SAFETY: passed on.
        unsafe { self.by_parts(par, dw, &sum) }
    }

    /// Lets `sum` set the sums over some images, part by part, and adds up those of the parts.
    ///
    /// # Safety
    /// See [`Product::run`].
    unsafe fn by_parts(&self, par: Par, dw: SendPtr<T>, sum: &(dyn Fn([usize; 2], SendPtr<T>) + Sync)) {
        let parts = self.parts();
        let len = self.rows() * self.g.c;
        scratch::with::<T, _>(Slot::Spare, (parts - 1) * len, |spare| {
            let others = SendPtr::new(spare);
            for_each_range(par, parts, 1, |first, last| {
                for part in first..last {
                    let to = if part == 0 { dw } else { others.add((part - 1) * len) };
                    sum([part, part + 1].map(|part| part * self.n / parts), to);
                }
            });
            // SAFETY: all the weights, by the caller's word, set by the first part.
            let dw = unsafe { std::slice::from_raw_parts_mut(dw.get(), len) };
            for part in spare.chunks_exact(len) {
                dw.iter_mut().zip(part).for_each(|(sum, &x)| *sum += x);
            }
        });
    }

    /// # Safety
    /// See [`Product::run`].
    unsafe fn by_rows(&self, par: Par, dw: SendPtr<T>) {
        let rows = self.rows();
        let grain = match par {
            Par::Seq => rows,
            // A row is one chain of multiply-adds, wherever its piece begins, so there may be a piece for each thread. More would cost: every piece
            // copies the pixels for itself, at the price of some ten rows of arithmetic.
            Par::Rayon => rows.div_ceil(rayon::current_num_threads()).max(2 * ROWS).next_multiple_of(ROWS),
        };
        let by_position = self.is_by_position();
        for_each_range(par, rows, grain, |first, last| {
            // SAFETY: ranges of rows are disjoint.
            unsafe {
                if by_position { self.rows_by_position([first, last], dw) } else { self.some_rows([first, last], dw) }
            }
        });
    }

    /// Sums over all pixels for a range of the rows (tap, channel of x) of each group.
    ///
    /// # Safety
    /// See [`Product::run`]; nobody else writes these rows.
    unsafe fn some_rows(&self, range: [usize; 2], dw: SendPtr<T>) {
        let together = self.images_of_block();
        for first in (0..self.n).step_by(together) {
            let images = self.slice(first, (first + together).min(self.n));
            // SAFETY: passed on.
            unsafe { images.add_images(range, first > 0, dw) }
        }
    }

    /// Rows of g in a block.
    fn rows_of_block(&self) -> usize {
        (BLOCK / self.g.hw[1]).clamp(1, self.g.hw[0])
    }

    /// Images that are taken together.
    fn images_of_block(&self) -> usize {
        let [oh, ow] = self.g.hw;
        if self.rows_of_block() == oh { (BLOCK / (oh * ow)).max(1) } else { 1 }
    }

    /// Sums over images that are taken together, in blocks of rows; adds them to what is in dw, or sets it.
    ///
    /// # Safety
    /// See [`Product::some_rows`].
    unsafe fn add_images(&self, range: [usize; 2], add: bool, dw: SendPtr<T>) {
        let oh = self.g.hw[0];
        let rows = self.rows_of_block();
        for r0 in (0..oh).step_by(rows) {
            // SAFETY: passed on.
            unsafe { self.block([r0, (r0 + rows).min(oh)], range, add || r0 > 0, dw) }
        }
    }

    /// # Safety
    /// See [`Product::some_rows`].
    unsafe fn block(&self, [r0, r1]: [usize; 2], range: [usize; 2], add: bool, dw: SendPtr<T>) {
        let ow = self.g.hw[1];
        let axis = |i: usize, first: usize, last: usize| {
            let size = (last - 1 - first) * self.stride[i] + (self.kernel[i] - 1) * self.dilation[i] + 1;
            ((first * self.stride[i]) as isize + self.origin[i], size)
        };
        let (top, height) = axis(0, r0, r1);
        let (left, width) = axis(1, 0, ow);
        let rect = Rect { origin: [top, left], size: [height, width] };
        let c = self.x.c;
        let g = self.g.data[r0 * ow * self.g.c..].as_ptr();
        let run = |x: *const T, pitch: usize, image: usize| {
            scratch::with::<Segment, _>(Slot::Index, self.n * (r1 - r0), |buffer| {
                let segments = self.segments([self.n, r1 - r0], pitch, image, buffer);
                let taps = [self.dilation[0] * pitch, self.dilation[1] * c];
                let (step, g_step, panel) = (self.stride[1] * c, self.g.c, self.kernels.wide);
                let block = Block { x, taps, step, g, g_step, panel, segments, add };
                for group in 0..self.groups {
                    // SAFETY: the rectangle holds every neighbour of the pixels, and the rest is the caller's word.
                    unsafe { self.tiles(&block, group, range, dw) }
                }
            });
        };
        if self.is_gathered() {
            // SAFETY: passed on.
            return unsafe { self.gathered([r0, r1], range, add, dw) };
        }
        if rect.is_inside(self.x.hw) {
            let pitch = self.x.hw[1] * c;
            let first = rect.origin[0] as usize * pitch + rect.origin[1] as usize * c;
            run(self.x.data[first..].as_ptr(), pitch, self.x.image_len());
        } else {
            let image = height * width * c;
            scratch::with::<T, _>(Slot::Window, self.n * image, |window| {
                self.x.copy_rect(0, self.n, rect, window);
                run(window.as_ptr(), width * c, image);
            });
        }
    }

    /// Whether rows of pixels are so short that sums over them had better run through all pixels of a block, copied tap by tap.
    fn is_gathered(&self) -> bool {
        self.groups == 1 && self.g.hw[1] < LONG && self.g.c >= self.kernels.wide && self.rows() >= MANY_ROWS
    }

    /// [`Product::block`] with the pixels of x gathered tap by tap, `[pixel, tap, channel]`, as many taps at a time as stay in the second-level cache
    /// together with the pixels of g in panels.
    ///
    /// # Safety
    /// See [`Product::some_rows`].
    unsafe fn gathered(&self, [r0, r1]: [usize; 2], [first, last]: [usize; 2], add: bool, dw: SendPtr<T>) {
        let (ci, co, wide) = (self.x.c, self.g.c, self.kernels.wide);
        let pixels = self.n * (r1 - r0) * self.g.hw[1];
        let segments = [Segment { a: 0, b: 0, len: pixels }];
        let together = (GATHERED / (pixels * ci)).max(1);
        let g = &self.g.data[r0 * self.g.hw[1] * co..];
        scratch::with::<T, _>(Slot::Panels, panels_len(pixels, co, wide), |panels| {
            pack(Par::Seq, g, co, co, wide, panels);
            let [first_tap, last_tap] = [first / ci, last.div_ceil(ci)];
            for t0 in (first_tap..last_tap).step_by(together) {
                let taps = [t0, (t0 + together).min(last_tap)];
                let step = (taps[1] - t0) * ci;
                scratch::with::<T, _>(Slot::Window, pixels * step, |x| {
                    self.gather([r0, r1], taps, x);
                    let block = Block {
                        x: x.as_ptr().wrapping_sub(t0 * ci),
                        taps: [self.kernel[1] * ci, ci],
                        step,
                        g: panels.as_ptr(),
                        g_step: wide,
                        panel: pixels * wide,
                        segments: &segments,
                        add,
                    };
                    let rows = [first.max(t0 * ci), last.min(taps[1] * ci)];
                    // SAFETY: x has these taps of every pixel, and the rest is the caller's word.
                    unsafe { self.tiles(&block, 0, rows, dw) }
                });
            }
        });
    }

    /// Copies what some taps read for each pixel of some rows of all images to `[pixel, tap, channel]`.
    fn gather(&self, [r0, r1]: [usize; 2], [t0, t1]: [usize; 2], out: &mut [T]) {
        let c = self.x.c;
        let [h, w] = self.x.hw.map(|size| size as isize);
        let mut cells = out.chunks_exact_mut(c);
        for image in self.x.data.chunks_exact(self.x.image_len()).take(self.n) {
            for (row, col) in (r0..r1).flat_map(|row| (0..self.g.hw[1]).map(move |col| (row, col))) {
                for (tap, to) in (t0..t1).zip(&mut cells) {
                    let at = |axis: usize, cell: usize, tap: usize| {
                        (cell * self.stride[axis] + tap * self.dilation[axis]) as isize + self.origin[axis]
                    };
                    let (y, x) = (at(0, row, tap / self.kernel[1]), at(1, col, tap % self.kernel[1]));
                    if (0..h).contains(&y) && (0..w).contains(&x) {
                        to.copy_from_slice(&image[(y * w + x) as usize * c..][..c]);
                    } else {
                        to.fill(T::ZERO);
                    }
                }
            }
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
        let [oh, ow] = self.g.hw;
        let across = (self.stride[1] * self.x.c) as isize;
        let mut count = 0;
        for i in 0..images {
            for r in 0..rows {
                let a = (i * image + r * self.stride[0] * pitch) as isize;
                let b = ((i * oh + r) * ow * self.g.c) as isize;
                if let Some(last) = buffer[..count].last_mut()
                    && last.a + last.len as isize * across == a
                    && last.b + (last.len * self.g.c) as isize == b
                {
                    last.len += ow;
                } else {
                    buffer[count] = Segment { a, b, len: ow };
                    count += 1;
                }
            }
        }
        &buffer[..count]
    }

    /// # Safety
    /// See [`Product::some_rows`].
    unsafe fn tiles(&self, block: &Block<T>, group: usize, [first, last]: [usize; 2], dw: SendPtr<T>) {
        let (ci, co) = (self.x.c / self.groups, self.g.c / self.groups);
        let x_row = |row: usize| {
            let (tap, channel) = (row / ci, row % ci);
            let [down, right] = [tap / self.kernel[1] * block.taps[0], tap % self.kernel[1] * block.taps[1]];
            block.x.wrapping_add(down + right + group * ci + channel)
        };
        for (panel, col) in (0..co).step_by(self.kernels.wide).enumerate() {
            for row in (first..last).step_by(ROWS) {
                let rows = (last - row).min(ROWS);
                let tile = Tile {
                    a: std::array::from_fn(|i| x_row(row + i.min(rows - 1))),
                    a_step: block.step as isize,
                    b: block.g.wrapping_add(group * co + panel * block.panel),
                    b_step: block.g_step as isize,
                    segments: block.segments,
                    c: std::array::from_fn(|i| {
                        dw.get().wrapping_add((row + i.min(rows - 1)) * self.g.c + group * co + col)
                    }),
                    add: block.add,
                };
                // SAFETY: the rows' pixels lie in the rectangle, and the caller vouches for these rows of dw.
                unsafe { self.kernels.tile(rows, (co - col).min(self.kernels.wide), &tile) }
            }
        }
    }
}
