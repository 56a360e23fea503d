//! Models and their directories against transformers: `fixtures/trainer/models/`, made by
//! fixtures/trainer_models.py, and MiniLM.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "../common/mod.rs"]
mod common;
mod refusals;

use std::fs;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use common::{close, edit, files, fixtures, matrix, numbers, tensors};
use evenkeel_trainer::model::{Batch, Directory, Pretrained, Settings, Task};
use evenkeel_trainer::training::Mode;
use serde_json::{Value, json};
use tch::{Kind, Tensor, no_grad};

/// Of logits and gradients, as the models are in single precision.
const TOLERANCE: f64 = 1e-4;

fn expected() -> Value {
    let text = fs::read(fixtures().join("trainer/models/expected.json")).unwrap();
    serde_json::from_slice(&text).unwrap()
}

/// A directory with a small model and one of its heads.
fn small(family: &str, task: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let from = fixtures().join("trainer/models").join(family);
    for folder in [from.clone(), from.join("heads").join(task)] {
        for file in fs::read_dir(folder).unwrap().map(Result::unwrap).filter(|file| file.path().is_file()) {
            fs::copy(file.path(), directory.path().join(file.file_name())).unwrap();
        }
    }
    directory
}

/// MiniLM's files, with another configuration if wanted.
fn minilm(edits: &[(&str, Value)]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for file in ["config.json", "model.safetensors", "tokenizer.json", "vocab.txt"] {
        let from = fixtures().join("cache/minilm").join(file);
        assert!(from.is_file(), "fixtures/cache/minilm is missing: run fixtures/fetch.py");
        if file == "config.json" {
            fs::copy(from, directory.path().join(file)).unwrap();
        } else {
            std::os::unix::fs::symlink(fs::canonicalize(from).unwrap(), directory.path().join(file)).unwrap();
        }
    }
    edit(directory.path(), edits);
    directory
}

