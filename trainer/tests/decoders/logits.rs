//! Logits, loss and gradients of whole decoders, and their directories.

use std::fs;

use evenkeel_trainer::model::{Batch, Directory, Pretrained, Settings, Task};
use evenkeel_trainer::training::Mode;
use serde_json::{Value, json};
use tch::no_grad;

use crate::common::{close, edit, files, numbers, tensors};
use crate::{TOLERANCE, assert_logits, batch, gradients, json, load, norm, small, three};

fn assert_gradients(model: &Pretrained, case: &Value, what: &str) {
    let (loss, gradients) = gradients(model, case);
    assert!(close(loss, case["loss"].as_f64().unwrap(), TOLERANCE), "{what}: loss {loss}");
    let want = case["gradients"].as_object().unwrap();
    assert_eq!(want.len(), gradients.len(), "{what}");
    for (parameter, gradient) in model.model().parameters().iter().zip(gradients) {
        let (name, want) = (&parameter.name, &want[&parameter.name]);
        let found = norm(&gradient);
        assert!(
            close(found, want["norm"].as_f64().unwrap(), TOLERANCE),
            "{what}: {name}: {found}, not {want}"
        );
        let gradient = numbers(&gradient);
        for at in want["at"].as_array().unwrap() {
            let got = gradient[at[0].as_u64().unwrap() as usize];
            assert!(close(got, at[1].as_f64().unwrap(), TOLERANCE), "{what}: {name}: {got}, not {at}");
        }
    }
}

#[test]
fn small_decoders_compute_what_transformers_does() {
    let expected = json("expected.json");
    for family in ["llama", "mistral", "qwen2", "qwen3"] {
        for (kind, task) in [("language", Task::Language), ("labels", three())] {
            let case = &expected[format!("{family}-{kind}")];
            let directory = small(family, kind == "labels");
            for recompute in [false, true] {
                let settings = Settings { recompute, ..Settings::default() };
                let model = load(directory.path(), &task, settings);
                assert!(model.initialised().is_empty());
                assert_logits(&model, case, &format!("{family} {kind}"));
                assert_gradients(&model, case, &format!("{family} {kind}"));
            }
        }
    }
}

#[test]
fn what_fills_up_a_batch_decides_nothing() {
    let expected = json("expected.json");
    for (kind, task) in [("language", Task::Language), ("labels", three())] {
        let directory = small("llama", kind == "labels");
        let model = load(directory.path(), &task, Settings::default());
        let logits = |batch: &Batch| numbers(&model.model().logits(batch, Mode::Evaluate).unwrap());
        let usual = batch(&expected[format!("llama-{kind}")]);
        let mask = usual.mask.as_ref().unwrap();
        assert_eq!(mask.min().int64_value(&[]), 0, "nothing is filled up");
        // Not the token that the configuration names, either.
        let ids = usual.ids.where_self(&mask.eq(1), &usual.ids.full_like(7));
        let found = logits(&Batch {
            ids,
            mask: Some(mask.shallow_clone()),
            ..batch(&expected[format!("llama-{kind}")])
        });
        assert_eq!(found, logits(&usual), "{kind}");
        // An example without a token has logits, too.
        let none = mask.zeros_like();
        assert!(logits(&Batch { mask: Some(none), ..usual }).iter().all(|logit| logit.is_finite()));
    }
}

#[test]
fn rotary_positions_are_scaled_as_transformers_does() {
    let expected = json("expected.json");
    for scaling in ["linear", "dynamic", "llama3", "yarn", "yarn-mscale"] {
        let case = &expected[format!("llama-{scaling}")];
        let directory = small("llama", false);
        let edits = case["edits"].as_object().unwrap();
        let edits: Vec<(&str, Value)> =
            edits.iter().map(|(key, value)| (key.as_str(), value.clone())).collect();
        edit(directory.path(), &edits);
        let model = load(directory.path(), &Task::Language, Settings::default());
        assert_logits(&model, case, scaling);
        assert_gradients(&model, case, scaling);
        // Each scaling is another model.
        let plain = &expected["llama-language"]["logits"];
        assert_ne!(plain, &case["logits"], "{scaling}");
        if scaling == "dynamic" {
            assert_eq!(model.model().max_length(), 18);
        }
    }
}

#[test]
fn bfloat16_is_near() {
    let expected = json("expected.json");
    let case = &expected["qwen3-language"];
    let directory = small("qwen3", false);
    let of = |bf16| {
        gradients(&load(directory.path(), &Task::Language, Settings { bf16, ..Settings::default() }), case)
    };
    let (single, half) = (of(false), of(true));
    assert!(single.0 != half.0 && (single.0 - half.0).abs() < 0.03 * single.0, "{} {}", single.0, half.0);
    let all = |gradients: &[tch::Tensor]| gradients.iter().map(|g| norm(g).powi(2)).sum::<f64>().sqrt();
    assert!((all(&single.1) - all(&half.1)).abs() < 0.1 * all(&single.1));
}

