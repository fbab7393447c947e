//! Which tiles cover an image, and in which order they stand in the planes.
//!
//! Sizes are seldom multiples of a tile's. The last tiles along an axis are then short, one pixel smaller: the highest coefficient, a whole tile's last pixel,
//! is all that infinity is for, so they do without that point, and share the others and their weights with the whole ones. 14 pixels are two tiles of 4
//! and two of 3, which take 22 multiplications of 3 taps, not 24. In the planes tiles stand by kind, so that those that have a value at infinity lie side
//! by side.

/// Whether a tile is short, along the columns and along the rows of the image.
type Short = [bool; 2];

/// In the order in which they stand in the planes: the first two are whole along the rows, the second and the third along the columns.
const KINDS: [Short; 4] = [[true, false], [false, false], [false, true], [true, true]];

/// Tiles of an image, row by row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tiling {
    /// Tiles along each axis.
    pub(super) tiles: [usize; 2],
    /// How many of them, the last, are short.
    pub(super) short: [usize; 2],
}

impl Tiling {
    /// As few tiles of `m` or `m - 1` pixels as cover so many, and of these as many short ones as may be.
    pub(super) fn new(pixels: [usize; 2], m: usize) -> Tiling {
        let tiles = pixels.map(|x| x.div_ceil(m));
        Tiling { tiles, short: [0, 1].map(|i| (tiles[i] * m - pixels[i]).min(tiles[i])) }
    }

    /// Tiles of an image.
    pub(super) fn count(&self) -> usize {
        self.tiles[0] * self.tiles[1]
    }

    /// Products for a pair of channels of an image, at `n` points along an axis.
    pub(super) fn products(&self, n: usize) -> usize {
        (n * self.tiles[0] - self.short[0]) * (n * self.tiles[1] - self.short[1])
    }

    /// The image that tile `t` lies in, and which of the image's tiles it is.
    fn tile(&self, t: usize) -> (usize, [usize; 2]) {
        let [th, tw] = self.tiles;
        (t / (th * tw), [t / tw % th, t % tw])
    }

    /// Tiles of each kind among the first `t` of all images.
    fn before(&self, t: usize) -> [usize; 4] {
        let [th, tw] = self.tiles;
        let (image, [row, col]) = self.tile(t);
        KINDS.map(|kind| {
            let of_kind = |axis: usize, i: usize| {
                let whole = i.min(self.tiles[axis] - self.short[axis]);
                if kind[axis] { i - whole } else { whole }
            };
            let (rows, cols) = (of_kind(0, th), of_kind(1, tw));
            let in_row = if of_kind(0, row + 1) > of_kind(0, row) { of_kind(1, col) } else { 0 };
            image * rows * cols + of_kind(0, row) * cols + in_row
        })
    }
}

/// Tiles whose values stand in the same planes, a row for each.
#[derive(Clone, Copy)]
pub(super) struct Block {
    pub(super) tiling: Tiling,
    /// First and last, of all images.
    pub(super) range: [usize; 2],
    /// The first row of each kind.
    starts: [usize; 4],
}

impl Block {
    pub(super) fn new(tiling: Tiling, range: [usize; 2]) -> Block {
        let [first, last] = range.map(|t| tiling.before(t));
        let mut end = 0;
        let starts = std::array::from_fn(|i| {
            let start = end;
            end += last[i] - first[i];
            start
        });
        Block { tiling, range, starts }
    }

    pub(super) fn len(&self) -> usize {
        self.range[1] - self.range[0]
    }

    /// First and last row of the tiles that have a value at infinity along these axes.
    pub(super) fn having(&self, infinity: [bool; 2]) -> [usize; 2] {
        let [_, second, third, fourth] = self.starts;
        match infinity {
            [false, false] => [0, self.len()],
            [false, true] => [0, third],
            [true, false] => [second, fourth],
            [true, true] => [second, third],
        }
    }
}

