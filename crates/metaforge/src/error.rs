//! What can go wrong in the program; every message is one line that names the thing and says what to do.

use std::io;
use std::path::{Path, PathBuf};

/// Why a command could not be carried out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused to read or write something.
    #[error("cannot {doing} {}: {source}{}", path.display(), advice(source))]
    Io {
        /// What was being done, as a verb: `read`, `write`, `create`.
        doing: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The refusal.
        source: io::Error,
    },
    /// A recipe, or a `--set`, says something that it cannot say.
    #[error("{origin}: {what}")]
    Recipe {
        /// The file, the carried recipe's name or `--set`.
        origin: String,
        /// What is wrong, naming the key.
        what: String,
    },
    /// A folder cannot serve as the run folder that it was named as.
    #[error("{}: {what}", folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// What is wrong, and what to do.
        what: String,
    },
    /// A file of a run is cut off or is not what its name says.
    #[error("{} is damaged: {what}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// A figure stopped being a number.
    #[error(
        "step {step}: {name} became {value}, so training stopped. The last checkpoint is {checkpoint}; \
         try a lower learning rate (see `metaforge recipes NAME` for the keys) with --force"
    )]
    Diverged {
        /// The step that gave it.
        step: u64,
        /// The figure's name.
        name: String,
        /// `NaN`, `inf` or `-inf`.
        value: f64,
        /// Where the last good state is, in words.
        checkpoint: String,
    },
    /// Tensors cannot be read or written, or are of another model.
    #[error(transparent)]
    Tensors(metaforge_nn::Error),
    /// The data cannot be read, or does not give the tasks that were asked for.
    #[error(transparent)]
    Data(#[from] metaforge_data::Error),
    /// A run cannot do what was asked of it.
    #[error("{0}")]
    Refused(String),
}

/// The result of everything in this crate that can fail.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// For `map_err` on file operations.
    pub fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
        move |source| Error::Io { doing, path: path.into(), source }
    }
}

impl From<metaforge_nn::Error> for Error {
    fn from(e: metaforge_nn::Error) -> Error {
        match e {
            metaforge_nn::Error::Io { doing, path, source } => Error::Io { doing, path, source },
            other => Error::Tensors(other),
        }
    }
}

/// What to do about the refusals that users meet most.
fn advice(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "; free some space and give the same command again: it resumes at the last checkpoint"
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "; name a folder that you can write to with --out"
        }
        _ => "",
    }
}
