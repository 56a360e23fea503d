//! Every preset whose files hold more than texts in columns, from the files of its releases to a result, as users
//! type it (fixtures/trainer/tasks, made by fixtures/task_files.py).
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod place;

use std::fs;

use place::{LAYERS, Place, fixtures, llama};
use serde_json::Value;

/// A run of one epoch on a file of the fixtures.
fn run(place: &Place, output: &str, preset: &str, file: &str, more: &str) -> String {
    let file = fixtures().join("trainer/tasks").join(file);
    let file = file.display();
    place.run(
        output,
        &format!("--preset {preset} --train {file} --eval {file} --epochs 1 --batch 4 {more}"),
        0,
    )
}

/// The names of a run's scores.
fn scores_of(place: &Place, output: &str) -> Vec<String> {
    let report = place.report(output);
    report["after"]
        .as_array()
        .unwrap()
        .iter()
        .map(|score| score["name"].as_str().unwrap().to_owned())
        .collect()
}

/// The names of a run's scores, all of them numbers from 0 to 1.
fn scores(place: &Place, output: &str) -> Vec<String> {
    let report = place.report(output);
    let scores = report["after"].as_array().unwrap();
    assert!(scores.iter().all(|score| (0.0..=1.0).contains(&score["value"].as_f64().unwrap())), "{scores:?}");
    scores_of(place, output)
}

fn class(place: &Place, output: &str) -> String {
    let config: Value =
        serde_json::from_slice(&fs::read(place.path(output).join("config.json")).unwrap()).unwrap();
    config["architectures"][0].as_str().unwrap().to_owned()
}

#[test]
fn superglue_is_read_in_both_releases() {
    let place = Place::new();
    let of_labels = "BertForSequenceClassification";
    for (preset, original, hub, head, wanted) in [
        ("boolq", "BoolQ", "boolq", of_labels, "accuracy"),
        ("cb", "CB", "cb", of_labels, "accuracy-macro-f1 accuracy macro-f1"),
        ("superglue-rte", "RTE", "rte", of_labels, "accuracy"),
        ("copa", "COPA", "copa", "BertForMultipleChoice", "accuracy"),
        ("multirc", "MultiRC", "multirc", of_labels, "f1-exact-match f1 exact-match"),
        ("wic", "WiC", "wic", "BertForWordInContext", "accuracy"),
    ] {
        // A sentence of WiC has more tokens than the usual twelve.
        let more = "--max-length 24";
        let said = run(&place, preset, preset, &format!("superglue/{original}.jsonl"), more);
        assert!(said.contains("no head for this task"), "{said}");
        let hub_run = format!("{preset}-hub");
        run(&place, &hub_run, preset, &format!("superglue/{hub}.parquet"), more);
        assert_eq!(scores(&place, preset).join(" "), wanted);
        assert_eq!(class(&place, preset), head);
        // The same examples in the same order: the same weights.
        assert!(place.weights(preset) == place.weights(&hub_run), "{preset}");
    }
}

#[test]
fn questions_train_every_block_and_are_answered() {
    let place = Place::new();
    let more = "--max-length 24 --doc-stride 4 --s 1 --warmup 0";
    run(&place, "out", "squad", "squad/train-v1.1.json", more);
    run(&place, "hub", "squad", "squad/squad.parquet", more);
    assert!(place.weights("out") == place.weights("hub"));
    assert_eq!(scores(&place, "out"), ["word-f1", "exact-match"]);
    assert_eq!(class(&place, "out"), "BertForQuestionAnswering");
    // The authors' scripts leave out a layer of the last block here.
    run(&place, "last", "squad", "squad/train-v1.1.json", &format!("{more} --exclude-last"));
    for output in ["out", "last"] {
        let log = place.log(output);
        let factors: Vec<f64> = log[0]["rates"]
            .as_array()
            .unwrap()
            .iter()
            .map(|r| r.as_f64().unwrap() / log[0]["rate"].as_f64().unwrap())
            .collect();
        assert_eq!(factors.len(), LAYERS);
        assert!(factors.iter().all(|factor| (factor - 1.0).abs() > 1e-9), "{output}: {factors:?}");
    }
    let plan =
        run(&place, "plan", "squad", "squad/squad.parquet", &format!("{more} --dry-run --subsample 0.5"));
    assert!(plan.contains("11 evaluation examples"), "{plan}");
}

