//! Several matrices in one tensor: which ones, and where each of them lies.

use super::layout::{Axis, Layout};
use crate::source::ModelConfig;
use crate::tensors::Tensor;

/// A named part of a tensor.
pub(super) type Part = (String, Layout);

/// What is known beside the tensor itself.
pub(super) struct Context<'a> {
    pub config: Option<&'a ModelConfig>,
    /// The shape of another tensor of the checkpoint.
    pub shape_of: &'a dyn Fn(&str) -> Option<&'a [usize]>,
}

/// What a two-dimensional tensor turns out to be.
pub(super) enum Fusion {
    /// One matrix.
    Single,
    /// Several, each with its part's name.
    Parts(Vec<Part>),
    /// Several, but how they are laid out is not known.
    Unknown,
}

/// The parts of a two-dimensional tensor with this shape.
pub(super) fn parts(tensor: &Tensor, rows: usize, cols: usize, context: &Context) -> Fusion {
    let (last, owner) = tensor.parameter_and_owner();
    let found = match owner {
        "c_attn" => conv1d_qkv(rows, cols, context),
        "query_key_value" => query_key_value(rows, cols, context),
        "wqkv" => grouped_heads(rows, cols, context),
        "qkv_proj" if context.model_type() == Some("codegen") => None,
        "qkv" | "qkv_proj" | "Wqkv" | "in_proj_weight" | "to_qkv" => stacked_qkv(rows, cols, context),
        "attn_qkv" | "vis_attn_qkv" => llama_cpp_qkv(rows, cols, context),
        "ffn_up" => match gated_width(tensor, rows, cols, context) {
            Some(width) => named_rows(rows, cols, &[("gate", width), ("up", width)]),
            None => return Fusion::Single,
        },
        "gate_up_proj" => named_rows(rows, cols, &[("gate", rows / 2), ("up", rows / 2)]),
        _ if last.starts_with("weight_ih") || last.starts_with("weight_hh") => {
            return gates(tensor, rows, cols, context);
        }
        "kernel" | "recurrent_kernel" => return keras_gates(tensor, rows, cols, context),
        _ => return Fusion::Single,
    };
    found.map_or(Fusion::Unknown, Fusion::Parts)
}

/// Where configurations keep the number of key/value heads.
const KEY_VALUE_HEADS: &[&str] = &["num_key_value_heads", "num_kv_heads", "kv_n_heads"];

impl Context<'_> {
    fn model_type(&self) -> Option<&str> {
        self.config?.model_type()
    }

    fn heads(&self) -> Option<usize> {
        self.config?.count(&["num_attention_heads", "n_head", "n_heads", "num_heads"])
    }

    fn key_value_heads(&self) -> Option<usize> {
        self.config?.count(KEY_VALUE_HEADS)
    }

    fn flag(&self, key: &str) -> bool {
        self.config.is_some_and(|config| config.flag(key))
    }
}

/// Consecutive groups of rows, which must fill the tensor.
fn named_rows(rows: usize, cols: usize, groups: &[(&str, usize)]) -> Option<Vec<Part>> {
    let total: usize = groups.iter().map(|(_, count)| count).sum();
    let fills = total == rows && groups.iter().all(|(_, count)| *count > 0);
    let mut start = 0;
    let part = |(name, count): &(&str, usize)| {
        let layout = Layout { offset: start * cols, ..Layout::dense(*count, cols) };
        start += count;
        ((*name).to_owned(), layout)
    };
    fills.then(|| groups.iter().map(part).collect())
}

/// Consecutive groups of columns of equal width.
fn named_columns(rows: usize, cols: usize, names: &[&str]) -> Option<Vec<Part>> {
    let width = cols / names.len();
    let part = |(i, name): (usize, &&str)| {
        let layout = Layout { offset: i * width, rows: Axis::plain(rows, cols), cols: Axis::plain(width, 1) };
        ((*name).to_owned(), layout)
    };
    (width > 0 && width * names.len() == cols).then(|| names.iter().enumerate().map(part).collect())
}

/// GPT-2 stores `c_attn` transposed, [in, 3·out]; GPT-BigCode as [out, in] with one key/value head.
fn conv1d_qkv(rows: usize, cols: usize, context: &Context) -> Option<Vec<Part>> {
    if context.model_type() == Some("gpt_bigcode") && context.flag("multi_query") {
        let shared = rows.checked_sub(cols)? / 2;
        return named_rows(rows, cols, &[("q", cols), ("k", shared), ("v", shared)]);
    }
    if cols == 3 * rows {
        named_columns(rows, cols, &["q", "k", "v"])
    } else if rows == 3 * cols {
        named_rows(rows, cols, &[("q", cols), ("k", cols), ("v", cols)])
    } else if cols == 2 * rows {
        // Cross-attention: the queries have a tensor of their own.
        named_columns(rows, cols, &["k", "v"])
    } else {
        None
    }
}

