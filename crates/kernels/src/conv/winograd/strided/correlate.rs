//! The forward pass, `y = A^T [sum over phases of (G w G^T) * (B^T x B)] A`, and its adjoint, the input gradient, `dx = B [(G w G^T) * (A g A^T)] B^T`.
//!
//! Threads share nothing: each has some images and some panels of columns, transforms the pixels of the former and the weights of the latter. One row of the
//! matrices of weights after the other is multiplied with all that meets it; where all images make one block, it is transformed just before, so
//! that it comes from the cache.

use super::gather::Source;
use super::lines::{Backwards, Output, Scatter, Weights};
use super::{Kind, Plan, Tiles, gap};
use crate::Real;
use crate::conv::window::Images;
use crate::conv::winograd::lines::{Line, Part};
use crate::conv::winograd::tiles::Block;
use crate::conv::winograd::transform::{Emit, Planes};
use crate::microkernel::{Kernels, ROWS, Segment, Tile};
use crate::par::{Par, SendPtr, for_each_range};
use crate::scratch::{self, Slot};

/// Elements of the transformed pixels, or of the products, of a block of images: as many as there are of the weights, but not fewer than these.
const BLOCK: usize = 1 << 17;

/// Which of the two passes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::conv) enum Pass {
    Forward,
    InputGrad,
}

/// One of the passes of a convolution.
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
}

