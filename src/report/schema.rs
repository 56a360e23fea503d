//! The JSON Schema of the report, which `docs/report.schema.json` publishes.

use serde_json::{Map, Value, json};

use super::SCHEMA_VERSION;

/// The schema (draft 2020-12) of `analyze --format json`. `metrics` are the names and definitions
/// of the numbers of a matrix.
pub fn schema(metrics: &[(&str, &str)]) -> Value {
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Report of evenkeel analyze",
        "description": "Fields may be added within a schema version; none is renamed or removed. A number that does not exist is null, and a status says why. Names are exact up to 4096 bytes; longer ones are cut, with their length and a checksum in the middle.",
        "type": "object",
        "required": ["schema_version", "tool", "checkpoint", "settings", "summary", "stacks", "blocks", "matrices", "skipped", "gate"],
        "properties": {
            "schema_version": {"const": SCHEMA_VERSION},
            "tool": object(&[("name", json!({"const": "evenkeel"})), ("version", text("version of the program"))]),
            "checkpoint": checkpoint(),
            "settings": settings(),
            "summary": object(&[
                ("blocks", count("blocks, with or without an alpha")),
                ("matrices", count("scheduled matrices")),
                ("alpha_mean", number("mean of the blocks' alphas")),
                ("alpha_std", number("population standard deviation of the blocks' alphas; null below two blocks with an alpha")),
                ("alpha_min", number("smallest alpha of a block")),
                ("alpha_max", number("largest alpha of a block")),
                ("spectral_norm_mean", number("mean over blocks")),
                ("stable_rank_mean", number("mean over blocks")),
            ]),
            "stacks": list(object(&[
                ("name", text("the tower: encoder, decoder, text, vision, backbone, …")),
                ("blocks", count("its blocks")),
                ("alpha_mean", number("mean over its blocks")),
                ("alpha_std", number("population standard deviation over its blocks")),
                ("alpha_min", number("smallest")),
                ("alpha_max", number("largest")),
            ])),
            "blocks": list(block()),
            "matrices": list(matrix(metrics)),
            "skipped": list(object(&[
                ("name", text("the tensor")),
                ("reason", text("why it holds no matrix that is analysed")),
                ("warnings", list(json!({"type": "string"}))),
            ])),
            "gate": {"anyOf": [{"type": "null", "description": "no threshold was given"}, object(&[
                ("passed", flag("all thresholds hold and no weight is NaN or infinite")),
                ("findings", list(object(&[
                    ("rule", text("the threshold, or non-finite")),
                    ("subject", text("the stack, block or matrix")),
                    ("value", number("what was measured")),
                    ("bound", number("the threshold's value")),
                ]))),
            ])]},
        },
    })
}

fn checkpoint() -> Value {
    object(&[
        ("path", text("as the user gave it")),
        (
            "format",
            text("file format; peft for an adapter without its base: the matrices are its updates scale·B·A"),
        ),
        ("architecture", nullable("string", "model_type of config.json, or what the tensor names give away")),
        ("parameters", count("elements of all tensors that are not of integers")),
        ("tensors", count("tensors")),
        ("files", list(object(&[("name", text("file name")), ("bytes", count("size"))]))),
        ("revision", nullable("string", "commit, for a model out of the Hugging Face cache")),
        (
            "adapters",
            described(
                "adapters that were added to the weights, as the user gave them",
                list(json!({"type": "string"})),
            ),
        ),
    ])
}

fn settings() -> Value {
    object(&[
        (
            "estimator",
            one_of(&["hill", "reference", "ks", "peak"], "how the tail is chosen and alpha estimated"),
        ),
        ("tail_fraction", number("k/n of the hill estimator")),
        ("xmin_pos", number("n/i of the reference estimator")),
        ("drop_below", number("eigenvalues up to this are left out of the fit")),
        ("granularity", one_of(&["block", "layer"], "what the statistics are taken over")),
        ("min_eigenvalues", count("matrices with fewer are not scheduled")),
        ("conv_norm", number("what the eigenvalues of convolutions are multiplied by")),
        ("split", flag("fused tensors are split into the matrices that they hold")),
        ("embeddings", flag("embedding tables are analysed")),
        ("spectral_weights", flag("complex spectral weights take part in the statistics")),
        ("assume_unscaled", flag("8-bit floats are read as they are stored")),
        ("include", list(json!({"type": "string"}))),
        ("exclude", list(json!({"type": "string"}))),
        ("block_pattern", nullable("string", "regular expression for block names")),
        ("engine", text("linear-algebra engine")),
        ("precision", one_of(&["exact", "fast"], "what was asked for")),
    ])
}