/// Tiles that cover images of `n x hw` pixels, or every `stride`-th of them, row by row, image by image.
#[derive(Clone, Copy)]
pub(super) struct Grid {
    /// From a whole tile to the next, down and to the right, in pixels of a tile; from a short one it is one less.
    pub(super) step: [usize; 2],
    /// From one pixel of a tile to the next, in pixels of the image.
    pub(super) stride: usize,
    /// The first pixel of the first tile.
    pub(super) origin: [isize; 2],
    /// Size of the images.
    pub(super) hw: [usize; 2],
}

/// A tile of many images.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) image: usize,
    /// Which of the image's tiles.
    pub(super) tile: [usize; 2],
    /// Its first pixel.
    pub(super) pixel: [isize; 2],
    /// Whether it is short, along the columns and along the rows.
    pub(super) short: Short,
    /// Its row in the planes.
    pub(super) row: usize,
}

impl Grid {
    /// The first pixel of a tile of an image.
    #[inline(always)]
    fn pixel(&self, tiling: &Tiling, tile: [usize; 2]) -> [isize; 2] {
        [0, 1].map(|axis| {
            let short = tile[axis].saturating_sub(tiling.tiles[axis] - tiling.short[axis]);
            ((tile[axis] * self.step[axis] - short) * self.stride) as isize + self.origin[axis]
        })
    }

    /// The tiles of a block.
    #[inline(always)]
    pub(super) fn places(
        &self,
        &Block { tiling, range: [first, last], starts: mut rows }: &Block,
    ) -> impl Iterator<Item = Place> {
        let Tiling { tiles, short } = tiling;
        let (mut image, mut next) = tiling.tile(first);
        (first..last).map(move |_| {
            let (here, tile) = (image, next);
            next[1] += 1;
            if next[1] == tiles[1] {
                next = [next[0] + 1, 0];
            }
            if next[0] == tiles[0] {
                (image, next) = (image + 1, [0, 0]);
            }
            let short = [0, 1].map(|i| tile[i] + short[i] >= tiles[i]);
            let kind = match short {
                [true, false] => 0,
                [false, false] => 1,
                [false, true] => 2,
                [true, true] => 3,
            };
            rows[kind] += 1;
            Place { image: here, tile, pixel: self.pixel(&tiling, tile), short, row: rows[kind] - 1 }
        })
    }

    /// First and last pixel, over all images, of the rows that a block's tiles of `side x side` pixels meet.
    pub(super) fn span(&self, &Block { tiling, range: [first, last], .. }: &Block, side: usize) -> [usize; 2] {
        if first == last {
            return [0, 0];
        }
        let [h, w] = self.hw;
        let row = |t: usize, down: usize| {
            let (image, tile) = tiling.tile(t);
            let [top, _] = self.pixel(&tiling, tile);
            (image * h + (top + down as isize).clamp(0, h as isize) as usize) * w
        };
        [row(first, 0), row(last - 1, side * self.stride)]
    }

    /// Calls `f` with runs of pixels, over all images, `[first, last)`, which together are those of a block's tiles; these cover the images from their first
    /// pixel on, without a gap.
    pub(super) fn runs(&self, &Block { tiling, range: [mut first, last], .. }: &Block, mut f: impl FnMut([usize; 2])) {
        let [h, w] = self.hw;
        while first < last {
            let (image, [row, col]) = tiling.tile(first);
            // As far as the row of tiles goes.
            let some = (tiling.tiles[1] - col).min(last - first);
            let corner = |tile| {
                let [row, col] = self.pixel(&tiling, tile);
                [h.min(row as usize), w.min(col as usize)]
            };
            let ([top, left], [bottom, right]) = (corner([row, col]), corner([row + 1, col + some]));
            let at = |row: usize, col: usize| (image * h + row) * w + col;
            if right - left == w {
                f([at(top, 0), at(bottom, 0)]);
            } else {
                (top..bottom).for_each(|row| f([at(row, left), at(row, right)]));
            }
            first += some;
        }
    }

