//! First stage: from PATH to an open checkpoint, a list of tensors with their bytes.
//!
//! A checkpoint is a file, a directory, or a name in the local Hugging Face cache (`locate`). Each
//! file is opened once ([`Storage`]) and handed to the reader of its [`Format`]. A new format is
//! one file with an implementation of that trait and one line in [`FORMATS`].

pub(crate) mod companion;
mod config;
mod files;
mod gguf;
mod hub;
mod index;
pub(crate) mod json;
mod keras;
mod locate;
mod memory;
mod numpy;
mod onnx;
mod problem;
mod safetensors;
mod storage;
mod torch;
mod zip;

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use companion::Companion;
use locate::Located;

pub use config::ModelConfig;
pub use files::Files;
pub use gguf::Gguf;
pub use keras::Keras;
pub use memory::Held;
pub use numpy::{Npy, Npz};
pub use onnx::Onnx;
pub use safetensors::Safetensors;
pub use storage::Storage;
pub use torch::Torch;

use crate::adapters::{self, Adapter, Merge};
use crate::error::{Error, Result};
use crate::quantised::{self, Aside};
use crate::tensors::{Factors, Tensor};
use crate::text::{natural_cmp, printable};

/// Tensors may share what is stored, but those of a checkpoint may not hold more than this many times
/// the bytes of their file: a small file must not keep a machine busy for long.
const MAX_SHARING: u64 = 16;

/// Every format that can be read, in the order in which they are tried.
pub static FORMATS: &[&dyn Format] = &[&Safetensors, &Torch, &Gguf, &Onnx, &Npz, &Npy, &Keras];

/// A reader of one file format.
pub trait Format: Sync {
    /// The format's name in reports.
    fn name(&self) -> &'static str;

    /// The name that a checkpoint directory usually gives its file: `model.safetensors`.
    fn usual_name(&self) -> &'static str;

    /// The endings of the names of such files, with their dots.
    fn suffixes(&self) -> &'static [&'static str];

    /// The name of the first file of a checkpoint, for the name of a later one of its parts: where a
    /// format numbers them and finds the others from the first.
    fn first_part(&self, _name: &str) -> Option<String> {
        None
    }

    /// Whether a file whose name ends like one of this format never holds the weights: a directory is
    /// searched without it.
    fn is_companion(&self, _name: &str) -> bool {
        false
    }

    /// Whether a file is of this format, by its first bytes (up to 512) before its name.
    fn recognises(&self, head: &[u8], path: &Path) -> bool;

    /// Lists what a file holds. Every range and every shape must be checked here: the later stages
    /// rely on the bytes lying within the file and on `elements` being the shape's product.
    ///
    /// # Errors
    /// [`Error::Malformed`] with the broken rule, or [`Error::Io`].
    fn contents(&self, files: &mut Files, file: usize, options: &OpenOptions) -> Result<Contents>;

    /// Does what can only be told from all files of a checkpoint together: called once, when they are
    /// listed and agree with their index.
    fn settle(&self, _contents: &mut Contents) {}
}

/// What a [`Format`] finds in one file.
#[derive(Debug, Default)]
pub struct Contents {
    /// The tensors.
    pub tensors: Vec<Tensor>,
    /// The model's configuration, where the file itself carries one.
    pub config: Option<ModelConfig>,
    /// What is recognised and is no weight of the model (an optimizer's state, say).
    pub left_out: Vec<LeftOut>,
}

/// A part of a file that is no weight of the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// Its name in the file.
    pub name: String,
    /// Why it is left out.
    pub reason: String,
}

/// How to open a checkpoint.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// Map the files into memory; otherwise each matrix is read when it is needed. A mapped file that
    /// another program shortens raises SIGBUS where its missing bytes are read: see `opened`.
    pub mmap: bool,
    /// Called with every file when it is open and nothing of it is read yet. A program that handles
    /// SIGBUS learns here what [`Storage::mapped`] is; the library itself handles no signals.
    pub opened: fn(&Storage),
    /// The branch, tag or commit of a model in the Hugging Face cache.
    pub revision: Option<String>,
    /// The cache to look in; `None` takes `$HF_HUB_CACHE`, `$HF_HOME` or the home directory.
    pub cache: Option<PathBuf>,
    /// LoRA adapters to be added to the weights, one after another: their directories, or their names
    /// in the cache.
    pub adapters: Vec<PathBuf>,
    /// The factor of every adapter's B·A; `None` takes what each says of itself.
    pub adapter_scale: Option<f64>,
    /// Globals that a torch file may name beyond the known ones, as `module.name`: each becomes an
    /// inert placeholder.
    pub ignored_globals: Vec<String>,
}

impl Default for OpenOptions {
    fn default() -> Self {
        OpenOptions {
            mmap: true,
            opened: |_| {},
            revision: None,
            cache: None,
            adapters: Vec::new(),
            adapter_scale: None,
            ignored_globals: Vec::new(),
        }
    }
}

