//! Omniglot (Lake et al. 2015): 1,623 hand-written characters of 50 alphabets, 20 drawings each.
//!
//! One pipeline, stated once because published numbers differ by it: decode the 105x105 one-bit PNG, resample to the
//! wanted size with Lanczos-3, invert so that ink = 1 (MAML's; Reptile and torchmeta do not invert, ProtoNet keeps one
//! bit). Nothing is rotated here: a quarter turn commutes with the symmetric filter, so the episode sampler turns the
//! small picture.
//!
//! The fixed split is the one of Vinyals et al. 2016, from `splits/vinyals/{train,val,trainval,test}.txt`, with
//! `alphabet/character/rotation` on a line; 1,028 / 172 / 1,200 / 423 characters.

use std::collections::{BTreeMap, HashMap};
use std::io::Read;
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;
use rayon::prelude::*;

use crate::png::Decoder;
use crate::{Error, ImageSet, Split};

const ARCHIVE: &str = "omniglot_png.tar.gz";
const PARTS: [&str; 2] = ["images_background", "images_evaluation"];
const HINT: &str =
    "put omniglot_png.tar.gz, or the folders images_background and images_evaluation, into DIR/omniglot (--data DIR)";

/// All characters below `dir`/omniglot as `size` x `size` grey images, ink = 255, classes named `alphabet/character`
/// and sorted by name.
///
/// Reads `omniglot_png.tar.gz` when it is there, the two image folders otherwise. Fails on a missing or damaged file.
pub fn read(dir: &Path, size: usize) -> Result<ImageSet, Error> {
    let root = dir.join("omniglot");
    let archive = root.join(ARCHIVE);
    let files = if archive.is_file() { read_archive(&archive)? } else { read_folders(&root)? };
    if files.is_empty() {
        return Err(Error::missing(&root, root.clone(), HINT));
    }
    let mut classes: BTreeMap<&str, u32> = files.iter().map(|f| (f.class.as_str(), 0)).collect();
    for (label, slot) in classes.values_mut().enumerate() {
        *slot = label as u32;
    }
    let decoder = Decoder::new([size, size, 1], true)?;
    let images: Vec<Vec<u8>> =
        files.par_iter().map_with(decoder, |decoder, f| decoder.decode(&f.bytes, &f.path)).collect::<Result<_, _>>()?;
    let labels = files.iter().map(|f| classes[f.class.as_str()]).collect();
    let names = classes.keys().map(|n| n.to_string()).collect();
    Ok(ImageSet::new([size, size, 1], images.concat(), labels, names))
}

/// The characters of one part of the Vinyals split, in the order of its file.
///
/// `all` is what [`read`] gave. The rotations of the file (each character stands there four times) are
/// the sampler's [`crate::Rotations::AsClasses`]. Fails when the file is missing or a line names no character.
pub fn vinyals(dir: &Path, all: &ImageSet, split: Split) -> Result<ImageSet, Error> {
    let path = dir.join("omniglot/splits/vinyals").join(format!("{}.txt", split.name()));
    let text = std::fs::read_to_string(&path)
        .map_err(|e| Error::io(&path, e, "put the Vinyals split there, `alphabet/character/rotation` on a line"))?;
    let known: HashMap<&str, usize> = all.names().iter().enumerate().map(|(i, n)| (n.as_str(), i)).collect();
    let mut seen = vec![false; all.names().len()];
    let mut classes = Vec::new();
    for (i, line) in text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty()) {
        let wrong = |what| Error::SplitLine { path: path.clone(), line: i + 1, text: line.into(), what };
        let (name, rotation) =
            line.trim().rsplit_once('/').ok_or_else(|| wrong("is not alphabet/character/rotation"))?;
        if !["rot000", "rot090", "rot180", "rot270"].contains(&rotation) {
            return Err(wrong("does not end in rot000, rot090, rot180 or rot270"));
        }
        let &class = known.get(name).ok_or_else(|| wrong("names a character that Omniglot does not have"))?;
        if !std::mem::replace(&mut seen[class], true) {
            classes.push(class);
        }
    }
    if classes.is_empty() {
        return Err(Error::corrupt(&path, "no line names a character"));
    }
    Ok(all.keep(&classes))
}

struct File {
    class: String,
    path: PathBuf,
    bytes: Vec<u8>,
}

/// `alphabet/character` of `.../images_background/alphabet/character/drawing.png`; None for anything else.
fn class_of(path: &Path) -> Option<String> {
    let parts: Vec<&str> = path.iter().filter_map(|p| p.to_str()).collect();
    match parts[..] {
        [.., part, alphabet, character, file]
            if PARTS.contains(&part) && file.ends_with(".png") && !file.starts_with('.') =>
        {
            Some(format!("{alphabet}/{character}"))
        }
        _ => None,
    }
}

fn read_archive(archive: &Path) -> Result<Vec<File>, Error> {
    let packed = std::fs::read(archive).map_err(|e| Error::io(archive, e, HINT))?;
    let damaged =
        |e: std::io::Error| Error::corrupt(archive, format!("not a whole gzip of a tar ({e}); fetch it again"));
    let mut plain = Vec::new();
    GzDecoder::new(&packed[..]).read_to_end(&mut plain).map_err(damaged)?;
    let mut files = Vec::new();
    for entry in tar::Archive::new(&plain[..]).entries().map_err(damaged)? {
        let mut entry = entry.map_err(damaged)?;
        let inner = entry.path().map_err(damaged)?.into_owned();
        if let Some(class) = class_of(&inner) {
            let mut bytes = Vec::with_capacity(entry.size().min(1 << 20) as usize);
            entry.read_to_end(&mut bytes).map_err(damaged)?;
            files.push(File { class, path: archive.join(inner), bytes });
        }
    }
    if files.is_empty() {
        return Err(Error::corrupt(archive, "holds no images_background/alphabet/character/*.png; fetch it again"));
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

fn read_folders(root: &Path) -> Result<Vec<File>, Error> {
    let mut paths = Vec::new();
    for part in PARTS {
        let part = root.join(part);
        if part.is_dir() {
            collect(&part, &mut paths)?;
        }
    }
    paths.sort();
    let read = |path: PathBuf| {
        let class = class_of(&path)?;
        let bytes = std::fs::read(&path).map_err(|e| Error::io(&path, e, HINT));
        Some(bytes.map(|bytes| File { class, path, bytes }))
    };
    paths.into_par_iter().filter_map(read).collect()
}

/// Every file below `dir`.
fn collect(dir: &Path, out: &mut Vec<PathBuf>) -> Result<(), Error> {
    for entry in std::fs::read_dir(dir).map_err(|e| Error::io(dir, e, HINT))? {
        let path = entry.map_err(|e| Error::io(dir, e, HINT))?.path();
        if path.is_dir() {
            collect(&path, out)?;
        } else {
            out.push(path);
        }
    }
    Ok(())
}
