//! First stage: from PATH to an open checkpoint, a list of tensors with their bytes.
//!
//! A checkpoint is a file, a directory, or a name in the local Hugging Face cache (`locate`). Each
//! file is opened once ([`Storage`]) and handed to the reader of its [`Format`]. A new format is
//! one file with an implementation of that trait and one line in [`FORMATS`].

mod config;
mod hub;
mod index;
mod json;
mod locate;
mod safetensors;
mod storage;

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::path::{Path, PathBuf};

pub use config::ModelConfig;
pub use safetensors::Safetensors;
pub use storage::Storage;

use crate::error::{Error, Result};
use crate::tensors::{Dtype, Tensor};
use crate::text::{natural_cmp, printable};

/// Every format that can be read, in the order in which they are tried.
pub static FORMATS: &[&dyn Format] = &[&Safetensors];

/// A reader of one file format.
pub trait Format: Sync {
    /// The format's name in reports.
    fn name(&self) -> &'static str;

    /// The name that a checkpoint directory usually gives its file: `model.safetensors`.
    fn usual_name(&self) -> &'static str;

    /// The endings of the names of such files, with their dots.
    fn suffixes(&self) -> &'static [&'static str];

    /// Whether a file is of this format, by its first bytes (up to 512) before its name.
    fn recognises(&self, head: &[u8], path: &Path) -> bool;

    /// Lists the tensors of a file. Every range and every shape must be checked here: the later
    /// stages rely on `bytes` lying within the file and on `elements` being the shape's product.
    ///
    /// # Errors
    /// [`Error::Malformed`] with the broken rule, or [`Error::Io`].
    fn tensors(&self, file: &Storage) -> Result<Vec<TensorEntry>>;
}

/// A tensor as a [`Format`] finds it in one file.
#[derive(Clone, Debug)]
pub struct TensorEntry {
    /// The name in the file.
    pub name: String,
    /// The element type.
    pub dtype: Dtype,
    /// The shape, outermost dimension first.
    pub shape: Vec<usize>,
    /// The product of the shape.
    pub elements: usize,
    /// Where the row-major elements lie in the file.
    pub bytes: Range<u64>,
    /// Other names of the same bytes.
    pub aliases: Vec<String>,
}

/// How to open a checkpoint.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// Map the files into memory; otherwise each matrix is read when it is needed.
    pub mmap: bool,
    /// The branch, tag or commit of a model in the Hugging Face cache.
    pub revision: Option<String>,
    /// The cache to look in; `None` takes `$HF_HUB_CACHE`, `$HF_HOME` or the home directory.
    pub cache: Option<PathBuf>,
}

impl Default for OpenOptions {
    fn default() -> Self {
        OpenOptions { mmap: true, revision: None, cache: None }
    }
}

/// An open checkpoint.
#[derive(Debug)]
pub struct Checkpoint {
    path: String,
    format: &'static str,
    revision: Option<String>,
    config: Option<ModelConfig>,
    files: Vec<Storage>,
    /// Files beside the weights that were read: the index, `config.json`.
    companions: Vec<PathBuf>,
    tensors: Vec<Tensor>,
}

impl Checkpoint {
    /// Opens what `path` names: a file, a checkpoint directory, or `org/model` in the local
    /// Hugging Face cache.
    ///
    /// # Errors
    /// Any [`Error`] of the reading stages; nothing of a checkpoint with an error is used.
    pub fn open(path: &Path, options: &OpenOptions) -> Result<Checkpoint> {
        let located = locate::locate(path, options)?;
        let mut files = Vec::with_capacity(located.files.len());
        let mut tensors: Vec<Tensor> = Vec::new();
        let mut format = None;
        for (number, file) in located.files.iter().enumerate() {
            let storage = Storage::open(file, options.mmap)?;
            let reader = recognise(&storage)?;
            format = format.or(Some(reader.name()));
            let entries = reader.tensors(&storage)?;
            tensors.extend(entries.into_iter().map(|entry| Tensor {
                name: entry.name,
                dtype: entry.dtype,
                shape: entry.shape,
                elements: entry.elements,
                file: number,
                bytes: entry.bytes,
                aliases: entry.aliases,
            }));
            files.push(storage);
        }
        if let Some((path, index)) = &located.index {
            let found: BTreeSet<(&str, &str)> =
                tensors.iter().filter_map(|t| Some((t.name.as_str(), files.get(t.file)?.name()))).collect();
            index.check(path, &found)?;
        }
        refuse_duplicates(&tensors, &files)?;
        if let (true, Some(file)) = (tensors.is_empty(), files.first()) {
            return Err(Error::NoCheckpoint {
                path: file.path().to_path_buf(),
                reason: "it holds no tensors.".to_owned(),
            });
        }
        tensors.sort_by(|a, b| natural_cmp(&a.name, &b.name));
        let index = located.index.into_iter().map(|(path, _)| path);
        let config_path = located.directory.as_ref().map(|directory| directory.join(ModelConfig::FILE));
        let companions = index.chain(config_path).collect();
        let config = match &located.directory {
            Some(directory) => ModelConfig::read(directory)?,
            None => None,
        };
        Ok(Checkpoint {
            path: path.to_string_lossy().into_owned(),
            format: format.unwrap_or("unknown"),
            revision: located.revision,
            config,
            files,
            companions,
            tensors,
        })
    }