impl<T: Real> Correlation<'_, T> {
    /// # Safety
    /// The result addresses `[n, out, cols]` writable elements, and nobody else uses them meanwhile.
    pub(in crate::conv) unsafe fn run(&self, par: Par) {
        assert!(self.source.data.len() == self.n * self.source.image_len());
        assert!(self.w.len() == 9 * self.source.c * self.cols);
        let panels = self.cols.div_ceil(self.width());
        let threads = if par == Par::Seq { 1 } else { rayon::current_num_threads() };
        let weights = self.plan.weights().iter().product::<usize>() * self.source.c * self.cols;
        let images = |of_panels: usize| (threads / of_panels).min(self.n);
        // What each thread transforms for itself, where all have as many panels.
        let cost = |&of_panels: &usize| self.n * self.elements() / images(of_panels) + weights / of_panels;
        let is_even = |of_panels: &usize| panels.is_multiple_of(*of_panels) && threads.is_multiple_of(*of_panels);
        let of_panels = (1..=threads).filter(is_even).min_by_key(cost).unwrap_or(1);
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
        self.from().iter().product::<usize>() * self.plan.tiles() * self.source.c
    }

    /// Planes that are multiplied, and planes of products.
    fn from(&self) -> [usize; 2] {
        if self.pass == Pass::Forward { self.plan.values() } else { self.plan.points() }
    }

    fn to(&self) -> [usize; 2] {
        if self.pass == Pass::Forward { self.plan.points() } else { self.plan.values() }
    }

    /// From one matrix of weights to the next.
    fn matrix(&self) -> usize {
        self.source.c * self.width() + gap::<T>()
    }

    /// Some images and some panels.
    ///
    /// # Safety
    /// Nobody else uses this part of the result meanwhile.
    unsafe fn piece(&self, [n0, n1]: [usize; 2], panels: [usize; 2]) {
        let [weights, row] = [self.plan.weights()[0], self.plan.weights()[1] * self.matrix()];
        let count = panels[1] - panels[0];
        let all = weights * count * row;
        let products = self.to()[0] * self.to()[1] * self.plan.tiles() * count * self.width();
        let most = (BLOCK.max(all) / self.elements().max(products)).max(1);
        let blocks = (n1 - n0).div_ceil(most);
        if blocks == 1 {
            // SAFETY: passed on.
            return scratch::with::<T, _>(Slot::Weights, row, |u| unsafe {
                self.block([n0, n1], panels, |weight, panel, f| {
                    self.weights(weight, panel, u);
                    f(u);
                });
            });
        }
        scratch::with::<T, _>(Slot::Weights, all, |u| {
            for (i, u) in u.chunks_exact_mut(row).enumerate() {
                self.weights(i % weights, panels[0] + i / weights, u);
            }
            for i in 0..blocks {
                let range = [i, i + 1].map(|i| n0 + i * (n1 - n0) / blocks);
                // SAFETY: passed on.
                unsafe {
                    self.block(range, panels, |weight, panel, f| {
                        f(&u[((panel - panels[0]) * weights + weight) * row..][..row]);
                    });
                }
            }
        });
    }

    /// One row of the matrices of transformed weights, `[weight, channel, width]`, of one panel.
    fn weights(&self, weight: usize, panel: usize, u: &mut [T]) {
        match (self.pass, self.plan.weights()[1]) {
            (Pass::Forward, 5) => self.weights_by::<Weights, 5>(weight, panel, u),
            (Pass::Forward, _) => self.weights_by::<Weights, 6>(weight, panel, u),
            (Pass::InputGrad, 5) => self.weights_by::<Backwards<Weights>, 5>(weight, panel, u),
            (Pass::InputGrad, _) => self.weights_by::<Backwards<Weights>, 6>(weight, panel, u),
        }
    }

    fn weights_by<L: Line<3, 6> + Line<3, N>, const N: usize>(&self, weight: usize, panel: usize, u: &mut [T]) {
        match weight {
            0 => self.weights_as::<Part<L, 6, 0>, L, N>(panel, u),
            1 => self.weights_as::<Part<L, 6, 1>, L, N>(panel, u),
            2 => self.weights_as::<Part<L, 6, 2>, L, N>(panel, u),
            3 => self.weights_as::<Part<L, 6, 3>, L, N>(panel, u),
            4 => self.weights_as::<Part<L, 6, 4>, L, N>(panel, u),
            _ => self.weights_as::<Part<L, 6, 5>, L, N>(panel, u),
        }
    }

    fn weights_as<L: Line<3, 1>, H: Line<3, N>, const N: usize>(&self, panel: usize, u: &mut [T]) {
        let (c, width, col) = (self.source.c, self.width(), panel * self.width());
        let tap = c * self.cols;
        assert!(N == self.plan.weights()[1] && u.len() == N * self.matrix() && col < self.cols);
        let job = Planes {
            from: self.w[col..].as_ptr(),
            from_step: [3 * tap, tap],
            to: u.as_mut_ptr(),
            to_step: [0, self.matrix()],
            len: width.min(self.cols - col),
            rows: c,
            row: [self.cols, width],
        };
        // SAFETY: some columns of all rows of 9 taps, and N matrices with as many rows, which are ours.
        unsafe { job.run::<L, H, 3, 3, 1, N>(self.kernels.isa) }
    }

    /// A block of images. `weights` calls what it is given with a row of the matrices of a panel.
    ///
    /// # Safety
    /// Nobody else uses this part of the result meanwhile.
    unsafe fn block(
        &self,
        range: [usize; 2],
        panels: [usize; 2],
        mut weights: impl FnMut(usize, usize, &mut dyn FnMut(&[T])),
    ) {
        let (plan, c, width, [first, last]) = (&self.plan, self.source.c, self.width(), range);
        let rows = plan.tiles() * (last - first);
        let [from, to] = [self.from(), self.to()].map(|[i, j]| i * j);
        let (v_plane, z_plane) = (rows * c + gap::<T>(), rows * width + gap::<T>());
        let count = panels[1] - panels[0];
        if !self.is_covered() {
            for pixel in first * self.out[0] * self.out[1]..last * self.out[0] * self.out[1] {
                let [low, high] = panels.map(|panel| (panel * width).min(self.cols));
                // SAFETY: this part of the result is ours, by the caller's word.
                unsafe { self.result.get().add(pixel * self.cols + low).write_bytes(0, high - low) }
            }
        }
        scratch::with::<T, _>(Slot::Window, from * v_plane + c, |v| {
            let (v, zeros) = v.split_at_mut(from * v_plane);
            zeros.fill(T::ZERO);
            let source = Source {
                isa: self.kernels.isa,
                plan,
                images: self.source,
                range,
                channels: [0, c],
                zeros,
                to: v.as_mut_ptr(),
                row: c,
                plane: v_plane,
            };
            // SAFETY: each plane has a row for each tile.
            unsafe { if self.pass == Pass::Forward { source.values() } else { source.points() } }
            // Beside what lies outside, the pixels of a tile that are added.
            scratch::with::<T, _>(Slot::Panels, count * to * z_plane + 19 * width, |z| {
                let (z, spill) = z.split_at_mut(count * to * z_plane);
                for weight in 0..plan.weights()[0] {
                    for (i, z) in z.chunks_exact_mut(to * z_plane).enumerate() {
                        weights(weight, panels[0] + i, &mut |u| {
                            self.products(weight, range, [v, u], v_plane, self.cols_of(panels[0] + i), z, z_plane);
                        });
                    }
                }
                for (i, z) in z.chunks_exact(to * z_plane).enumerate() {
                    let cols = [(panels[0] + i) * width, self.cols_of(panels[0] + i)];
                    for part in plan.parts() {
                        let z = &z[part.before * (last - first) * cols[1]..];
                        // SAFETY: passed on.
                        unsafe { self.emit(&part, range, z, z_plane, cols, spill) }
                    }
                }
            });
        });
    }

    /// Columns of one panel.
    fn cols_of(&self, panel: usize) -> usize {
        self.width().min(self.cols - panel * self.width())
    }

    /// Whether tiles cover all pixels of the result.
    fn is_covered(&self) -> bool {
        self.pass == Pass::Forward || (0..2).all(|i| self.plan.axes[i].end() >= self.out[i] as isize)
    }

    /// The products with one row of the weights. Forward, `z[t, o]` at a point is the sum over the values there and channels of `v[t, c] u[c, o]`, of which
    /// those of the middle row of taps come first; the gradient of a value is one such product at its point.
    #[expect(clippy::too_many_arguments, reason = "one call site")]
    fn products(
        &self,
        weight: usize,
        range: [usize; 2],
        [v, u]: [&[T]; 2],
        v_plane: usize,
        cols: usize,
        z: &mut [T],
        z_plane: usize,
    ) {
        let (plan, c, width) = (&self.plan, self.source.c, self.width());
        let [from, to] = [self.from(), self.to()];
        let count = range[1] - range[0];
        assert!(v.len() == from[0] * from[1] * v_plane && z.len() == to[0] * to[1] * z_plane);
        assert!(plan.tiles() * count * c <= v_plane && plan.tiles() * count * cols <= z_plane);
        assert!(u.len() == plan.weights()[1] * self.matrix() && cols <= width);
        let [of_rows, of_cols] = plan.axes.map(|axis| axis.values());
        let has_middle = |point| of_rows.iter().any(|value| (value.point, value.weight) == (point, 0));
        for (i, row) in of_rows.iter().enumerate().filter(|(_, row)| row.weight == weight) {
            let product = |plane: usize, segments: &[Segment], point: [usize; 2], add: bool, z: &mut [T]| {
                let [first, last] = plan.having(point).map(|tile| tile * count);
                let z = z[plane * z_plane..].as_mut_ptr();
                for t in (first..last).step_by(ROWS) {
                    let rows = (last - t).min(ROWS);
                    let row = |i: usize| t + i.min(rows - 1);
                    let tile = Tile {
                        a: std::array::from_fn(|i| v.as_ptr().wrapping_add(row(i) * c)),
                        a_step: 1,
                        b: u.as_ptr(),
                        b_step: width as isize,
                        segments,
                        c: std::array::from_fn(|i| z.wrapping_add(row(i) * cols)),
                        add,
                    };
                    // SAFETY: the planes have these rows and u has the matrices (all checked above); the middle taps have set what is added to.
                    unsafe { self.kernels.tile(rows, cols, &tile) }
                }
            };
            let segment = |plane: usize, weight: usize| Segment {
                a: (plane * v_plane) as isize,
                b: (weight * self.matrix()) as isize,
                len: c,
            };
            if self.pass == Pass::InputGrad {
                for (j, col) in of_cols.iter().enumerate() {
                    let segments = [segment(row.point * from[1] + col.point, col.weight)];
                    product(i * to[1] + j, &segments, [row.point, col.point], false, z);
                }
                continue;
            }
            for point in 0..to[1] {
                let (mut segments, mut used) = ([Segment::default(); 2], 0);
                for (j, col) in of_cols.iter().enumerate().filter(|(_, col)| col.point == point) {
                    segments[used] = segment(i * from[1] + j, col.weight);
                    used += 1;
                }
                let add = weight > 0 && has_middle(row.point);
                product(row.point * to[1] + point, &segments[..used], [row.point, point], add, z);
            }
        }
    }

    /// # Safety
    /// See [`Correlation::block`]; z begins with these tiles, `cols[1]` of each.
    unsafe fn emit(&self, part: &Tiles, range: [usize; 2], z: &[T], plane: usize, cols: [usize; 2], spill: &mut [T]) {
        use Kind::{Between, Four, Three};
        // SAFETY: passed on.
        unsafe {
            match (self.pass, part.kinds) {
                (Pass::Forward, [Between, Between]) => {
                    self.emit_as::<Output, 4, 4, 4, 4>(part, range, z, plane, cols, spill);
                }
                (Pass::Forward, [Four, Four]) => {
                    self.emit_as::<Output, 5, 5, 4, 4>(part, range, z, plane, cols, spill);
                }
                (Pass::Forward, [Four, Three]) => {
                    self.emit_as::<Output, 5, 4, 4, 3>(part, range, z, plane, cols, spill);
                }
                (Pass::Forward, [Three, Four]) => {
                    self.emit_as::<Output, 4, 5, 3, 4>(part, range, z, plane, cols, spill);
                }
                (Pass::Forward, [Three, Three]) => {
                    self.emit_as::<Output, 4, 4, 3, 3>(part, range, z, plane, cols, spill);
                }
                (Pass::InputGrad, [Between, Between]) => {
                    self.emit_as::<Scatter, 8, 8, 7, 7>(part, range, z, plane, cols, spill);
                }
                (Pass::InputGrad, [Four, Four]) => {
                    self.emit_as::<Scatter, 9, 9, 9, 9>(part, range, z, plane, cols, spill);
                }
                (Pass::InputGrad, [Four, Three]) => {
                    self.emit_as::<Scatter, 9, 7, 9, 7>(part, range, z, plane, cols, spill);
                }
                (Pass::InputGrad, [Three, Four]) => {
                    self.emit_as::<Scatter, 7, 9, 7, 9>(part, range, z, plane, cols, spill);
                }
                (Pass::InputGrad, [Three, Three]) => {
                    self.emit_as::<Scatter, 7, 7, 7, 7>(part, range, z, plane, cols, spill);
                }
                _ => unreachable!("tiles between paddings are so along both axes"),
            }
        }
    }

    /// # Safety
    /// See [`Correlation::emit`].
    unsafe fn emit_as<L: Line<F, O> + Line<G, J>, const F: usize, const G: usize, const O: usize, const J: usize>(
        &self,
        part: &Tiles,
        range: [usize; 2],
        z: &[T],
        plane: usize,
        [col, channels]: [usize; 2],
        spill: &mut [T],
    ) {
        let (grid, overlap) = match self.pass {
            Pass::Forward => (part.of_y(self.out), None),
            Pass::InputGrad => (part.of_x(self.out), Some(part.first.map(|first| first > 0))),
        };
        let tiles = range.map(|image| image * part.count());
        let job = Emit {
            from: z,
            plane: [self.to()[1] * plane, plane],
            grid,
            block: Block::new(part.tiling(), tiles),
            channels,
            to: self.result.get().wrapping_add(col),
            c: self.cols,
            overlap,
            spill,
        };
        // SAFETY: these images are ours, by the caller's word, and tiles come after those that they lie beside.
        unsafe { job.run::<L, L, F, G, O, J>(self.kernels.isa) }
    }
}