    /// Where the rows or columns of a tile end that are its own and lie in the image.
    #[inline(always)]
    fn end(&self, place: &Place, axis: usize, side: usize) -> isize {
        let own = (side - usize::from(place.short[axis])) * self.stride;
        (self.hw[axis] as isize).min(place.pixel[axis] + own as isize)
    }

    /// First and last of `side` rows (axis 0) or columns of a tile that lie in the image and are its own, which the last one of a short tile is not; none if
    /// the first is not below the last.
    #[inline(always)]
    pub(super) fn own(&self, place: &Place, axis: usize, side: usize) -> [usize; 2] {
        // How many lie before a pixel of the image.
        let before = |pixel: isize| (pixel - place.pixel[axis]).max(0).cast_unsigned().div_ceil(self.stride);
        [0, self.end(place, axis, side)].map(|pixel| before(pixel).min(side))
    }

    /// Calls `f` for each of `F x G` pixels of a tile that [`Grid::own`] has: its place in the tile and its index in the image.
    #[inline(always)]
    pub(super) fn pixels<const F: usize, const G: usize>(&self, place: &Place, mut f: impl FnMut(usize, usize, usize)) {
        let [rows, cols] = [self.own(place, 0, F), self.own(place, 1, G)];
        let [top, left] = place.pixel;
        let at = |first: isize, i: usize| first + (i * self.stride) as isize;
        // Over all of them, so that the compiler knows each place.
        for i in 0..F {
            if (rows[0]..rows[1]).contains(&i) {
                let first = at(top, i) * self.hw[1] as isize;
                for j in 0..G {
                    if (cols[0]..cols[1]).contains(&j) {
                        f(i, j, (first + at(left, j)) as usize);
                    }
                }
            }
        }
    }

