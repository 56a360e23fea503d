//! Between the files and the matrices: weights that are stored quantised, over several tensors.
//!
//! A `Layout` recognises the packed tensor of a weight by the names, types and shapes of the
//! tensors beside it, and by what `quantization_config` says. [`resolve`] puts one tensor of F32 in
//! its place, whose elements an [`Encoding`] computes when a matrix is measured, with the arithmetic
//! of the tool that wrote the layout. Scales, zero points and tables stay in the list and are set
//! aside with the reason. So is a packed tensor whose companions are missing or contradict it: what
//! is not certain is never guessed.
//!
//! A new layout is one file with an implementation of `Layout` and one line in `LAYOUTS`.

mod awq;
mod bitsandbytes;
mod compressed;
mod fp8;
mod gptq;
mod grid;
mod microscaled;
mod modelopt;
mod mxfp4;
mod packed;
mod qweight;
mod rows;
mod scaled;
mod scheme;

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::source::ModelConfig;
use crate::tensors::{Bytes, Content, Dtype, Encoding, Kind, Tensor};
use crate::text::printable;
use scheme::Scheme;

/// Every layout that is read, in the order in which they are tried.
static LAYOUTS: &[&dyn Layout] = &[
    &bitsandbytes::FourBit,
    &bitsandbytes::EightBit,
    &gptq::Gptq,
    &awq::Awq,
    &compressed::Packed,
    &modelopt::FourBit,
    &compressed::Plain,
    &fp8::Fp8,
    &mxfp4::GptOss,
    &mxfp4::DeepSeek,
];

/// A way of storing a quantised weight in several tensors.
trait Layout: Sync {
    /// What a tensor is in this layout: `None` where it is not the packed tensor of a weight.
    fn find(&self, tensor: &Tensor, around: &Around) -> Option<Found>;
}

/// A packed tensor that a layout recognised.
struct Found {
    /// The tensors that belong to it.
    companions: Vec<String>,
    /// The weight, or why it cannot be read.
    weight: Result<Weight, Refusal>,
}

/// A weight as the model means it.
struct Weight {
    name: String,
    shape: Vec<usize>,
    encoding: Arc<dyn Encoding>,
}

/// Why a weight is not dequantised.
enum Refusal {
    /// It lacks something, or contradicts itself: the weight is skipped.
    Reason(String),
    /// A file could not be read.
    Failed(Error),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Refusal {
        Refusal::Failed(error)
    }
}

impl From<String> for Refusal {
    fn from(reason: String) -> Refusal {
        Refusal::Reason(reason)
    }
}

impl From<&str> for Refusal {
    fn from(reason: &str) -> Refusal {
        Refusal::Reason(reason.to_owned())
    }
}

/// What a layout sees beside a tensor.
struct Around<'a> {
    by_name: HashMap<&'a str, &'a Tensor>,
    /// Modules with parameters that are called scales.
    scaled: HashSet<&'a str>,
    scheme: Scheme<'a>,
    files: &'a dyn Bytes,
}

impl<'a> Around<'a> {
    fn get(&self, name: &str) -> Option<&'a Tensor> {
        self.by_name.get(name).copied()
    }

    /// Whether a module, named with its dot, has any scales.
    fn has_scales(&self, module: &str) -> bool {
        self.scaled.contains(module.strip_suffix('.').unwrap_or(module))
    }

    /// A tensor that a weight cannot do without.
    fn need(&self, name: &str, what: &str) -> Result<&'a Tensor, Refusal> {
        self.get(name).ok_or_else(|| format!("quantised, but without its {what}").into())
    }

    /// Those of these names that the checkpoint has.
    fn present(&self, names: impl IntoIterator<Item = String>) -> Vec<String> {
        names.into_iter().filter(|name| self.by_name.contains_key(name.as_str())).collect()
    }
}

/// Why a tensor holds no matrix, where this stage knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Aside {
    /// The reason, for reports.
    pub reason: Cow<'static, str>,
    /// It only says how to read another tensor: it is no parameter of the model.
    pub companion: bool,
}

/// What [`resolve`] gives.
#[derive(Debug, Default)]
pub struct Resolved {
    /// The tensors, quantised weights in place of their packed tensors.
    pub tensors: Vec<Tensor>,
    /// Which of them hold no matrix, by name.
    pub set_aside: HashMap<String, Aside>,
}

