//! The tiles of a unit. Without pooling a tile is all of it; with pooling some windows of a row of windows, or what is left over beside them.

use super::{Fusion, Kind};

/// The most rows of a window.
pub const MAX_ROWS: usize = 4;

/// A tile: some rows of pixels of a unit, and the windows that they make up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patch {
    /// Rows, and elements of each.
    pub(super) rows: usize,
    pub(super) len: usize,
    /// From row to row, and where the first begins in the unit.
    pub(super) pitch: usize,
    pub(super) start: usize,
    /// Elements of its windows, and where they begin in the pooled unit.
    pub(super) windows: usize,
    pub(super) windows_start: usize,
    /// Elements of the image that stand before the unit.
    pub(super) origin: usize,
    /// The row of windows, the column in elements of a pixel row, and the one in elements of a row of windows.
    row: usize,
    column: usize,
    pooled_column: usize,
}

impl Patch {
    /// The first tile of `count` units from `unit` on.
    #[inline(always)]
    pub(super) fn first(fusion: &Fusion, unit: usize, count: usize) -> Patch {
        let len = count * fusion.unit(Kind::Pixels);
        let whole = Patch {
            rows: 1,
            len,
            pitch: len,
            start: 0,
            windows: 0,
            windows_start: 0,
            origin: 0,
            row: 0,
            column: 0,
            pooled_column: 0,
        };
        let Some(bands) = &fusion.bands else { return whole };
        let mut patch = Patch { pitch: bands.pitch, origin: bands.origin(unit), ..whole };
        patch.set(fusion);
        patch
    }

    /// Goes on to the next tile, if there is one.
    #[inline(always)]
    pub(super) fn next(&mut self, fusion: &Fusion) -> bool {
        let Some(bands) = &fusion.bands else { return false };
        self.column += self.len;
        self.pooled_column += self.windows;
        if self.column == bands.pitch {
            self.row += 1;
            self.column = 0;
            self.pooled_column = 0;
        }
        self.row * bands.kernel[0] < bands.height && {
            self.set(fusion);
            true
        }
    }

    /// The same tile as one row, if its rows follow each other without a gap.
    #[inline(always)]
    pub(super) fn flat(&self) -> Patch {
        match self.len == self.pitch {
            true => Patch { rows: 1, len: self.rows * self.len, ..*self },
            false => *self,
        }
    }

    /// The tile that begins at `row` and `column`.
    #[inline(always)]
    fn set(&mut self, fusion: &Fusion) {
        let Some(bands) = &fusion.bands else { return };
        let [kh, kw] = bands.kernel;
        let c = bands.channels;
        self.start = self.row * kh * bands.pitch + self.column;
        self.rows = kh.min(bands.height - self.row * kh);
        if self.row == bands.rows {
            self.windows = 0;
            self.len = bands.rest_len(self.column);
            return;
        }
        let (row, full) = (bands.across * c, bands.per_tile * c);
        let left = row - self.pooled_column;
        self.windows = full.min(left);
        // The last windows take along what is left of the rows beside them.
        self.len = if self.windows == left { bands.pitch - self.column } else { full * kw };
        self.windows_start = self.row * row + self.pooled_column;
    }
}
