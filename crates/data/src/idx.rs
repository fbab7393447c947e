//! The idx format of MNIST and its kin, plain or gzip.
//!
//! Four bytes of magic (0, 0, element type, number of axes), a big-endian u32 an axis, then the elements.

use std::io::Read;
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;

use crate::{Error, ImageSet, Split};

const HINT: &str = "put train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and \
                    t10k-labels-idx1-ubyte (plain or .gz) there";

/// Images of the training file that are kept for validation: its last ones.
pub const MNIST_VALIDATION: usize = 10_000;

/// An array of bytes as an idx file holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idx {
    /// Sizes of the axes.
    pub shape: Vec<usize>,
    /// Elements, the last axis fastest.
    pub data: Vec<u8>,
}

/// Reads an idx file of bytes with `axes` axes; gzip is recognised by its first two bytes.
///
/// Fails when the file is missing, is no gzip that can be unpacked, has another magic, or is shorter or longer than its
/// sizes say.
pub fn read(path: &Path, axes: usize) -> Result<Idx, Error> {
    let mut bytes = std::fs::read(path).map_err(|e| Error::io(path, e, HINT))?;
    if bytes.starts_with(&[0x1f, 0x8b]) {
        let mut plain = Vec::new();
        GzDecoder::new(&bytes[..])
            .read_to_end(&mut plain)
            .map_err(|e| Error::corrupt(path, format!("not a whole gzip ({e}); fetch it again")))?;
        bytes = plain;
    }
    let wanted = [0, 0, 8, axes as u8];
    if bytes.get(..4) != Some(&wanted) {
        let found = &bytes[..bytes.len().min(4)];
        let what = format!("starts with {found:02x?}, an idx file of bytes with {axes} axes with {wanted:02x?}");
        return Err(Error::corrupt(path, what));
    }
    let header = 4 + 4 * axes;
    let short = |need: usize| {
        let what = format!(
            "{} bytes after unpacking, its header needs {need}: cut off or padded; fetch it again",
            bytes.len()
        );
        Error::corrupt(path, what)
    };
    let sizes = bytes.get(4..header).ok_or_else(|| short(header))?;
    let shape: Vec<usize> =
        sizes.chunks_exact(4).map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]) as usize).collect();
    let need = shape.iter().try_fold(1usize, |n, &s| n.checked_mul(s)).and_then(|n| n.checked_add(header));
    match need {
        Some(need) if need == bytes.len() => Ok(Idx { shape, data: bytes.split_off(header) }),
        need => Err(short(need.unwrap_or(usize::MAX))),
    }
}

/// MNIST, or any set in its layout (Fashion-MNIST, KMNIST), from the four files in `folder`.
///
/// Test is the `t10k` pair; train and validation are the training pair without, and only, its last
/// [`MNIST_VALIDATION`] images. Images `[N, H, W, 1]`, ink = 255, ten classes named by their digit.
pub fn mnist(folder: &Path, split: Split) -> Result<ImageSet, Error> {
    let name = if split == Split::Test { "t10k" } else { "train" };
    let images_path = find(folder, &format!("{name}-images-idx3-ubyte"))?;
    let labels_path = find(folder, &format!("{name}-labels-idx1-ubyte"))?;
    let (images, labels) = (read(&images_path, 3)?, read(&labels_path, 1)?);
    let n = images.shape[0];
    if labels.shape[0] != n {
        let what = format!("{} labels, but {} holds {n} images", labels.shape[0], images_path.display());
        return Err(Error::corrupt(&labels_path, what));
    }
    if let Some(bad) = labels.data.iter().find(|&&l| l > 9) {
        return Err(Error::corrupt(&labels_path, format!("holds the label {bad}; labels are 0..=9")));
    }
    let cut = n.saturating_sub(MNIST_VALIDATION);
    let range = match split {
        Split::Train => 0..cut,
        Split::Val => cut..n,
        Split::TrainVal | Split::Test => 0..n,
    };
    let (h, w) = (images.shape[1], images.shape[2]);
    let pixels = images.data[range.start * h * w..range.end * h * w].to_vec();
    let labels = labels.data[range].iter().map(|&l| u32::from(l)).collect();
    Ok(ImageSet::new([h, w, 1], pixels, labels, (0..10).map(|d| d.to_string()).collect()))
}

/// `folder/name` or `folder/name.gz`.
fn find(folder: &Path, name: &str) -> Result<PathBuf, Error> {
    let plain = folder.join(name);
    let packed = folder.join(format!("{name}.gz"));
    match (plain.is_file(), packed.is_file()) {
        (true, _) => Ok(plain),
        (_, true) => Ok(packed),
        _ => Err(Error::missing(folder, plain, HINT)),
    }
}
