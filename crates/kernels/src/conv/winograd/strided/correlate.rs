//! The forward pass, `y = A^T [sum over phases of (G w G^T) * (B^T x B)] A`, and its adjoint, the input gradient, `dx = B [(G w G^T) * (A g A^T)] B^T`.
//!
//! Threads share nothing: each has some images and some panels of columns (all, if somebody waits for the images), transforms the pixels of the former and the weights of the latter. Of a block of
//! images some channels at a time are transformed and multiplied, so that pixels, weights and products stay in the second-level cache, and the weights of one
//! product in the first-level cache; to make the weights anew for each block costs less than to fetch them from further away.

use super::gather::Source;
use super::lines::{Backwards, Output, Scatter, Weights};
use super::{Kind, Pass, Plan, Tiles, gap};
use crate::Real;
use crate::conv::Then;
use crate::conv::window::Images;
use crate::conv::winograd::lines::Line;
use crate::conv::winograd::tiles::{Block, Grid};
use crate::conv::winograd::transform::{Emit, EmitOver, Planes, transform};
use crate::microkernel::{Kernels, ROWS, Segment, Strip};
use crate::par::{Par, SendPtr, for_each_range};
use crate::scratch::{self, Slot};

/// Elements of some channels of a block's transformed pixels, and of its products: with f32 three quarters of a second-level cache of 2 MB.
const BLOCK: usize = 3 << 17;
/// Channels that the forward pass takes at a time, at most: up to four matrices of so many rows meet in one product, whose columns fill two thirds of a
/// first-level cache of 48 KB.
const FORWARD: usize = 32;
/// Channels of the gradient, of which one matrix is a product; longer sums spare the products being read and written again.
const BACK: usize = 64;

/// Channels that are taken at a time, of so many.
fn chunk(pass: Pass, channels: usize) -> usize {
    let chunks = channels.max(1).div_ceil(if pass == Pass::Forward { FORWARD } else { BACK });
    channels.div_ceil(chunks)
}

/// Planes that are multiplied, and planes of products.
fn planes(plan: &Plan, pass: Pass) -> [[usize; 2]; 2] {
    if pass == Pass::Forward { [plan.values(), plan.points()] } else { [plan.points(), plan.values()] }
}

/// Images of a block, at most, if they go from so many channels to so many columns.
pub(super) fn block(plan: &Plan, pass: Pass, [channels, cols]: [usize; 2]) -> usize {
    let [from, to] = planes(plan, pass).map(|[i, j]| i * j * plan.tiles());
    (BLOCK / (from * chunk(pass, channels) + to * cols)).max(1)
}

/// The forward pass of a convolution, or the input gradient.
pub(in crate::conv) struct Correlation<'a, T: 'static> {
    pub(in crate::conv) kernels: &'static Kernels<T>,
    pub(in crate::conv) pass: Pass,
    pub(in crate::conv) plan: Plan,
    pub(in crate::conv) n: usize,
    /// The images that are read.
    pub(in crate::conv) source: Images<'a, T>,
    /// `[3, 3, channels of the source, cols]`; for the input gradient the taps are backwards.
    pub(in crate::conv) w: &'a [T],
    /// Size and channels of the images that are written.
    pub(in crate::conv) out: [usize; 2],
    pub(in crate::conv) cols: usize,
    pub(in crate::conv) result: SendPtr<T>,
    /// What becomes of it.
    pub(in crate::conv) then: Then<'a, T>,
}

/// The products of a block of images, in the columns of a panel.
struct Sums<'a, T> {
    /// First and last image.
    range: [usize; 2],
    /// A plane at each value or point, with a row of so many columns for each tile.
    z: &'a [T],
    /// From one plane to the next.
    plane: usize,
    /// The first column, and their number.
    col: usize,
    cols: usize,
}

