//! Directories that cannot be trained, heads that are for another task, and batches that do not fit.

use std::fs;
use std::path::Path;

use evenkeel_trainer::model::{Batch, Directory, Settings, Task};
use evenkeel_trainer::training::Mode;
use serde_json::{Value, json};
use tch::{Kind, Tensor};

use super::common::edit;
use super::{load, minilm, small, task};

/// What opening or loading says.
fn refusal(directory: &Path, task: &Task) -> String {
    match Directory::open(directory).and_then(|directory| directory.load(task, Settings::default())) {
        Ok(_) => panic!("it was taken"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn what_cannot_be_trained_is_named() {
    let labels = |names: &[&str]| Task::Classes(names.iter().map(|name| (*name).to_owned()).collect());
    let two = task("two");
    for (edits, part) in [
        (
            vec![("model_type", json!("t5"))],
            "`t5` is not supported; this version trains bert, roberta, xlm-roberta, camembert, llama, mistral, qwen2, qwen3.",
        ),
        (vec![("model_type", Value::Null)], "`model_type` is missing"),
        (vec![("hidden_size", json!("big"))], "`hidden_size` is \"big\", not a size."),
        (vec![("hidden_size", json!(64))], "has the shape [50, 32], config.json makes it [50, 64]"),
        (vec![("num_attention_heads", json!(5))], "not a multiple"),
        (
            vec![("num_hidden_layers", json!(3))],
            "`bert.encoder.layer.2.attention.self.query.weight` is missing",
        ),
        (
            vec![("hidden_act", json!("mish"))],
            "`hidden_act` \"mish\" is not supported; this version knows gelu,",
        ),
        (vec![("position_embedding_type", json!("relative_key"))], "\"relative_key\" is not supported"),
        (vec![("is_decoder", json!(true))], "`is_decoder` is set"),
        (vec![("hidden_dropout_prob", json!(1.5))], "`hidden_dropout_prob` is 1.5"),
        (vec![("problem_type", json!("multi_label_classification"))], "`problem_type`"),
        (vec![("id2label", json!({"0": "a", "2": "b"}))], "`id2label` does not give a name"),
        (vec![("id2label", json!({"0": "a", "1": "b"}))], "the labels of the model's head are `a`, `b`"),
    ] {
        let directory = small("bert", "two");
        edit(directory.path(), &edits);
        let message = refusal(directory.path(), &two);
        assert!(message.contains(part), "{message}");
    }
    let directory = small("bert", "two");
    assert!(
        refusal(directory.path(), &task("five"))
            .contains("knows 2 labels (`LABEL_0`, `LABEL_1`), the data has 5")
    );
    assert!(refusal(directory.path(), &Task::Regression).contains("chooses one of 2 labels"));
    assert!(refusal(directory.path(), &labels(&["a", "a"])).contains("cannot be told apart"));
    assert!(refusal(small("bert", "number").path(), &two).contains("predicts a number"));
    // Labels without names take those of the data.
    let place = tempfile::tempdir().unwrap();
    let to = place.path().join("out");
    load(directory.path(), &labels(&["no", "yes"]), Settings::default()).write(&to).unwrap();
    assert_eq!(Directory::open(&to).unwrap().task(), Some(&labels(&["no", "yes"])));
    fs::remove_file(directory.path().join("config.json")).unwrap();
    assert!(refusal(directory.path(), &two).contains("config.json"));
}

/// A head for another task is no head: a new one is made, named as what begins at random, and the next program
/// is told what it is.
#[test]
fn a_head_for_another_task_is_not_taken() {
    for family in ["bert", "roberta"] {
        for (own, other) in
            [("choice", "span"), ("span", "two"), ("two", "choice"), ("words", "two"), ("number", "choice")]
        {
            let from = small(family, own);
            let model = load(from.path(), &task(other), Settings::default());
            let new = model.initialised();
            let head = if other == "span" { "qa_outputs." } else { "classifier." };
            assert!(
                new.len() >= 2 && new.iter().all(|name| name.starts_with(head)),
                "{own} {other}: {new:?}"
            );
            let place = tempfile::tempdir().unwrap();
            let to = place.path().join("out");
            model.write(&to).unwrap();
            let again = Directory::open(&to).unwrap();
            assert_eq!(again.task(), Some(&task(other)), "{family}: {other} after {own}");
            assert!(again.load(&task(other), Settings::default()).unwrap().initialised().is_empty());
            // And back: what is there now is not the first task's head.
            assert!(!load(&to, &task(own), Settings::default()).initialised().is_empty());
        }
    }
    let span = small("bert", "span");
    let class = |directory: &Path| -> Value {
        let text = fs::read(directory.join("config.json")).unwrap();
        serde_json::from_slice::<Value>(&text).unwrap()["architectures"][0].clone()
    };
    assert_eq!(class(span.path()), "BertForQuestionAnswering");
    // The pooler of MiniLM has no part in a span.
    let whole = minilm(&[]);
    let model = load(whole.path(), &Task::Span, Settings::default());
    assert_eq!(model.initialised(), ["qa_outputs.weight", "qa_outputs.bias"]);
    assert!(model.model().parameters().iter().all(|parameter| !parameter.name.contains("pooler")));
}

#[test]
fn words_must_be_marked() {
    let directory = small("bert", "words");
    let model = load(directory.path(), &task("words"), Settings::default());
    let ids = Tensor::full([1, 4], 3_i64, (Kind::Int64, tch::Device::Cpu));
    let batch = Batch { ids, mask: None, token_types: None, places: None, words: None };
    let message = model.model().logits(&batch, Mode::Evaluate).unwrap_err().to_string();
    assert!(message.contains("where its words are"), "{message}");
}

#[test]
fn a_batch_that_does_not_fit_is_an_error() {
    let directory = small("roberta", "two");
    let model = load(directory.path(), &task("two"), Settings::default());
    assert_eq!(model.model().max_length(), 40);
    let ids = |shape: &[i64]| Tensor::full(shape, 3_i64, (Kind::Int64, tch::Device::Cpu));
    let logits = |ids, mask| {
        model
            .model()
            .logits(&Batch { ids, mask, token_types: None, places: None, words: None }, Mode::Evaluate)
    };
    assert_eq!(logits(ids(&[2, 40]), None).unwrap().size(), [2, 2]);
    for (ids, mask) in
        [(ids(&[2, 41]), None), (ids(&[2, 0]), None), (ids(&[40]), None), (ids(&[2, 4]), Some(ids(&[2, 5])))]
    {
        let message = logits(ids, mask).unwrap_err().to_string();
        assert!(message.contains("does not fit the model"), "{message}");
    }
    // Outside the vocabulary: libtorch's own words, and no panic.
    assert!(logits(ids(&[1, 4]) * 100, None).is_err());
}