/// Replaces every packed tensor that can be read by the weight that it stands for.
///
/// # Errors
/// Those of reading the small tensors that say how a weight is stored.
pub fn resolve(
    mut tensors: Vec<Tensor>,
    config: Option<&ModelConfig>,
    files: &dyn Bytes,
) -> Result<Resolved> {
    let is_scale = |name: &&str| name.rsplit('.').next().is_some_and(|last| last.contains("scale"));
    let names = || tensors.iter().map(|tensor| tensor.name.as_str());
    let around = Around {
        scaled: names().filter(is_scale).map(module_of).collect(),
        by_name: tensors.iter().map(|tensor| (tensor.name.as_str(), tensor)).collect(),
        scheme: Scheme::of(config),
        files,
    };
    let mut set_aside = HashMap::new();
    let mut weights = Vec::new();
    let mut made = HashSet::new();
    // Another method may mean something else by the same names.
    let layouts: &[&dyn Layout] = if around.scheme.unknown_method().is_some() { &[] } else { LAYOUTS };
    for (position, tensor) in tensors.iter().enumerate().filter(|(_, tensor)| tensor.elements > 0) {
        let Some(found) = layouts.iter().find_map(|layout| layout.find(tensor, &around)) else { continue };
        let refusal = match found.weight {
            Ok(weight) if is_taken(&weight, tensor, &around) || !made.insert(weight.name.clone()) => {
                Some(format!("packed, but the checkpoint has another `{}`", printable(&weight.name)))
            }
            Ok(weight) => {
                weights.push((position, weight));
                None
            }
            Err(Refusal::Reason(reason)) => Some(reason),
            Err(Refusal::Failed(error)) => return Err(error),
        };
        if let Some(reason) = refusal {
            set_aside.insert(tensor.name.clone(), Aside { reason: reason.into(), companion: false });
        }
        for name in found.companions {
            let reason = Cow::Borrowed(role_of(&name));
            set_aside.entry(name).or_insert(Aside { reason, companion: true });
        }
    }
    let packed: HashSet<usize> = weights.iter().map(|(position, _)| *position).collect();
    set_aside_unknown(&tensors, &packed, &around.scheme, &mut set_aside);
    for (position, weight) in weights {
        if let Some(tensor) = tensors.get_mut(position) {
            replace(tensor, weight);
        }
    }
    Ok(Resolved { tensors, set_aside })
}

fn is_taken(weight: &Weight, tensor: &Tensor, around: &Around) -> bool {
    weight.name != tensor.name && around.get(&weight.name).is_some()
}

fn replace(tensor: &mut Tensor, weight: Weight) {
    tensor.elements = weight.shape.iter().product();
    tensor.name = weight.name;
    tensor.shape = weight.shape;
    tensor.dtype = Dtype::F32;
    tensor.content = Content::Encoded(weight.encoding);
}

/// What a companion is, for the list of skipped tensors.
fn role_of(name: &str) -> &'static str {
    let last = name.rsplit('.').next().unwrap_or(name);
    if last.contains("scale") && last != fp8::MARK || last.contains("absmax") || last == "SCB" {
        "scales of a quantised weight"
    } else {
        "part of a quantised weight"
    }
}

/// Under a method that is not known, what lies beside packed integers may be anything: codebooks and
/// scales in floating point have the look of weights. So have they beside a packed weight which is not
/// read although no method is named (the scales and offsets of MLX, a 2:4 sparse weight and its mask).
fn set_aside_unknown(
    tensors: &[Tensor],
    resolved: &HashSet<usize>,
    scheme: &Scheme,
    set_aside: &mut HashMap<String, Aside>,
) {
    let method = scheme.unknown_method();
    let is_packed = |(position, tensor): &(usize, &Tensor)| {
        let by_type = match method {
            Some(_) => matches!(tensor.dtype.kind(), Kind::Integer | Kind::Packed | Kind::Float8),
            None => is_packed_weight(tensor),
        };
        by_type && tensor.shape.len() >= 2 && !resolved.contains(position)
    };
    let packed = tensors.iter().enumerate().filter(is_packed);
    let modules: HashSet<&str> = packed.map(|(_, tensor)| module_of(&tensor.name)).collect();
    let reason = method.map_or_else(
        || "beside packed integers of a quantised weight, whose layout is not known".to_owned(),
        |method| {
            format!("part of a module quantised by `{}`, which this version does not read", printable(method))
        },
    );
    // What the packed tensor itself is called, its type says as well.
    let concerned = |tensor: &&Tensor| {
        let wide = tensor.shape.len() >= 2 && tensor.dtype.kind() == Kind::Real;
        modules.contains(module_of(&tensor.name)) && (method.is_some() || wide)
    };
    for (_, tensor) in tensors
        .iter()
        .enumerate()
        .filter(|(position, tensor)| concerned(tensor) && !resolved.contains(position))
    {
        let reason = reason.clone().into();
        set_aside.entry(tensor.name.clone()).or_insert(Aside { reason, companion: false });
    }
}