fn without_dropout() -> [(&'static str, Value); 3] {
    ["hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout"].map(|key| (key, json!(0.0)))
}

fn task(name: &str) -> Task {
    let labels = |count: usize| Task::Classes((0..count).map(|label| format!("LABEL_{label}")).collect());
    match name {
        "two" => labels(2),
        "five" => labels(5),
        "choice" => Task::Choice,
        "span" => Task::Span,
        "words" => Task::Words(vec!["LABEL_0".to_owned(), "LABEL_1".to_owned()]),
        _ => Task::Regression,
    }
}

fn load(directory: &Path, task: &Task, settings: Settings) -> Pretrained {
    Directory::open(directory).unwrap().load(task, settings).unwrap()
}

fn batch(case: &Value) -> Batch {
    let mask = matrix(&case["attention_mask"]);
    let padded = mask.min().int64_value(&[]) == 0;
    Batch {
        ids: matrix(&case["input_ids"]),
        mask: padded.then_some(mask),
        token_types: case.get("token_type_ids").map(matrix),
        places: None,
        words: case.get("words").map(|words| means(words, case["input_ids"][0].as_array().unwrap().len())),
    }
}

/// What makes the means of each example's two words, from their first tokens and the ones behind their last.
fn means(words: &Value, length: usize) -> Tensor {
    let words: Vec<[[usize; 2]; 2]> = serde_json::from_value(words.clone()).unwrap();
    let mut weights = vec![0f32; words.len() * 2 * length];
    for (row, [start, end]) in words.concat().into_iter().enumerate() {
        weights[row * length + start..row * length + end].fill(1.0 / (end - start) as f32);
    }
    Tensor::from_slice(&weights).view([words.len() as i64, 2, length as i64])
}

/// Of a choice, whose rows are the texts of all examples, the logits of each example.
fn by_example(logits: Tensor, case: &Value, task: &Task) -> Tensor {
    match task {
        Task::Choice => logits.view([case["targets"].as_array().unwrap().len() as i64, -1]),
        _ => logits,
    }
}

fn targets(case: &Value, task: &Task) -> Tensor {
    match task {
        Task::Span => matrix(&case["targets"]),
        Task::Classes(_) | Task::Words(_) | Task::Choice => {
            Tensor::from_slice(&serde_json::from_value::<Vec<i64>>(case["targets"].clone()).unwrap())
        }
        Task::Regression | Task::Language => {
            Tensor::from_slice(&serde_json::from_value::<Vec<f32>>(case["targets"].clone()).unwrap())
        }
    }
}

fn assert_logits(model: &Pretrained, case: &Value, what: &str) {
    let logits = model.model().logits(&batch(case), Mode::Evaluate).unwrap();
    assert!(!logits.requires_grad());
    let want: Vec<Vec<f64>> = serde_json::from_value(case["logits"].clone()).unwrap();
    let got = numbers(&logits);
    assert_eq!(got.len(), want.concat().len());
    for (got, want) in got.iter().zip(want.concat()) {
        assert!(close(*got, want, TOLERANCE), "{what}: logit {got}, not {want}");
    }
}

/// Runs a step's two passes and gives every parameter's gradient.
fn gradients(model: &Pretrained, case: &Value) -> (f64, Vec<Tensor>) {
    let logits = model.model().logits(&batch(case), Mode::Train).unwrap();
    assert_eq!(logits.kind(), Kind::Float);
    let logits = by_example(logits, case, model.task());
    let loss = model.task().loss(&logits, &targets(case, model.task())).unwrap();
    loss.f_backward().unwrap();
    let all = model.model().parameters().iter().map(|parameter| parameter.tensor.grad());
    (loss.double_value(&[]), all.collect())
}

fn assert_gradients(model: &Pretrained, case: &Value, prefix: &str, what: &str) {
    let (loss, gradients) = gradients(model, case);
    assert!(close(loss, case["loss"].as_f64().unwrap(), TOLERANCE), "{what}: loss {loss}");
    let want = case["gradients"].as_object().unwrap();
    assert_eq!(want.len(), gradients.len(), "{what}");
    for (parameter, gradient) in model.model().parameters().iter().zip(gradients) {
        let name = &parameter.name;
        let full = if name.starts_with("classifier") { name.clone() } else { format!("{prefix}{name}") };
        let want = &want[&full];
        let gradient = numbers(&gradient);
        let norm = gradient.iter().map(|x| x * x).sum::<f64>().sqrt();
        assert!(
            close(norm, want["norm"].as_f64().unwrap(), TOLERANCE),
            "{what}: {name}: norm {norm}, not {want}"
        );
        for at in want["at"].as_array().unwrap() {
            let got = gradient[at[0].as_u64().unwrap() as usize];
            assert!(close(got, at[1].as_f64().unwrap(), TOLERANCE), "{what}: {name}: {got}, not {at}");
        }
    }
}

#[test]
fn small_models_compute_what_transformers_does() {
    let expected = expected();
    for family in ["bert", "roberta"] {
        for name in ["two", "five", "number", "choice", "span", "words"] {
            let case = &expected[format!("{family}-{name}")];
            let directory = small(family, name);
            let model = load(directory.path(), &task(name), Settings::default());
            assert!(model.initialised().is_empty());
            assert_logits(&model, case, &format!("{family} {name}"));
            edit(directory.path(), &without_dropout());
            let model = load(directory.path(), &task(name), Settings::default());
            assert_gradients(&model, case, "", &format!("{family} {name}"));
        }
    }
}

/// Gives MiniLM the head of the fixture.
fn set_head(model: &Pretrained) {
    for parameter in model.model().parameters().iter().filter(|p| p.name.starts_with("classifier")) {
        let shape = parameter.tensor.size();
        let count = shape.iter().product::<i64>();
        let numbers = Tensor::arange(count, (Kind::Double, tch::Device::Cpu));
        let values = if shape.len() == 2 { (numbers + 1.0).sin() } else { numbers.cos() };
        no_grad(|| parameter.tensor.shallow_clone().copy_(&(values * 0.1).view(shape.as_slice())));
    }
}

#[test]
fn minilm_computes_what_transformers_does() {
    let expected = expected();
    for name in ["two", "five", "number"] {
        let case = &expected[format!("minilm-{name}")];
        let directory = minilm(&without_dropout());
        let model = load(directory.path(), &task(name), Settings::default());
        assert_eq!(model.initialised(), ["classifier.weight", "classifier.bias"]);
        assert_eq!(model.model().max_length(), 512);
        set_head(&model);
        assert_logits(&model, case, name);
        assert_gradients(&model, case, "bert.", name);
    }
}

fn flat(gradients: &[Tensor]) -> Vec<f64> {
    gradients.iter().flat_map(numbers).collect()
}

/// libtorch has one generator for the process: what draws from it takes turns.
static GENERATOR: Mutex<()> = Mutex::new(());

/// One step's gradients from a seed, with dropout as configured.
fn dropped(directory: &Path, case: &Value, settings: Settings) -> (f64, Vec<f64>) {
    let _turn = GENERATOR.lock().unwrap_or_else(PoisonError::into_inner);
    let model = load(directory, &task("five"), settings);
    tch::manual_seed(11);
    let (loss, all) = gradients(&model, case);
    assert!(all.iter().all(|gradient| gradient.kind() == Kind::Float));
    (loss, flat(&all))
}

#[test]
fn recomputing_changes_no_bit_of_the_gradients() {
    let expected = expected();
    for family in ["bert", "roberta"] {
        let case = &expected[format!("{family}-five")];
        let directory = small(family, "five");
        for bf16 in [false, true] {
            let kept = dropped(directory.path(), case, Settings { bf16, ..Settings::default() });
            let settings = Settings { bf16, recompute: true, ..Settings::default() };
            let again = dropped(directory.path(), case, settings);
            let off = again.1.iter().zip(&kept.1).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            assert_eq!((again.0, off), (kept.0, 0.0), "{family}, bf16 {bf16}");
        }
        // Dropout is on: without it the loss is another.
        let loss = dropped(directory.path(), case, Settings::default()).0;
        assert!((loss - case["loss"].as_f64().unwrap()).abs() > 1e-3);
    }
}

#[test]
fn bfloat16_is_near_and_leaves_parameters_alone() {
    let expected = expected();
    for family in ["bert", "roberta"] {
        let case = &expected[format!("{family}-five")];
        let directory = small(family, "five");
        edit(directory.path(), &without_dropout());
        let single = dropped(directory.path(), case, Settings::default());
        let half = dropped(directory.path(), case, Settings { bf16: true, ..Settings::default() });
        assert!(single != half);
        assert!((single.0 - half.0).abs() < 0.03 * single.0, "{} {}", single.0, half.0);
        let norm = |x: &[f64]| x.iter().map(|x| x * x).sum::<f64>().sqrt();
        let difference: Vec<f64> = single.1.iter().zip(&half.1).map(|(a, b)| a - b).collect();
        assert!(norm(&difference) < 0.15 * norm(&single.1), "{} {}", norm(&difference), norm(&single.1));
        // The next pass is in single precision again.
        assert!(dropped(directory.path(), case, Settings::default()) == single);
    }
}

#[test]
fn evaluation_between_steps_leaves_gradients_whole() {
    let expected = expected();
    let case = &expected["bert-five"];
    let directory = small("bert", "five");
    edit(directory.path(), &without_dropout());
    let settings = Settings { bf16: true, ..Settings::default() };
    let alone = dropped(directory.path(), case, settings);
    let model = load(directory.path(), &task("five"), settings);
    let _unused = model.model().logits(&batch(case), Mode::Evaluate).unwrap();
    assert!(flat(&gradients(&model, case).1) == alone.1);
}

fn metadata(file: &Path) -> Value {
    let bytes = fs::read(file).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    header["__metadata__"].clone()
}

fn train_a_little(model: &Pretrained) {
    for parameter in model.model().parameters() {
        no_grad(|| {
            let _ = parameter.tensor.shallow_clone().g_add_scalar_(0.01);
        });
    }
}

#[test]
fn what_is_not_trained_is_written_back_to_the_bit() {
    for (family, name) in [("bert", "two"), ("roberta", "five"), ("roberta", "number")] {
        let from = small(family, name);
        let place = tempfile::tempdir().unwrap();
        let to = place.path().join("out");
        let model = load(from.path(), &task(name), Settings::default());
        model.write(&to).unwrap();
        assert_eq!(files(&to), files(from.path()));
        assert_eq!(files(place.path()), ["out"]);
        assert_eq!(
            fs::read(to.join("config.json")).unwrap(),
            fs::read(from.path().join("config.json")).unwrap()
        );
        assert!(tensors(&to) == tensors(from.path()), "{family} {name}");
        assert_eq!(metadata(&to.join("model-00001-of-00002.safetensors")), json!({"format": "pt"}));
        let map = |directory: &Path| -> Value {
            let text = fs::read(directory.join("model.safetensors.index.json")).unwrap();
            serde_json::from_slice::<Value>(&text).unwrap()["weight_map"].clone()
        };
        assert_eq!(map(&to), map(from.path()));

        // An empty directory is replaced, one with a file in it is not.
        train_a_little(&model);
        let trained = place.path().join("trained");
        fs::create_dir(&trained).unwrap();
        model.write(&trained).unwrap();
        assert!(model.write(&trained).is_err());
        assert_eq!(files(place.path()), ["out", "trained"]);
        let (before, after) = (tensors(&to), tensors(&trained));
        let learned: Vec<&str> = model.model().parameters().iter().map(|p| p.name.as_str()).collect();
        let kept: Vec<&String> = before.keys().filter(|name| !learned.contains(&name.as_str())).collect();
        assert_eq!(kept.len(), 2, "{kept:?}");
        for ((name, old), (other, new)) in before.iter().zip(&after) {
            assert_eq!((name, &old.0, &old.1), (other, &new.0, &new.1));
            assert_eq!(old.2 == new.2, kept.contains(&name), "{name}");
        }
    }
}

#[test]
fn what_is_written_computes_the_same() {
    let expected = expected();
    let case = &expected["bert-five"];
    let from = small("bert", "five");
    let model = load(from.path(), &task("five"), Settings::default());
    train_a_little(&model);
    let place = tempfile::tempdir().unwrap();
    let to = place.path().join("out");
    model.write(&to).unwrap();
    let again = load(&to, &task("five"), Settings::default());
    let logits = |model: &Pretrained| numbers(&model.model().logits(&batch(case), Mode::Evaluate).unwrap());
    assert_eq!(logits(&again), logits(&model));
}

#[test]
fn a_new_head_on_minilm_is_said_so_and_written_with_the_usual_names() {
    let expected = expected();
    let case = &expected["minilm-two"];
    let labels = Task::Classes(vec!["bad".to_owned(), "good".to_owned()]);
    let from = minilm(&[("num_labels", json!(7))]);
    let source = Directory::open(from.path()).unwrap();
    assert_eq!((source.task(), source.tokenizer_files().len()), (None, 2));
    let model = source.load(&labels, Settings { seed: 5, ..Settings::default() }).unwrap();
    assert_eq!(model.initialised(), ["classifier.weight", "classifier.bias"]);
    let head = |seed: u64| {
        let model = load(from.path(), &labels, Settings { seed, ..Settings::default() });
        numbers(&model.model().parameters().iter().find(|p| p.name == "classifier.weight").unwrap().tensor)
    };
    assert_eq!(head(5), head(5));
    assert_ne!(head(5), head(6));
    let spread = (head(5).iter().map(|x| x * x).sum::<f64>() / 768.0).sqrt();
    assert!((spread - 0.02).abs() < 0.002, "{spread}");

    let place = tempfile::tempdir().unwrap();
    let to = place.path().join("out");
    model.write(&to).unwrap();
    assert_eq!(files(&to), ["config.json", "model.safetensors", "tokenizer.json", "vocab.txt"]);
    let config: Value = serde_json::from_slice(&fs::read(to.join("config.json")).unwrap()).unwrap();
    assert_eq!(config["architectures"], json!(["BertForSequenceClassification"]));
    assert_eq!(config["id2label"], json!({"0": "bad", "1": "good"}));
    assert_eq!(config["label2id"], json!({"bad": 0, "good": 1}));
    assert_eq!(config["problem_type"], "single_label_classification");
    assert_eq!((&config["num_labels"], &config["layer_norm_eps"]), (&json!(2), &json!(1e-12)));
    let (before, after) = (tensors(from.path()), tensors(&to));
    assert_eq!(after.len(), before.len() + 2);
    for (name, tensor) in &before {
        assert!(&after[&model.stored_name(name)] == tensor, "{name}");
        assert_eq!(model.stored_name(name), format!("bert.{name}"));
    }
    let again = Directory::open(&to).unwrap();
    assert_eq!(again.task(), Some(&labels));
    let again = again.load(&labels, Settings::default()).unwrap();
    assert!(again.initialised().is_empty());
    let logits = |model: &Pretrained| numbers(&model.model().logits(&batch(case), Mode::Evaluate).unwrap());
    assert_eq!(logits(&again), logits(&model));
}

#[test]
fn a_torch_file_becomes_safetensors_and_tied_weights_stay_tied() {
    let from = fixtures().join("trainer/models/old");
    let model = load(&from, &task("two"), Settings::default());
    let new = ["bert.pooler.dense.weight", "bert.pooler.dense.bias", "classifier.weight", "classifier.bias"];
    assert_eq!(model.initialised(), new);
    let of = |name: &str| model.model().parameters().iter().find(|p| p.name == name).unwrap();
    assert!(!of("bert.encoder.layer.0.output.LayerNorm.gamma").decays);
    assert!(!of("bert.encoder.layer.0.output.dense.bias").decays);
    assert!(of("bert.encoder.layer.0.output.dense.weight").decays);
    train_a_little(&model);
    let place = tempfile::tempdir().unwrap();
    let to = place.path().join("out");
    model.write(&to).unwrap();
    assert_eq!(files(&to), ["config.json", "model.safetensors"]);
    let (before, after) = (tensors(&from), tensors(&to));
    assert_eq!(after.len(), before.len() + new.len());
    let words = "bert.embeddings.word_embeddings.weight";
    assert!(after[words] == after["cls.predictions.decoder.weight"]);
    assert!(after[words] != before[words]);
    assert!(
        after["cls.predictions.transform.dense.weight"] == before["cls.predictions.transform.dense.weight"]
    );
}
