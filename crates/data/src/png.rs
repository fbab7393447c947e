//! From PNG bytes to the bytes of an `[H, W, C]` image of a given size, by one documented filter.

use std::path::Path;

use image::ImageFormat;

use crate::Error;
use crate::resize::Resizer;

/// Brings PNG files to one size. A picture of another size is resampled with Lanczos-3, the kernel widened by the ratio when
/// shrinking (the same filter as PIL's `LANCZOS`, which MAML's Omniglot pipeline uses).
#[derive(Clone, Debug)]
pub(crate) struct Decoder {
    shape: [usize; 3],
    invert: bool,
    resizer: Option<Resizer>,
}

impl Decoder {
    /// To `shape` = `[H, W, C]` (C = 1 grey, C = 3 RGB); `invert` swaps black and white.
    pub(crate) fn new(shape: [usize; 3], invert: bool) -> Result<Decoder, Error> {
        match shape {
            [h, w, 1 | 3] if h > 0 && w > 0 => Ok(Decoder { shape, invert, resizer: None }),
            _ => {
                Err(Error::Setting(format!("images are [height, width, channels] with 1 or 3 channels, not {shape:?}")))
            }
        }
    }

    /// The image of the bytes; `path` is for the message when they are no PNG.
    pub(crate) fn decode(&mut self, bytes: &[u8], path: &Path) -> Result<Vec<u8>, Error> {
        let [h, w, c] = self.shape;
        let picture = image::load_from_memory_with_format(bytes, ImageFormat::Png)
            .map_err(|e| Error::corrupt(path, format!("not a readable PNG ({e}); replace or remove it")))?;
        let from = [picture.height() as usize, picture.width() as usize];
        let mut out = if c == 1 { picture.into_luma8().into_raw() } else { picture.into_rgb8().into_raw() };
        if from != [h, w] {
            self.resizer.take_if(|r| r.from != from);
            out = self.resizer.get_or_insert_with(|| Resizer::new(from, [h, w])).apply(&out, c);
        }
        if self.invert {
            out.iter_mut().for_each(|b| *b = 255 - *b);
        }
        Ok(out)
    }
}