/// Integers of at most 32 bits under a name that only a weight or its mask has, inside a module.
fn is_packed_weight(tensor: &Tensor) -> bool {
    const NAMES: [&str; 4] = ["weight", "qweight", "weight_packed", "bitmask"];
    let small =
        matches!(tensor.dtype, Dtype::U8 | Dtype::I8 | Dtype::U16 | Dtype::I16 | Dtype::U32 | Dtype::I32);
    let named = tensor.name.rsplit_once('.').is_some_and(|(_, last)| NAMES.contains(&last));
    named && (small || tensor.dtype.kind() == Kind::Packed)
}

/// Everything before the last dot.
fn module_of(name: &str) -> &str {
    name.rsplit_once('.').map_or("", |(module, _)| module)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    struct Nothing;

    impl Bytes for Nothing {
        fn bytes(&self, _: usize, _: std::ops::Range<u64>) -> Result<Cow<'_, [u8]>> {
            Err(Error::NotFound("nothing is read here.".to_owned()))
        }
    }

    fn tensor(name: &str, dtype: Dtype, shape: &[usize]) -> Tensor {
        let elements = shape.iter().product();
        let bytes = 0..(elements * dtype.bits() / 8) as u64;
        let content = Content::Stored { file: 0, bytes };
        Tensor { name: name.to_owned(), dtype, shape: shape.to_vec(), elements, content, aliases: Vec::new() }
    }

    #[test]
    fn codebooks_of_an_unknown_method_are_no_weights() {
        let config = ModelConfig::from_value(json!({"quantization_config": {"quant_method": "aq\u{1b}lm"}}));
        let tensors = vec![
            tensor("h.0.q.codes", Dtype::I8, &[8, 8, 2]),
            tensor("h.0.q.codebooks", Dtype::F16, &[64, 64]),
            tensor("h.0.k.weight", Dtype::F16, &[64, 64]),
        ];
        let resolved = resolve(tensors, Some(&config), &Nothing).unwrap();
        let reason = &resolved.set_aside["h.0.q.codebooks"].reason;
        assert!(reason.contains("`aq\\u{1b}lm`"), "{reason}");
        assert!(resolved.set_aside.contains_key("h.0.q.codes"));
        assert!(!resolved.set_aside.contains_key("h.0.k.weight"));
    }

    /// MLX keeps scales and offsets beside the words, and names no method.
    #[test]
    fn scales_and_offsets_of_an_unknown_layout_are_no_weights() {
        let config = ModelConfig::from_value(json!({"quantization": {"bits": 4, "group_size": 64}}));
        let tensors = vec![
            tensor("h.0.q.weight", Dtype::U32, &[64, 32]),
            tensor("h.0.q.scales", Dtype::F16, &[64, 4]),
            tensor("h.0.q.biases", Dtype::F16, &[64, 4]),
            tensor("h.0.q.bias", Dtype::F16, &[64]),
            tensor("h.0.attn.mask", Dtype::U8, &[64, 64]),
            tensor("h.0.attn.in_proj_weight", Dtype::F16, &[64, 64]),
            tensor("weight", Dtype::U8, &[64, 64]),
            tensor("w1", Dtype::F16, &[64, 64]),
        ];
        let resolved = resolve(tensors, Some(&config), &Nothing).unwrap();
        let mut found: Vec<&String> = resolved.set_aside.keys().collect();
        found.sort();
        assert_eq!(found, ["h.0.q.biases", "h.0.q.scales"]);
        assert!(resolved.set_aside["h.0.q.biases"].reason.contains("beside packed integers"));
    }

    #[test]
    fn a_weight_beside_its_own_packed_form_is_a_contradiction() {
        let config = json!({"quantization_config": {"quant_method": "mxfp4"}});
        let tensors = vec![
            tensor("e.down_proj", Dtype::F32, &[2, 8, 64]),
            tensor("e.down_proj_blocks", Dtype::U8, &[2, 8, 2, 16]),
            tensor("e.down_proj_scales", Dtype::U8, &[2, 8, 2]),
        ];
        let resolved = resolve(tensors, Some(&ModelConfig::from_value(config)), &Nothing).unwrap();
        assert_eq!(resolved.tensors[1].name, "e.down_proj_blocks");
        let aside = &resolved.set_aside["e.down_proj_blocks"];
        assert_eq!(aside.reason, "packed, but the checkpoint has another `e.down_proj`");
        assert!(resolved.set_aside["e.down_proj_scales"].companion);
    }
}
