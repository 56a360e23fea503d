//! `config.json`: what a model says of itself. Only a few facts are used, and all are optional.

use std::path::Path;

use serde_json::Value;

use super::companion::Companion;
use super::json;
use crate::error::{Error, Result};

/// The longest `config.json` that is read, in bytes; real ones stay below 100 kB.
const MAX_BYTES: u64 = 16_000_000;

/// The configuration beside a checkpoint, as far as the layout of its tensors depends on it.
#[derive(Clone, Debug, Default)]
pub struct ModelConfig {
    value: Value,
}

impl ModelConfig {
    /// The file's name in a checkpoint directory.
    pub const FILE: &str = "config.json";

    /// Reads `config.json` in a directory, and says which file that was; `None` where there is none.
    ///
    /// # Errors
    /// [`Error::Io`] where it cannot be read, [`Error::Malformed`] where it is no JSON object.
    pub(super) fn read(directory: &Path) -> Result<(Option<ModelConfig>, Companion)> {
        let path = directory.join(Self::FILE);
        let malformed = |reason: String| Error::Malformed { path: path.clone(), format: Self::FILE, reason };
        // A link into nowhere is what an interrupted download leaves: the counts in it are missed.
        if path.symlink_metadata().is_err_and(|e| e.kind() == std::io::ErrorKind::NotFound) {
            return Ok((None, Companion::absent(&path)));
        }
        let (text, companion) = Companion::read(&path, MAX_BYTES, Self::FILE)?;
        let value = json::value(&text).map_err(malformed)?;
        if !value.is_object() {
            return Err(malformed("it is no JSON object".to_owned()));
        }
        Ok((Some(ModelConfig { value }), companion))
    }

    /// A configuration from a JSON value, for tests and for formats that carry one inside.
    pub fn from_value(value: Value) -> ModelConfig {
        ModelConfig { value }
    }

    /// The family, for instance `bert`: the entry `model_type`.
    pub fn model_type(&self) -> Option<&str> {
        self.value.get("model_type")?.as_str()
    }

    /// A count under the first of `keys` that has one. Models of several parts keep those of their
    /// language model under `text_config`. What no model has (zero, a million heads) is no count:
    /// the numbers are multiplied later on.
    pub fn count(&self, keys: &[&str]) -> Option<usize> {
        const LARGEST: usize = 1 << 20;
        let counts = self.values(keys).filter_map(Value::as_u64).filter_map(|n| usize::try_from(n).ok());
        counts.into_iter().find(|n| (1..=LARGEST).contains(n))
    }

    /// Whether any of `keys` is there, usable or not.
    pub fn mentions(&self, keys: &[&str]) -> bool {
        self.values(keys).next().is_some()
    }

    /// An entry of any kind, of the model or else of its language model.
    pub(crate) fn entry(&self, key: &str) -> Option<&Value> {
        let own = self.value.get(key).filter(|value| !value.is_null());
        own.or_else(|| self.value.get("text_config")?.get(key).filter(|value| !value.is_null()))
    }

    fn values(&self, keys: &[&str]) -> impl Iterator<Item = &Value> {
        let text = self.value.get("text_config");
        let found = keys.iter().flat_map(move |key| [self.value.get(*key), text.and_then(|t| t.get(*key))]);
        found.flatten().filter(|value| !value.is_null())
    }

    /// A truth value, false where it is absent.
    pub fn flag(&self, key: &str) -> bool {
        self.value.get(key).and_then(Value::as_bool) == Some(true)
    }
}
