//! Adapters against PEFT: what they compute and learn, and what is written.

use std::fs;
use std::path::Path;

use evenkeel::rebalance::options::{Lora, LoraSpectra, Targets};
use evenkeel::{Checkpoint, OpenOptions, Silent, analyze};
use evenkeel_trainer::model::{Directory, Pretrained, Settings, Task};
use serde_json::{Value, json};
use tch::{Kind, Tensor, no_grad};

use crate::common::{close, files, fixtures, numbers, tensors};
use crate::{TOLERANCE, assert_logits, gradients, json, norm, small, three};

fn lora(rank: usize, alpha: f64, targets: &[&str]) -> Lora {
    Lora {
        rank,
        alpha,
        rank_stabilised: false,
        dropout: 0.0,
        targets: Targets::Named(targets.iter().map(|name| (*name).to_owned()).collect()),
        save: Vec::new(),
        spectra: LoraSpectra::Scaled,
        merge: false,
    }
}

/// The three adapters that PEFT saved: their base, their task, and what they were made with.
fn cases() -> Vec<(&'static str, tempfile::TempDir, Task, Lora)> {
    let roberta = tempfile::tempdir().unwrap();
    let from = fixtures().join("trainer/models/roberta");
    for folder in [from.clone(), from.join("heads/two")] {
        for file in fs::read_dir(folder).unwrap().map(Result::unwrap).filter(|file| file.path().is_file()) {
            fs::copy(file.path(), roberta.path().join(file.file_name())).unwrap();
        }
    }
    let two = Task::Classes(vec!["LABEL_0".to_owned(), "LABEL_1".to_owned()]);
    let stabilised = Lora { rank_stabilised: true, ..lora(3, 5.0, &["down_proj", "k_proj", "gate_proj"]) };
    vec![
        ("language", small("llama", false), Task::Language, lora(4, 6.0, &["q_proj", "v_proj"])),
        ("labels", small("qwen3", true), three(), stabilised),
        ("roberta", roberta, two, lora(4, 8.0, &["query", "value"])),
    ]
}

fn adapt(directory: &Path, task: &Task, settings: Settings, lora: &Lora) -> Pretrained {
    Directory::open(directory).unwrap().adapt(task, settings, lora).unwrap()
}

/// PEFT's name of a parameter.
fn peft_name(name: &str) -> String {
    format!("base_model.model.{name}")
}

/// Gives a model the numbers of an adapter on the disk.
fn take(model: &Pretrained, adapter: &Path) {
    let weights = adapter.join("adapter_model.safetensors");
    let stored: std::collections::HashMap<String, Tensor> =
        Tensor::read_safetensors(&weights).unwrap().into_iter().collect();
    assert_eq!(stored.len(), model.model().parameters().len());
    for parameter in model.model().parameters() {
        no_grad(|| parameter.tensor.shallow_clone().copy_(&stored[&peft_name(&parameter.name)]));
    }
}

fn saved(name: &str) -> std::path::PathBuf {
    fixtures().join("trainer/decoders/adapters").join(name)
}

/// The case of a reference: the inputs are those of the whole models.
fn case(name: &str, expected: &Value) -> Value {
    let (models, peft) = (json("expected.json"), json("peft.json"));
    let mut case = match name {
        "language" => models["llama-language"].clone(),
        "labels" => models["qwen3-labels"].clone(),
        _ => expected["roberta-two"].clone(),
    };
    let peft = peft[name].clone();
    if name == "language" {
        // Every token but the first of each row is learned.
        let ids: Vec<Vec<i64>> = serde_json::from_value(case["input_ids"].clone()).unwrap();
        let mask: Vec<Vec<i64>> = serde_json::from_value(case["attention_mask"].clone()).unwrap();
        let real = |row: usize| (1..ids[row].len()).filter(|at| mask[row][*at] == 1).collect::<Vec<_>>();
        let all: Vec<(usize, usize)> =
            (0..ids.len()).flat_map(|row| real(row).into_iter().map(move |at| (row, at))).collect();
        case["places"] = all.iter().map(|(row, at)| json!(row * ids[0].len() + at - 1)).collect();
        case["targets"] = all.iter().map(|(row, at)| json!(ids[*row][*at])).collect();
    } else {
        case["logits"] = peft["logits"].clone();
        case["targets"] = if name == "labels" { json!([2, 0, 1]) } else { json!([0, 1, 0]) };
    }
    case["loss"] = peft["loss"].clone();
    case["gradients"] = peft["gradients"].clone();
    case
}

