//! What a tensor is for, by its name, type and shape: which ones hold a weight matrix at all.

use crate::tensors::{Dtype, Kind, Tensor};

/// What kind of layer a matrix comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A fully connected layer.
    Linear,
    /// A convolution: the slices of its kernel, pooled.
    Conv,
    /// A gate of a recurrent layer.
    Recurrent,
    /// One expert of a mixture of experts.
    Expert,
    /// An embedding table; only analysed on request.
    Embedding,
    /// Complex weights of a Fourier layer, pooled over modes.
    Spectral,
    /// Any other stack of matrices.
    Other,
}

impl Role {
    /// The name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Role::Linear => "linear",
            Role::Conv => "conv",
            Role::Recurrent => "recurrent",
            Role::Expert => "expert",
            Role::Embedding => "embedding",
            Role::Spectral => "spectral",
            Role::Other => "other",
        }
    }
}

/// How the dimensions of a tensor become matrices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// rows × cols.
    Matrix,
    /// The outermost dimension counts matrices.
    Stack,
    /// [O, I, k…]: one O × I slice for each position of the kernel.
    Kernel,
    /// [in, out, modes…], complex.
    Modes,
}

/// Elements of the smallest matrix that a stack is split into: it bounds how many matrices a small
/// file can claim to hold. Kernels of convolutions are pooled, and so are not affected.
const SMALLEST_IN_STACK: usize = 64;

/// A tensor that holds matrices, or the reason why it holds none.
pub(super) type Class = Result<(Role, Form), String>;

/// Decides by type, name and shape. Weights with scales of their own were dequantised, or set aside,
/// before: an 8-bit float that is left has none.
pub(super) fn classify(tensor: &Tensor, assume_unscaled: bool) -> Class {
    let name = Name::of(tensor);
    if tensor.elements == 0 {
        return Err("empty".to_owned());
    }
    if let Some(reason) = tensor.unread() {
        return Err(reason);
    }
    usable_type(tensor.dtype, &name, assume_unscaled)?;
    match tensor.shape.len() {
        0 => return Err("scalar".to_owned()),
        1 => return Err("one-dimensional".to_owned()),
        _ => {}
    }
    if let Some(reason) = name.no_weight() {
        return Err(reason.to_owned());
    }
    if tensor.dtype.kind() == Kind::Complex {
        return Ok((Role::Spectral, Form::Modes));
    }
    match *tensor.shape.as_slice() {
        [_, _] if name.is_embedding() => Ok((Role::Embedding, Form::Matrix)),
        [_, _] if name.is_recurrent() => Ok((Role::Recurrent, Form::Matrix)),
        [_, _] if name.is_numbered_expert() => Ok((Role::Expert, Form::Matrix)),
        [_, _] => Ok((Role::Linear, Form::Matrix)),
        [count, rows, cols] if name.is_stack(cols) => {
            let role = if name.mentions_experts() { Role::Expert } else { Role::Other };
            if rows * cols < SMALLEST_IN_STACK {
                return Err(format!("a stack of {count} matrices of only {rows} × {cols}"));
            }
            Ok((role, Form::Stack))
        }
        [_, 1, ..] => Err("depthwise convolution, or one with a single input channel".to_owned()),
        _ if tensor.shape.len() <= 5 && name.is_conv() => Ok((Role::Conv, Form::Kernel)),
        _ => Err(format!("{} dimensions, and no convolution by its name", tensor.shape.len())),
    }
}

fn usable_type(dtype: Dtype, name: &Name, assume_unscaled: bool) -> Result<(), String> {
    let kind = dtype.name();
    match dtype.kind() {
        Kind::Real | Kind::Complex => Ok(()),
        Kind::Integer if name.is_quantised() => {
            Err(format!("packed integers ({kind}) of a quantised weight"))
        }
        Kind::Integer => Err(format!("integers ({kind})")),
        Kind::Packed => Err(format!("packed type {kind}, which means nothing without its scales")),
        Kind::Float8 if !assume_unscaled => Err(format!(
            "8-bit floats ({kind}) whose scale is not known (--assume-unscaled reads them as they are)"
        )),
        Kind::Float8 => Ok(()),
    }
}

/// A tensor's name, taken apart at its dots.
struct Name<'a> {
    full: &'a str,
    last: &'a str,
    /// The module that the parameter belongs to, or the parameter itself where it is not `weight`.
    owner: &'a str,
}

