//! From images to planes of values, or of points.

use super::lines::{Input, Spread};
use super::{Kind, Plan, Tiles};
use crate::Real;
use crate::conv::window::Images;
use crate::conv::winograd::lines::Line;
use crate::conv::winograd::tiles::{Block, Grid};
use crate::conv::winograd::transform::{Gather, transform};
use crate::simd::Isa;

/// Some images, some of their channels, and the planes that these go to.
pub(super) struct Source<'a, T> {
    pub(super) isa: Isa,
    pub(super) plan: &'a Plan,
    pub(super) images: Images<'a, T>,
    /// First and last image.
    pub(super) range: [usize; 2],
    /// First and last channel.
    pub(super) channels: [usize; 2],
    /// As many zeros as there are channels.
    pub(super) zeros: &'a [T],
    /// The first tile of the first plane.
    pub(super) to: *mut T,
    /// From one tile to the next, and from one plane to the next.
    pub(super) row: usize,
    pub(super) plane: usize,
}

impl<T: Real> Source<'_, T> {
    /// The values of x.
    ///
    /// # Safety
    /// The channels are writable for each tile of these images in each plane, and nobody else uses them meanwhile.
    pub(super) unsafe fn values(&self) {
        use Kind::{Between, Four, Three};
        for part in self.plan.parts() {
            let (grid, cols) = (part.of_x(self.images.hw), self.plan.values()[1]);
            // SAFETY: passed on.
            unsafe {
                match part.kinds {
                    [Between, Between] => self.gather::<Input, 7, 7, 8, 8>(&part, grid, cols),
                    [Four, Four] => self.gather::<Input, 9, 9, 9, 9>(&part, grid, cols),
                    [Four, Three] => self.gather::<Input, 9, 7, 9, 7>(&part, grid, cols),
                    [Three, Four] => self.gather::<Input, 7, 9, 7, 9>(&part, grid, cols),
                    [Three, Three] => self.gather::<Input, 7, 7, 7, 7>(&part, grid, cols),
                    _ => unreachable!("tiles between paddings are so along both axes"),
                }
            }
        }
    }

    /// A gradient of y at the points.
    ///
    /// # Safety
    /// See [`Source::values`].
    pub(super) unsafe fn points(&self) {
        use Kind::{Between, Four, Three};
        for part in self.plan.parts() {
            let (grid, cols) = (part.of_y(self.images.hw), self.plan.points()[1]);
            // SAFETY: passed on.
            unsafe {
                match part.kinds {
                    [Between, Between] => self.gather::<Spread, 4, 4, 4, 4>(&part, grid, cols),
                    [Four, Four] => self.gather::<Spread, 4, 4, 5, 5>(&part, grid, cols),
                    [Four, Three] => self.gather::<Spread, 4, 3, 5, 4>(&part, grid, cols),
                    [Three, Four] => self.gather::<Spread, 3, 4, 4, 5>(&part, grid, cols),
                    [Three, Three] => self.gather::<Spread, 3, 3, 4, 4>(&part, grid, cols),
                    _ => unreachable!("tiles between paddings are so along both axes"),
                }
            }
        }
    }

    /// # Safety
    /// See [`Source::values`].
    unsafe fn gather<L: Line<F, O> + Line<G, J>, const F: usize, const G: usize, const O: usize, const J: usize>(
        &self,
        part: &Tiles,
        grid: Grid,
        cols: usize,
    ) {
        let [first, last] = self.range;
        let tiles = self.range.map(|image| image * part.count());
        let job: Gather<T, true> = Gather {
            images: self.images,
            grid,
            block: Block::new(part.tiling(), tiles),
            infinity: false,
            channels: self.channels,
            zeros: self.zeros,
            to: self.to.wrapping_add(part.before * (last - first) * self.row),
            row: self.row,
            plane: [cols * self.plane, self.plane],
        };
        // SAFETY: these tiles come after those that lie before them in the planes; the rest is the caller's word.
        unsafe { transform::<_, L, L, F, G, O, J>(self.isa, job) }
    }
}
