//! Names for tensors: their own where it says something, else that of the node that uses them.
//!
//! Exporters rename the weights that they transpose (`onnx::MatMul_123`, `val_86`), but the node
//! keeps its module's path (`/encoder/layer.0/attention/self/query/MatMul`), and the bias that is
//! added to its result keeps its name.

use super::flow::Flow;
use super::model::Node;

/// What an initializer is called in dotted form, where its own name says something.
pub(super) fn own(name: &str) -> Option<String> {
    let base = name.strip_suffix("_quantized").unwrap_or(name);
    if is_meaningless(base) {
        return None;
    }
    let base = base.strip_suffix(":0").unwrap_or(base);
    Some(base.trim_matches('/').replace('/', "."))
}

/// Numbers with a general word before them, and what nodes' outputs are called.
fn is_meaningless(name: &str) -> bool {
    const WORDS: [&str; 12] = [
        "",
        "val",
        "v",
        "t",
        "x",
        "const",
        "constant",
        "initializer",
        "tensor",
        "value",
        "const_fold_opt",
        "param",
    ];
    if name.starts_with("onnx::") || name.rsplit_once("_output_").is_some_and(|(_, n)| is_number(n)) {
        return true;
    }
    let word = name.trim_end_matches(|c: char| c.is_ascii_digit()).trim_matches('_').to_ascii_lowercase();
    WORDS.contains(&word.as_str())
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

/// The longest text, in bytes, that a weight's name is made of where it has none of its own: one bias
/// may stand beside very many of them.
const LONGEST: usize = 1 << 12;

/// A module's path and the node's own part of its name.
pub(super) fn module(node: &Node) -> Option<(String, String)> {
    if let Some(scopes) = node.name_scopes.as_ref().filter(|scopes| scopes.len() <= LONGEST) {
        // A Python list of strings: ['', 'encoder', 'encoder.layers.0', 'linear'].
        let list: Vec<&str> =
            scopes.trim_matches(['[', ']']).split(", ").map(|s| s.trim_matches(['\'', '"'])).collect();
        if let [.., module, last] = list.as_slice()
            && !module.is_empty()
        {
            return Some(((*module).to_owned(), (*last).to_owned()));
        }
    }
    if node.name.len() > LONGEST {
        return None;
    }
    let (path, last) = node.name.rsplit_once('/')?;
    let path = path.trim_matches('/').replace('/', ".");
    (!path.is_empty()).then(|| (path, last.to_owned()))
}

/// Names for a tensor by the operation that uses it, the best one first.
pub(super) fn by_use(flow: &Flow, node: &Node) -> Vec<String> {
    let bias = bias_of(flow, node);
    let place = module(node);
    let mut names = Vec::new();
    if let Some((module, last)) = &place {
        let (outer, parameter) =
            bias.as_deref().and_then(parameter_beside).unwrap_or(("", "weight".to_owned()));
        // A wrapper may stand before the one or the other.
        let same = !outer.is_empty() && (ends_with(module, outer) || ends_with(outer, module));
        let module = if same { outer } else { module };
        let module = if node.op == "Gather" { embedding(module) } else { module.to_owned() };
        names.push(format!("{module}.{parameter}"));
        names.push(format!("{module}.{last}.{parameter}"));
    } else if let Some((outer, parameter)) = bias.as_deref().and_then(parameter_beside) {
        names.push(format!("{outer}.{parameter}"));
    }
    names
}

/// Whether a dotted path ends in another one.
fn ends_with(path: &str, end: &str) -> bool {
    path.strip_suffix(end).is_some_and(|before| before.is_empty() || before.ends_with('.'))
}

/// The module of a table that is looked up must be called so, for its role to be recognised.
fn embedding(module: &str) -> String {
    let last = module.rsplit('.').next().unwrap_or_default();
    if last.contains("emb") || matches!(last, "wte" | "wpe" | "shared") {
        module.to_owned()
    } else {
        format!("{module}.embedding")
    }
}

/// The module of a bias, and what the weight beside it is called: `in_proj_bias` stands beside
/// `in_proj_weight`.
fn parameter_beside(bias: &str) -> Option<(&str, String)> {
    let (module, last) = bias.rsplit_once('.')?;
    last.contains("bias").then(|| (module, last.replace("bias", "weight")))
}

/// The name of the bias that is added to a product.
fn bias_of(flow: &Flow, node: &Node) -> Option<String> {
    let name = |node: &Node, input: usize| {
        let tensor = flow.model.tensors.get(flow.input_tensor(node, input)?)?;
        // An Identity between them has the better name: the tensor is one that is shared.
        let short = |name: &&String| name.len() <= LONGEST;
        let named = node.inputs.get(input).filter(short).and_then(|name| own(name));
        let named = named.filter(|name| name.contains("bias"));
        let name = named.or_else(|| Some(&tensor.name).filter(short).and_then(|name| own(name)));
        name.filter(|name| name.contains("bias"))
    };
    match node.op.as_str() {
        "Gemm" | "Conv" | "ConvTranspose" => name(node, 2),
        "QLinearConv" => name(node, 8),
        "MatMul" | "MatMulNBits" | "FusedMatMul" => flow
            .users(node)
            .filter(|(user, _)| user.op == "Add")
            .find_map(|(user, input)| name(user, 1 - input.min(1))),
        "MatMulInteger" => {
            let cast = flow.users(node).find(|(user, _)| user.op == "Cast")?.0;
            let scaled = flow.users(cast).find(|(user, _)| user.op == "Mul")?.0;
            flow.users(scaled)
                .filter(|(user, _)| user.op == "Add")
                .find_map(|(user, input)| name(user, 1 - input.min(1)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_names_say_nothing() {
        for name in [
            "onnx::MatMul_12",
            "val_86",
            "123",
            "/a/b/Constant_3_output_0",
            "Constant_7",
            "_v_1",
            "const_fold_opt__8",
            "onnx::MatMul_12_quantized",
        ] {
            assert_eq!(own(name), None, "{name}");
        }
        assert_eq!(own("encoder.0.weight").as_deref(), Some("encoder.0.weight"));
        assert_eq!(own("encoder.0.weight_quantized").as_deref(), Some("encoder.0.weight"));
        assert_eq!(own("bert/encoder/layer_0/kernel:0").as_deref(), Some("bert.encoder.layer_0.kernel"));
        assert_eq!(own("W").as_deref(), Some("W"));
        assert_eq!(own("w2").as_deref(), Some("w2"));
    }

    #[test]
    fn modules_come_from_paths_and_scopes() {
        let named = |name: &str, scopes: Option<&str>| {
            module(&Node { name: name.to_owned(), name_scopes: scopes.map(str::to_owned), ..Node::default() })
        };
        let of = |module: &str, last: &str| Some((module.to_owned(), last.to_owned()));
        assert_eq!(named("/encoder/layer.0/query/MatMul", None), of("encoder.layer.0.query", "MatMul"));
        assert_eq!(named("/MatMul", None), None);
        assert_eq!(named("MatMul_7", None), None);
        assert_eq!(named("n", Some("['', 'enc', 'enc.0', 'linear']")), of("enc.0", "linear"));
        assert_eq!(named("n", Some("['', 'linear']")), None);
        assert_eq!(named("/a/MatMul", Some("")), of("a", "MatMul"));
    }
}
