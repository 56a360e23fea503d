//! The names of variables: those that Keras itself gives them, as far as a file tells them.
//!
//! Keras 3 stores a variable under the path of attributes and classes that leads to its layer
//! (`layers/conv2d_1/vars/0`), and newer versions the layer's name beside it. The name here is that of
//! the layers on the way and of the variable: `stem.kernel`. Older files hold it in their paths
//! (`model_weights/stem/stem/kernel`).

use std::collections::HashMap;

use super::layers::Layers;
use super::variables::{self, Layer};
use crate::source::hdf5::{Dataset, Objects};

/// The group of a layer's variables in Keras 3.
const VARIABLES: &str = "vars";
/// The group of all layers' variables in older files.
const OLDER: &str = "model_weights";
/// Groups that only say that layers follow.
const CONTAINERS: [&str; 2] = ["layers", "_layer_checkpoint_dependencies"];
/// Where Keras 3 and older files keep an optimizer's state.
const STATE: &str = "optimizer";
const OLDER_STATE: &str = "optimizer_weights";

/// The longest name of a layer that is taken from an attribute, in bytes.
const MAX_NAME: usize = 1024;

/// A dataset's path, taken apart.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    /// The path of the group that it lies in; empty for the root.
    pub group: &'a str,
    /// Its own name.
    pub key: &'a str,
}

impl<'a> Place<'a> {
    pub fn of(path: &'a str) -> Place<'a> {
        let (group, key) = path.rsplit_once('/').unwrap_or(("", path));
        // TensorFlow's number of an output.
        Place { group, key: key.strip_suffix(":0").unwrap_or(key) }
    }

    /// The path of the layer, where it is one of Keras 3.
    pub fn layer(&self) -> Option<&'a str> {
        if self.group == VARIABLES { Some("") } else { self.group.strip_suffix("/vars") }
    }
}

/// What is known of a variable.
#[derive(Debug)]
pub(super) struct Variable {
    pub name: String,
    /// The last part of the name.
    pub parameter: String,
    pub layer: Layer,
}

/// Names the variables of one file.
pub(super) struct Naming<'a> {
    objects: &'a Objects,
    layers: &'a Layers,
}

impl<'a> Naming<'a> {
    pub fn new(objects: &'a Objects, layers: &'a Layers) -> Naming<'a> {
        Naming { objects, layers }
    }

    /// The part of the file that a variable belongs to, where that is no part of the model.
    pub fn state(&self, place: &Place<'a>) -> Option<&'a str> {
        let first = place.group.split('/').next().unwrap_or_default();
        let is_state = match first {
            STATE => place.layer().is_some(),
            OLDER_STATE => self.objects.top.contains(OLDER),
            _ => false,
        };
        is_state.then_some(first)
    }

    /// What a variable is, beside the others of its layer.
    pub fn describe(&self, place: &Place, dataset: &Dataset, group: &[&Dataset]) -> Variable {
        match place.layer() {
            Some(layer) => self.numbered(layer, place.key, dataset, group),
            None => self.named(place),
        }
    }

    /// A variable of Keras 3.
    fn numbered(&self, path: &str, key: &str, dataset: &Dataset, group: &[&Dataset]) -> Variable {
        let mut parts = Vec::new();
        let mut own_name = None;
        let segments = || path.split('/').filter(|segment| !segment.is_empty());
        let mut end = 0;
        for segment in segments() {
            end += segment.len();
            own_name = self.name_of(path.get(..end).unwrap_or(path));
            end += 1;
            match own_name {
                Some(name) => parts.push(name),
                None if CONTAINERS.contains(&segment) => {}
                None => parts.push(segment),
            }
        }
        let class = own_name.and_then(|name| self.layers.class_of(name));
        let layer = Layer::of(class, segments().next_back().unwrap_or_default());
        let position = group.iter().position(|other| other.path == dataset.path);
        let shapes: Vec<&[usize]> = group.iter().map(|dataset| dataset.shape.as_slice()).collect();
        let numbered = position.filter(|position| key == position.to_string());
        let parameter = numbered.and_then(|position| variables::parameter(layer, position, &shapes));
        let parameter = parameter.unwrap_or(key).to_owned();
        parts.push(&parameter);
        Variable { name: dotted(&parts), parameter, layer }
    }

    /// The name of the layer at a path.
    fn name_of(&self, path: &str) -> Option<&'a str> {
        let name = self.objects.names.get(&format!("{path}/{VARIABLES}"))?;
        (!name.is_empty() && name.len() <= MAX_NAME).then_some(name)
    }

    /// A variable whose path is its name.
    fn named(&self, place: &Place) -> Variable {
        let mut parts: Vec<&str> = place.group.split('/').filter(|part| !part.is_empty()).collect();
        if parts.first() == Some(&OLDER) {
            parts.remove(0);
        }
        // The layer's group repeats the first part of the variable's name.
        if let [first, second, ..] = parts.as_slice()
            && first == second
        {
            parts.remove(0);
        }
        let owner = parts.last().copied().unwrap_or_default();
        // Where nothing says what wrote the file, a dimension is what it is.
        let layer = match self.layers.class_of(owner) {
            None if !self.objects.top.contains(OLDER) && place.key != "kernel" => Layer::Other,
            class => Layer::of(class, owner),
        };
        parts.push(place.key);
        Variable { name: dotted(&parts), parameter: place.key.to_owned(), layer }
    }
}

/// The names of variables, or their whole paths where two would have one name.
pub(super) fn distinct(variables: &[(&Dataset, Variable)]) -> Vec<String> {
    let mut seen: HashMap<&str, usize> = HashMap::new();
    for (_, variable) in variables {
        *seen.entry(&variable.name).or_default() += 1;
    }
    let name = |(dataset, variable): &(&Dataset, Variable)| match seen.get(variable.name.as_str()) {
        Some(1) => variable.name.clone(),
        _ => dataset.path.replace('/', "."),
    };
    variables.iter().map(name).collect()
}

/// Parts of a name, with dots between them.
fn dotted(parts: &[&str]) -> String {
    parts.join(".").replace('/', ".")
}
