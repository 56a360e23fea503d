//! From what the user typed to the files that hold the checkpoint.

use std::path::{Path, PathBuf};

use super::index::Index;
use super::{FORMATS, Format, OpenOptions, format_names, hub};
use crate::adapters;
use crate::error::{Error, Result, shown};
use crate::text::{natural_cmp, printable};

/// What the index of a sharded checkpoint adds to the usual name of the file.
const INDEX_SUFFIX: &str = ".index.json";

/// The files of one checkpoint.
#[derive(Debug)]
pub(super) struct Located {
    pub files: Vec<PathBuf>,
    /// Where its `config.json` would be.
    pub directory: Option<PathBuf>,
    pub index: Option<(PathBuf, Index)>,
    pub revision: Option<String>,
    /// The one file holds an adapter's weights, with its configuration beside it.
    pub is_adapter: bool,
}

/// Finds the checkpoint that `path` names. What exists on disk comes before the cache.
pub(super) fn locate(path: &Path, options: &OpenOptions) -> Result<Located> {
    let text = path.to_str().unwrap_or("");
    match std::fs::metadata(path) {
        Ok(_) if options.revision.is_some() => Err(Error::Setting(format!(
            "--revision chooses among the snapshots of a model in the Hugging Face cache, but {} is a path.",
            shown(path)
        ))),
        Ok(metadata) if metadata.is_dir() => in_directory(path),
        Ok(_) if text.ends_with(INDEX_SUFFIX) => {
            sharded(path.parent().unwrap_or(Path::new("")), path.to_path_buf())
        }
        Ok(_) => Ok(Located {
            files: vec![first_part(path).unwrap_or_else(|| path.to_path_buf())],
            directory: path.parent().map(Path::to_path_buf),
            index: None,
            revision: None,
            is_adapter: adapters::is_weights(path),
        }),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => in_cache(path, text, options),
        Err(e) => Err(Error::io("open", path)(e)),
    }
}

/// The weights of the adapter that `path` names: its directory, the file itself, or a name in the cache.
pub(super) fn adapter(path: &Path, options: &OpenOptions) -> Result<PathBuf> {
    let text = path.to_str().unwrap_or("");
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => adapters::weights_in(path),
        Ok(_) if adapters::is_weights(path) => Ok(path.to_path_buf()),
        Ok(_) => Err(Error::NoCheckpoint {
            path: path.to_path_buf(),
            reason: "--adapter takes the directory of an adapter.".to_owned(),
        }),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            // The revision is the base's: an adapter has commits of its own.
            adapters::weights_in(&in_snapshot(path, text, options, None)?.directory)
        }
        Err(e) => Err(Error::io("open", path)(e)),
    }
}

/// The first file of the checkpoint that a file is a later part of, where it is there.
fn first_part(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?;
    let first = FORMATS.iter().find_map(|format| format.first_part(name))?;
    Some(path.with_file_name(first)).filter(|first| first.is_file())
}

fn in_cache(path: &Path, text: &str, options: &OpenOptions) -> Result<Located> {
    let snapshot = in_snapshot(path, text, options, options.revision.as_deref())?;
    let mut located = in_directory(&snapshot.directory)?;
    located.revision = Some(snapshot.revision);
    Ok(located)
}

fn in_snapshot(
    path: &Path,
    text: &str,
    options: &OpenOptions,
    revision: Option<&str>,
) -> Result<hub::Snapshot> {
    let cache = options.cache.clone().or_else(hub::cache_directory);
    match (hub::is_model_name(text), cache) {
        (true, Some(cache)) => hub::find(&cache, text, revision),
        _ => Err(Error::NotFound(format!("there is no file or directory `{}`.", shown(path)))),
    }
}

/// Chooses in a directory, format after format: the index, the usual file, the only other file.
fn in_directory(directory: &Path) -> Result<Located> {
    let names = file_names(directory)?;
    if names.iter().any(|name| name == "model_index.json") {
        return Err(several_models(directory));
    }
    // Its weights have the ending of a format, but are no model; a whole model beside them is one.
    if adapters::is_adapter(&names) && !has_usual_name(&names) {
        let weights = adapters::weights_in(directory)?;
        let name = weights.file_name().unwrap_or_default().to_string_lossy();
        return Ok(Located { is_adapter: true, ..single(directory, &name) });
    }
    for format in FORMATS {
        if let Some(located) = of_format(directory, &names, *format)? {
            return Ok(located);
        }
    }
    Err(nothing_readable(directory, &names))
}

