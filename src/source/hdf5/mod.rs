//! HDF5, as far as h5py writes it for weights and for fields: groups of symbol tables or of a few links,
//! datasets in one piece or in chunks (gzip, shuffle), attributes that are texts.
//!
//! [`Hdf5`] opens a file for its arrays, of which parts are read; `read` lists the datasets for the
//! reader of Keras.
//!
//! After the HDF Group's File Format Specification, version 3.0. The reader is stricter than the
//! library: links lead only downwards and to each object once, so that a file is a tree; data may not
//! overlap; what is refused is refused by name. All work is bounded by the file's length
//! (image.rs). Checksums, which only newer headers have, are not verified.

mod array;
mod attribute;
mod chunks;
mod dataset;
mod dataspace;
mod datatype;
mod filters;
mod group;
mod header;
mod image;
mod superblock;

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use super::Storage;
use super::problem::{Checked, Problem, rule};
use crate::text::{natural_cmp, printable};

pub use array::{Array, Hdf5, Span};
pub(super) use dataset::{Dataset, Place};
pub(super) use superblock::SIGNATURE;

/// Groups within each other.
const MAX_DEPTH: usize = 64;

/// What a file holds.
#[derive(Debug, Default)]
pub(super) struct Objects {
    /// In the natural order of their paths.
    pub datasets: Vec<Dataset>,
    /// The attribute `name` of the groups that have one, by their paths.
    pub names: HashMap<String, String>,
    /// The paths of the groups in the root group.
    pub top: HashSet<String>,
    /// The attribute `model_config` of the root group.
    pub config: Option<String>,
    /// Where the HDF5 file lies in the file.
    image: Range<u64>,
}

/// Lists the datasets of an HDF5 file that is a part of another file, or all of it.
pub(super) fn read(storage: &Storage, part: &Range<u64>) -> Checked<Objects> {
    let (image, root) = superblock::open(storage, part)?;
    let mut found = Objects { image: image.range(0, image.len(), "the file")?, ..Objects::default() };
    let mut seen = HashSet::from([root]);
    let mut waiting = vec![(String::new(), root, 0)];
    while let Some((path, address, depth)) = waiting.pop() {
        let within = |problem| match problem {
            Problem::Rule(reason) if path.is_empty() => Problem::Rule(format!("its root group: {reason}")),
            Problem::Rule(reason) => Problem::Rule(format!("`{}`: {reason}", printable(&path))),
            other => other,
        };
        let messages = header::messages(&image, address).map_err(within)?;
        if dataset::is_dataset(&messages) {
            let dataset = dataset::parse(&image, &messages, path.clone()).map_err(within)?;
            found.datasets.push(dataset);
            continue;
        }
        if !group::is_group(&messages) {
            continue; // a datatype with a name
        }
        if let Some(name) = attribute::text(&image, &messages, "name").map_err(within)? {
            image.keep(name.len())?;
            found.names.insert(path.clone(), name);
        }
        if depth == 0 {
            found.config = attribute::text(&image, &messages, "model_config").map_err(within)?;
        }
        let mut names = HashSet::new();
        for (name, child) in group::links(&image, &messages).map_err(within)? {
            let path = if depth == 0 { name.clone() } else { format!("{path}/{name}") };
            image.keep(path.len())?;
            if !names.insert(name) {
                return rule(format!("it has two objects named `{}`", printable(&path)));
            }
            if !seen.insert(child) {
                return rule(format!("`{}` leads to an object that has another name, too", printable(&path)));
            }
            if depth == MAX_DEPTH {
                return rule(format!("`{}` lies in more than {MAX_DEPTH} groups", printable(&path)));
            }
            if depth == 0 {
                found.top.insert(path.clone());
            }
            waiting.push((path, child, depth + 1));
        }
    }
    found.datasets.sort_by(|a, b| natural_cmp(&a.path, &b.path));
    refuse_overlaps(&found.datasets)?;
    Ok(found)
}

fn refuse_overlaps(datasets: &[Dataset]) -> Checked<()> {
    let mut places: Vec<(&Range<u64>, &str)> = datasets
        .iter()
        .filter_map(|dataset| match &dataset.content.as_ref().ok()?.place {
            Place::Piece(bytes) if !bytes.is_empty() => Some((bytes, dataset.path.as_str())),
            _ => None, // chunks are looked at with their index, when they are read
        })
        .collect();
    places.sort_by_key(|(bytes, _)| (bytes.start, bytes.end));
    for (before, after) in places.iter().zip(places.iter().skip(1)) {
        if after.0.start < before.0.end {
            return rule(format!("`{}` and `{}` share bytes", printable(before.1), printable(after.1)));
        }
    }
    Ok(())
}
