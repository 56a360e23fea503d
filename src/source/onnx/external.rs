//! Files beside a model that hold the data of its larger tensors.
//!
//! A model may only name files in its own directory or below it: no absolute path, no `..`, and no
//! link that leads elsewhere. (In the Hugging Face cache the model itself is a link to a directory
//! of blobs; then its data may lie in that directory, too.)

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

use super::model::Model;
use crate::source::Files;
use crate::source::problem::{Checked, rule};
use crate::text::printable;

/// Files that a model may name.
const MAX_FILES: usize = 4096;

/// Opens the files of external data that a model names; their numbers and lengths by location. Two
/// spellings of one place are one file.
pub(super) fn open(files: &mut Files, file: usize, model: &Model) -> Checked<HashMap<String, (usize, u64)>> {
    let mut opened: HashMap<String, (usize, u64)> = HashMap::new();
    let mut targets: HashMap<PathBuf, (usize, u64)> = HashMap::new();
    let path = files.get(file)?.path().to_path_buf();
    for external in model.tensors.iter().filter_map(|tensor| tensor.external.as_ref()) {
        if opened.contains_key(&external.location) {
            continue;
        }
        if opened.len() == MAX_FILES {
            return rule(format!("it names more than {MAX_FILES} files of external data"));
        }
        let Place { path, target } = place(&path, &external.location)?;
        let found = match targets.get(&target) {
            Some(found) => *found,
            None => {
                let number = files.open_data(&path)?;
                (number, files.get(number)?.len())
            }
        };
        targets.insert(target, found);
        opened.insert(external.location.clone(), found);
    }
    Ok(opened)
}

/// Where external data are.
struct Place {
    /// As the model names it.
    path: PathBuf,
    /// Where that leads.
    target: PathBuf,
}

/// Where a location of external data is, once it is known to lie where it may.
fn place(model: &Path, location: &str) -> Checked<Place> {
    let shown = printable(location);
    let plain = !location.is_empty()
        && !location.contains(['\\', ':', '\0'])
        && Path::new(location)
            .components()
            .all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    if !plain {
        return rule(format!("its external data `{shown}` are not a file in its own directory"));
    }
    let directory = match model.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let path = directory.join(location);
    let Ok(target) = path.canonicalize() else {
        return rule(format!("its external data `{shown}` are missing"));
    };
    let inside = |root: Option<PathBuf>| root.is_some_and(|root| target.starts_with(root));
    let beside_blob = model.canonicalize().ok().and_then(|blob| blob.parent().map(Path::to_path_buf));
    if inside(directory.canonicalize().ok()) || target.parent() == beside_blob.as_deref() {
        return Ok(Place { path, target });
    }
    rule(format!("its external data `{shown}` are a link that leaves the directory"))
}
