//! Files that are there whole or not at all.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use crate::error::{Error, Result};

/// What a file is called while it is being written.
pub const UNFINISHED: &str = "part";

/// Writes a whole file beside `path`, waits until it is on the disk and renames it to `path`.
///
/// # Errors
/// If that fails; the file that stood there before is then untouched.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}.{UNFINISHED}", std::process::id()));
    let beside = Path::new(&beside);
    let write = || {
        let mut file = File::create(beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(beside, path)
    };
    write().map_err(|source| {
        // The half-written file would keep a full disk full; that it cannot be removed is the smaller trouble.
        let _ = fs::remove_file(beside);
        Error::Io { doing: "write", path: path.into(), source }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_the_old_file_and_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("note");
        write_whole(&path, b"old").unwrap();
        // A file cannot take the place of a folder that is not empty.
        let folder = dir.path().join("folder");
        fs::create_dir_all(folder.join("inner")).unwrap();
        let e = write_whole(&folder, b"new").unwrap_err().to_string();
        assert!(e.contains("cannot write") && e.contains("folder"), "{e}");
        write_whole(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}