#[test]
fn adapters_compute_and_learn_what_pefts_do() {
    let text = fs::read(fixtures().join("trainer/models/expected.json")).unwrap();
    let expected: Value = serde_json::from_slice(&text).unwrap();
    for (name, directory, task, lora) in cases() {
        let case = case(name, &expected);
        if name == "roberta" {
            let without = ["hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout"];
            crate::common::edit(directory.path(), &without.map(|key| (key, json!(0.0))));
        }
        for recompute in [false, true] {
            let settings = Settings { recompute, ..Settings::default() };
            let model = adapt(directory.path(), &task, settings, &lora);
            take(&model, &saved(name));
            if name != "language" {
                assert_logits(&model, &case, name);
            }
            let (loss, gradients) = gradients(&model, &case);
            assert!(close(loss, case["loss"].as_f64().unwrap(), TOLERANCE), "{name}: loss {loss}");
            let want = case["gradients"].as_object().unwrap();
            assert_eq!(want.len(), gradients.len(), "{name}");
            for (parameter, gradient) in model.model().parameters().iter().zip(&gradients) {
                let want = want[&peft_name(&parameter.name)].as_f64().unwrap();
                assert!(close(norm(gradient), want, TOLERANCE), "{name}: {}: {want}", parameter.name);
            }
        }
    }
}

/// MiniLM with an adapter whose numbers follow from the order of their names.
#[test]
fn minilm_with_an_adapter_computes_what_peft_does() {
    let text = fs::read(fixtures().join("trainer/models/expected.json")).unwrap();
    let mut case = serde_json::from_slice::<Value>(&text).unwrap()["minilm-two"].clone();
    case["logits"] = json("peft.json")["minilm"]["logits"].clone();
    let lora = Lora { targets: Targets::Usual, ..lora(8, 16.0, &[]) };
    let two = Task::Classes(vec!["bad".to_owned(), "good".to_owned()]);
    let model = adapt(&fixtures().join("cache/minilm"), &two, Settings::default(), &lora);
    let mut learned: Vec<_> = model.model().parameters().iter().collect();
    learned.sort_by_key(|parameter| peft_name(&model.stored_name(&parameter.name)));
    for (number, parameter) in learned.into_iter().enumerate() {
        let places = Tensor::arange(parameter.tensor.numel() as i64, (Kind::Double, tch::Device::Cpu));
        let values = ((places + number as f64 + 1.0).sin() * 0.05).view(parameter.tensor.size().as_slice());
        no_grad(|| parameter.tensor.shallow_clone().copy_(&values));
    }
    assert_logits(&model, &case, "minilm");
}

#[test]
fn what_is_saved_is_what_peft_saves() {
    for (name, directory, task, lora) in cases() {
        let place = tempfile::tempdir().unwrap();
        let to = place.path().join("adapter");
        let model = adapt(directory.path(), &task, Settings::default(), &lora);
        take(&model, &saved(name));
        model.write(&to).unwrap();
        assert_eq!(files(&to), files(&saved(name)));
        let stored = |folder: &Path| {
            let mut all = Tensor::read_safetensors(folder.join("adapter_model.safetensors")).unwrap();
            all.sort_by(|a, b| a.0.cmp(&b.0));
            all
        };
        for ((ours, one), (theirs, other)) in stored(&to).iter().zip(stored(&saved(name))) {
            assert_eq!(ours, &theirs);
            assert_eq!((one.size(), one.kind()), (other.size(), Kind::Float));
            assert_eq!(numbers(one), numbers(&other), "{ours}");
        }
        let config = |folder: &Path| -> Value {
            serde_json::from_slice(&fs::read(folder.join("adapter_config.json")).unwrap()).unwrap()
        };
        let mut ours = config(&to);
        assert_eq!(ours["base_model_name_or_path"], json!(directory.path().to_string_lossy()));
        ours["base_model_name_or_path"] = Value::Null;
        let theirs = config(&saved(name));
        let entries = |config: &Value| config.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        assert_eq!(entries(&ours), entries(&theirs));
        for (key, value) in theirs.as_object().unwrap() {
            // PEFT writes 0.0 where we write 0.0, and 8 where we write 8: whole numbers are the same here.
            assert_eq!(&ours[key], value, "{name}: {key}");
        }
    }
}

