//! From PNG bytes to the bytes of an `[H, W, C]` image of a given size, by one documented filter.

use std::path::Path;

use image::imageops::FilterType;
use image::{DynamicImage, ImageFormat};

use crate::Error;

/// Decodes a PNG and brings it to `size` = `[H, W, C]` (C = 1 grey, C = 3 RGB).
///
/// A picture of another size is resampled with Lanczos-3, the kernel widened by the ratio when shrinking (the same
/// filter as PIL's `LANCZOS`, which MAML's Omniglot pipeline uses). `invert` swaps black and white after it.
pub(crate) fn decode(bytes: &[u8], path: &Path, size: [usize; 3], invert: bool) -> Result<Vec<u8>, Error> {
    let [h, w, c] = size;
    let picture = image::load_from_memory_with_format(bytes, ImageFormat::Png)
        .map_err(|e| Error::corrupt(path, format!("not a readable PNG ({e}); replace or remove it")))?;
    let mut picture = match c {
        1 => DynamicImage::ImageLuma8(picture.into_luma8()),
        3 => DynamicImage::ImageRgb8(picture.into_rgb8()),
        _ => return Err(Error::Setting(format!("images have 1 or 3 channels, not {c}"))),
    };
    if (picture.width() as usize, picture.height() as usize) != (w, h) {
        picture = picture.resize_exact(w as u32, h as u32, FilterType::Lanczos3);
    }
    let mut out = picture.into_bytes();
    if invert {
        out.iter_mut().for_each(|b| *b = 255 - *b);
    }
    Ok(out)
}
