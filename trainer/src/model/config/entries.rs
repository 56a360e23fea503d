//! `config.json` as it is read: each entry is checked when it is asked for, and an error names it.

use std::path::Path;

use evenkeel::text::printable;
use serde_json::{Map, Value};

use super::{ACTIVATIONS, Activation, FAMILIES, Family};
use crate::error::{Error, Result};
use crate::model::task::{HeadKind, Task};

/// The longest `config.json` that is read, in bytes; real ones stay below 100 kB.
const MAX_BYTES: u64 = 16_000_000;
/// No size in a real model is larger; sizes are multiplied later on.
const LARGEST: u64 = 1 << 24;

/// Reads the bytes of a `config.json`, and what is in it.
pub(in crate::model) fn read(path: &Path) -> Result<(Vec<u8>, Map<String, Value>)> {
    let length = std::fs::metadata(path).map_err(Error::io("read", path))?.len();
    let wrong = |reason: String| Error::Model { path: path.to_path_buf(), reason };
    if length > MAX_BYTES {
        return Err(wrong(format!("{length} bytes are no configuration.")));
    }
    let text = std::fs::read(path).map_err(Error::io("read", path))?;
    let entries = serde_json::from_slice(&text)
        .map_err(|e| wrong(format!("it is no JSON object: {}.", printable(&e.to_string()))))?;
    Ok((text, entries))
}

/// A configuration under inspection.
pub(super) struct Entries<'a> {
    pub path: &'a Path,
    pub entries: &'a Map<String, Value>,
}

impl Entries<'_> {
    pub fn wrong(&self, reason: String) -> Error {
        Error::Model { path: self.path.to_path_buf(), reason }
    }

    /// An entry; null counts as absent.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.entries.get(key).filter(|value| !value.is_null())
    }

    pub fn family(&self) -> Result<&'static Family> {
        let known: Vec<&str> = FAMILIES.iter().map(|family| family.model_type).collect();
        let known = known.join(", ");
        let Some(name) = self.get("model_type").and_then(Value::as_str) else {
            return Err(self.wrong(format!("`model_type` is missing; this version trains {known}.")));
        };
        let family = FAMILIES.iter().find(|family| family.model_type == name);
        family.ok_or_else(|| {
            self.wrong(format!(
                "the architecture `{}` is not supported; this version trains {known}.",
                printable(name)
            ))
        })
    }

    pub fn whole(&self, key: &str) -> Result<Option<usize>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let number = value.as_u64().filter(|number| *number <= LARGEST);
        let number = number.and_then(|number| usize::try_from(number).ok());
        let wrong = || self.wrong(format!("`{key}` is {}, not a size.", printable(&value.to_string())));
        number.map(Some).ok_or_else(wrong)
    }

    pub fn size(&self, key: &str) -> Result<usize> {
        let value = self.whole(key)?.filter(|value| *value > 0);
        value.ok_or_else(|| self.wrong(format!("`{key}` is missing or zero.")))
    }

    pub fn number(&self, key: &str) -> Result<Option<f64>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let number = value.as_f64().filter(|number| number.is_finite() && *number >= 0.0);
        let wrong =
            || self.wrong(format!("`{key}` is {}, not a number from 0.", printable(&value.to_string())));
        number.map(Some).ok_or_else(wrong)
    }

    pub fn probability(&self, key: &str) -> Result<Option<f64>> {
        let number = self.number(key)?;
        match number.filter(|number| *number >= 1.0) {
            Some(number) => Err(self.wrong(format!("`{key}` is {number}, not a probability below 1."))),
            None => Ok(number),
        }
    }

    /// A truth value; false where there is none.
    pub fn flag(&self, key: &str) -> bool {
        self.get(key) == Some(&Value::Bool(true))
    }

    pub fn activation(&self, usual: Activation) -> Result<Activation> {
        let Some(value) = self.get("hidden_act") else { return Ok(usual) };
        let known = ACTIVATIONS.iter().find(|(name, _)| value == name);
        known.map(|(_, activation)| *activation).ok_or_else(|| {
            let names: Vec<&str> = ACTIVATIONS.iter().map(|(name, _)| *name).collect();
            self.wrong(format!(
                "`hidden_act` {} is not supported; this version knows {}.",
                printable(&value.to_string()),
                names.join(", ")
            ))
        })
    }

    /// The kind of head that the class in `architectures` has; one for labels where nothing is said.
    pub fn head(&self, family: &Family) -> Result<Option<HeadKind>> {
        let Some(value) = self.get("architectures") else { return Ok(Some(HeadKind::Labels)) };
        let names: Option<Vec<&str>> =
            value.as_array().and_then(|names| names.iter().map(Value::as_str).collect());
        let names = names.ok_or_else(|| self.wrong("`architectures` is not a list of names.".to_owned()))?;
        if names.is_empty() {
            return Ok(Some(HeadKind::Labels));
        }
        Ok(HeadKind::ALL.into_iter().find(|kind| names.contains(&family.class_of(*kind).as_str())))
    }

    /// What the configuration says of a head; transformers' default is two labels without names.
    pub fn task(&self, head: HeadKind) -> Result<Option<Task>> {
        match head {
            HeadKind::Choice => return Ok(Some(Task::Choice)),
            HeadKind::Span => return Ok(Some(Task::Span)),
            HeadKind::Labels | HeadKind::Words => {}
        }
        let labels = match self.get("id2label") {
            Some(names) => self.labels(names)?,
            None => {
                let count = self.whole("num_labels")?.or(self.whole("_num_labels")?).unwrap_or(2);
                (0..count.min(1 << 16)).map(|number| format!("LABEL_{number}")).collect()
            }
        };
        if head == HeadKind::Words {
            return Ok(Some(Task::Words(labels)));
        }
        match self.get("problem_type").map(|kind| kind.as_str().unwrap_or("?")) {
            Some("single_label_classification") => Ok(Some(Task::Classes(labels))),
            Some("regression") if labels.len() == 1 => Ok(Some(Task::Regression)),
            None if labels.len() == 1 => Ok(Some(Task::Regression)),
            None if labels.len() > 1 => Ok(Some(Task::Classes(labels))),
            _ => Ok(None),
        }
    }

    /// `id2label`: an object from the numbers 0, 1, … to names.
    fn labels(&self, value: &Value) -> Result<Vec<String>> {
        let wrong = || self.wrong("`id2label` does not give a name to each of 0, 1, ….".to_owned());
        let entries = value.as_object().ok_or_else(wrong)?;
        let name =
            |number: usize| entries.get(&number.to_string()).and_then(Value::as_str).map(str::to_owned);
        (0..entries.len()).map(name).collect::<Option<_>>().ok_or_else(wrong)
    }
}
