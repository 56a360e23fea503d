//! Keras: `.keras` archives, `.weights.h5`, and the older `.h5` files; all of them are HDF5 inside.
//!
//! No library reads them here: none of those in Rust was found to keep this project's promises
//! (docs/formats.md), and Keras needs little of HDF5 (src/source/hdf5/). `layers` learns from the model's
//! configuration which layer is of which class, `variables` what that says of each variable, and
//! `naming` what it is called.

mod layers;
mod naming;
mod variables;

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;

use super::hdf5::{self, Dataset, Objects, Place as Stored};
use super::problem::{Checked, rule, unusable};
use super::{Contents, Files, Format, LeftOut, OpenOptions, Storage, zip};
use crate::error::Result;
use crate::tensors::{Dtype, Tensor};
use crate::text::{self, printable};
use layers::Layers;
use naming::{Naming, Place, Variable};
use variables::Form;

/// Files of Keras, by its `save` and `save_weights`.
pub struct Keras;

/// The members of a `.keras` archive that hold the weights, and what they belong to.
const WEIGHTS: &str = "model.weights.h5";
const CONFIG: &str = "config.json";

/// The longest that all names may be together, in bytes.
const MAX_NAME_BYTES: usize = 1 << 24;

impl Format for Keras {
    fn name(&self) -> &'static str {
        "keras"
    }

    fn usual_name(&self) -> &'static str {
        "model.keras"
    }

    fn suffixes(&self) -> &'static [&'static str] {
        &[".keras", ".h5", ".hdf5"]
    }

    /// Many things are zip archives: by its content alone one is of Keras if its first member is
    /// one that Keras writes first. In front of HDF5 there may be something else, so that the name has
    /// to say it.
    fn recognises(&self, head: &[u8], path: &Path) -> bool {
        const FIRST: [&[u8]; 3] = [b"metadata.json", CONFIG.as_bytes(), WEIGHTS.as_bytes()];
        let named = |suffixes: &[&str]| {
            path.extension().is_some_and(|extension| suffixes.iter().any(|suffix| extension == *suffix))
        };
        let first_member = || {
            let length = usize::from(u16::from_le_bytes([*head.get(26)?, *head.get(27)?]));
            head.get(30..30 + length)
        };
        if is_index(head) {
            return path.to_string_lossy().ends_with(".weights.json");
        }
        if zip::is_archive(head) {
            return named(&["keras"]) || first_member().is_some_and(|name| FIRST.contains(&name));
        }
        head.starts_with(hdf5::SIGNATURE) || named(&["keras", "h5", "hdf5"]) && super::foreign(head).is_none()
    }

    fn contents(&self, files: &mut Files, file: usize, _: &OpenOptions) -> Result<Contents> {
        let storage = files.get(file)?;
        read(storage, file).map_err(|problem| problem.of(storage.path(), "keras"))
    }
}

fn read(storage: &Storage, file: usize) -> Checked<Contents> {
    let head = storage.copy(0..storage.len().min(8))?;
    if is_index(&head) {
        return unusable(
            "this is the index of sharded Keras weights, which this version does not read; save them in one file, or open \
             one shard after the other",
        );
    }
    if !zip::is_archive(&head) {
        let mut objects = hdf5::read(storage, &(0..storage.len()))?;
        let layers = objects.config.take().map(|config| Layers::parse(config.as_bytes()));
        return contents(&objects, &layers.unwrap_or_default(), file);
    }
    let entries = zip::entries(storage)?;
    let member = |name: &str| entries.iter().find(|entry| entry.name == name);
    let Some(weights) = member(WEIGHTS) else {
        let others: Vec<&str> = entries.iter().map(|entry| entry.name.as_str()).take(4).collect();
        return unusable(format!(
            "this zip archive holds no {WEIGHTS}, which a Keras model has, but {}",
            printable(&others.join(", "))
        ));
    };
    if weights.method != zip::Method::Stored {
        return rule(format!(
            "its member {WEIGHTS} is compressed, which Keras never does; unpack the archive and zip it without \
             compression"
        ));
    }
    // The configuration only helps with names: a compressed or very long one is done without.
    let readable =
        |entry: &&zip::Entry| entry.method == zip::Method::Stored && entry.uncompressed <= layers::LONGEST;
    let layers = match member(CONFIG).filter(readable) {
        Some(entry) => Layers::parse(&storage.copy(entry.data.clone())?),
        None => Layers::default(),
    };
    contents(&hdf5::read(storage, &weights.data)?, &layers, file)
}

/// The start of the index of sharded weights, which is JSON.
fn is_index(head: &[u8]) -> bool {
    head.starts_with(b"{")
}

