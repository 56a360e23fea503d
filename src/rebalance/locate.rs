//! Where the trainer program is. `evenkeel` itself never links libtorch: it starts the program that does.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result, shown};

/// The environment variable that names the trainer.
pub const VARIABLE: &str = "EVENKEEL_TRAINER";

/// The trainer's file name.
pub fn file_name() -> String {
    format!("evenkeel-trainer{}", std::env::consts::EXE_SUFFIX)
}

/// Finds the trainer: what `--trainer` names, else what `EVENKEEL_TRAINER` names, else the one beside this
/// program, else the first one on `PATH`.
///
/// # Errors
/// [`Error::NotFound`]: what the user named is no program, or there is none anywhere.
pub fn trainer(named: Option<&Path>) -> Result<PathBuf> {
    let variable = std::env::var_os(VARIABLE).filter(|value| !value.is_empty());
    let program = std::env::current_exe().ok();
    let places = Places {
        named,
        variable: variable.as_deref().map(Path::new),
        beside: program.as_deref().and_then(Path::parent),
        path: std::env::var_os("PATH"),
    };
    places.find()
}

/// Where to look, in this order.
struct Places<'a> {
    named: Option<&'a Path>,
    variable: Option<&'a Path>,
    beside: Option<&'a Path>,
    path: Option<std::ffi::OsString>,
}

impl Places<'_> {
    fn find(&self) -> Result<PathBuf> {
        for (origin, file) in [("--trainer", self.named), (VARIABLE, self.variable)] {
            let Some(file) = file else { continue };
            // What was asked for and is not there is no reason to take another one.
            if !is_program(file) {
                return Err(Error::NotFound(format!("{origin} names {}, which is no program.", shown(file))));
            }
            // A bare name is a file here; to start a program it would be looked for on PATH.
            return Ok(std::path::absolute(file).unwrap_or_else(|_| file.to_path_buf()));
        }
        let on_path =
            self.path.as_deref().map(|path: &OsStr| std::env::split_paths(path).collect::<Vec<_>>());
        let folders = self.beside.map(Path::to_path_buf).into_iter().chain(on_path.unwrap_or_default());
        // An empty entry of PATH would mean the working directory, where anything can lie.
        let files = folders.filter(|folder| folder.is_absolute()).map(|folder| folder.join(file_name()));
        files.into_iter().find(|file| is_program(file)).ok_or_else(|| {
            Error::NotFound(format!(
                "the trainer `{}` is neither beside this program nor on PATH; `cargo xtask trainer` in the \
                 source directory fetches libtorch and builds it, and --trainer or {VARIABLE} names one that \
                 is elsewhere.",
                file_name()
            ))
        })
    }
}

/// A regular file that may be run.
fn is_program(file: &Path) -> bool {
    let Ok(metadata) = std::fs::metadata(file) else { return false };
    #[cfg(unix)]
    let runs = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o111 != 0;
    #[cfg(not(unix))]
    let runs = true;
    metadata.is_file() && runs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(folder: &Path, name: &str) -> PathBuf {
        let file = folder.join(name);
        std::fs::write(&file, "").unwrap();
        #[cfg(unix)]
        std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        file
    }

    #[test]
    fn the_places_are_searched_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let folder = |name: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir(&path).unwrap();
            path
        };
        let (beside, first, second) = (folder("beside"), folder("first"), folder("second"));
        let named = program(dir.path(), "named");
        let variable = program(dir.path(), "variable");
        let near = program(&beside, &file_name());
        let both = std::env::join_paths([&first, &second]).unwrap();
        let far = program(&second, &file_name());
        let find = |named: Option<&Path>, variable: Option<&Path>, beside: Option<&Path>, path: bool| {
            let path = path.then(|| both.clone());
            Places { named, variable, beside, path }.find()
        };
        assert_eq!(find(Some(&named), Some(&variable), Some(&beside), true).unwrap(), named);
        assert_eq!(find(None, Some(&variable), Some(&beside), true).unwrap(), variable);
        assert_eq!(find(None, None, Some(&beside), true).unwrap(), near);
        assert_eq!(find(None, None, Some(&first), true).unwrap(), far);
        let missing = find(None, None, Some(&first), false).unwrap_err().to_string();
        assert!(missing.contains("`cargo xtask trainer`"), "{missing}");
        // What the user named is not replaced by something else.
        let wrong = find(Some(&first), None, Some(&beside), true).unwrap_err().to_string();
        assert!(wrong.starts_with("--trainer names "), "{wrong}");
    }

    /// What was looked at is what is started, wherever PATH leads.
    #[cfg(unix)]
    #[test]
    fn a_relative_name_is_of_the_working_directory() {
        let dir = tempfile::tempdir().unwrap();
        let file = program(&dir.path().canonicalize().unwrap(), "named");
        let up: PathBuf = std::env::current_dir().unwrap().components().skip(1).map(|_| "..").collect();
        let relative = up.join(file.strip_prefix("/").unwrap());
        let places = Places { named: Some(&relative), variable: None, beside: None, path: None };
        let found = places.find().unwrap();
        assert!(found.is_absolute() && found.canonicalize().unwrap() == file, "{}", found.display());
    }

    #[cfg(unix)]
    #[test]
    fn what_may_not_be_run_is_no_program() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(file_name());
        std::fs::write(&file, "").unwrap();
        let places = Places { named: None, variable: None, beside: Some(dir.path()), path: None };
        assert!(places.find().is_err());
    }
}
