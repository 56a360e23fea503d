//! JSON out of untrusted files. serde keeps the last of two equal keys in silence, here they are an
//! error; and what a text takes when it is read, many times its length, is bounded before.

use std::collections::HashSet;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};

use crate::text::printable;

/// The most values in a text that is read as [`serde_json::Value`].
const MAX_VALUES: usize = 1 << 18;

/// Reads a text as a value of any form.
///
/// # Errors
/// What is wrong with it; also that it holds more than [`MAX_VALUES`] values.
pub(crate) fn value(text: &[u8]) -> Result<serde_json::Value, String> {
    // Every value but the first stands behind one of these.
    if text.iter().filter(|byte| matches!(byte, b',' | b'[' | b'{' | b':')).count() > MAX_VALUES {
        return Err(format!("it holds more than {MAX_VALUES} values"));
    }
    serde_json::from_slice(text).map_err(|e| format!("it is no JSON: {}", printable(&e.to_string())))
}

/// A value whose type may depend on its key.
pub(crate) trait Keyed<'de>: Sized {
    /// The most entries of an object of such values.
    const MOST: usize;

    /// Reads the value that belongs to `key`.
    fn next_value<A: MapAccess<'de>>(key: &str, map: &mut A) -> Result<Self, A::Error>;
}

impl<'de> Keyed<'de> for String {
    /// Almost twice the entries of the largest models' indices.
    const MOST: usize = 1 << 18;

    fn next_value<A: MapAccess<'de>>(_: &str, map: &mut A) -> Result<Self, A::Error> {
        map.next_value()
    }
}

/// A JSON object as a list of its entries in the file's order. Two equal keys are refused.
#[derive(Debug)]
pub(crate) struct Entries<T>(pub Vec<(String, T)>);

impl<'de, T: Keyed<'de>> Deserialize<'de> for Entries<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect<T>(PhantomData<T>);

        impl<'de, T: Keyed<'de>> Visitor<'de> for Collect<T> {
            type Value = Entries<T>;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries: Vec<(String, T)> = Vec::new();
                let mut seen = HashSet::new();
                while let Some(key) = map.next_key::<String>()? {
                    let shown = || printable(&key).into_owned();
                    if entries.len() == T::MOST {
                        return Err(A::Error::custom(format_args!("more than {} entries", T::MOST)));
                    }
                    if !seen.insert(key.clone()) {
                        return Err(A::Error::custom(format_args!("the key `{}` occurs twice", shown())));
                    }
                    let value = T::next_value(&key, &mut map)
                        .map_err(|e| A::Error::custom(format_args!("`{}`: {e}", shown())))?;
                    entries.push((key, value));
                }
                Ok(Entries(entries))
            }
        }

        deserializer.deserialize_map(Collect(PhantomData))
    }
}
