//! What can go wrong with files of tensors; every message names the file, and the tensor where there is one.

use std::path::{Path, PathBuf};

/// Why tensors could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file is not there.
    #[error("{} does not exist", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The operating system refused.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// `read` or `write`.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// The refusal.
        source: std::io::Error,
    },
    /// The file is cut off, or is no safetensors file.
    #[error("{} is damaged, or not a safetensors file: {what}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        what: String,
    },
    /// A tensor that is wanted is not in the file.
    #[error("{} has no tensor `{name}`", path.display())]
    MissingTensor {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
    },
    /// The file has a tensor that is not wanted: it is of another model.
    #[error("{} has a tensor `{name}`, which the model does not know", path.display())]
    UnknownTensor {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
    },
    /// A tensor has another shape than wanted.
    #[error("tensor `{name}` in {} has shape {found:?}, the model's has {expected:?}", path.display())]
    WrongShape {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// The shape in the file.
        found: Vec<usize>,
        /// The shape that is wanted, in the file's layout.
        expected: Vec<usize>,
    },
    /// A tensor has another type than wanted.
    #[error("tensor `{name}` in {} holds {found}, not {expected}", path.display())]
    WrongType {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// The type in the file.
        found: String,
        /// What can be read.
        expected: String,
    },
}

impl Error {
    pub(crate) fn reading(path: &Path, source: std::io::Error) -> Error {
        if source.kind() == std::io::ErrorKind::NotFound {
            return Error::Missing { path: path.into() };
        }
        Error::Io { doing: "read", path: path.into(), source }
    }

    pub(crate) fn corrupt(path: &Path, what: impl ToString) -> Error {
        Error::Corrupt { path: path.into(), what: what.to_string() }
    }
}
