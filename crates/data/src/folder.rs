//! Any folder of images by class: every subfolder is a class, every PNG in it an image.

use std::path::{Path, PathBuf};

use rayon::prelude::*;

use crate::png::Decoder;
use crate::{Error, ImageSet};

const HINT: &str = "name a folder whose subfolders are the classes, with PNG files in them";

/// Reads `folder/CLASS/*.png` at `shape` = `[H, W, C]` (C = 1 grey, C = 3 RGB), classes and files in order of their names.
///
/// Pictures of another size are resampled with Lanczos-3 (proportions are not kept); values are as in the file. Hidden
/// files and files that do not end in `.png` are passed over. Fails when there is no class, a class has no PNG, or a PNG
/// cannot be decoded.
pub fn read(folder: &Path, shape: [usize; 3]) -> Result<ImageSet, Error> {
    let decoder = Decoder::new(shape, false)?;
    let classes: Vec<PathBuf> = list(folder)?.into_iter().filter(|p| p.is_dir()).collect();
    if classes.is_empty() {
        return Err(Error::Missing { path: folder.join("CLASS"), hint: HINT.into() });
    }
    let (mut files, mut names) = (Vec::new(), Vec::new());
    for (label, class) in classes.iter().enumerate() {
        let before = files.len();
        files.extend(list(class)?.into_iter().filter(|p| is_png(p)).map(|p| (p, label as u32)));
        if files.len() == before {
            return Err(Error::Missing { path: class.join("*.png"), hint: HINT.into() });
        }
        names.push(name(class));
    }
    let read = |decoder: &mut Decoder, (path, _): &(PathBuf, u32)| {
        let bytes = std::fs::read(path).map_err(|e| Error::io(path, e, HINT))?;
        decoder.decode(&bytes, path)
    };
    let images: Vec<Vec<u8>> = files.par_iter().map_with(decoder, read).collect::<Result<_, _>>()?;
    Ok(ImageSet::new(shape, images.concat(), files.iter().map(|f| f.1).collect(), names))
}

/// The entries of a folder without the hidden ones, sorted.
fn list(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let fail = |e| Error::io(folder, e, HINT);
    let mut entries = std::fs::read_dir(folder)
        .map_err(fail)?
        .map(|entry| entry.map(|e| e.path()).map_err(fail))
        .collect::<Result<Vec<_>, _>>()?;
    entries.retain(|p| !name(p).starts_with('.'));
    entries.sort();
    Ok(entries)
}

fn is_png(path: &Path) -> bool {
    path.is_file() && path.extension().is_some_and(|e| e.eq_ignore_ascii_case("png"))
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