/// What cannot be learned is counted; a text in place of a set of questions is refused.
#[test]
fn odd_questions_are_counted() {
    let place = Place::new();
    let row = |question: &str, answer: &str, start: usize| {
        serde_json::json!({"context": "the film is great and the plot is poor", "question": question,
                           "answers": {"text": [answer], "answer_start": [start]}})
        .to_string()
            + "\n"
    };
    let long = "is ".repeat(30);
    place.write(
        "q.jsonl",
        &(row("is the film great", "great", 12) + &row("is", "poor", 3) + &row(&long, "great", 12)),
    );
    let said = place.run("out", "--preset squad --train q.jsonl --eval q.jsonl --epochs 1 --doc-stride 2", 0);
    assert!(said.contains("1 training question is left out: the answer does not stand"), "{said}");
    assert!(said.contains("1 training question is left out: too long for --max-length 12"), "{said}");
    assert!(said.contains("1 evaluation question is too long for"), "{said}");
    place.write("bad.jsonl", &row("is the film great", "dreadful", 0));
    let said = place.run("bad", "--preset squad --train bad.jsonl --eval q.jsonl --doc-stride 2", 2);
    assert!(said.contains("no question is left to learn from") && said.contains("of 1 the answer"), "{said}");
    place.write("t.jsonl", "{\"text\": \"the film\", \"label\": \"x\"}\n");
    let said = place.run("text", "--preset squad --train t.jsonl", 2);
    assert!(said.contains("line 1 has no column `context`; the columns are `text`, `label`."), "{said}");
    let said = place.run("pairs", "--preset wic --train t.jsonl --text body", 2);
    assert!(said.contains("--text is for texts in columns"), "{said}");
    let said = place.run("metric", "--preset copa --train t.jsonl --metric f1", 2);
    assert!(said.contains("--metric f1 is not for this task: accuracy."), "{said}");
    let said = place.run("csv", "--preset copa --train t.csv", 2);
    assert!(said.contains("t.csv"), "{said}");
}

/// A language model is asked for the letter, whole or with adapters; the plan shows what it is asked.
#[test]
fn science_is_asked_of_a_language_model() {
    let place = Place::new();
    llama(&place, 50);
    let folder = fixtures().join("trainer/tasks/scienceqa");
    let train =
        |file: &str| format!("--preset scienceqa --train {} --max-length 24", folder.join(file).display());
    let whole = train("problems.json");
    let plan = place.run("plan", &format!("{whole} --dry-run"), 0);
    let prompt = "Question: Which of these is number 0?\nChoose one.\nContext: N/A\nOptions: (A) the film is great (B) ";
    assert!(plan.contains(prompt) && plan.contains("\nAnswer: A\n"), "{plan}");
    assert!(plan.contains("11 training and 4 evaluation examples"), "{plan}");
    assert!(plan.contains("3 questions have a picture"), "{plan}");
    place.run("out", &format!("{whole} --epochs 1 --batch 4"), 0);
    assert_eq!(scores_of(&place, "out")[0], "accuracy");
    assert_eq!(class(&place, "out"), "LlamaForCausalLM");
    place.run("hub", &format!("{} --epochs 1 --batch 4 --lora 4", train("train.parquet")), 0);
    assert!(place.path("hub/adapter_config.json").is_file());
}

#[test]
fn an_encoder_knows_no_letters() {
    let place = Place::new();
    let file = fixtures().join("trainer/tasks/scienceqa/problems.json");
    let said = place.run("out", &format!("--preset scienceqa --train {}", file.display()), 2);
    assert!(said.contains("a model of the kind bert does not predict the next token"), "{said}");
}