/// All of q, then all of k, then all of v; with grouped heads k and v are smaller.
fn stacked_qkv(rows: usize, cols: usize, context: &Context) -> Option<Vec<Part>> {
    if let (Some(heads), Some(shared)) = (context.heads(), context.key_value_heads()) {
        let size = rows / (heads + 2 * shared);
        let split = [("q", heads * size), ("k", shared * size), ("v", shared * size)];
        return if shared <= heads { named_rows(rows, cols, &split) } else { None };
    }
    // Without head counts only thirds as wide as the model are safe to assume.
    let third = rows / 3;
    let safe = third == cols && !context.config.is_some_and(|config| config.mentions(KEY_VALUE_HEADS));
    safe.then(|| named_rows(rows, cols, &[("q", third), ("k", third), ("v", third)])).flatten()
}

/// llama.cpp: all of q, then all of k, then all of v, however the model's own format has them. Heads
/// need not divide the model's width, and those of v may have a size of their own.
fn llama_cpp_qkv(rows: usize, cols: usize, context: &Context) -> Option<Vec<Part>> {
    let (Some(heads), Some(shared)) = (context.heads(), context.key_value_heads()) else {
        return stacked_qkv(rows, cols, context);
    };
    let count = |key: &str| context.config?.count(&[key]);
    let size = |key: &str| count(key).or_else(|| Some(count("hidden_size")? / heads));
    let (keys, values) = (size("head_dim")?, size("v_head_dim")?);
    let rows_of = |heads: usize, size: usize| heads.saturating_mul(size).min(rows);
    let split = [("q", rows_of(heads, keys)), ("k", rows_of(shared, keys)), ("v", rows_of(shared, values))];
    named_rows(rows, cols, &split)
}

/// The width of the layer where llama.cpp's `ffn_up` holds gate and up, one below the other: then it
/// has twice the rows that the columns of `ffn_down` ask for, and there is no `ffn_gate`.
fn gated_width(tensor: &Tensor, rows: usize, cols: usize, context: &Context) -> Option<usize> {
    let other = |owner: &str| (context.shape_of)(&tensor.name.replace("ffn_up", owner));
    match other("ffn_down") {
        Some([out, width]) if *out == cols && rows == 2 * width && other("ffn_gate").is_none() => {
            Some(*width)
        }
        _ => None,
    }
}

/// GPT-NeoX, BLOOM and Falcon: q, k and v of each head lie together.
fn query_key_value(rows: usize, cols: usize, context: &Context) -> Option<Vec<Part>> {
    let heads = context.heads()?;
    match context.model_type()? {
        "falcon" | "RefinedWeb" | "RefinedWebModel" if context.flag("new_decoder_architecture") => {
            grouped_heads(rows, cols, context)
        }
        // One key/value head, whatever `num_kv_heads` says in this older layout.
        "falcon" | "RefinedWeb" | "RefinedWebModel" if context.flag("multi_query") => {
            let size = rows / (heads + 2);
            named_rows(rows, cols, &[("q", heads * size), ("k", size), ("v", size)])
        }
        "gpt_neox" | "gpt_neox_japanese" | "bloom" | "falcon" | "RefinedWebModel" => {
            per_group(rows, cols, heads, 1)
        }
        _ => None,
    }
}

/// Falcon's newer layout and InternLM2: for each key/value head its queries, then its k, then its v.
fn grouped_heads(rows: usize, cols: usize, context: &Context) -> Option<Vec<Part>> {
    let (heads, groups) = (context.heads()?, context.key_value_heads()?);
    if !heads.is_multiple_of(groups) {
        return None;
    }
    per_group(rows, cols, groups, heads / groups)
}

/// `groups` groups of `queries` + 2 heads each: the queries, one k, one v.
fn per_group(rows: usize, cols: usize, groups: usize, queries: usize) -> Option<Vec<Part>> {
    let every = rows / groups;
    let size = every / (queries + 2);
    if size == 0 || size * (queries + 2) * groups != rows {
        return None;
    }
    let part = |name: &str, first: usize, run: usize| {
        let layout = Layout {
            offset: first * cols,
            rows: Axis::interleaved(groups * run, cols, run, every),
            cols: Axis::plain(cols, 1),
        };
        (name.to_owned(), layout)
    };
    Some(vec![
        part("q", 0, queries * size),
        part("k", queries * size, size),
        part("v", (queries + 1) * size, size),
    ])
}

