//! Where data from outside is: the folder named by an argument, else by the environment.

use std::path::{Path, PathBuf};

use crate::Error;

/// The data folder: `arg` (of `--data DIR`), or the environment variable `METAFORGE_DATA`.
///
/// Below it stand `mnist/` and `omniglot/`. Fails when neither is given or the folder is not there.
pub fn data_dir(arg: Option<&Path>) -> Result<PathBuf, Error> {
    let from_env = || std::env::var_os("METAFORGE_DATA").filter(|v| !v.is_empty()).map(PathBuf::from);
    let path = arg.map(Path::to_path_buf).or_else(from_env).ok_or(Error::NoDataDir)?;
    if path.is_dir() {
        Ok(path)
    } else {
        Err(Error::Missing { path, hint: "name a folder that holds mnist/ or omniglot/ with --data DIR".into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_argument_names_the_folder_and_must_exist() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(data_dir(Some(dir.path())).unwrap(), dir.path());
        let gone = dir.path().join("nowhere");
        let text = data_dir(Some(&gone)).unwrap_err().to_string();
        assert!(text.contains("nowhere") && text.contains("--data"), "{text}");
    }
}