#[test]
fn a_merged_model_computes_the_same_and_the_rest_keeps_its_bits() {
    let text = fs::read(fixtures().join("trainer/models/expected.json")).unwrap();
    let expected: Value = serde_json::from_slice(&text).unwrap();
    for (name, directory, task, lora) in cases() {
        let place = tempfile::tempdir().unwrap();
        let to = place.path().join("merged");
        let model = adapt(directory.path(), &task, Settings::default(), &Lora { merge: true, ..lora });
        take(&model, &saved(name));
        model.write(&to).unwrap();
        let (before, after) = (tensors(directory.path()), tensors(&to));
        assert!(before.keys().eq(after.keys()));
        let trained = model.model().trained();
        for (tensor, old) in &before {
            let changes = trained.updates.iter().any(|update| update.weight == *tensor)
                || trained.parameters.iter().any(|parameter| parameter.name == *tensor);
            assert_eq!(after[tensor] != *old, changes, "{name}: {tensor}");
        }
        // RoBERTa is stored in F16, which rounds what is merged.
        if name == "labels" {
            let again = Directory::open(&to).unwrap().load(&task, Settings::default()).unwrap();
            assert_logits(&again, &case(name, &expected), name);
        }
    }
}

/// The spectra of a model in training are those of its adapter on the disk, to the bit.
#[test]
fn spectra_are_those_of_analyze() {
    let settings = evenkeel::Settings { min_eigenvalues: Some(4), ..evenkeel::Settings::default() };
    for (name, directory, task, lora) in cases() {
        for spectra in [LoraSpectra::Scaled, LoraSpectra::Unscaled] {
            let lora = Lora { spectra, ..lora.clone() };
            let place = tempfile::tempdir().unwrap();
            let to = place.path().join("adapter");
            let model = adapt(directory.path(), &task, Settings::default(), &lora);
            let of = |checkpoint: &Checkpoint| analyze(checkpoint, &settings, &Silent).unwrap();
            let plain = of(&Checkpoint::open(directory.path(), &OpenOptions::default()).unwrap());
            let lambda = |report: &evenkeel::Report| -> Vec<(String, Option<f64>)> {
                report.matrices.iter().map(|m| (m.name.clone(), m.metric("lambda_max"))).collect()
            };
            // B is zero.
            assert_eq!(lambda(&of(&model.weights(None).unwrap())), lambda(&plain));
            take(&model, &saved(name));
            model.write(&to).unwrap();
            let adapter_scale = (spectra == LoraSpectra::Unscaled).then_some(1.0);
            let options = OpenOptions { adapters: vec![to], adapter_scale, ..OpenOptions::default() };
            let (ours, theirs) = (
                of(&model.weights(None).unwrap()),
                of(&Checkpoint::open(directory.path(), &options).unwrap()),
            );
            assert_eq!(lambda(&ours), lambda(&theirs), "{name}");
            assert_ne!(lambda(&ours), lambda(&plain));
            assert_eq!(ours.summary.alpha_std, theirs.summary.alpha_std);
            // Some of them alone are the same numbers.
            let one = model.model().trained().updates[1].weight.clone();
            let alone = model.weights(Some(&[&one])).unwrap();
            assert_eq!(alone.tensors().len(), 1);
            let alone = lambda(&of(&alone));
            assert!(alone.iter().all(|number| lambda(&ours).contains(number)), "{alone:?}");
        }
    }
}

