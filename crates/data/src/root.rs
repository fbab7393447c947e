//! Where data from outside is: the folder named by an argument, else by the environment.

use std::path::{Path, PathBuf};

use crate::Error;

const HINT: &str = "name a folder that holds mnist/ or omniglot/ with --data DIR";

/// The data folder: `arg` (of `--data DIR`), or the environment variable `METAFORGE_DATA`.
///
/// Below it stand `mnist/` and `omniglot/`. Fails when neither is given or the folder is not there.
pub fn data_dir(arg: Option<&Path>) -> Result<PathBuf, Error> {
    let from_env = || std::env::var_os("METAFORGE_DATA").filter(|v| !v.is_empty()).map(PathBuf::from);
    let path = arg.map(Path::to_path_buf).or_else(from_env).ok_or(Error::NoDataDir)?;
    match path.metadata() {
        Ok(found) if found.is_dir() => Ok(path),
        Ok(_) => Err(Error::Setting(format!("{} is a file: {HINT}", path.display()))),
        Err(e) => Err(Error::io(&path, e, HINT)),
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
        std::fs::write(&gone, "").unwrap();
        assert!(data_dir(Some(&gone)).unwrap_err().to_string().contains("is a file"));
    }
}
