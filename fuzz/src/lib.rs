//! What every fuzz target does with its input: writes it where a checkpoint would have it, opens
//! that, and uses all of it. A target is one line that says which file the input is.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use evenkeel::source::hdf5::{Hdf5, Span};
use evenkeel::{Checkpoint, Error, OpenOptions, Settings, Silent};
use serde_json::{Value, json};

/// Checkpoints with more numbers are read, but not measured: a run is to take a moment.
const MAX_MEASURED: usize = 1 << 10;

/// Tensors with more numbers are not even read (a header can repeat a block of bytes).
const MAX_READ: usize = 1 << 20;

/// The most bytes of zeros that [`zeros`] puts behind a header.
const MAX_DATA: u64 = 1 << 16;

/// An adapter's configuration for targets that are about its weights.
pub const LORA: &[u8] = br#"{"peft_type":"LORA","r":2,"lora_alpha":4,"modules_to_save":["head"]}"#;

/// A checkpoint of one file with this name and this content.
pub fn file(name: &str, content: &[u8]) {
    directory(&[(name, content)], name, None);
}

/// A checkpoint of several files (names and contents), opened at one of them or at a directory;
/// an adapter is another directory.
pub fn directory(files: &[(&str, &[u8])], open: &str, adapter: Option<&str>) {
    for (name, content) in files {
        write(name, content);
    }
    let options = OpenOptions {
        // Both ways to read, decided by the input so that a finding can be repeated.
        mmap: files.iter().map(|(_, content)| content.len()).sum::<usize>() % 2 == 0,
        adapters: adapter.map(|name| scratch().join(name)).into_iter().collect(),
        ..OpenOptions::default()
    };
    if let Err(error) = use_all(&scratch().join(open), &options) {
        let message = error.to_string();
        assert!(message.ends_with('.') && !message.contains(['\n', '\u{1b}']), "{message:?} is no sentence");
        assert!(message.len() < 4096, "a message of {} bytes", message.len());
    }
}

/// The arrays of an HDF5 file, every one read where it is small enough.
pub fn arrays(content: &[u8]) {
    let path = write("arrays.h5", content);
    let Ok(file) = Hdf5::open(&path) else { return };
    let names: Vec<String> = file.names().map(|(name, _)| name.to_owned()).collect();
    for name in names {
        let Ok(Some(array)) = file.array(&name) else { continue };
        let spans: Vec<Span> = array.shape().iter().map(|length| Span::every(1, 0..*length)).collect();
        let elements = array.shape().iter().try_fold(1usize, |all, length| all.checked_mul(*length));
        if elements.is_some_and(|elements| elements <= MAX_READ) {
            let _ = array.read(&spans);
        }
    }
}

/// Everything that can be done with a checkpoint.
fn use_all(path: &Path, options: &OpenOptions) -> Result<(), Error> {
    let checkpoint = Checkpoint::open(path, options)?;
    let settings = Settings { min_eigenvalues: Some(2), threads: 1, ..Settings::default() };
    evenkeel::inventory(&checkpoint, &settings)?;
    for tensor in checkpoint.tensors().iter().filter(|tensor| tensor.elements <= MAX_READ) {
        checkpoint.read(tensor, 0..tensor.elements)?;
    }
    let elements = checkpoint.tensors().iter().map(|tensor| tensor.elements);
    if elements.fold(0, usize::saturating_add) <= MAX_MEASURED {
        let report = evenkeel::analyze(&checkpoint, &settings, &Silent)?;
        for exporter in evenkeel::report::EXPORTERS {
            exporter.report(&report, None)?;
        }
    }
    Ok(())
}

/// A safetensors file with this header, and as many zeros behind it as its last tensor asks for.
pub fn zeros(header: &[u8]) -> Vec<u8> {
    let parsed: Value = serde_json::from_slice(header).unwrap_or_default();
    let tensors = parsed.as_object().into_iter().flat_map(|tensors| tensors.values());
    let ends = tensors.filter_map(|tensor| tensor.get("data_offsets")?.get(1)?.as_u64());
    let data = ends.max().unwrap_or(0).min(MAX_DATA) as usize;
    safetensors(header, &vec![0; data])
}

/// A safetensors file.
pub fn safetensors(header: &[u8], data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header, data].concat()
}

/// A valid safetensors file with other bytes in the tensors whose names are chosen.
pub fn replaced(original: &[u8], chosen: impl Fn(&str) -> bool, bytes: &[u8]) -> Vec<u8> {
    let (length, rest) = original.split_first_chunk::<8>().expect("a valid file");
    let (header, data) = rest.split_at(u64::from_le_bytes(*length) as usize);
    let header: serde_json::Map<String, Value> = serde_json::from_slice(header).expect("a valid header");
    let (mut changed, mut content) = (serde_json::Map::new(), Vec::new());
    for (name, mut entry) in header.into_iter().filter(|(name, _)| name != "__metadata__") {
        let offset = |i: usize| entry["data_offsets"][i].as_u64().expect("an offset") as usize;
        let start = content.len();
        if chosen(&name) {
            content.extend_from_slice(bytes);
            entry["shape"] = json!([bytes.len()]);
        } else {
            content.extend_from_slice(&data[offset(0)..offset(1)]);
        }
        entry["data_offsets"] = json!([start, content.len()]);
        changed.insert(name, entry);
    }
    safetensors(&serde_json::to_vec(&changed).expect("JSON"), &content)
}

/// Two texts in one input: what stands before the first NUL byte, and the rest.
pub fn pair(bytes: &[u8]) -> (&[u8], &[u8]) {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    (&bytes[..end], bytes.get(end + 1..).unwrap_or_default())
}

/// Writes a file where all of them go, and gives its path.
fn write(name: &str, content: &[u8]) -> PathBuf {
    let path = scratch().join(name);
    std::fs::create_dir_all(path.parent().unwrap_or(scratch())).expect("a directory");
    std::fs::write(&path, content).expect("a file");
    path
}

/// The directory of this process, in `$TMPDIR`: `cargo xtask fuzz` chooses one in memory.
fn scratch() -> &'static Path {
    static SCRATCH: OnceLock<PathBuf> = OnceLock::new();
    SCRATCH.get_or_init(|| std::env::temp_dir().join(format!("evenkeel-fuzz-{}", std::process::id())))
}