/// An open checkpoint.
#[derive(Debug)]
pub struct Checkpoint {
    path: String,
    format: &'static str,
    revision: Option<String>,
    config: Option<ModelConfig>,
    files: Files,
    /// Files beside the weights that were read: the index, `config.json`.
    companions: Vec<Companion>,
    tensors: Vec<Tensor>,
    left_out: Vec<LeftOut>,
    adapters: Vec<String>,
    set_aside: HashMap<String, Aside>,
}

impl Checkpoint {
    /// Opens what `path` names: a file, a checkpoint directory, or `org/model` in the local
    /// Hugging Face cache.
    ///
    /// # Errors
    /// Any [`Error`] of the reading stages; nothing of a checkpoint with an error is used.
    pub fn open(path: &Path, options: &OpenOptions) -> Result<Checkpoint> {
        let located = locate::locate(path, options)?;
        if located.is_adapter {
            return Checkpoint::adapter_alone(path, &located, options);
        }
        let mut files = Files::new(options);
        let mut found = Contents::default();
        let mut format: Option<&'static dyn Format> = None;
        for path in &located.files {
            let (reader, contents) = read_file(&mut files, path, options)?;
            format = format.or(Some(reader));
            found.tensors.extend(contents.tensors);
            found.left_out.extend(contents.left_out);
            found.config = found.config.or(contents.config);
        }
        if let Some((path, index)) = &located.index {
            let left_out: BTreeSet<&str> = found.left_out.iter().map(|part| part.name.as_str()).collect();
            let mut stored: BTreeSet<(&str, &str)> = BTreeSet::new();
            for tensor in &found.tensors {
                stored.extend(names(tensor).map(|name| (name, files.name(tensor.file()))));
            }
            index.check(path, &stored, &left_out)?;
        }
        refuse_duplicates(&found.tensors, &files)?;
        if let Some(format) = format {
            format.settle(&mut found);
        }
        let Contents { tensors, config, mut left_out } = found;
        if let (true, Some(file)) = (tensors.is_empty(), files.all().first()) {
            return Err(Error::NoCheckpoint {
                path: file.path().to_path_buf(),
                reason: "it holds no tensors.".to_owned(),
            });
        }
        let mut companions: Vec<Companion> =
            located.index.iter().map(|(_, index)| index.companion().clone()).collect();
        let mut beside = None;
        if let Some(directory) = &located.directory {
            let (config, companion) = ModelConfig::read(directory)?;
            beside = config;
            companions.push(companion);
        }
        let config = match config {
            // A file that says what it holds knows it better than what happens to lie beside it.
            Some(own) if own.model_type().is_some() => Some(own),
            own => beside.or(own),
        };
        // Quantised weights first: an adapter adds to what they stand for.
        let resolved = quantised::resolve(tensors, config.as_ref(), &files)?;
        let mut merge = Merge::new(resolved.tensors, config.as_ref());
        for path in &options.adapters {
            let adapter = Adapter::read(&locate::adapter(path, options)?, &mut files, options)?;
            companions.push(adapter.companion());
            merge.add(adapter)?;
        }
        let (mut tensors, adapted) = merge.finish();
        left_out.extend(adapted);
        tensors.sort_by(|a, b| natural_cmp(&a.name, &b.name));
        Ok(Checkpoint {
            path: path.to_string_lossy().into_owned(),
            format: format.map_or("unknown", Format::name),
            revision: located.revision,
            config,
            files,
            companions,
            tensors,
            left_out,
            set_aside: resolved.set_aside,
            adapters: options.adapters.iter().map(|path| path.to_string_lossy().into_owned()).collect(),
        })
    }