impl<T: Real> Correlation<'_, T> {
    /// # Safety
    /// Unless it is given away, the result addresses `[n, out, cols]` writable elements, and nobody else uses them meanwhile, but for a listener those that it
    /// heard of.
    pub(in crate::conv) unsafe fn run(&self, par: Par) {
        assert!(self.pass != Pass::WeightGrad && self.source.data.len() == self.n * self.source.image_len());
        assert!(self.w.len() == 9 * self.source.c * self.cols);
        let panels = self.cols.div_ceil(self.width());
        let threads = par.threads();
        let weights = self.plan.weights().iter().product::<usize>() * self.source.c * self.cols;
        let images = |of_panels: usize| (threads / of_panels).min(self.n);
        // What each thread transforms for itself, where all have as many panels.
        let cost = |&of_panels: &usize| self.n * self.elements() / images(of_panels) + weights / of_panels;
        let is_even = |of_panels: &usize| panels.is_multiple_of(*of_panels) && threads.is_multiple_of(*of_panels);
        let of_panels = match self.then {
            Then::Stay => (1..=threads).filter(is_even).min_by_key(cost).unwrap_or(1),
            // Whoever comes next wants all channels.
            Then::Tell(_) | Then::Give(_) => 1,
        };
        let of_images = images(of_panels);
        for_each_range(par, of_images * of_panels, 1, |first, last| {
            for piece in first..last {
                let (i, j) = (piece / of_panels, piece % of_panels);
                let images = [i * self.n / of_images, (i + 1) * self.n / of_images];
                // SAFETY: pieces are disjoint, and the result is ours by the caller's word.
                unsafe { self.piece(images, [j * panels / of_panels, (j + 1) * panels / of_panels]) }
            }
        });
    }

    /// Columns of a panel: as many as a tile of the products reads.
    fn width(&self) -> usize {
        self.cols.min(self.kernels.wide)
    }

    /// Elements of an image's transformed pixels.
    fn elements(&self) -> usize {
        self.planes()[0].iter().product::<usize>() * self.plan.tiles() * self.source.c
    }

    /// Planes that are multiplied, and planes of products.
    fn planes(&self) -> [[usize; 2]; 2] {
        planes(&self.plan, self.pass)
    }

    /// Channels that are taken at a time.
    fn chunk(&self) -> usize {
        chunk(self.pass, self.source.c)
    }

    /// From one matrix of some channels of the weights to the next.
    fn matrix(&self) -> usize {
        self.chunk() * self.width() + gap::<T>()
    }

    /// Some images and some panels.
    ///
    /// # Safety
    /// Nobody else uses this part of the result meanwhile.
    unsafe fn piece(&self, [n0, n1]: [usize; 2], panels: [usize; 2]) {
        let cols = (panels[1] - panels[0]) * self.width();
        let blocks = (n1 - n0).div_ceil(block(&self.plan, self.pass, [self.source.c, cols]));
        for i in 0..blocks {
            let range = [i, i + 1].map(|i| n0 + i * (n1 - n0) / blocks);
            let pixels = range.map(|image| image * self.out[0] * self.out[1]);
            let Then::Give(take) = self.then else {
                // SAFETY: passed on.
                unsafe { self.block(range, panels) }
                if let Then::Tell(listener) = self.then {
                    listener(self.result, pixels);
                }
                continue;
            };
            scratch::with::<T, _>(Slot::Images, (pixels[1] - pixels[0]) * self.cols, |y| {
                // Where image 0 would lie.
                let result = SendPtr::from_raw(y.as_mut_ptr().wrapping_sub(pixels[0] * self.cols));
                // SAFETY: there are all elements of these images, which are ours alone.
                unsafe { Correlation { result, ..*self }.block(range, panels) }
                take(range, y);
            });
        }
    }

    /// A block of images.
    ///
    /// # Safety
    /// Nobody else uses this part of the result meanwhile.
    unsafe fn block(&self, range: [usize; 2], panels: [usize; 2]) {
        let (plan, width, chunk, [first, last]) = (&self.plan, self.width(), self.chunk(), range);
        let rows = plan.tiles() * (last - first);
        let [from, to] = self.planes().map(|[i, j]| i * j);
        let (v_plane, z_plane) = (rows * chunk + gap::<T>(), rows * width + gap::<T>());
        let count = panels[1] - panels[0];
        if !self.is_covered() {
            for pixel in first * self.out[0] * self.out[1]..last * self.out[0] * self.out[1] {
                let [low, high] = panels.map(|panel| (panel * width).min(self.cols));
                // SAFETY: this part of the result is ours, by the caller's word.
                unsafe { self.result.get().add(pixel * self.cols + low).write_bytes(0, high - low) }
            }
        }
        let matrices = plan.weights().iter().product::<usize>();
        scratch::with::<T, _>(Slot::Weights, matrices * self.matrix(), |u| {
            scratch::with::<T, _>(Slot::Window, from * v_plane + chunk, |v| {
                let (v, zeros) = v.split_at_mut(from * v_plane);
                zeros.fill(T::ZERO);
                scratch::with::<T, _>(Slot::Panels, count * to * z_plane, |z| {
                    for c in (0..self.source.c).step_by(chunk) {
                        let channels = [c, (c + chunk).min(self.source.c)];
                        let source = Source {
                            isa: self.kernels.isa,
                            plan,
                            images: self.source,
                            range,
                            channels,
                            zeros,
                            to: v.as_mut_ptr(),
                            row: chunk,
                            plane: v_plane,
                        };
                        // SAFETY: each plane has a row for each tile.
                        unsafe { if self.pass == Pass::Forward { source.values() } else { source.points() } }
                        for (i, z) in z.chunks_exact_mut(to * z_plane).enumerate() {
                            self.weights(panels[0] + i, channels, u);
                            self.products(range, channels, [v, u], v_plane, self.cols_of(panels[0] + i), z, z_plane);
                        }
                    }
                    for (i, z) in z.chunks_exact(to * z_plane).enumerate() {
                        let sums = Sums {
                            range,
                            z,
                            plane: z_plane,
                            col: (panels[0] + i) * width,
                            cols: self.cols_of(panels[0] + i),
                        };
                        for part in plan.parts() {
                            // SAFETY: passed on.
                            unsafe { self.emit(&part, &sums) }
                        }
                    }
                });
            });
        });
    }

    /// The transformed weights of some channels of a panel, a matrix `[channel, width]` for each pair of weights.
    fn weights(&self, panel: usize, channels: [usize; 2], u: &mut [T]) {
        if self.pass == Pass::Forward {
            self.weights_of::<Weights>(panel, channels, u);
        } else {
            self.weights_of::<Backwards<Weights>>(panel, channels, u);
        }
    }

    fn weights_of<L: Line<3, 5> + Line<3, 6>>(&self, panel: usize, channels: [usize; 2], u: &mut [T]) {
        match self.plan.weights() {
            [5, 5] => self.weights_by::<L, 5, 5>(panel, channels, u),
            [5, _] => self.weights_by::<L, 5, 6>(panel, channels, u),
            [_, 5] => self.weights_by::<L, 6, 5>(panel, channels, u),
            _ => self.weights_by::<L, 6, 6>(panel, channels, u),
        }
    }

    fn weights_by<L: Line<3, N> + Line<3, M>, const N: usize, const M: usize>(
        &self,
        panel: usize,
        [c0, c1]: [usize; 2],
        u: &mut [T],
    ) {
        let (width, col) = (self.width(), panel * self.width());
        let tap = self.source.c * self.cols;
        assert!([N, M] == self.plan.weights() && u.len() == N * M * self.matrix() && col < self.cols);
        assert!(c0 < c1 && c1 <= self.source.c && c1 - c0 <= self.chunk());
        let job = Planes {
            from: self.w[c0 * self.cols + col..].as_ptr(),
            from_step: [3 * tap, tap],
            to: u.as_mut_ptr(),
            to_step: [M * self.matrix(), self.matrix()],
            len: width.min(self.cols - col),
            rows: c1 - c0,
            row: [self.cols, width],
        };
        // SAFETY: some columns of some rows of 9 taps, and N x M matrices with as many rows, which are ours.
        unsafe { transform::<_, L, L, 3, 3, N, M>(self.kernels.isa, job) }
    }

    /// Columns of one panel.
    fn cols_of(&self, panel: usize) -> usize {
        self.width().min(self.cols - panel * self.width())
    }

    /// Whether tiles cover all pixels of the result.
    fn is_covered(&self) -> bool {
        self.pass == Pass::Forward || (0..2).all(|i| self.plan.axes[i].end() >= self.out[i] as isize)
    }

    /// The products over some channels, added to those of the channels before. Forward, `z[t, o]` at a point is the sum over the values there and channels of
    /// `v[t, c] u[c, o]`; the gradient of a value is one such product at its point.
    #[expect(clippy::too_many_arguments, reason = "one call site")]
    fn products(
        &self,
        range: [usize; 2],
        [c0, c1]: [usize; 2],
        [v, u]: [&[T]; 2],
        v_plane: usize,
        cols: usize,
        z: &mut [T],
        z_plane: usize,
    ) {
        let (plan, chunk, width) = (&self.plan, self.chunk(), self.width());
        let [from, to] = self.planes();
        let count = range[1] - range[0];
        assert!(v.len() == from[0] * from[1] * v_plane && z.len() == to[0] * to[1] * z_plane);
        assert!(plan.tiles() * count * chunk <= v_plane && plan.tiles() * count * cols <= z_plane);
        assert!(u.len() == plan.weights()[0] * plan.weights()[1] * self.matrix() && cols <= width);
        assert!(c0 < c1 && c1 - c0 <= chunk);
        let segment = |plane: [usize; 2], weight: [usize; 2]| Segment {
            a: ((plane[0] * from[1] + plane[1]) * v_plane) as isize,
            b: ((weight[0] * plan.weights()[1] + weight[1]) * self.matrix()) as isize,
            len: c1 - c0,
        };
        let mut product = |plane: [usize; 2], point: [usize; 2], segments: &[Segment]| {
            let [first, last] = plan.having(point).map(|tile| tile * count);
            let z = z[(plane[0] * to[1] + plane[1]) * z_plane..].as_mut_ptr();
            let strip = Strip {
                a: v.as_ptr().wrapping_add(first * chunk),
                a_row: chunk,
                a_tile: ROWS * chunk,
                a_step: 1,
                b: u.as_ptr(),
                b_step: width as isize,
                segments,
                c: z.wrapping_add(first * cols),
                c_row: cols,
                add: c0 > 0,
            };
            // SAFETY: the planes have these rows and u has the matrices (all checked above); the first channels have set what is added to.
            unsafe { self.kernels.strip(last - first, cols, &strip) }
        };
        let [of_rows, of_cols] = plan.axes.map(|axis| axis.values());
        if self.pass != Pass::Forward {
            for (i, row) in of_rows.iter().enumerate() {
                for (j, col) in of_cols.iter().enumerate() {
                    let point = [row.point, col.point];
                    product([i, j], point, &[segment(point, [row.weight, col.weight])]);
                }
            }
            return;
        }
        for point in (0..to[0]).flat_map(|row| (0..to[1]).map(move |col| [row, col])) {
            let (mut segments, mut used) = ([Segment::default(); 4], 0);
            for (i, row) in of_rows.iter().enumerate().filter(|(_, row)| row.point == point[0]) {
                for (j, col) in of_cols.iter().enumerate().filter(|(_, col)| col.point == point[1]) {
                    segments[used] = segment([i, j], [row.weight, col.weight]);
                    used += 1;
                }
            }
            product(point, point, &segments[..used]);
        }
    }

    /// # Safety
    /// See [`Correlation::block`].
    unsafe fn emit(&self, part: &Tiles, sums: &Sums<T>) {
        use Kind::{Between, Four, Three};
        // SAFETY: passed on.
        unsafe {
            match (self.pass, part.kinds) {
                (Pass::Forward, [Between, Between]) => self.write::<4, 4, 4, 4>(part, sums),
                (Pass::Forward, [Four, Four]) => self.write::<5, 5, 4, 4>(part, sums),
                (Pass::Forward, [Four, Three]) => self.write::<5, 4, 4, 3>(part, sums),
                (Pass::Forward, [Three, Four]) => self.write::<4, 5, 3, 4>(part, sums),
                (Pass::Forward, [Three, Three]) => self.write::<4, 4, 3, 3>(part, sums),
                (Pass::InputGrad, [Between, Between]) => self.add::<8, 8, 7, 7>(part, sums),
                (Pass::InputGrad, [Four, Four]) => self.add::<9, 9, 9, 9>(part, sums),
                (Pass::InputGrad, [Four, Three]) => self.add::<9, 7, 9, 7>(part, sums),
                (Pass::InputGrad, [Three, Four]) => self.add::<7, 9, 7, 9>(part, sums),
                (Pass::InputGrad, [Three, Three]) => self.add::<7, 7, 7, 7>(part, sums),
                _ => unreachable!(
                    "tiles between paddings are so along both axes; weight gradients have a file of their own"
                ),
            }
        }
    }

    /// These tiles of the images that are written, some columns of which come from the planes of products.
    fn tiles<'a>(
        &self,
        part: &Tiles,
        grid: Grid,
        &Sums { range, z, plane, col, cols }: &Sums<'a, T>,
    ) -> Emit<'a, T, true> {
        Emit {
            from: &z[part.before * (range[1] - range[0]) * cols..],
            plane: [self.planes()[1][1] * plane, plane],
            grid,
            block: Block::new(part.tiling(), range.map(|image| image * part.count())),
            channels: cols,
            to: self.result.get().wrapping_add(col),
            c: self.cols,
        }
    }

    /// # Safety
    /// See [`Correlation::emit`].
    unsafe fn write<const F: usize, const G: usize, const O: usize, const J: usize>(&self, part: &Tiles, sums: &Sums<T>)
    where
        Output: Line<F, O> + Line<G, J>,
    {
        let tiles = self.tiles(part, part.of_y(self.out), sums);
        // SAFETY: these images are ours, by the caller's word.
        unsafe { transform::<_, Output, Output, F, G, O, J>(self.kernels.isa, tiles) }
    }

    /// # Safety
    /// See [`Correlation::emit`].
    unsafe fn add<const F: usize, const G: usize, const O: usize, const J: usize>(&self, part: &Tiles, sums: &Sums<T>)
    where
        Scatter: Line<F, O> + Line<G, J>,
    {
        let tiles = self.tiles(part, part.of_x(self.out), sums);
        let job = EmitOver { tiles, before: part.first.map(|first| first > 0) };
        // SAFETY: these images are ours, by the caller's word, and tiles come after those that they lie beside.
        unsafe { transform::<_, Scatter, Scatter, F, G, O, J>(self.kernels.isa, job) }
    }
}