impl<'a> Name<'a> {
    fn of(tensor: &'a Tensor) -> Name<'a> {
        let (last, owner) = tensor.parameter_and_owner();
        Name { full: tensor.name.as_str(), last, owner }
    }

    fn mentions(&self, word: &str) -> bool {
        self.full.split('.').any(|segment| segment.contains(word))
    }

    /// Tensors of two or more dimensions that are no weights.
    fn no_weight(&self) -> Option<&'static str> {
        const SCALES: [&str; 10] = [
            "scales",
            "weight_scale",
            "weight_scale_inv",
            "weight_scale_2",
            "input_scale",
            "scale_weight",
            "absmax",
            "nested_absmax",
            "quant_map",
            "nested_quant_map",
        ];
        const TABLES: [&str; 14] = [
            "pos_embed",
            "position_embedding",
            "position_embeddings",
            "positional_embedding",
            "class_embedding",
            "cls_token",
            "mask_token",
            "dist_token",
            "reg_token",
            "register_tokens",
            "query_tokens",
            "relative_position_bias_table",
            "rel_pos_h",
            "rel_pos_w",
        ];
        if self.last == "bias" || self.last.ends_with("_bias") || self.last.ends_with("mask") {
            return Some("bias or mask");
        }
        const FACTORS: [&str; 4] = ["lora_A", "lora_B", "lora_embedding_A", "lora_embedding_B"];
        if self.full.split('.').any(|segment| FACTORS.contains(&segment)) {
            return Some("factor of a LoRA adapter, no weight (--adapter adds it to its base)");
        }
        // llama.cpp stores the kernel [channels, 1, positions] without its middle dimension.
        if self.owner.starts_with("ssm_conv1d") {
            return Some("depthwise convolution, or one with a single input channel");
        }
        if SCALES.contains(&self.last) || self.last.ends_with("_scale_inv") {
            return Some("scales of a quantised weight");
        }
        (TABLES.contains(&self.last) || self.last.contains("inv_freq"))
            .then_some("positional table or learned token")
    }

    fn is_embedding(&self) -> bool {
        const NAMES: [&str; 16] = [
            "wte",
            "wpe",
            "shared",
            "embed_tokens",
            "embed_positions",
            "embed_in",
            "tokens_embed",
            "positions_embed",
            "embeddings",
            "embedding",
            "embed",
            "emb",
            "relative_attention_bias",
            "token_types",
            "attn_rel_b",
            "cross_attn_rel_b",
        ];
        const ENDINGS: [&str; 5] = ["_embeddings", "_embedding", "_embed", "_emb", "_embd"];
        let owns = NAMES.contains(&self.owner) || ENDINGS.iter().any(|e| self.owner.ends_with(e));
        // Keras calls the table itself so.
        self.last == "weight" && owns || self.last == "embeddings"
    }

    fn is_recurrent(&self) -> bool {
        // Keras: `lstm_cell_1.kernel`, `lstm_cell_1.recurrent_kernel`.
        let in_cell = || {
            let module = self.full.rsplit('.').nth(1).unwrap_or_default();
            let module = module.trim_end_matches(|c: char| c == '_' || c.is_ascii_digit());
            self.last == "kernel" && (module == "cell" || module.ends_with("_cell"))
        };
        self.last.starts_with("weight_ih")
            || self.last.starts_with("weight_hh")
            || self.last == "recurrent_kernel"
            || in_cell()
    }

    fn mentions_experts(&self) -> bool {
        self.mentions("expert") || self.mentions("moe") || self.owner.ends_with("exps")
    }

    /// `experts.3.` in the name, or `ffn_up.3.` as llama.cpp once had it: a shared expert, without a
    /// number, is an ordinary layer.
    fn is_numbered_expert(&self) -> bool {
        let mut segments = self.full.split('.').peekable();
        while let Some(segment) = segments.next() {
            let number = |s: &&str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
            let of_experts = segment.ends_with("experts") || segment.starts_with("ffn_");
            if of_experts && segments.peek().is_some_and(number) {
                return true;
            }
        }
        false
    }

    /// Of a three-dimensional tensor: a stack of matrices rather than a kernel. Kernels of more than
    /// 64 positions are called convolutions by their names.
    fn is_stack(&self, last: usize) -> bool {
        self.mentions_experts() || !self.is_conv() || (last > 64 && !self.mentions("conv"))
    }

    fn is_conv(&self) -> bool {
        self.last == "weight" || self.last.ends_with("kernel") || self.mentions("conv")
    }

    fn is_quantised(&self) -> bool {
        const NAMES: [&str; 9] = [
            "qweight",
            "qzeros",
            "g_idx",
            "weight_packed",
            "weight_shape",
            "SCB",
            "weight",
            "zeros",
            "weight_format",
        ];
        NAMES.contains(&self.last) || self.last.ends_with("_blocks") || self.last.ends_with("_scales")
    }
}
