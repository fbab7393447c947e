//! Pictures of images: grids, pairs and rows of classes, as PNG files.

use std::io::Cursor;
use std::path::Path;

use image::imageops::replace;
use image::{ImageFormat, Rgb, RgbImage};
use metaforge_autodiff::Tensor;

use crate::error::Result;
use crate::store::write_whole;

/// Between images: a grey that neither ink nor paper is.
const GAP: Rgb<u8> = Rgb([104, 110, 124]);
/// The line between what was given and what was made.
const SEPARATOR: Rgb<u8> = Rgb([240, 148, 56]);

/// How images are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Images in a row, at least 1.
    pub columns: usize,
    /// Side of the square that a pixel becomes, at least 1.
    pub scale: usize,
    /// Pixels between images and around them.
    pub gap: usize,
}

impl Layout {
    /// Images at twice their size, two pixels apart.
    pub fn columns(columns: usize) -> Layout {
        Layout { columns, scale: 2, gap: 2 }
    }
}

/// An RGB picture.
#[derive(Clone, Debug, PartialEq)]
pub struct Picture(RgbImage);

impl Picture {
    /// Images `[N, H, W, 1 | 3]` in `[0, 1]` (others are clamped), row by row.
    ///
    /// # Panics
    /// If the tensor is not of that shape, or columns or scale are 0.
    #[track_caller]
    pub fn grid(images: &Tensor, layout: Layout) -> Picture {
        let [n, h, w, channels] = match *images.shape() {
            [n, h, w, c @ (1 | 3)] => [n, h, w, c],
            ref other => panic!("a picture shows images [N, H, W, 1 or 3], not {other:?}"),
        };
        let Layout { columns, scale, gap } = layout;
        assert!(columns > 0 && scale > 0, "a picture needs columns and a scale, not {columns} and {scale}");
        let (columns, rows) = (columns.min(n.max(1)), n.div_ceil(columns).max(1));
        let side = |count: usize, length: usize| (count * (length * scale + gap) + gap) as u32;
        let mut canvas = RgbImage::from_pixel(side(columns, w), side(rows, h), GAP);
        for (i, image) in images.f32s().chunks_exact((h * w * channels).max(1)).enumerate() {
            let (top, left) = (side(i / columns, h), side(i % columns, w));
            for (p, pixel) in image.chunks_exact(channels).enumerate() {
                let byte = |c: usize| (pixel[c.min(channels - 1)].clamp(0.0, 1.0) * 255.0).round() as u8;
                let color = Rgb([byte(0), byte(1), byte(2)]);
                for (dy, dx) in (0..scale).flat_map(|dy| (0..scale).map(move |dx| (dy, dx))) {
                    canvas.put_pixel(left + (p % w * scale + dx) as u32, top + (p / w * scale + dy) as u32, color);
                }
            }
        }
        Picture(canvas)
    }

    /// Two grids with a thin line between them: real images on the left, generated ones on the right, say.
    ///
    /// # Panics
    /// Like [`Picture::grid`].
    #[track_caller]
    pub fn pair(left: &Tensor, right: &Tensor, layout: Layout) -> Picture {
        Picture::grid(left, layout).beside(&Picture::grid(right, layout), layout)
    }

    /// A class a row: its support `[R, K, H, W, C]` on the left, what was made from it `[R, M, H, W, C]` on the right, a
    /// thin line between them. The layout's columns do not count.
    ///
    /// # Panics
    /// If the tensors are not of those shapes.
    #[track_caller]
    pub fn rows(support: &Tensor, made: &Tensor, layout: Layout) -> Picture {
        let half = |images: &Tensor| match *images.shape() {
            [r, k, h, w, c] => Picture::grid(&images.reshape([r * k, h, w, c]), Layout { columns: k, ..layout }),
            ref other => panic!("rows of images need a tensor [R, K, H, W, C], not {other:?}"),
        };
        assert_eq!(support.shape()[0], made.shape()[0], "rows of support beside rows of made images");
        half(support).beside(&half(made), layout)
    }

    fn beside(&self, right: &Picture, layout: Layout) -> Picture {
        let (left, right) = (&self.0, &right.0);
        let line = layout.scale as u32;
        let height = left.height().max(right.height());
        let mut both = RgbImage::from_pixel(left.width() + line + right.width(), height, GAP);
        replace(&mut both, left, 0, 0);
        replace(&mut both, &RgbImage::from_pixel(line, height, SEPARATOR), left.width().into(), 0);
        replace(&mut both, right, (left.width() + line).into(), 0);
        Picture(both)
    }

    /// Width and height in pixels.
    pub fn size(&self) -> [u32; 2] {
        [self.0.width(), self.0.height()]
    }

    /// The picture as the bytes of a PNG file.
    pub fn png(&self) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        self.0.write_to(&mut bytes, ImageFormat::Png).expect("an RGB picture can be written to memory");
        bytes.into_inner()
    }

    /// Writes a PNG file.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        write_whole(path, &self.png())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grid_puts_every_pixel_in_its_place() {
        // Three images of 1 x 2 pixels in two columns, doubled, one pixel apart.
        let images = Tensor::new([3, 1, 2, 1], vec![0.0, 1.0, 0.5, 2.0, -1.0, f32::NAN]);
        let picture = Picture::grid(&images, Layout { columns: 2, scale: 2, gap: 1 });
        assert_eq!(picture.size(), [1 + 2 * 5, 1 + 2 * 3]);
        let at = |x, y| picture.0.get_pixel(x, y).0;
        assert_eq!(at(0, 0), GAP.0);
        assert_eq!((at(1, 1), at(2, 2), at(3, 1), at(4, 2)), ([0; 3], [0; 3], [255; 3], [255; 3]));
        assert_eq!((at(6, 1), at(8, 1)), ([128; 3], [255; 3]));
        assert_eq!((at(1, 4), at(3, 4)), ([0; 3], [0; 3]));
        assert_eq!(at(6, 4), GAP.0, "the place of the fourth image stays empty");
    }

    #[test]
    fn colors_keep_their_channels() {
        let picture =
            Picture::grid(&Tensor::new([1, 1, 1, 3], vec![1.0, 0.5, 0.0]), Layout { columns: 1, scale: 1, gap: 0 });
        assert_eq!(picture.0.get_pixel(0, 0).0, [255, 128, 0]);
    }

    #[test]
    fn rows_of_classes_stand_beside_what_was_made_from_them() {
        let support = Tensor::new([2, 1, 1, 1, 1], vec![0.0, 1.0]);
        let made = Tensor::new([2, 3, 1, 1, 1], vec![1.0, 1.0, 1.0, 0.0, 0.0, 0.0]);
        let picture = Picture::rows(&support, &made, Layout { columns: 9, scale: 1, gap: 0 });
        assert_eq!(picture.size(), [1 + 1 + 3, 2]);
        let row = |y| (0..5).map(|x| picture.0.get_pixel(x, y).0).collect::<Vec<_>>();
        assert_eq!(row(0), [[0; 3], SEPARATOR.0, [255; 3], [255; 3], [255; 3]]);
        assert_eq!(row(1), [[255; 3], SEPARATOR.0, [0; 3], [0; 3], [0; 3]]);
    }

    #[test]
    fn a_png_reads_back_as_the_same_picture() {
        let picture = Picture::grid(&Tensor::new([1, 2, 2, 1], vec![0.0, 0.25, 0.75, 1.0]), Layout::columns(4));
        assert_eq!(image::load_from_memory(&picture.png()).unwrap().to_rgb8(), picture.0);
    }
}
