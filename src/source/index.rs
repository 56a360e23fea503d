//! Sharded checkpoints: `*.index.json` maps every tensor to the file that holds it.

use std::collections::BTreeSet;
use std::path::Path;

use serde::Deserialize;

use super::companion::Companion;
use super::json::Entries;
use crate::error::{Error, Result};
use crate::text::printable;

/// What messages call the format.
const FORMAT: &str = "checkpoint index";
/// The longest index that is read, in bytes: three times the largest known.
const MAX_BYTES: u64 = 1 << 25;

/// The map from tensor to shard.
#[derive(Debug)]
pub(super) struct Index {
    weight_map: Vec<(String, String)>,
    companion: Companion,
}

#[derive(Deserialize)]
struct File {
    weight_map: Entries<String>,
}

impl Index {
    /// Reads an index, and refuses shard names that are anything but a file in the same directory.
    pub fn read(path: &Path) -> Result<Index> {
        let malformed =
            |reason: String| Error::Malformed { path: path.to_path_buf(), format: FORMAT, reason };
        let (text, companion) = Companion::read(path, MAX_BYTES, FORMAT)?;
        let file: File =
            serde_json::from_slice(&text).map_err(|e| malformed(printable(&e.to_string()).into_owned()))?;
        let Entries(weight_map) = file.weight_map;
        if weight_map.is_empty() {
            return Err(malformed("it lists no tensor".to_owned()));
        }
        for (_, shard) in &weight_map {
            let plain = !shard.contains(['/', '\\', ':', '\0']) && shard != ".." && shard != ".";
            if !plain || shard.is_empty() {
                return Err(malformed(format!(
                    "the shard name `{}` is not the plain name of a file in the same directory",
                    printable(shard)
                )));
            }
        }
        Ok(Index { weight_map, companion })
    }

    /// The file that it was read from.
    pub fn companion(&self) -> &Companion {
        &self.companion
    }

    /// The shards' file names, each once, in order.
    pub fn shards(&self) -> Vec<&str> {
        let names: BTreeSet<&str> = self.weight_map.iter().map(|(_, s)| s.as_str()).collect();
        names.into_iter().collect()
    }

    /// Checks that index and shards agree in both directions. `found` holds every tensor of every
    /// shard, as (tensor, shard); `left_out` are names that shards hold and that are not read.
    pub fn check(
        &self,
        path: &Path,
        found: &BTreeSet<(&str, &str)>,
        left_out: &BTreeSet<&str>,
    ) -> Result<()> {
        let disagree = |reason: String| Error::Index { path: path.to_path_buf(), reason };
        let listed: BTreeSet<(&str, &str)> =
            self.weight_map.iter().map(|(tensor, shard)| (tensor.as_str(), shard.as_str())).collect();
        let mut missing = listed.difference(found).filter(|(tensor, _)| !left_out.contains(tensor));
        if let Some((tensor, shard)) = missing.next() {
            return Err(disagree(format!(
                "it puts the tensor `{}` into `{}`, which does not hold it",
                printable(tensor),
                printable(shard)
            )));
        }
        if let Some((tensor, shard)) = found.difference(&listed).next() {
            return Err(disagree(format!(
                "`{}` holds the tensor `{}`, which the index does not put there",
                printable(shard),
                printable(tensor)
            )));
        }
        Ok(())
    }
}
