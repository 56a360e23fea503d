//! `quantization_config`: what a model's configuration says of how its weights were quantised.

use serde_json::Value;

use crate::source::ModelConfig;
use crate::text::printable;

/// The entry of `config.json`, if there is one. Nothing in it is trusted to fit the tensors.
pub(super) struct Scheme<'a> {
    value: Option<&'a Value>,
}

/// How the integers of a `qweight` are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packing {
    /// Along the inputs, from the lowest bits on.
    Gptq {
        /// The zero points are stored less one, as the first version of the format has it.
        less_one: bool,
    },
    /// Along the outputs, interleaved.
    Awq,
}

/// Methods whose layouts this version reads.
const KNOWN: [&str; 12] = [
    "gptq",
    "awq",
    "auto-round",
    "intel/auto-round",
    "bitsandbytes",
    "compressed-tensors",
    "fp8",
    "fbgemm_fp8",
    "mxfp4",
    "mxfp8",
    "nvfp4",
    "quark",
];

impl<'a> Scheme<'a> {
    pub fn of(config: Option<&'a ModelConfig>) -> Scheme<'a> {
        let entry = |key| config.and_then(|config| config.entry(key));
        Scheme { value: entry("quantization_config").or_else(|| entry("compression_config")) }
    }

    fn text(&self, key: &str) -> Option<&'a str> {
        self.value?.get(key)?.as_str()
    }

    /// The method, where it is none of those that are read.
    pub fn unknown_method(&self) -> Option<&'a str> {
        let method = self.text("quant_method").filter(|method| !KNOWN.contains(method));
        method.filter(|_| !self.is_by_modelopt())
    }

    /// How a `qweight` is packed, or why that is not known.
    pub fn packing(&self) -> Result<Packing, String> {
        let Some(method) = self.text("quant_method") else {
            return Err("packed integers; GPTQ or AWQ is not known without the quant_method of \
                        config.json's quantization_config"
                .to_owned());
        };
        let unknown = |format: &str| {
            let (method, format) = (printable(method), printable(format));
            Err(format!("quantised by `{method}` in the format `{format}`, which this version does not read"))
        };
        match method {
            "gptq" => match self.text("checkpoint_format").or(self.text("format")).unwrap_or("gptq") {
                "gptq" => Ok(Packing::Gptq { less_one: true }),
                "gptq_v2" => Ok(Packing::Gptq { less_one: false }),
                other => unknown(other),
            },
            "awq" => match self.text("version").or(self.text("format")).unwrap_or("gemm") {
                "gemm" | "GEMM" if self.text("backend") != Some("llm-awq") => Ok(Packing::Awq),
                "gemm" | "GEMM" => unknown("llm-awq"),
                other => unknown(other),
            },
            "auto-round" | "intel/auto-round" => match self.text("packing_format").unwrap_or("none") {
                "auto_round:auto_gptq" | "auto_round:gptq" => Ok(Packing::Gptq { less_one: true }),
                "auto_round" | "auto_round:gptqmodel" => Ok(Packing::Gptq { less_one: false }),
                "auto_round:auto_awq" | "auto_round:awq" => Ok(Packing::Awq),
                other => unknown(other),
            },
            other => Err(format!(
                "packed integers of the method `{}`, which this version does not read",
                printable(other)
            )),
        }
    }

    fn is(&self, key: &str) -> bool {
        self.value.and_then(|value| value.get(key)?.as_bool()) == Some(true)
    }

    /// Whether GPTQ took the inputs in an order of its own: only a `g_idx` then tells their groups.
    pub fn is_reordered(&self) -> bool {
        self.is("desc_act")
    }

    /// Whether all zero points are half of the range.
    pub fn is_symmetric(&self) -> bool {
        self.is("sym")
    }

    /// Whether GPTQModel says that it wrote the checkpoint, alone or as the last of a list of tools.
    pub fn is_by_gptqmodel(&self) -> bool {
        let Some(tool) = self.value.and_then(|value| value.get("meta")?.get("quantizer")) else {
            return false;
        };
        let named = |tool: &Value| tool.as_str().is_some_and(|tool| tool.starts_with("gptqmodel"));
        tool.as_array().map_or_else(|| named(tool), |tools| tools.last().is_some_and(named))
    }

    /// Whether the method is that of 8-bit floats in blocks.
    pub fn is_fp8(&self) -> bool {
        self.text("quant_method") == Some("fp8")
    }

    /// Whether NVIDIA's ModelOpt says so.
    pub fn is_by_modelopt(&self) -> bool {
        self.text("quant_method").is_some_and(|method| method.starts_with("modelopt"))
    }

    /// Bits of a packed integer; `None` where it is not said, or differs from module to module.
    pub fn bits(&self) -> Option<usize> {
        let value = self.value?;
        let varies =
            ["dynamic", "extra_config"].iter().any(|key| value.get(key).is_some_and(|v| !v.is_null()));
        let bits = value.get("bits")?.as_u64().and_then(|bits| usize::try_from(bits).ok());
        bits.filter(|_| !varies)
    }

    /// How many neighbouring inputs share a scale, of `inputs`: −1 stands for all of them.
    pub fn group_size(&self, inputs: usize) -> Option<usize> {
        match self.value?.get("group_size")?.as_i64()? {
            -1 => Some(inputs),
            size => usize::try_from(size).ok().filter(|size| *size > 0),
        }
    }

    /// The settings for weights of every group of modules in compressed-tensors' notation.
    fn weights(&self) -> impl Iterator<Item = &'a Value> {
        let groups = self.value.and_then(|value| value.get("config_groups")?.as_object());
        groups.into_iter().flat_map(|groups| groups.values()).filter_map(|group| group.get("weights"))
    }

    /// Every number of bits that a group of modules has.
    pub fn weight_bits(&self) -> Vec<usize> {
        self.weights().filter_map(|weights| count(weights.get("num_bits")?)).collect()
    }

    /// Every number of neighbouring inputs with one scale that a group of modules has.
    pub fn weight_groups(&self) -> Vec<usize> {
        self.weights().filter_map(|weights| count(weights.get("group_size")?)).collect()
    }

    /// Rows and columns of the blocks that share a scale.
    pub fn block(&self) -> Option<[usize; 2]> {
        let own = self.value.and_then(|value| value.get("weight_block_size"));
        let block = own.filter(|own| !own.is_null());
        let block = block.or_else(|| {
            self.weights()
                .find_map(|weights| weights.get("block_structure").filter(|structure| !structure.is_null()))
        });
        let sides: Vec<usize> = block?.as_array()?.iter().filter_map(count).collect();
        <[usize; 2]>::try_from(sides).ok()
    }
}