/// The gates of a recurrent layer, as PyTorch orders them. How many there are is seen from the
/// hidden-to-hidden weight, [gates·H, H].
fn gates(tensor: &Tensor, rows: usize, cols: usize, context: &Context) -> Fusion {
    let partner = tensor.name.replace("weight_ih", "weight_hh");
    let hidden = match (context.shape_of)(&partner) {
        Some([all, hidden]) if *all == rows && *hidden > 0 && rows.is_multiple_of(*hidden) => *hidden,
        _ => return Fusion::Unknown,
    };
    let names: &[&str] = match rows / hidden {
        1 => return Fusion::Single,
        3 => &["r", "z", "n"],
        4 => &["i", "f", "g", "o"],
        _ => return Fusion::Unknown,
    };
    let groups: Vec<(&str, usize)> = names.iter().map(|name| (*name, hidden)).collect();
    named_rows(rows, cols, &groups).map_or(Fusion::Unknown, Fusion::Parts)
}

/// The gates of a recurrent layer of Keras, which stores [in, gates·H] and [H, gates·H]; in its order and
/// under its names. A kernel without a recurrent one beside it is one matrix.
fn keras_gates(tensor: &Tensor, rows: usize, cols: usize, context: &Context) -> Fusion {
    let module = tensor.name.rsplit_once('.').map_or("", |(module, _)| module);
    let hidden = match (context.shape_of)(&format!("{module}.recurrent_kernel")) {
        Some([hidden, all]) if *all == cols && *hidden > 0 => *hidden,
        _ => return Fusion::Single,
    };
    let names: &[&str] = match (cols.is_multiple_of(hidden), cols / hidden) {
        (true, 1) => return Fusion::Single,
        (true, 3) => &["z", "r", "h"],
        (true, 4) => &["i", "f", "c", "o"],
        _ => return Fusion::Unknown,
    };
    named_columns(rows, cols, names).map_or(Fusion::Unknown, Fusion::Parts)
}

/// The halves of `gate_up_proj` (`ffn_gate_up_exps`) in a stack of experts, [E, rows, cols], as layouts within one
/// expert. The other experts' weight `down_proj` tells which dimension is the fused one.
pub(super) fn expert_halves(tensor: &Tensor, rows: usize, cols: usize, context: &Context) -> Fusion {
    let (module, last) = tensor.name.rsplit_once('.').unwrap_or(("", &tensor.name));
    let down = match (last, module.rsplit_once('.')) {
        ("gate_up_proj", _) => format!("{module}.down_proj"),
        ("weight", Some((outer, "gate_up_proj"))) => format!("{outer}.down_proj.weight"),
        ("weight", Some((outer, "ffn_gate_up_exps"))) => format!("{outer}.ffn_down_exps.weight"),
        _ => return Fusion::Single,
    };
    let down = (context.shape_of)(&down);
    let parts = match down {
        // [E, 2f, h] with down [E, h, f]: halves of the rows; gpt-oss keeps its turns when packed.
        Some([_, h, f]) if rows == 2 * f && cols == *h => match context.model_type() {
            Some("gpt_oss") => Some(alternating_rows(rows, cols)),
            _ => named_rows(rows, cols, &[("gate", *f), ("up", *f)]),
        },
        // [E, h, 2f] with down [E, f, h]: columns, in halves or in turn.
        Some([_, f, h]) if cols == 2 * f && rows == *h => match context.model_type() {
            Some("gpt_oss") => Some(alternating_columns(rows, cols)),
            Some("llama4" | "llama4_text") => named_columns(rows, cols, &["gate", "up"]),
            _ => None,
        },
        _ => None,
    };
    parts.map_or(Fusion::Unknown, Fusion::Parts)
}

/// gpt-oss: gate in the even columns, up in the odd ones.
fn alternating_columns(rows: usize, cols: usize) -> Vec<Part> {
    let part = |(i, name): (usize, &str)| {
        let layout = Layout { offset: i, rows: Axis::plain(rows, cols), cols: Axis::plain(cols / 2, 2) };
        (name.to_owned(), layout)
    };
    ["gate", "up"].into_iter().enumerate().map(part).collect()
}

/// gpt-oss in MXFP4, which is stored with the outputs first: gate in the even rows, up in the odd ones.
fn alternating_rows(rows: usize, cols: usize) -> Vec<Part> {
    let part = |(i, name): (usize, &str)| {
        let own = Axis::plain(rows / 2, 2 * cols);
        (name.to_owned(), Layout { offset: i * cols, rows: own, cols: Axis::plain(cols, 1) })
    };
    ["gate", "up"].into_iter().enumerate().map(part).collect()
}
