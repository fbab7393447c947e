//! What can go wrong with data from outside; every message names the file and what to do about it.

use std::path::{Path, PathBuf};

/// Why data could not be read or a sampler could not be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No data folder was named.
    #[error("no data folder: pass --data DIR or set METAFORGE_DATA; the embedded glyphs and digits need none")]
    NoDataDir,
    /// A file or folder that should be there is not.
    #[error("{} does not exist: {hint}", path.display())]
    Missing {
        /// What was looked for.
        path: PathBuf,
        /// What would put it there.
        hint: String,
    },
    /// The operating system refused.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// What was being read.
        path: PathBuf,
        /// The refusal.
        source: std::io::Error,
    },
    /// A file is not what its name says, or is cut off.
    #[error("{} is damaged: {what}", path.display())]
    Corrupt {
        /// The file (and, for an archive, the entry within it).
        path: PathBuf,
        /// What is wrong, and what to do.
        what: String,
    },
    /// A line of a class split does not name a class that is there.
    #[error("{} line {line}: `{text}` {what}", path.display())]
    SplitLine {
        /// The split file.
        path: PathBuf,
        /// Line number, from 1.
        line: usize,
        /// The line.
        text: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A class has fewer images than an episode takes from it.
    #[error(
        "class {class} has {have} images, but an episode takes {need} of each class (shots + queries): lower them or drop the class"
    )]
    TooFewImages {
        /// Name or number of the class.
        class: String,
        /// Images that it has.
        have: usize,
        /// Images that an episode takes.
        need: usize,
    },
    /// There are fewer classes than an episode has ways.
    #[error("there are {have} classes, but an episode takes {need}: lower the number of ways")]
    TooFewClasses {
        /// Classes that there are.
        have: usize,
        /// Classes that an episode takes.
        need: usize,
    },
    /// A setting makes no sense.
    #[error("{0}")]
    Setting(String),
}

impl Error {
    pub(crate) fn corrupt(path: &Path, what: impl Into<String>) -> Self {
        Error::Corrupt { path: path.into(), what: what.into() }
    }

    /// `path` in the data folder's `folder` is not there. Whoever named that folder itself instead of the one that it lies in is told so.
    pub(crate) fn missing(folder: &Path, path: PathBuf, hint: &str) -> Self {
        let named = folder.parent().filter(|named| named.file_name() == folder.file_name() && !folder.exists());
        let hint = named.and_then(Path::parent).map_or(hint.into(), |above| {
            let above = if above.as_os_str().is_empty() { Path::new(".") } else { above };
            format!("name the folder above, {}, as the data folder", above.display())
        });
        Error::Missing { path, hint }
    }

    /// `Missing` where the system says "not found", `Io` otherwise.
    pub(crate) fn io(path: &Path, source: std::io::Error, hint: &str) -> Self {
        if source.kind() == std::io::ErrorKind::NotFound {
            Error::Missing { path: path.into(), hint: hint.into() }
        } else {
            Error::Io { path: path.into(), source }
        }
    }
}
