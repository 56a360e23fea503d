//! JSON: the whole report, in full double precision.

use serde::ser::{Serialize, SerializeMap, Serializer};

use super::{Exporter, Inventory, Matrix, Per, Report, SCHEMA_VERSION};
use crate::error::{Error, Result};

/// The machine-readable format; its rows are not chosen, everything is in it.
pub struct Json;

impl Exporter for Json {
    fn name(&self) -> &'static str {
        "json"
    }

    fn report(&self, report: &Report, _: Option<Per>) -> Result<Vec<u8>> {
        pretty(report)
    }

    fn inventory(&self, inventory: &Inventory) -> Result<Vec<u8>> {
        pretty(&Versioned(inventory))
    }
}

fn pretty(value: &impl Serialize) -> Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec_pretty(value).map_err(|e| Error::Report(e.to_string()))?;
    bytes.push(b'\n');
    Ok(bytes)
}

#[derive(serde::Serialize)]
struct Tool {
    name: &'static str,
    version: &'static str,
}

const TOOL: Tool = Tool { name: "evenkeel", version: env!("CARGO_PKG_VERSION") };

struct Versioned<'a>(&'a Inventory);

impl Serialize for Versioned<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("schema_version", &SCHEMA_VERSION)?;
        map.serialize_entry("tool", &TOOL)?;
        map.serialize_entry("checkpoint", &self.0.checkpoint)?;
        map.serialize_entry("tensors", &self.0.tensors)?;
        map.serialize_entry("left_out", &self.0.left_out)?;
        map.end()
    }
}

impl Serialize for Report {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("schema_version", &SCHEMA_VERSION)?;
        map.serialize_entry("tool", &TOOL)?;
        map.serialize_entry("checkpoint", &self.checkpoint)?;
        map.serialize_entry("settings", &self.settings)?;
        map.serialize_entry("summary", &self.summary)?;
        map.serialize_entry("stacks", &self.stacks)?;
        map.serialize_entry("blocks", &self.blocks)?;
        map.serialize_entry("matrices", &self.matrices)?;
        map.serialize_entry("skipped", &self.skipped)?;
        map.serialize_entry("gate", &self.gate)?;
        map.end()
    }
}

impl Serialize for Matrix {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("name", &self.name)?;
        map.serialize_entry("tensors", &self.tensors)?;
        map.serialize_entry("part", &self.part)?;
        map.serialize_entry("aliases", &self.aliases)?;
        map.serialize_entry("block", &self.block)?;
        map.serialize_entry("role", &self.role)?;
        map.serialize_entry("rows", &self.rows)?;
        map.serialize_entry("cols", &self.cols)?;
        map.serialize_entry("dtype", &self.dtype)?;
        map.serialize_entry("eigenvalues", &self.eigenvalues)?;
        map.serialize_entry("tail", &self.tail)?;
        map.serialize_entry("scheduled", &self.scheduled)?;
        for (name, value) in &self.metrics {
            map.serialize_entry(name, value)?;
        }
        map.serialize_entry("status", &self.status)?;
        map.serialize_entry("precision", &self.precision)?;
        map.serialize_entry("alpha_error", &self.alpha_error)?;
        map.serialize_entry("eigenvalue_error", &self.eigenvalue_error)?;
        map.serialize_entry("warnings", &self.warnings)?;
        map.end()
    }
}