/// The checkpoint of one format in a directory with these files, if there is one.
fn of_format(directory: &Path, names: &[String], format: &dyn Format) -> Result<Option<Located>> {
    let has = |name: &str| names.iter().any(|n| n == name);
    let usual = format.usual_name();
    let usual_index = format!("{usual}{INDEX_SUFFIX}");
    if has(&usual_index) {
        return sharded(directory, directory.join(usual_index)).map(Some);
    }
    if has(usual) {
        return Ok(Some(single(directory, usual)));
    }
    let ends =
        |name: &&String, tail: &str| format.suffixes().iter().any(|s| name.ends_with(&format!("{s}{tail}")));
    let indexes: Vec<&String> = names.iter().filter(|n| ends(n, INDEX_SUFFIX)).collect();
    // Of a numbered set the first part stands for all; the others only where it is missing.
    let later = |name: &&String| format.first_part(name).is_some_and(|first| has(&first));
    let is_weights = |name: &&String| ends(name, "") && !later(name) && !format.is_companion(name);
    let weights: Vec<&String> = names.iter().filter(is_weights).collect();
    match (indexes.as_slice(), weights.as_slice()) {
        ([index], _) => sharded(directory, directory.join(index)).map(Some),
        ([], [only]) => Ok(Some(single(directory, only))),
        ([], []) => Ok(None),
        _ => Err(Error::NoCheckpoint {
            path: directory.to_path_buf(),
            reason: format!(
                "it holds several checkpoints, or shards without their index: {}; name one file.",
                list(weights.iter().chain(&indexes).map(|n| n.as_str()))
            ),
        }),
    }
}

/// Whether there is a file, or an index, of the name that some format usually has.
fn has_usual_name(names: &[String]) -> bool {
    let is_usual = |name: &String| {
        let file = name.strip_suffix(INDEX_SUFFIX).unwrap_or(name);
        FORMATS.iter().any(|format| format.usual_name() == file)
    };
    names.iter().any(is_usual)
}

/// Whether a file's name is that of some format.
fn is_readable(name: &str) -> bool {
    let of = |format: &&dyn Format| {
        !format.is_companion(name) && format.suffixes().iter().any(|suffix| name.ends_with(suffix))
    };
    FORMATS.iter().any(of)
}

fn single(directory: &Path, name: &str) -> Located {
    Located {
        files: vec![directory.join(name)],
        directory: Some(directory.to_path_buf()),
        index: None,
        revision: None,
        is_adapter: false,
    }
}

fn sharded(directory: &Path, path: PathBuf) -> Result<Located> {
    let index = Index::read(&path)?;
    let mut files = Vec::new();
    for shard in index.shards() {
        let file = directory.join(shard);
        if !file.is_file() {
            return Err(Error::Index {
                path,
                reason: format!("the shard `{}` is missing", printable(shard)),
            });
        }
        files.push(file);
    }
    Ok(Located {
        files,
        directory: Some(directory.to_path_buf()),
        index: Some((path, index)),
        revision: None,
        is_adapter: false,
    })
}

fn file_names(directory: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(Error::io("read", directory))? {
        let entry = entry.map_err(Error::io("read", directory))?;
        // Hidden files are no checkpoints; macOS leaves `._model.safetensors` on foreign disks.
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') {
            names.push(name);
        }
    }
    names.sort_by(|a, b| natural_cmp(a, b));
    Ok(names)
}

/// A Diffusers pipeline: every subdirectory with weights is a model of its own.
fn several_models(directory: &Path) -> Error {
    let with_weights = |name: &String| {
        let inside = directory.join(name);
        let files = if inside.is_dir() { file_names(&inside) } else { Ok(Vec::new()) };
        files.is_ok_and(|files| files.iter().any(|f| is_readable(f)))
    };
    let names = file_names(directory).unwrap_or_default();
    let models: Vec<String> = names
        .iter()
        .filter(|name| with_weights(name))
        .map(|name| directory.join(name).to_string_lossy().into_owned())
        .collect();
    let reason = match models.as_slice() {
        [] => "it holds several models (model_index.json), none of them in a format that is read.".to_owned(),
        _ => format!(
            "it holds several models (model_index.json); name one of them: {}.",
            list(models.iter().map(String::as_str))
        ),
    };
    Error::NoCheckpoint { path: directory.to_path_buf(), reason }
}

fn nothing_readable(directory: &Path, names: &[String]) -> Error {
    let reason = match names {
        [] => "the directory is empty.".to_owned(),
        _ => format!("it holds no checkpoint that this version reads ({}).", format_names()),
    };
    Error::NoCheckpoint { path: directory.to_path_buf(), reason }
}

fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    const MOST: usize = 12;
    let names: Vec<String> = names.map(|n| printable(n).into_owned()).collect();
    match names.get(..MOST) {
        Some(first) if names.len() > MOST => {
            format!("{} and {} more", first.join(", "), names.len() - MOST)
        }
        _ => names.join(", "),
    }
}
