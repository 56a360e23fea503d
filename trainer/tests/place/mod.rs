//! A small random BERT with data beside it, and the two programs to run on them as a user does.
#![allow(dead_code, clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::LazyLock;

use safetensors::tensor::TensorView;
use serde_json::{Value, json};

pub const WORDS: &str = "a the film plot cast score is was very not wonderful dreadful fine weak great poor long short one \
                     two three four five six seven eight nine ten";

pub fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures")
}

/// The program that a user calls: as new as this test, wherever it was built.
pub static EVENKEEL: LazyLock<PathBuf> = LazyLock::new(|| {
    let arguments = ["build", "--quiet", "--package", "evenkeel", "--bin", "evenkeel"];
    let built = Command::new(env!("CARGO")).args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).status();
    assert!(built.unwrap().success());
    // Beside the trainer, or in the folder of the dev profile next to its own.
    let profile = Path::new(env!("CARGO_BIN_EXE_evenkeel-trainer")).parent().unwrap();
    profile.with_file_name("debug").join("evenkeel")
});

pub const HIDDEN: usize = 64;
pub const LAYERS: usize = 3;

/// The tensors of the model with their shapes.
pub fn tensors() -> Vec<(String, Vec<usize>)> {
    let mut all = Vec::new();
    for (table, rows) in [("word", 50), ("position", 24), ("token_type", 2)] {
        all.push((format!("embeddings.{table}_embeddings.weight"), vec![rows, HIDDEN]));
    }
    let norm = |name: &str| ["weight", "bias"].map(|part| (format!("{name}.{part}"), vec![HIDDEN]));
    all.extend(norm("embeddings.LayerNorm"));
    let linear = |name: &str, from: usize, to: usize| {
        [(format!("{name}.weight"), vec![to, from]), (format!("{name}.bias"), vec![to])]
    };
    for layer in 0..LAYERS {
        let of = |part: &str| format!("encoder.layer.{layer}.{part}");
        for part in ["self.query", "self.key", "self.value", "output.dense"] {
            all.extend(linear(&of(&format!("attention.{part}")), HIDDEN, HIDDEN));
        }
        all.extend(norm(&of("attention.output.LayerNorm")));
        all.extend(linear(&of("intermediate.dense"), HIDDEN, 2 * HIDDEN));
        all.extend(linear(&of("output.dense"), 2 * HIDDEN, HIDDEN));
        all.extend(norm(&of("output.LayerNorm")));
    }
    all.extend(linear("pooler.dense", HIDDEN, HIDDEN));
    all
}

/// Small numbers that a name and a number decide; norms and biases begin as they always do.
fn random(name: &str, seed: u64, count: usize) -> Vec<u8> {
    let mut state = seed + 1;
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as f32 / (1u64 << 31) as f32 - 0.5
    };
    let value = |_| match (name.contains("LayerNorm.weight"), name.ends_with("bias")) {
        (true, _) => 1.0f32,
        (_, true) => 0.0,
        _ => next() * 0.3,
    };
    (0..count).map(value).flat_map(f32::to_le_bytes).collect()
}

/// A directory with a model, data, and whatever runs leave.
pub struct Place(pub tempfile::TempDir);

impl Place {
    /// A small BERT without a head, and a vocabulary for its 50 tokens. Its matrices are large enough for
    /// an alpha.
    pub fn new() -> Place {
        let place = Place(tempfile::tempdir().unwrap());
        let model = place.path("model");
        fs::create_dir(&model).unwrap();
        let config = json!({
            "architectures": ["BertModel"], "model_type": "bert", "vocab_size": 50, "hidden_size": HIDDEN,
            "num_hidden_layers": LAYERS, "num_attention_heads": 4, "intermediate_size": 2 * HIDDEN,
            "max_position_embeddings": 24, "type_vocab_size": 2, "hidden_dropout_prob": 0.1,
            "attention_probs_dropout_prob": 0.1, "initializer_range": 0.1,
        });
        fs::write(model.join("config.json"), config.to_string()).unwrap();
        let weights: Vec<(String, Vec<usize>, Vec<u8>)> = tensors()
            .into_iter()
            .enumerate()
            .map(|(number, (name, shape))| {
                let bytes = random(&name, number as u64, shape.iter().product());
                (name, shape, bytes)
            })
            .collect();
        let views = weights.iter().map(|(name, shape, bytes)| {
            (name, TensorView::new(safetensors::Dtype::F32, shape.clone(), bytes).unwrap())
        });
        safetensors::serialize_to_file(views, None, &model.join("model.safetensors")).unwrap();
        let special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];
        let vocabulary: Vec<&str> = special.into_iter().chain(WORDS.split_whitespace()).collect();
        fs::write(model.join("vocab.txt"), vocabulary.join("\n") + "\n").unwrap();
        place
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    pub fn without_dropout(self) -> Place {
        let path = self.path("model/config.json");
        let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        for key in ["hidden_dropout_prob", "attention_probs_dropout_prob"] {
            config[key] = json!(0.0);
        }
        fs::write(path, config.to_string()).unwrap();
        self
    }