    /// An adapter without its base: the updates that it makes.
    fn adapter_alone(path: &Path, located: &Located, options: &OpenOptions) -> Result<Checkpoint> {
        if !options.adapters.is_empty() {
            return Err(Error::Setting(format!(
                "{} is an adapter itself; --adapter adds to the checkpoint of a base model.",
                crate::error::shown(path)
            )));
        }
        let mut files = Files::new(options);
        let weights = located.files.first().map_or(path, PathBuf::as_path);
        let adapter = Adapter::read(weights, &mut files, options)?;
        let companions = vec![adapter.companion()];
        let Contents { mut tensors, left_out, .. } = adapter.updates()?;
        tensors.sort_by(|a, b| natural_cmp(&a.name, &b.name));
        Ok(Checkpoint {
            path: path.to_string_lossy().into_owned(),
            format: adapters::FORMAT,
            revision: located.revision.clone(),
            config: None,
            files,
            companions,
            tensors,
            left_out,
            set_aside: HashMap::new(),
            adapters: Vec::new(),
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
    pub fn files(&self) -> &[Arc<Storage>] {
        self.files.all()
    }

    /// Every path that it was read from, the weights first.
    pub fn inputs(&self) -> impl Iterator<Item = &Path> {
        self.files().iter().map(|file| file.path()).chain(self.companions.iter().map(Companion::path))
    }

    /// Its tensors, in the natural order of their names.
    pub fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }

    /// What its files hold beside the tensors of the model.
    pub fn left_out(&self) -> &[LeftOut] {
        &self.left_out
    }

    /// The adapters that were added to it, as they were given.
    pub fn adapters(&self) -> &[String] {
        &self.adapters
    }

    /// The factors of an adapter's update; see [`Tensor::factors`].
    ///
    /// # Errors
    /// Those of [`Checkpoint::read`].
    pub fn factors(&self, tensor: &Tensor) -> Result<Option<Factors>> {
        tensor.factors(&self.files)
    }

    /// Tensors that hold no matrix of their own, by name: parts of quantised weights, and weights
    /// that cannot be dequantised.
    pub fn set_aside(&self) -> &HashMap<String, Aside> {
        &self.set_aside
    }

    /// Some elements of a tensor; see [`Tensor::read`].
    ///
    /// # Errors
    /// [`Error::Changed`] where the file no longer holds them, [`Error::Io`].
    pub fn read(&self, tensor: &Tensor, elements: Range<usize>) -> Result<Cow<'_, [u8]>> {
        tensor.read(&self.files, elements)
    }

    /// Says that some elements will be read soon; see [`crate::tensors::Bytes::will_need`].
    pub fn will_need(&self, tensor: &Tensor, elements: Range<usize>) {
        tensor.will_need(&self.files, elements);
    }

    /// Checks that no file changed since it was opened: neither those of the tensors, nor those that
    /// were read, or looked for, beside them.
    ///
    /// # Errors
    /// [`Error::Changed`] with the first file that did.
    pub fn verify_unchanged(&self) -> Result<()> {
        self.files().iter().try_for_each(|file| file.verify_unchanged())?;
        self.companions.iter().try_for_each(Companion::verify_unchanged)
    }
}

/// Opens one file and lists what it holds, with its format.
pub(crate) fn read_file(
    files: &mut Files,
    path: &Path,
    options: &OpenOptions,
) -> Result<(&'static dyn Format, Contents)> {
    let file = files.open(path)?;
    let read = |files: &mut Files| {
        let reader = recognise(files.get(file)?)?;
        Ok((reader, reader.contents(files, file, options)?))
    };
    let found = read(files);
    if found.is_err() {
        // A file that is just being written breaks rules; that it is being written is what to say.
        files.all().iter().try_for_each(|file| file.verify_unchanged())?;
    }
    found
}

/// The reader for a file, or an error that says what the file seems to be.
fn recognise(file: &Storage) -> Result<&'static dyn Format> {
    let head = file.copy(0..file.len().min(512))?;
    let known = FORMATS.iter().find(|format| format.recognises(&head, file.path()));
    known.copied().ok_or_else(|| Error::NoCheckpoint {
        path: file.path().to_path_buf(),
        reason: format!(
            "{}; this version reads {}.",
            foreign(&head).unwrap_or("the format of this file is not known"),
            format_names()
        ),
    })
}

/// The names of all formats, for messages.
fn format_names() -> String {
    FORMATS.iter().map(|format| format.name()).collect::<Vec<_>>().join(", ")
}

/// What a file of another format is, by its first bytes, so that a message can name it.
fn foreign(head: &[u8]) -> Option<&'static str> {
    let what = match head {
        [b'P', b'K', 3, 4, ..] => "this is a zip archive, but not one of torch's",
        [0x80, 2..=5, ..] => "this is a Python pickle",
        [b'G', b'G', b'U', b'F', ..] => "this is a GGUF file",
        [b'l' | b't' | b'f', b'm' | b'j', b'g', b'g', ..] => {
            "this is a ggml file from before GGUF (convert the model again)"
        }
        [0x89, b'H', b'D', b'F', ..] => "this is an HDF5 file",
        _ if head.starts_with(b"version https://git-lfs") => {
            "this is a Git LFS pointer in place of the file (run `git lfs pull`)"
        }
        [b'<', ..] => "this is an HTML or XML page (a failed download?)",
        _ => return None,
    };
    Some(what)
}

/// Every name of a tensor.
fn names(tensor: &Tensor) -> impl Iterator<Item = &str> {
    std::iter::once(&tensor.name).chain(&tensor.aliases).map(String::as_str)
}

/// The same name in two shards would make every later stage ambiguous.
fn refuse_duplicates(tensors: &[Tensor], files: &Files) -> Result<()> {
    let mut seen: HashMap<&str, usize> = HashMap::with_capacity(tensors.len());
    for (tensor, name) in tensors.iter().flat_map(|t| names(t).map(move |name| (t, name))) {
        if let Some(first) = seen.insert(name, tensor.file()) {
            return Err(Error::Malformed {
                path: files.get(tensor.file())?.path().to_path_buf(),
                format: "checkpoint",
                reason: format!(
                    "the tensor `{}` is in `{}` and in `{}`",
                    printable(name),
                    printable(files.name(first)),
                    printable(files.name(tensor.file()))
                ),
            });
        }
    }
    Ok(())
}
