//! Writes a model as the directory that it came from was: the same files, names, types and shards. Weights
//! that were in torch's own format are written as safetensors.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use evenkeel::tensors::{Dtype, Tensor as Stored};
use safetensors::tensor::{SafeTensorError, View, serialize_to_file};
use serde_json::{Map, Value, json};
use tch::{Device, Kind, Tensor};

use super::adapter::is_factor;
use super::directory::Pretrained;
use super::task::Task;
use super::weights::kind_of;
use crate::error::{Error, Result};
use crate::training::Parameter;

/// The file of weights that are not divided.
const WEIGHTS: &str = "model.safetensors";
/// Which shard holds which tensor.
const INDEX: &str = "model.safetensors.index.json";

impl Pretrained {
    /// Writes the model as it is now, complete, to a directory that does not exist yet or is empty. It
    /// appears there all at once: what is not complete stands beside it under a name that ends in
    /// `.partial`.
    ///
    /// With adapters that are not to be merged these alone are written, as PEFT does. Otherwise
    /// every tensor keeps its name (see [`Pretrained::stored_name`]), its type and its shard. Those that
    /// were not trained are copied bit for bit; new ones have the type of the word embeddings. The
    /// configuration is changed only where the head is new, or where its labels had no names and now have.
    ///
    /// # Errors
    /// [`Error::Io`]; [`evenkeel::Error::Changed`] where the original files are no longer what they were.
    pub fn write(&self, directory: &Path) -> Result<()> {
        let partial = beside(directory)?;
        if partial.exists() {
            fs::remove_dir_all(&partial).map_err(Error::io("remove", &partial))?;
        }
        fs::create_dir_all(&partial).map_err(Error::io("create", &partial))?;
        let files = match &self.lora {
            Some(lora) if !lora.merge => self.write_adapter(lora, &partial),
            _ => self.write_model(&partial),
        };
        let written = files.and_then(|()| sync(&partial)).and_then(|()| {
            if directory.exists() {
                // Refused where there is anything in it.
                fs::remove_dir(directory).map_err(Error::io("replace", directory))?;
            }
            fs::rename(&partial, directory).map_err(Error::io("create", directory))?;
            partial.parent().map_or(Ok(()), sync)
        });
        if written.is_err() {
            // The first error is the one to report.
            let _ = fs::remove_dir_all(&partial);
        }
        written
    }

    fn write_model(&self, to: &Path) -> Result<()> {
        write_file(&to.join("config.json"), &self.config_text()?)?;
        for file in self.source.tokenizer_files() {
            let Some(name) = file.file_name() else { continue };
            let bytes = fs::read(file).map_err(Error::io("read", file))?;
            write_file(&to.join(name), &bytes)?;
        }
        let shards = self.shards()?;
        for (name, tensors) in &shards {
            save(&to.join(name), tensors.iter().map(|(name, piece)| (name.as_str(), piece)))?;
        }
        if shards.len() > 1 {
            write_file(&to.join(INDEX), &index(&shards)?)?;
        }
        Ok(self.source.checkpoint.verify_unchanged()?)
    }

    /// What is to be written, by file.
    fn shards(&self) -> Result<BTreeMap<String, Vec<(String, Piece<'_>)>>> {
        let checkpoint = &self.source.checkpoint;
        let parameters = self.model.parameters();
        let trained: HashMap<&str, &Parameter> =
            parameters.iter().map(|parameter| (parameter.name.as_str(), parameter)).collect();
        let mut shards: BTreeMap<String, Vec<(String, Piece)>> = BTreeMap::new();
        let mut written = HashSet::new();
        for tensor in checkpoint.tensors() {
            let names = || std::iter::once(&tensor.name).chain(&tensor.aliases).map(String::as_str);
            // Tied weights stay equal: what is trained under one name is trained under all.
            let parameter = names().find_map(|name| trained.get(name).copied());
            let bytes = || checkpoint.read(tensor, 0..tensor.elements);
            let all: Vec<&str> = names().collect();
            let merged = self.merged(&all, || of_bytes(tensor, &bytes()?))?;
            for name in names() {
                let piece = match (parameter, &merged) {
                    (Some(parameter), _) => Piece::trained(&parameter.tensor, tensor.dtype)?,
                    (None, Some(merged)) => Piece::trained(merged, tensor.dtype)?,
                    (None, None) => Piece::kept(tensor, bytes()?),
                };
                written.insert(name);
                shards.entry(self.shard(tensor.file())).or_default().push((self.stored_name(name), piece));
            }
        }
        let last = self.shard(checkpoint.files().len().saturating_sub(1));
        let words = self.source.config.family.words();
        let like = checkpoint.tensors().iter().find(|tensor| tensor.name.ends_with(words));
        let dtype = like.map_or(Dtype::F32, |tensor| tensor.dtype);
        let is_new = |parameter: &&Parameter| {
            !written.contains(parameter.name.as_str()) && !is_factor(&parameter.name)
        };
        for parameter in parameters.iter().filter(is_new) {
            let piece = Piece::trained(&parameter.tensor, dtype)?;
            shards.entry(last.clone()).or_default().push((self.stored_name(&parameter.name), piece));
        }
        Ok(shards)
    }