#[test]
fn adapters_begin_as_pefts_do() {
    let directory = small("llama", false);
    let lora = Lora { targets: Targets::AllLinear, ..lora(8, 16.0, &[]) };
    let of = |seed| adapt(directory.path(), &Task::Language, Settings { seed, ..Settings::default() }, &lora);
    let model = of(3);
    let trained = model.model().trained();
    // Seven matrices in each of two layers, and not the output.
    assert_eq!((trained.updates.len(), trained.parameters.len()), (14, 28));
    for update in &trained.updates {
        let (a, b) = (&trained.parameters[update.a], &trained.parameters[update.b]);
        assert!(numbers(&b.tensor).iter().all(|x| *x == 0.0) && !update.frozen.requires_grad());
        let bound = (a.tensor.size()[1] as f64).sqrt().recip();
        let values = numbers(&a.tensor);
        let largest = values.iter().fold(0f64, |most, x| most.max(x.abs()));
        assert!(largest <= bound * (1.0 + 1e-6) && largest > 0.9 * bound, "{largest} {bound}");
        let square = values.iter().map(|x| x * x).sum::<f64>() / values.len() as f64;
        assert!((square * 3.0 / bound.powi(2) - 1.0).abs() < 0.3, "{}", a.name);
    }
    let first = |model: &Pretrained| numbers(&model.model().parameters()[0].tensor);
    assert!(first(&of(3)) == first(&model) && first(&of(4)) != first(&model));
    let frozen: usize = tensors(directory.path())
        .iter()
        .filter(|(name, _)| *name != "score.weight")
        .map(|(_, t)| t.2.len())
        .sum();
    assert_eq!(trained.frozen, frozen as u64);
}

#[test]
fn frozen_weights_are_held_in_bf16_where_products_are() {
    let directory = small("mistral", true);
    let settings = Settings { bf16: true, ..Settings::default() };
    let model = adapt(directory.path(), &three(), settings, &lora(2, 2.0, &["o_proj", "up_proj"]));
    let trained = model.model().trained();
    assert!(trained.updates.iter().all(|update| update.frozen.kind() == Kind::BFloat16));
    assert!(trained.parameters.iter().all(|parameter| parameter.tensor.kind() == Kind::Float));
    let case = &json("expected.json")["mistral-labels"];
    let single = case["loss"].as_f64().unwrap();
    let (loss, gradients) = gradients(&model, case);
    assert!((loss - single).abs() < 0.05 * single, "{loss} {single}");
    assert!(gradients.iter().all(|gradient| gradient.kind() == Kind::Float));
}

#[test]
fn names_that_mean_nothing_are_refused_with_those_that_there_are() {
    let directory = small("llama", true);
    let refusal = |lora: &Lora| {
        let source = Directory::open(directory.path()).unwrap();
        source
            .adapt(&three(), Settings::default(), lora)
            .err()
            .map(|error| error.to_string())
            .unwrap_or_default()
    };
    let message = refusal(&lora(2, 2.0, &["q_proj", "query"]));
    assert!(message.contains("--lora-targets query"), "{message}");
    assert!(message.contains("down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj"), "{message}");
    // Not the end of a word.
    assert!(refusal(&lora(2, 2.0, &["proj"])).contains("--lora-targets proj"));
    assert_eq!(refusal(&lora(2, 2.0, &["layers.1.self_attn.q_proj"])), "");
    let save = |names: &[&str]| Lora {
        save: names.iter().map(|name| (*name).to_owned()).collect(),
        ..lora(2, 2.0, &["q_proj"])
    };
    assert!(refusal(&save(&["nowhere"])).contains("--lora-save nowhere"));
    let source = Directory::open(directory.path()).unwrap();
    let model = source.adapt(&three(), Settings::default(), &save(&["model.norm"])).unwrap();
    let whole: Vec<&str> = model.model().parameters().iter().map(|p| p.name.as_str()).collect();
    assert!(whole.contains(&"model.norm.weight") && whole.contains(&"score.weight"), "{whole:?}");
    assert_eq!(model.model().trained().saved, ["classifier", "score", "model.norm"]);
}