fn count(value: &Value) -> Option<usize> {
    value.as_u64().and_then(|count| usize::try_from(count).ok()).filter(|count| *count > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn packing(quantization: Value) -> Result<Packing, String> {
        let config = ModelConfig::from_value(json!({"quantization_config": quantization}));
        Scheme::of(Some(&config)).packing()
    }

    #[test]
    fn formats_of_packed_integers() {
        let first = Packing::Gptq { less_one: true };
        let second = Packing::Gptq { less_one: false };
        assert_eq!(packing(json!({"quant_method": "gptq"})), Ok(first));
        assert_eq!(packing(json!({"quant_method": "gptq", "checkpoint_format": "gptq_v2"})), Ok(second));
        assert_eq!(packing(json!({"quant_method": "gptq", "format": "gptq_v2"})), Ok(second));
        assert_eq!(packing(json!({"quant_method": "awq", "version": "gemm"})), Ok(Packing::Awq));
        let round = |format| packing(json!({"quant_method": "auto-round", "packing_format": format}));
        assert_eq!(round("auto_round:auto_gptq"), Ok(first));
        assert_eq!(round("auto_round"), Ok(second));
        assert_eq!(round("auto_round:auto_awq"), Ok(Packing::Awq));
        assert_eq!(round("auto_round:gptq"), Ok(first));
    }

    #[test]
    fn what_is_not_read_is_named() {
        let refused = |quantization, part: &str| {
            let reason = packing(quantization).unwrap_err();
            assert!(reason.contains(part), "{reason}");
        };
        refused(json!({"quant_method": "gptq", "checkpoint_format": "marlin"}), "`marlin`");
        refused(json!({"quant_method": "awq", "version": "gemv_fast"}), "`gemv_fast`");
        refused(json!({"quant_method": "awq", "backend": "llm-awq"}), "`llm-awq`");
        refused(json!({"quant_method": "auto-round"}), "`none`");
        refused(json!({"quant_method": "vptq"}), "`vptq`");
        refused(json!({"quant_method": 7}), "quantization_config");
        refused(json!([]), "quantization_config");
    }

    /// Multimodal models keep it with their language model; older compressed ones call it otherwise.
    #[test]
    fn other_places() {
        for config in [
            json!({"text_config": {"quantization_config": {"weight_block_size": [64, 32]}}}),
            json!({"compression_config": {"config_groups": {"g": {"weights": {"block_structure": [64, 32]}}}}}),
        ] {
            let config = ModelConfig::from_value(config);
            assert_eq!(Scheme::of(Some(&config)).block(), Some([64, 32]));
        }
    }
}