    /// The file for what was in a file of the original.
    fn shard(&self, file: usize) -> String {
        let files = self.source.checkpoint.files();
        let name =
            files.get(file).and_then(|file| file.path().file_name()).map(|name| name.to_string_lossy());
        match name {
            Some(name) if files.len() > 1 && name.ends_with(".safetensors") => name.into_owned(),
            Some(name) if files.len() > 1 => {
                let stem = name.rsplit_once('.').map_or(name.as_ref(), |(stem, _)| stem);
                format!("{}.safetensors", stem.replacen("pytorch_model", "model", 1))
            }
            _ => WEIGHTS.to_owned(),
        }
    }

    /// `config.json`: the original, unless the head is new or its labels had no names before.
    fn config_text(&self) -> Result<Vec<u8>> {
        let source = &self.source;
        let is_same = self.task == Task::Language || source.task() == Some(&self.task);
        if !self.new_head && is_same {
            return Ok(source.config_text.clone());
        }
        let mut entries = source.config_entries.clone();
        let names = self.task.names();
        for key in ["num_labels", "_num_labels"] {
            if let Some(count) = entries.get_mut(key) {
                *count = json!(names.len());
            }
        }
        let numbered = || names.iter().enumerate();
        let id2label: Map<String, Value> =
            numbered().map(|(id, name)| (id.to_string(), json!(name))).collect();
        let label2id: Map<String, Value> = numbered().map(|(id, name)| (name.clone(), json!(id))).collect();
        entries.insert("id2label".to_owned(), id2label.into());
        entries.insert("label2id".to_owned(), label2id.into());
        if self.new_head {
            let class = self.task.head().map(|head| source.config.family.class_of(head));
            entries.insert("architectures".to_owned(), json!([class]));
            match self.task.problem_type() {
                Some(kind) => entries.insert("problem_type".to_owned(), json!(kind)),
                None => entries.shift_remove("problem_type"),
            };
            // transformers finds the last token of an example by it.
            if let (true, Some(padding)) = (source.config.is_decoder(), source.config.padding) {
                entries.insert("pad_token_id".to_owned(), json!(padding));
            }
        }
        pretty(&Value::Object(entries))
    }
}

/// One tensor as it is to be stored.
pub(super) struct Piece<'a> {
    dtype: safetensors::Dtype,
    shape: Vec<usize>,
    bytes: Cow<'a, [u8]>,
}

impl<'a> Piece<'a> {
    /// A tensor of the original.
    fn kept(tensor: &Stored, bytes: Cow<'a, [u8]>) -> Piece<'a> {
        Piece { dtype: dtype_of(tensor.dtype), shape: tensor.shape.clone(), bytes }
    }

    /// Numbers, rounded to the type in which they are stored.
    pub fn trained(tensor: &Tensor, dtype: Dtype) -> Result<Piece<'a>> {
        // A new head may take the place of something else's.
        let (dtype, kind) = kind_of(dtype).map_or((Dtype::F32, Kind::Float), |kind| (dtype, kind));
        let values = tensor.f_detach()?.f_to_device_(Device::Cpu, kind, false, false)?;
        let values: Tensor = values.f_contiguous()?;
        let shape = values.size().into_iter().map(|length| usize::try_from(length).unwrap_or(0)).collect();
        let elements = values.numel();
        let mut bytes = vec![0; elements * dtype.bits() / 8];
        values.f_copy_data_u8(&mut bytes, elements)?;
        Ok(Piece { dtype: dtype_of(dtype), shape, bytes: Cow::Owned(bytes) })
    }
}