    /// The rows (axis 0) or columns of the image that those of a tile are; in place of those that are not among [`Grid::own`], the last one that is.
    ///
    /// # Panics
    /// If the tile does not begin in the image.
    #[inline(always)]
    pub(super) fn line<const N: usize>(&self, place: &Place, axis: usize) -> [usize; N] {
        let (mut at, end) = (place.pixel[axis], self.end(place, axis, N));
        assert!((0..end).contains(&at));
        std::array::from_fn(|i| {
            let next = place.pixel[axis] + (i * self.stride) as isize;
            at = if next < end { next } else { at };
            at as usize
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn short_tiles_save_products() {
        // F(4, 3) over 14, 7, 3 and 28 pixels: 4 + 4 + 3 + 3, 4 + 3, 3, and whole ones only.
        for (pixels, products) in [(14, 22), (7, 11), (3, 5), (28, 42)] {
            assert_eq!(Tiling::new([pixels, pixels], 4).products(6), products * products);
        }
    }

    #[test]
    fn rows_and_columns_are_those_of_the_pixels() {
        let tiling = Tiling::new([7, 5], 4);
        let grid = Grid { step: [4, 4], stride: 2, origin: [1, 0], hw: [13, 9] };
        for place in grid.places(&Block::new(tiling, [0, 2 * tiling.count()])) {
            let [rows, cols] = [0, 1].map(|axis| grid.line::<4>(&place, axis));
            // Of 4 + 3 rows the last is beyond the image, and of 3 + 3 columns.
            let [of_rows, of_cols] = [0, 1].map(|axis| grid.own(&place, axis, 4));
            assert_eq!(of_rows, [0, [4, 2][place.tile[0]]], "{place:?}");
            assert_eq!(of_cols, [0, [3, 2][place.tile[1]]], "{place:?}");
            for (axis, lines, own) in [(0, rows, of_rows), (1, cols, of_cols)] {
                let at = |i: usize| place.pixel[axis] as usize + 2 * i;
                assert!((0..4).all(|i| lines[i] == at(i.min(own[1] - 1))), "{place:?}");
            }
        }
    }

    #[test]
    fn a_tile_may_begin_before_its_image() {
        let (tiling, hw) = (Tiling { tiles: [1, 1], short: [0, 0] }, [3, 3]);
        for (origin, stride, own) in
            [(-6, 1, [5, 5]), (-1, 1, [1, 4]), (-3, 2, [2, 3]), (-4, 1, [4, 5]), (1, 1, [0, 2]), (3, 1, [0, 0])]
        {
            let grid = Grid { step: [5, 5], stride, origin: [origin; 2], hw };
            for place in grid.places(&Block::new(tiling, [0, 1])) {
                assert_eq!([0, 1].map(|axis| grid.own(&place, axis, 5)), [own; 2], "{origin} by {stride}");
                let mut pixels = Vec::new();
                grid.pixels::<5, 5>(&place, |i, j, pixel| pixels.push((i, j, pixel)));
                let at = |i: usize| (origin + (i * stride) as isize) as usize;
                let own = own[0]..own[1];
                let want = own.clone().flat_map(|i| own.clone().map(move |j| (i, j, 3 * at(i) + at(j))));
                assert_eq!(pixels, want.collect::<Vec<_>>(), "{origin} by {stride}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn tiles_share_out_pixels_and_rows(
            (pixels, m, n) in ([1..20usize, 1..20usize], 2..6usize, 1..4usize),
            (low, high) in (0.0..1.0f64, 0.0..1.0f64),
        ) {
            let tiling = Tiling::new(pixels, m);
            let grid = Grid { step: [m, m], stride: 1, origin: [0, 0], hw: pixels };
            // Every pixel is one tile's.
            let total = n * tiling.count();
            let mut owners = vec![0; n * pixels[0] * pixels[1]];
            for place in grid.places(&Block::new(tiling, [0, total])) {
                let side = |axis: usize| m - usize::from(place.short[axis]);
                for (i, j) in (0..side(0)).flat_map(|i| (0..side(1)).map(move |j| (i, j))) {
                    let [row, col] = [place.pixel[0] as usize + i, place.pixel[1] as usize + j];
                    if row < pixels[0] && col < pixels[1] {
                        owners[(place.image * pixels[0] + row) * pixels[1] + col] += 1;
                    }
                }
            }
            prop_assert!(owners.iter().all(|&owners| owners == 1), "{owners:?}");
            // Blocks of tiles share out pixels by runs, too.
            let mut told = vec![0; owners.len()];
            let [a, b] = [low, high].map(|part| (part * total as f64) as usize);
            for range in [[0, a.min(b)], [a.min(b), a.max(b)], [a.max(b), total]] {
                let tell = |[first, last]: [usize; 2]| told[first..last].iter_mut().for_each(|times| *times += 1);
                grid.runs(&Block::new(tiling, range), tell);
            }
            prop_assert!(told.iter().all(|&times| times == 1), "{told:?}");
            // Every tile of a block has one row, and those with a value at infinity are neighbours.
            let at = |part: f64, [low, high]: [usize; 2]| low + (part * (high - low) as f64) as usize;
            let first = at(low, [0, total]);
            let block = Block::new(tiling, [first, at(high, [first, total + 1])]);
            let mut shorts = vec![None; block.len()];
            for place in grid.places(&block) {
                prop_assert!(shorts[place.row].replace(place.short).is_none());
            }
            const INFINITIES: [[bool; 2]; 4] = [[false, false], [false, true], [true, false], [true, true]];
            for infinity in INFINITIES {
                let [first, last] = block.having(infinity);
                for (row, short) in shorts.iter().enumerate() {
                    let has = (0..2).all(|axis| !(infinity[axis] && short.unwrap()[axis]));
                    prop_assert_eq!(has, (first..last).contains(&row));
                }
            }
            // At m finite points along an axis and infinity there are as many values as products.
            let image = Block::new(tiling, [0, tiling.count()]);
            let values = |infinity: [bool; 2]| {
                let [first, last] = image.having(infinity);
                (last - first) * infinity.map(|at| if at { 1 } else { m }).iter().product::<usize>()
            };
            prop_assert_eq!(INFINITIES.map(values).iter().sum::<usize>(), tiling.products(m + 1));
        }
    }
}