/// The tensors of the model, and what is left out.
fn contents(objects: &Objects, layers: &Layers, file: usize) -> Checked<Contents> {
    let naming = Naming::new(objects, layers);
    let mut contents = Contents::default();
    let mut states: HashMap<&str, usize> = HashMap::new();
    let places: Vec<Place> = objects.datasets.iter().map(|dataset| Place::of(&dataset.path)).collect();
    let mut siblings: HashMap<&str, Vec<&Dataset>> = HashMap::new();
    for (place, dataset) in places.iter().zip(&objects.datasets) {
        siblings.entry(place.group).or_default().push(dataset);
    }
    let mut variables: Vec<(&Dataset, Variable)> = Vec::with_capacity(places.len());
    let mut name_bytes = 0;
    for (place, dataset) in places.iter().zip(&objects.datasets) {
        if let Some(state) = naming.state(place) {
            *states.entry(state).or_default() += 1;
            continue;
        }
        let variable = naming.describe(place, dataset, beside(&siblings, place));
        name_bytes += variable.name.len();
        if name_bytes > MAX_NAME_BYTES {
            return rule(format!("the names of its variables are longer than {MAX_NAME_BYTES} bytes"));
        }
        variables.push((dataset, variable));
    }
    for ((dataset, variable), name) in variables.iter().zip(naming::distinct(&variables)) {
        let group = beside(&siblings, &Place::of(&dataset.path));
        let form = Form::of(variable.layer, &variable.parameter, &dataset.shape, bias(group));
        match tensor(dataset, group, form, name, file)? {
            Ok(tensor) => contents.tensors.push(tensor),
            Err(left_out) => contents.left_out.push(left_out),
        }
    }
    for (name, count) in states {
        let count = text::count(count, "variable", "variables");
        contents
            .left_out
            .push(LeftOut { name: name.to_owned(), reason: format!("an optimizer's state: {count}") });
    }
    contents.left_out.sort_by(|a, b| text::natural_cmp(&a.name, &b.name));
    Ok(contents)
}

/// The variables of one layer. What has very many is no layer, and they say nothing of each other.
fn beside<'a, 'b>(siblings: &'b HashMap<&str, Vec<&'a Dataset>>, place: &Place) -> &'b [&'a Dataset] {
    const MOST: usize = 64;
    siblings.get(place.group).filter(|group| group.len() <= MOST).map_or(&[], Vec::as_slice)
}

/// The shape of the bias among the variables of a layer: the second of two, or the one of that name.
fn bias<'a>(group: &[&'a Dataset]) -> Option<&'a [usize]> {
    fn key(dataset: &Dataset) -> &str {
        Place::of(&dataset.path).key
    }
    let named = group.iter().find(|dataset| key(dataset) == "bias");
    let numbered = || match group {
        [first, second] if key(first) == "0" && key(second) == "1" => Some(second),
        _ => None,
    };
    named.or_else(numbered).map(|dataset| dataset.shape.as_slice())
}

/// The tensor, or why it is none.
fn tensor(
    dataset: &Dataset,
    group: &[&Dataset],
    form: Form,
    name: String,
    file: usize,
) -> Checked<std::result::Result<Tensor, LeftOut>> {
    let content = match &dataset.content {
        Ok(content) => content,
        Err(reason) => return Ok(Err(LeftOut { name, reason: reason.clone() })),
    };
    if group.iter().any(|dataset| is_packed(dataset)) && !(dataset.shape.len() == 1 && name.ends_with("bias"))
    {
        let reason =
            "part of a quantised layer, whose packed weights this version does not unpack".to_owned();
        return Ok(Err(LeftOut { name, reason }));
    }
    let bytes: Range<u64> = match &content.place {
        Stored::Piece(bytes) => bytes.clone(),
        Stored::Chunks(_) => {
            return rule(format!(
                "`{}`: it is stored in chunks (compressed?), which Keras never does; save it without them",
                printable(&dataset.path)
            ));
        }
    };
    let Some((shape, content_of)) = form.view(&dataset.shape, content.dtype, file, bytes) else {
        let shape = text::shape(&dataset.shape);
        let reason = format!("a kernel of shape {shape}, and nothing says which of its dimensions are rows");
        return Ok(Err(LeftOut { name, reason }));
    };
    Ok(Ok(Tensor {
        name,
        dtype: content.dtype,
        shape,
        elements: dataset.elements,
        content: content_of,
        aliases: Vec::new(),
    }))
}

/// Whether it is a weight of small integers, which mean nothing without their scales.
fn is_packed(dataset: &Dataset) -> bool {
    let dtype = dataset.content.as_ref().ok().map(|content| content.dtype);
    let place = Place::of(&dataset.path);
    let is_weight = place.layer().is_some() || place.key.ends_with("kernel") || place.key == "embeddings";
    is_weight && dataset.shape.len() > 1 && matches!(dtype, Some(Dtype::I8 | Dtype::U8))
}