/// The numbers of a stored tensor.
fn of_bytes(tensor: &Stored, bytes: &[u8]) -> Result<Tensor> {
    let kind = kind_of(tensor.dtype).unwrap_or(Kind::Float);
    let shape: Vec<i64> = tensor.shape.iter().map(|n| i64::try_from(*n).unwrap_or(i64::MAX)).collect();
    Ok(Tensor::f_from_data_size(bytes, &shape, kind)?)
}

impl View for &Piece<'_> {
    fn dtype(&self) -> safetensors::Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }

    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

/// The same type under the name that the library gives it.
fn dtype_of(dtype: Dtype) -> safetensors::Dtype {
    use safetensors::Dtype as Named;
    match dtype {
        Dtype::F64 => Named::F64,
        Dtype::F32 => Named::F32,
        Dtype::F16 => Named::F16,
        Dtype::BF16 => Named::BF16,
        Dtype::F8E4M3 => Named::F8_E4M3,
        Dtype::F8E5M2 => Named::F8_E5M2,
        Dtype::F8E4M3Fnuz => Named::F8_E4M3FNUZ,
        Dtype::F8E5M2Fnuz => Named::F8_E5M2FNUZ,
        Dtype::F8E8M0 => Named::F8_E8M0,
        Dtype::F6E2M3 => Named::F6_E2M3,
        Dtype::F6E3M2 => Named::F6_E3M2,
        Dtype::F4 => Named::F4,
        Dtype::C64 => Named::C64,
        Dtype::Bool => Named::BOOL,
        Dtype::U8 => Named::U8,
        Dtype::I8 => Named::I8,
        Dtype::U16 => Named::U16,
        Dtype::I16 => Named::I16,
        Dtype::U32 => Named::U32,
        Dtype::I32 => Named::I32,
        Dtype::U64 => Named::U64,
        Dtype::I64 => Named::I64,
    }
}

/// The index of a divided checkpoint, as transformers writes it.
fn index(shards: &BTreeMap<String, Vec<(String, Piece)>>) -> Result<Vec<u8>> {
    let mut places = BTreeMap::new();
    let (mut bytes, mut elements) = (0, 0);
    for (shard, tensors) in shards {
        for (name, piece) in tensors {
            places.insert(name, shard);
            bytes += piece.bytes.len();
            elements += piece.shape.iter().product::<usize>();
        }
    }
    pretty(&json!({
        "metadata": { "total_parameters": elements, "total_size": bytes },
        "weight_map": places,
    }))
}

/// JSON for people.
pub(super) fn pretty(value: &Value) -> Result<Vec<u8>> {
    let mut text = serde_json::to_vec_pretty(value)
        .map_err(|error| Error::Option(format!("the configuration cannot be written: {error}")))?;
    text.push(b'\n');
    Ok(text)
}

/// Where a directory is put together: next to its place, so that it can be renamed.
fn beside(directory: &Path) -> Result<PathBuf> {
    let Some(name) = directory.file_name() else {
        return Err(Error::Option(format!("{} cannot be written to.", directory.display())));
    };
    let mut partial = std::ffi::OsString::from(".");
    partial.push(name);
    partial.push(".partial");
    Ok(directory.with_file_name(partial))
}

/// Writes tensors to a file that everybody may read as they may others, and waits until it is on the disk.
pub(super) fn save<'a>(path: &Path, tensors: impl Iterator<Item = (&'a str, &'a Piece<'a>)>) -> Result<()> {
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    // The library makes a file that only its owner may read; one that is there keeps what it has.
    write_file(path, &[])?;
    let usual = fs::metadata(path).map_err(Error::io("read", path))?.permissions();
    serialize_to_file(tensors, Some(metadata), path).map_err(|error| match error {
        SafeTensorError::IoError(error) => Error::io("write", path)(error),
        other => Error::io("write", path)(io::Error::other(other)),
    })?;
    fs::set_permissions(path, usual).map_err(Error::io("write", path))?;
    sync(path)
}

/// Writes a small file, and waits until it is on the disk.
pub(super) fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(path, bytes).map_err(Error::io("write", path))?;
    sync(path)
}

/// Waits until a file, or the names in a directory, have reached the disk.
fn sync(path: &Path) -> Result<()> {
    // A relative path of one part lies in the current directory.
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    File::open(path).and_then(|file| file.sync_all()).map_err(Error::io("write", path))
}