fn block() -> Value {
    object(&[
        ("name", text("the beginning of the names of its tensors; with granularity layer the matrix")),
        ("stack", text("its tower")),
        ("index", count("number within the tower")),
        ("matrices", count("its scheduled matrices")),
        ("status", status()),
        ("alpha", number("mean over its scheduled matrices that have an alpha")),
        ("deviation", number("alpha less the mean of its stack")),
        ("spectral_norm", number("mean over its scheduled matrices")),
        ("stable_rank", number("mean over its scheduled matrices")),
    ])
}

fn matrix(metrics: &[(&str, &str)]) -> Value {
    let roles = ["linear", "conv", "recurrent", "expert", "embedding", "spectral", "other"];
    let mut fields = vec![
        ("name", text("the tensor's name, with [part] for a part of it")),
        ("tensors", list(json!({"type": "string"}))),
        ("part", nullable("string", "which part of the tensor")),
        ("aliases", list(json!({"type": "string"}))),
        ("block", nullable("string", "its block; null outside all blocks")),
        ("role", one_of(&roles, "kind of layer")),
        ("rows", count("rows of the matrix, or of one pooled slice")),
        ("cols", count("columns of the matrix, or of one pooled slice")),
        (
            "dtype",
            text(
                "stored type as safetensors names it, or the layout of a quantised weight, with what is added to it",
            ),
        ),
        ("eigenvalues", count("n, over all pooled slices")),
        (
            "tail",
            nullable("integer", "eigenvalues in the fitted tail: k for hill; with the start for the others"),
        ),
        ("scheduled", flag("takes part in the statistics")),
    ];
    fields.extend(metrics.iter().map(|(name, description)| (*name, number(description))));
    fields.push(("status", status()));
    fields.push((
        "precision",
        one_of(&["exact", "fast"], "double precision, or single precision with the bounds that follow"),
    ));
    fields.push((
        "alpha_error",
        number("bound of |Δalpha| that follows from eigenvalue_error, to first order; null without alpha"),
    ));
    fields.push((
        "eigenvalue_error",
        number(
            "estimated bound of the rounding error of every eigenvalue; a probable one (rounding errors taken as \
             independent, Higham and Mary 2019), not a worst case; null where there is no spectrum",
        ),
    ));
    fields.push(("warnings", list(json!({"type": "string"}))));
    object(&fields)
}

fn status() -> Value {
    one_of(
        &[
            "ok",
            "rank-deficient-tail",
            "flat-tail",
            "too-few-eigenvalues",
            "non-finite",
            "zero",
            "low-rank-update",
        ],
        "ok, or why there is no alpha",
    )
}

/// An object with these fields, all of them required, and room for more.
fn object(fields: &[(&str, Value)]) -> Value {
    let required: Vec<&str> = fields.iter().map(|(name, _)| *name).collect();
    let properties: Map<String, Value> =
        fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    json!({"type": "object", "required": required, "properties": properties})
}

fn described(description: &str, mut schema: Value) -> Value {
    if let Some(fields) = schema.as_object_mut() {
        fields.insert("description".to_owned(), json!(description));
    }
    schema
}

fn list(items: Value) -> Value {
    json!({"type": "array", "items": items})
}

fn text(description: &str) -> Value {
    json!({"type": "string", "description": description})
}

fn count(description: &str) -> Value {
    json!({"type": "integer", "minimum": 0, "description": description})
}

fn number(description: &str) -> Value {
    nullable("number", description)
}

fn nullable(kind: &str, description: &str) -> Value {
    json!({"type": [kind, "null"], "description": description})
}

fn flag(description: &str) -> Value {
    json!({"type": "boolean", "description": description})
}

fn one_of(values: &[&str], description: &str) -> Value {
    json!({"enum": values, "description": description})
}
