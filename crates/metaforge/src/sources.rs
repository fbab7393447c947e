//! Opens the data that a recipe names: embedded worlds, or files below the data folder.

use std::path::Path;
use std::sync::Arc;

use metaforge_data::{Classes, Digits, Glyphs, ImageSet, Split, data_dir, folder, idx, omniglot};

use crate::error::Result;
use crate::recipe::{ClassSource, ImageSource};

/// Side of all images; networks and recipes are made for it.
pub const SIDE: usize = 28;
/// The embedded worlds are the same whatever the seed of a run, as a data set on a disk is.
const WORLD: u64 = 1;
/// Digits to draw for training, and for being compared with: as many as MNIST has.
const DIGITS: [usize; 2] = [60_000, 10_000];
/// The parts of a folder of classes that train and validation get; the rest is for the test.
const PARTS: [f64; 2] = [0.64, 0.16];

/// The classes of some parts of a source; `data` is the `--data` of the command line.
///
/// # Errors
/// If the data folder is not there, or not whole.
pub fn classes<const N: usize>(
    source: ClassSource,
    parts: [Split; N],
    data: Option<&Path>,
) -> Result<[Arc<dyn Classes>; N]> {
    let mut found: Vec<Arc<dyn Classes>> = Vec::with_capacity(N);
    match source {
        ClassSource::Glyphs => {
            for part in parts {
                found.push(Arc::new(Glyphs::new(WORLD, part)));
            }
        }
        ClassSource::Omniglot => {
            let dir = data_dir(data)?;
            let all = omniglot::read(&dir, SIDE)?;
            for part in parts {
                found.push(Arc::new(omniglot::vinyals(&dir, &all, part)?));
            }
        }
        ClassSource::Folder => {
            let all = folder::read(&data_dir(data)?, [SIDE, SIDE, 1])?;
            for part in parts {
                let chosen = part.choose(all.names().len(), PARTS[0], PARTS[1], WORLD);
                found.push(Arc::new(all.keep(&chosen)));
            }
        }
    }
    Ok(found.try_into().unwrap_or_else(|_| unreachable!("one source a part")))
}

/// The images of a source: those to imitate and those to be compared with. A folder has no second part: it gives all of
/// its images twice.
///
/// # Errors
/// If the data folder is not there, or not whole.
pub fn images(source: ImageSource, data: Option<&Path>) -> Result<[Arc<ImageSet>; 2]> {
    let [train, test] = match source {
        ImageSource::Digits => {
            let [train, test] = DIGITS;
            [Digits::new(WORLD, Split::TrainVal).set(0..train), Digits::new(WORLD, Split::Test).set(0..test)]
        }
        ImageSource::Mnist => {
            let dir = data_dir(data)?.join("mnist");
            [idx::mnist(&dir, Split::TrainVal)?, idx::mnist(&dir, Split::Test)?]
        }
        ImageSource::Folder => {
            let all = Arc::new(folder::read(&data_dir(data)?, [SIDE, SIDE, 1])?);
            return Ok([all.clone(), all]);
        }
    };
    Ok([Arc::new(train), Arc::new(test)])
}