#[test]
fn shards_names_and_types_come_back() {
    for (family, task) in [("llama", Task::Language), ("mistral", three()), ("qwen2", Task::Language)] {
        let from = small(family, task != Task::Language);
        let place = tempfile::tempdir().unwrap();
        let to = place.path().join("out");
        let model = load(from.path(), &task, Settings::default());
        model.write(&to).unwrap();
        let kept: Vec<String> =
            files(from.path()).into_iter().filter(|name| name != "classifier.json").collect();
        assert_eq!(files(&to), kept);
        assert!(tensors(&to) == tensors(from.path()), "{family}");
        assert_eq!(
            fs::read(to.join("config.json")).unwrap(),
            fs::read(from.path().join("config.json")).unwrap()
        );
        for parameter in model.model().parameters() {
            no_grad(|| {
                let _ = parameter.tensor.shallow_clone().g_add_scalar_(0.01);
            });
        }
        let trained = place.path().join("trained");
        model.write(&trained).unwrap();
        let (before, after) = (tensors(&to), tensors(&trained));
        let unused = if task == Task::Language { "score.weight" } else { "lm_head.weight" };
        for (name, tensor) in &before {
            assert_eq!(after[name] == *tensor, name == unused, "{family} {name}");
            assert_eq!((&after[name].0, &after[name].1), (&tensor.0, &tensor.1));
        }
    }
}

#[test]
fn a_language_model_becomes_a_classifier() {
    let directory = small("llama", false);
    edit(directory.path(), &[("pad_token_id", json!(-1))]);
    let task = Task::Classes(vec!["no".to_owned(), "yes".to_owned()]);
    let mut source = Directory::open(directory.path()).unwrap();
    assert_eq!((source.task(), source.config().padding), (None, None));
    source.set_padding(2);
    let model = source.load(&task, Settings::default()).unwrap();
    assert_eq!(model.initialised(), ["score.weight"]);
    let place = tempfile::tempdir().unwrap();
    let to = place.path().join("out");
    model.write(&to).unwrap();
    let config: Value = serde_json::from_slice(&fs::read(to.join("config.json")).unwrap()).unwrap();
    assert_eq!(config["architectures"], json!(["LlamaForSequenceClassification"]));
    assert_eq!((&config["pad_token_id"], &config["id2label"]["1"]), (&json!(2), &json!("yes")));
    let again = load(&to, &task, Settings::default());
    assert!(again.initialised().is_empty());
    let expected = json("expected.json");
    let case = &expected["llama-labels"];
    let logits = |model: &Pretrained| numbers(&model.model().logits(&batch(case), Mode::Evaluate).unwrap());
    assert_eq!(logits(&again), logits(&model));
}

#[test]
fn what_cannot_be_read_is_named() {
    let yarn = |more: Value| json!({"rope_type": "yarn", "rope_theta": 1e4, "factor": more});
    for (key, value, part) in [
        (
            "num_key_value_heads",
            json!(3),
            "`num_attention_heads` 4 is not a multiple of `num_key_value_heads` 3",
        ),
        ("head_dim", json!(7), "`head_dim`"),
        ("head_dim", json!(16), "has the shape"),
        ("rope_parameters", json!({"rope_type": "longrope"}), "\"longrope\" are not supported"),
        ("rope_parameters", json!(7), "`rope_parameters` is no JSON object"),
        ("rope_parameters", json!({"rope_type": "linear"}), "`factor` of the rotary positions is missing"),
        ("rope_parameters", yarn(json!(0.0)), "`factor` of the rotary positions is missing or zero"),
        ("rope_parameters", json!({"rope_theta": 0.5}), "`rope_theta` is 0.5"),
        ("rope_parameters", json!({"partial_rotary_factor": 0.5}), "`partial_rotary_factor`"),
        ("hidden_act", json!("mish"), "`hidden_act` \"mish\""),
        ("pad_token_id", json!(60), "`pad_token_id` lies outside"),
        ("vocab_size", json!(61), "`model.embed_tokens.weight` has the shape"),
        ("attention_bias", json!(false), ""),
    ] {
        let directory = small("llama", false);
        edit(directory.path(), &[(key, value)]);
        let found =
            Directory::open(directory.path()).and_then(|d| d.load(&Task::Language, Settings::default()));
        match found {
            Ok(_) => assert!(part.is_empty(), "{part}"),
            Err(error) => assert!(!part.is_empty() && error.to_string().contains(part), "{error}"),
        }
    }
    let directory = small("llama", false);
    let model = load(directory.path(), &Task::Language, Settings::default());
    let mut asks_nothing = batch(&json("expected.json")["llama-language"]);
    asks_nothing.places = None;
    let message = model.model().logits(&asks_nothing, Mode::Evaluate).unwrap_err().to_string();
    assert!(message.contains("which places"), "{message}");
    let types = [("layer_types", json!(["full_attention"])), ("use_sliding_window", json!(true))];
    let directory = small("qwen2", false);
    edit(directory.path(), &types);
    assert!(Directory::open(directory.path()).unwrap_err().to_string().contains("`layer_types`"));
}
