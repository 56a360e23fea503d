//! The layers that a model's configuration lists: which class has which name. All else in it is
//! passed over, and nothing is built from it.

use std::collections::HashMap;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

/// The longest configuration that is looked at, in bytes.
pub(super) const LONGEST: u64 = 16_000_000;

/// The longest name of a layer or class that is kept, in bytes.
const MAX_NAME: usize = 1024;

/// Classes of layers by the layers' names; `None` for a name that layers of different classes have.
#[derive(Debug, Default)]
pub(super) struct Layers(HashMap<String, Option<String>>);

impl Layers {
    /// The layers in a configuration; none of one that is no JSON, or nested beyond measure: it only
    /// helps to name what the weights themselves say.
    pub fn parse(config: &[u8]) -> Layers {
        let mut layers = Layers::default();
        let mut json = serde_json::Deserializer::from_slice(config);
        let read = Node(&mut layers).deserialize(&mut json);
        if read.is_ok() { layers } else { Layers::default() }
    }

    /// The class of the layer with this name.
    pub fn class_of(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.as_deref()
    }

    fn add(&mut self, name: String, class: String) {
        if name.len() > MAX_NAME || class.len() > MAX_NAME {
            return;
        }
        let known = self.0.entry(name).or_insert_with(|| Some(class.clone()));
        if known.as_ref().is_some_and(|known| *known != class) {
            *known = None;
        }
    }
}

/// Any JSON value, whose layers are collected.
struct Node<'a>(&'a mut Layers);

/// What the value around it wants to know of a value.
enum Seen {
    Text(String),
    /// An object, by its entry `name`.
    Named(String),
    Other,
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Seen;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Seen, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Seen;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Seen, A::Error> {
        let (mut name, mut class, mut inner) = (None, None, None);
        while let Some(key) = map.next_key::<String>()? {
            // Under any key: wrappers and subclassed models have keys of their own.
            match (key.as_str(), map.next_value_seed(Node(self.0))?) {
                ("name", Seen::Text(text)) => name = Some(text),
                ("class_name", Seen::Text(text)) => class = Some(text),
                ("config", Seen::Named(text)) => inner = Some(text),
                _ => {}
            }
        }
        // The outer object says the class, its configuration the name.
        if let (Some(class), Some(inner)) = (class, inner) {
            self.0.add(inner, class);
        }
        Ok(name.map_or(Seen::Other, Seen::Named))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Seen, A::Error> {
        while seq.next_element_seed(Node(self.0))?.is_some() {}
        Ok(Seen::Other)
    }

    fn visit_str<E>(self, text: &str) -> Result<Seen, E> {
        Ok(Seen::Text(text.to_owned()))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Seen, E> {
        Ok(Seen::Other)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Seen, E> {
        Ok(Seen::Other)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Seen, E> {
        Ok(Seen::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Seen, E> {
        Ok(Seen::Other)
    }

    fn visit_unit<E>(self) -> Result<Seen, E> {
        Ok(Seen::Other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_found_at_any_depth() {
        let config = br#"{"class_name": "Functional", "config": {"name": "m", "layers": [
            {"class_name": "Conv2D", "config": {"name": "stem", "dtype": {"class_name": "DTypePolicy",
             "config": {"name": "float32"}}}, "name": "stem", "x": [1, -1, 0.5, null, true]},
            {"class_name": "Bidirectional", "config": {"name": "bi", "layer": {"class_name": "GRU",
             "config": {"name": "g"}}}},
            {"class_name": "Dense", "config": {"name": "twice"}},
            {"class_name": "Conv1D", "config": {"name": "twice"}}]}}"#;
        let layers = Layers::parse(config);
        assert_eq!(layers.class_of("stem"), Some("Conv2D"));
        assert_eq!(layers.class_of("bi"), Some("Bidirectional"));
        assert_eq!(layers.class_of("g"), Some("GRU"));
        assert_eq!(layers.class_of("twice"), None);
        assert_eq!(layers.class_of("other"), None);
    }

    #[test]
    fn what_is_no_configuration_has_no_layers() {
        let deep = "[".repeat(100_000);
        for text in ["", "{", "7", "[{\"class_name\": \"A\", \"config\": {\"name\": \"b\"}}", &deep] {
            assert!(Layers::parse(text.as_bytes()).0.is_empty(), "{text:.20}");
        }
    }
}
