//! The keys and values of a GGUF file: a few facts about the model are kept, the rest (vocabulary,
//! templates) is passed over.

use std::collections::HashMap;

use serde_json::{Map, Value as Json, json};

use super::cursor::{Cursor, quoted};
use crate::error::Result;
use crate::source::ModelConfig;

/// The most keys that a file may have; real ones have some fifty.
const MAX_KEYS: u64 = 1 << 16;
/// Arrays within arrays: no writer makes any, the format allows them.
const MAX_DEPTH: usize = 4;
/// Texts and arrays that are longer are not kept.
const MAX_KEPT: u64 = 1024;
/// The bytes in memory that all keys, and the values that are kept, may take together: a thousand times
/// those of real files.
const MAX_MEMORY: usize = 1 << 24;
/// The bytes of the shortest entry: an empty key's length, a type, one byte.
const SMALLEST_ENTRY: u64 = 8 + 4 + 1;

/// A value, so far as it is kept.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Number(u64),
    Text(String),
    Numbers(Vec<u64>),
    /// Anything else.
    Other,
}

impl Value {
    /// Bytes that it takes beside its own size.
    fn memory(&self) -> usize {
        match self {
            Value::Number(_) | Value::Other => 0,
            Value::Text(text) => text.len(),
            Value::Numbers(numbers) => size_of_val(numbers.as_slice()),
        }
    }
}

/// The metadata of one file.
#[derive(Debug, Default)]
pub(super) struct Metadata(HashMap<String, Value>);

impl Metadata {
    /// Reads `count` entries.
    pub fn read(cursor: &mut Cursor, count: u64) -> Result<Metadata> {
        cursor.check_count(count, SMALLEST_ENTRY, || "entries of metadata".to_owned())?;
        if count > MAX_KEYS {
            return Err(cursor.malformed(format!("it has {count} entries of metadata, more than {MAX_KEYS}")));
        }
        let mut entries = HashMap::new();
        let mut memory = 0usize;
        for _ in 0..count {
            let at = cursor.position();
            let key = cursor.name("key")?;
            let kind = cursor.u32()?;
            let value = read_value(cursor, kind, &key, 0)?;
            if entries.contains_key(&key) {
                return Err(cursor.malformed(format!("the key {} occurs twice", quoted(&key))));
            }
            memory = memory.saturating_add(key.len()).saturating_add(value.memory());
            if memory > MAX_MEMORY {
                return Err(cursor.malformed(format!(
                    "its metadata up to the key {} at byte {at} take more than {MAX_MEMORY} bytes",
                    quoted(&key)
                )));
            }
            entries.insert(key, value);
        }
        Ok(Metadata(entries))
    }

    pub fn contains(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    pub fn number(&self, key: &str) -> Option<u64> {
        match self.0.get(key)? {
            Value::Number(number) => Some(*number),
            _ => None,
        }
    }

    /// What the file says about its model, under the names that `config.json` has for it. llama.cpp
    /// defines what is not said: as many key/value heads as heads.
    pub fn config(&self) -> Option<ModelConfig> {
        let Value::Text(architecture) = self.0.get("general.architecture")? else { return None };
        let mut config = Map::new();
        config.insert("model_type".to_owned(), json!(architecture));
        let mut copy = |name: &str, key: &str| {
            let value = self.0.get(&format!("{architecture}.{key}"))?;
            config.insert(name.to_owned(), to_json(value)?)
        };
        copy("hidden_size", "embedding_length");
        copy("num_attention_heads", "attention.head_count");
        copy("num_key_value_heads", "attention.head_count");
        copy("num_key_value_heads", "attention.head_count_kv");
        copy("head_dim", "attention.key_length");
        copy("v_head_dim", "attention.value_length");
        Some(ModelConfig::from_value(Json::Object(config)))
    }
}

/// Counts that differ from layer to layer stay a list, and so are no count for anybody.
fn to_json(value: &Value) -> Option<Json> {
    match value {
        Value::Number(number) => Some(json!(number)),
        Value::Numbers(numbers) => match numbers.as_slice() {
            [first, rest @ ..] if rest.iter().all(|n| n == first) => Some(json!(first)),
            _ => Some(json!(numbers)),
        },
        Value::Text(_) | Value::Other => None,
    }
}

/// The types of values, by their numbers in files.
mod kind {
    pub const STRING: u32 = 8;
    pub const ARRAY: u32 = 9;
}

/// The bytes of a value of a type; of text and arrays the fewest.
fn size(kind: u32) -> Option<u64> {
    match kind {
        0 | 1 | 7 => Some(1),
        2 | 3 => Some(2),
        4..=6 => Some(4),
        10..=12 => Some(8),
        kind::STRING => Some(8),
        kind::ARRAY => Some(4 + 8),
        _ => None,
    }
}

fn read_value(cursor: &mut Cursor, kind: u32, key: &str, depth: usize) -> Result<Value> {
    let signed = |number: i64| u64::try_from(number).map_or(Value::Other, Value::Number);
    match kind {
        0 => cursor.u8().map(|n| Value::Number(n.into())),
        1 => cursor.u8().map(|n| signed(n.cast_signed().into())),
        2 => cursor.u16().map(|n| Value::Number(n.into())),
        3 => cursor.u16().map(|n| signed(n.cast_signed().into())),
        4 => cursor.u32().map(|n| Value::Number(n.into())),
        5 => cursor.u32().map(|n| signed(n.cast_signed().into())),
        10 => cursor.u64().map(Value::Number),
        11 => cursor.u64().map(|n| signed(n.cast_signed())),
        kind::STRING => cursor.text(MAX_KEPT).map(|text| text.map_or(Value::Other, Value::Text)),
        kind::ARRAY => read_array(cursor, key, depth),
        // Floats and booleans.
        6 | 7 | 12 => cursor.skip(size(kind).unwrap_or(0)).map(|()| Value::Other),
        _ => Err(cursor.malformed(format!(
            "the value of the key {} is of type {kind}, which the format does not have",
            quoted(key)
        ))),
    }
}

fn read_array(cursor: &mut Cursor, key: &str, depth: usize) -> Result<Value> {
    let (kind, count) = (cursor.u32()?, cursor.u64()?);
    let Some(size) = size(kind) else {
        return Err(cursor.malformed(format!(
            "the array of the key {} has elements of type {kind}, which the format does not have",
            quoted(key)
        )));
    };
    cursor.check_count(count, size, || format!("elements of the array {}", quoted(key)))?;
    if depth == MAX_DEPTH {
        return Err(cursor.malformed(format!(
            "the arrays of the key {} are nested more than {MAX_DEPTH} deep",
            quoted(key)
        )));
    }
    match kind {
        kind::STRING => {
            for _ in 0..count {
                let length = cursor.u64()?;
                cursor.skip(length)?;
            }
            Ok(Value::Other)
        }
        kind::ARRAY => {
            for _ in 0..count {
                read_array(cursor, key, depth + 1)?;
            }
            Ok(Value::Other)
        }
        _ if count > MAX_KEPT => cursor.skip(count * size).map(|()| Value::Other),
        _ => {
            let mut numbers = Vec::new();
            for _ in 0..count {
                if let Value::Number(number) = read_value(cursor, kind, key, depth)? {
                    numbers.push(number);
                }
            }
            let all = numbers.len() as u64 == count;
            Ok(if all { Value::Numbers(numbers) } else { Value::Other })
        }
    }
}
