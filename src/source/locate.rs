//! From what the user typed to the files that hold the checkpoint.

use std::path::{Path, PathBuf};

use super::index::Index;
use super::{FORMATS, Format, OpenOptions, hub};
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
            files: vec![path.to_path_buf()],
            directory: path.parent().map(Path::to_path_buf),
            index: None,
            revision: None,
        }),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => in_cache(path, text, options),
        Err(e) => Err(Error::io("open", path)(e)),
    }
}

fn in_cache(path: &Path, text: &str, options: &OpenOptions) -> Result<Located> {
    let cache = options.cache.clone().or_else(hub::cache_directory);
    let (true, Some(cache)) = (hub::is_model_name(text), cache) else {
        return Err(Error::NotFound(format!("there is no file or directory `{}`.", shown(path))));
    };
    let snapshot = hub::find(&cache, text, options.revision.as_deref())?;
    let mut located = in_directory(&snapshot.directory)?;
    located.revision = Some(snapshot.revision);
    Ok(located)
}

/// Chooses in a directory, format after format: the index, the usual file, the only other file.
fn in_directory(directory: &Path) -> Result<Located> {
    let names = file_names(directory)?;
    if names.iter().any(|name| name == "model_index.json") {
        return Err(several_models(directory));
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
    let weights: Vec<&String> = names.iter().filter(|n| ends(n, "") && !format.is_companion(n)).collect();
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
    const FOREIGN: [(&str, &str); 2] = [(".gguf", "a GGUF file"), (".onnx", "an ONNX file")];
    let foreign = names.iter().find_map(|name| {
        let (_, what) = FOREIGN.iter().find(|(suffix, _)| name.ends_with(suffix))?;
        Some((name, what))
    });
    let read = FORMATS.iter().map(|format| format.name()).collect::<Vec<_>>().join(" or ");
    let reason = match foreign {
        Some((name, what)) => format!(
            "it holds no {read} file; `{}` is {what}, which this version does not read (save the model as safetensors).",
            printable(name)
        ),
        None if names.is_empty() => "the directory is empty.".to_owned(),
        None => format!("it holds no {read} file."),
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