    /// What the user named, as it was given.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The format of its files.
    pub fn format(&self) -> &'static str {
        self.format
    }

    /// The commit, for a model out of the Hugging Face cache.
    pub fn revision(&self) -> Option<&str> {
        self.revision.as_deref()
    }

    /// Its `config.json`.
    pub fn config(&self) -> Option<&ModelConfig> {
        self.config.as_ref()
    }

    /// Its files, in the order of their names.
    pub fn files(&self) -> &[Storage] {
        &self.files
    }

    /// Every path that it was read from, the weights first.
    pub fn inputs(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(Storage::path).chain(self.companions.iter().map(PathBuf::as_path))
    }

    /// Its tensors, in the natural order of their names.
    pub fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }

    /// A part of a tensor's bytes, counted from the tensor's start.
    ///
    /// # Errors
    /// [`Error::Changed`] where the file no longer holds them, [`Error::Io`].
    pub fn read(&self, tensor: &Tensor, part: Range<u64>) -> Result<Cow<'_, [u8]>> {
        let gone = || {
            Error::NotFound(format!("the tensor `{}` is not in this checkpoint.", printable(&tensor.name)))
        };
        let file = self.files.get(tensor.file).ok_or_else(gone)?;
        let start = tensor.bytes.start.checked_add(part.start).ok_or_else(gone)?;
        let end = tensor.bytes.start.checked_add(part.end).ok_or_else(gone)?;
        if end > tensor.bytes.end {
            return Err(gone());
        }
        file.read(start..end)
    }

    /// Checks that no file changed since it was opened.
    ///
    /// # Errors
    /// [`Error::Changed`] with the first file that did.
    pub fn verify_unchanged(&self) -> Result<()> {
        self.files.iter().try_for_each(Storage::verify_unchanged)
    }
}

/// The reader for a file, or an error that says what the file seems to be.
fn recognise(file: &Storage) -> Result<&'static dyn Format> {
    let head = file.read(0..file.len().min(512))?;
    let known = FORMATS.iter().find(|format| format.recognises(&head, file.path()));
    known.copied().ok_or_else(|| Error::NoCheckpoint {
        path: file.path().to_path_buf(),
        reason: format!(
            "{}; this version reads {}.",
            foreign(&head).unwrap_or("the format of this file is not known"),
            FORMATS.iter().map(|f| f.name()).collect::<Vec<_>>().join(", ")
        ),
    })
}

/// What a file of another format is, by its first bytes, so that a message can name it.
fn foreign(head: &[u8]) -> Option<&'static str> {
    let what = match head {
        [b'P', b'K', 3, 4, ..] => "this is a zip archive (a torch or NumPy file?)",
        [0x80, 2..=5, ..] => {
            "this is a Python pickle (an older torch file?), and nothing in a pickle is ever run"
        }
        [b'G', b'G', b'U', b'F', ..] => "this is a GGUF file",
        [0x89, b'H', b'D', b'F', ..] => "this is an HDF5 file",
        _ if head.starts_with(b"version https://git-lfs") => {
            "this is a Git LFS pointer in place of the file (run `git lfs pull`)"
        }
        [b'<', ..] => "this is an HTML or XML page (a failed download?)",
        _ => return None,
    };
    Some(what)
}

/// The same name in two shards would make every later stage ambiguous.
fn refuse_duplicates(tensors: &[Tensor], files: &[Storage]) -> Result<()> {
    let mut seen: HashMap<&str, usize> = HashMap::with_capacity(tensors.len());
    for tensor in tensors {
        if let Some(first) = seen.insert(&tensor.name, tensor.file) {
            let name = |file: usize| files.get(file).map_or("", Storage::name);
            return Err(Error::Malformed {
                path: files.get(tensor.file).map(|f| f.path().to_path_buf()).unwrap_or_default(),
                format: "checkpoint",
                reason: format!(
                    "the tensor `{}` is in `{}` and in `{}`",
                    printable(&tensor.name),
                    printable(name(first)),
                    printable(name(tensor.file))
                ),
            });
        }
    }
    Ok(())
}