    /// Sentences whose third word says the label.
    pub fn with_sentences(self) -> Place {
        let number = |i: usize| WORDS.split_whitespace().nth(18 + i % 10).unwrap();
        let line = |i: usize| {
            let (word, label) =
                if i.is_multiple_of(2) { ("wonderful", "LABEL_1") } else { ("dreadful", "LABEL_0") };
            json!({"text": format!("film {} {word}", number(i)), "label": label}).to_string() + "\n"
        };
        self.write("train.jsonl", &(0..24).map(line).collect::<String>());
        self
    }

    pub fn command(&self, output: &str, more: &str) -> Command {
        let mut command = Command::new(&*EVENKEEL);
        command.current_dir(self.0.path()).env("EVENKEEL_TRAINER", env!("CARGO_BIN_EXE_evenkeel-trainer"));
        command.args(["rebalance", "model", "--output", output, "--threads", "1", "--quiet"]);
        command.args(["--max-length", "12"]).args(more.split_whitespace());
        command
    }

    /// Runs it, wants an exit code, and gives what it printed.
    pub fn run(&self, output: &str, more: &str, code: i32) -> String {
        ended(self.command(output, more).output().unwrap(), code)
    }

    /// A run on the sentences with the usual numbers.
    pub fn train(&self, output: &str, more: &str) -> String {
        self.run(output, &format!("{USUAL} {more}"), 0)
    }

    pub fn log(&self, output: &str) -> Vec<Value> {
        let text = fs::read_to_string(self.path(output).join("training/log.jsonl")).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    pub fn report(&self, output: &str) -> Value {
        serde_json::from_slice(&fs::read(self.path(output).join("report.json")).unwrap()).unwrap()
    }

    /// The weights of a result, to the bit.
    pub fn weights(&self, output: &str) -> Vec<u8> {
        fs::read(self.path(output).join("model.safetensors")).unwrap()
    }
}

pub const USUAL: &str = "--train train.jsonl --eval train.jsonl --batch 8 --epochs 2 --lr 2e-3 --keep last";

pub fn ended(output: Output, code: i32) -> String {
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{text}");
    text
}

/// Puts a small random LLaMA in the place of the BERT; the vocabulary stays.
pub fn llama(place: &Place, vocabulary: usize) {
    let keys = HIDDEN / 2;
    let config = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": vocabulary, "hidden_size": HIDDEN,
        "num_hidden_layers": LAYERS, "num_attention_heads": 4, "num_key_value_heads": 2,
        "intermediate_size": 2 * HIDDEN, "max_position_embeddings": 24, "tie_word_embeddings": true,
    });
    fs::write(place.path("model/config.json"), config.to_string()).unwrap();
    let mut shapes = vec![("model.embed_tokens.weight".to_owned(), vec![vocabulary, HIDDEN])];
    for layer in 0..LAYERS {
        let parts: [(&str, &[usize]); 9] = [
            ("self_attn.q_proj", &[HIDDEN, HIDDEN]),
            ("self_attn.k_proj", &[keys, HIDDEN]),
            ("self_attn.v_proj", &[keys, HIDDEN]),
            ("self_attn.o_proj", &[HIDDEN, HIDDEN]),
            ("mlp.gate_proj", &[2 * HIDDEN, HIDDEN]),
            ("mlp.up_proj", &[2 * HIDDEN, HIDDEN]),
            ("mlp.down_proj", &[HIDDEN, 2 * HIDDEN]),
            ("input_layernorm", &[HIDDEN]),
            ("post_attention_layernorm", &[HIDDEN]),
        ];
        shapes.extend(
            parts.map(|(part, shape)| (format!("model.layers.{layer}.{part}.weight"), shape.to_vec())),
        );
    }
    shapes.push(("model.norm.weight".to_owned(), vec![HIDDEN]));
    let mut state = 7u64;
    let mut next = |is_norm: bool| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        if is_norm { 1.0 } else { ((state >> 33) as f32 / (1u64 << 31) as f32 - 0.5) * 0.3 }
    };
    let weights: Vec<(String, Vec<usize>, Vec<u8>)> = shapes
        .into_iter()
        .map(|(name, shape)| {
            let values = (0..shape.iter().product()).map(|_| next(shape.len() == 1));
            let bytes = values.flat_map(f32::to_le_bytes).collect();
            (name, shape, bytes)
        })
        .collect();
    let views = weights.iter().map(|(name, shape, bytes)| {
        (name, TensorView::new(safetensors::Dtype::F32, shape.clone(), bytes).unwrap())
    });
    safetensors::serialize_to_file(views, None, &place.path("model/model.safetensors")).unwrap();
}
