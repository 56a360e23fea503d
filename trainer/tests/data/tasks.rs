//! Tasks that are more than texts with labels: files in the layouts of their releases, against what
//! fixtures/task_files.py says of them (fixtures/trainer/tasks).

use std::path::{Path, PathBuf};

use evenkeel::rebalance::options::{Choice, Subsample, TextData};
use evenkeel::rebalance::presets::MetricName;
use evenkeel_trainer::data::{
    Division, Examples, Labels, Layout, Prepared, PromptedExample, Questions, Science, Sources, Targets,
    TextTokenizer, Windows, prepare,
};
use evenkeel_trainer::score::{Outputs, value as score};
use evenkeel_trainer::text::Answers;
use serde_json::Value;
use tch::Device;

use crate::{fixture, numbers};

fn file(name: &str) -> PathBuf {
    fixture("trainer/tasks").join(name)
}

fn expected() -> Value {
    serde_json::from_slice(&std::fs::read(file("expected.json")).unwrap()).unwrap()
}

fn tokenizer(name: &str) -> TextTokenizer {
    let path = if name == "minilm" { fixture("cache/minilm") } else { fixture("trainer/data").join(name) };
    TextTokenizer::open(&path).unwrap()
}

fn prepared(layout: Layout, train: &Path, eval: Option<&Path>) -> evenkeel_trainer::Result<Prepared> {
    let labels = ["False", "True"].map(str::to_owned);
    let sources = Sources {
        train,
        eval,
        eval_fraction: 0.25,
        layout,
        labels: &labels,
        configured: &[],
        regression: false,
        ratio: 1.0,
        choice: Choice::First,
        seed: 13,
        max_length: 64,
    };
    prepare(&sources, &tokenizer("minilm"))
}

/// The tokens and targets of a data set.
fn content(examples: &Examples) -> (Vec<Vec<u32>>, Targets, Option<Vec<usize>>) {
    let tokens = examples.tokens();
    let ids = (0..tokens.len()).map(|row| tokens.ids(row).to_vec()).collect();
    (ids, examples.targets().clone(), examples.questions())
}

#[test]
fn both_releases_hold_the_same() {
    for (layout, original, hub, examples, choices) in [
        (Layout::Words, "WiC.jsonl", "wic.parquet", 20, 1),
        (Layout::Choices, "COPA.jsonl", "copa.parquet", 18, 2),
        (Layout::Answers, "MultiRC.jsonl", "multirc.parquet", 39, 1),
    ] {
        let [original, hub] = [original, hub].map(|name| file("superglue").join(name));
        let Prepared { train, eval, labels, notes } = prepared(layout, &original, Some(&hub)).unwrap();
        assert!(notes.is_empty(), "{notes:?}");
        assert_eq!((train.len(), train.choices()), (examples, choices), "{layout:?}");
        assert!(content(&train) == content(&eval), "{layout:?}");
        assert_eq!(labels.outputs(), 2);
    }
}

#[test]
fn a_choice_has_a_row_for_each_text() {
    let Prepared { train, labels, .. } =
        prepared(Layout::Choices, &file("superglue/COPA.jsonl"), None).unwrap();
    assert_eq!(labels, Labels::Classes(vec!["0".to_owned(), "1".to_owned()]));
    let batch = train.batch(&[0, 2], Device::Cpu).unwrap();
    assert_eq!((batch.ids.size()[0], batch.labels.size()), (4, vec![2]));
    // Both rows of an example begin with the same premise.
    let ids: Vec<Vec<i64>> = (0..4).map(|row| Vec::try_from(batch.ids.get(row)).unwrap()).collect();
    assert_eq!(ids[0][..9], ids[1][..9]);
    assert_ne!(ids[0], ids[1]);
    assert_ne!(ids[0][..9], ids[2][..9]);
}

#[test]
fn a_held_back_part_has_passages_of_its_own() {
    let Prepared { train, eval, .. } =
        prepared(Layout::Answers, &file("superglue/MultiRC.jsonl"), None).unwrap();
    let (train, eval) = (train.questions().unwrap(), eval.questions().unwrap());
    assert_eq!(train.len() + eval.len(), 39);
    assert!(!eval.is_empty() && eval.iter().all(|question| !train.contains(question)));
}

#[test]
fn marked_words_are_where_transformers_has_them() {
    let expected = expected();
    for name in ["minilm", "roberta-json"] {
        let sources =
            prepared(Layout::Words, &file("superglue/WiC.jsonl"), Some(&file("superglue/WiC.jsonl")));
        assert!(sources.is_ok());
        let table = Layout::Words.read(&file("superglue/WiC.jsonl")).unwrap();
        let tokens = tokenizer(name).tokenise(&table, 128).unwrap();
        for (row, case) in expected["words"][name].as_array().unwrap().iter().enumerate() {
            assert_eq!(tokens.ids(row), numbers(&case["ids"], |id| id.as_u64().map(|id| id as u32)));
            let words = tokens.words(row).unwrap().clone().map(|word| [word.start, word.end]);
            let want: [[usize; 2]; 2] = serde_json::from_value(case["words"].clone()).unwrap();
            assert_eq!(words, want, "{name}, row {row}");
        }
        // Where the word is cut off, nothing can be said of it.
        let message = tokenizer(name).tokenise(&table, 8).unwrap_err().to_string();
        assert!(message.contains("row 1 of") && message.contains("marked words"), "{message}");
    }
    let Prepared { train, .. } =
        prepared(Layout::Words, &file("superglue/WiC.jsonl"), Some(&file("superglue/WiC.jsonl"))).unwrap();
    let means = train.batch(&[0, 1], Device::Cpu).unwrap().words.unwrap();
    assert_eq!(means.size()[..2], [2, 2]);
    let sums =
        Vec::<f32>::try_from(means.sum_dim_intlist([2].as_slice(), false, tch::Kind::Float).flatten(0, 1));
    assert!(sums.unwrap().iter().all(|sum| (sum - 1.0).abs() < 1e-6));
}

#[test]
fn both_releases_of_squad_hold_the_same() {
    let original = Questions::read(&file("squad/train-v1.1.json")).unwrap();
    assert_eq!((original.contexts.len(), original.questions.len()), (3, 11));
    assert_eq!(original, Questions::read(&file("squad/squad.parquet")).unwrap());
}

/// Windows, answers and scores.
#[test]
fn questions_are_answered_as_by_the_scripts() {
    let expected = expected();
    let questions = Questions::read(&file("squad/train-v1.1.json")).unwrap();
    for name in ["minilm", "roberta-json"] {
        let tokenizer = tokenizer(name);
        for case in expected["windows"][name].as_array().unwrap() {
            let size = |key: &str| case[key].as_u64().unwrap() as usize;
            let division = Division { max_length: size("max_length"), overlap: size("overlap") };
            let learned = Windows::new(&questions, &tokenizer, division, true).unwrap();
            let windows = Windows::new(&questions, &tokenizer, division, false).unwrap();
            assert_eq!((windows.too_long, windows.misplaced), (0, 0));
            let wanted = case["windows"].as_array().unwrap();
            assert_eq!(windows.parts.len(), wanted.len());
            let Targets::Spans(targets) = learned.examples.targets() else { panic!("no spans") };
            for (row, want) in wanted.iter().enumerate() {
                let place = format!("{name}, {division:?}, window {row}");
                let part = &windows.parts[row];
                assert_eq!(part.question, want["question"].as_u64().unwrap() as usize, "{place}");
                assert_eq!(part.start, want["start"].as_u64().unwrap() as usize, "{place}");
                let offsets: Vec<(usize, usize)> = serde_json::from_value(want["offsets"].clone()).unwrap();
                assert_eq!(part.offsets, offsets, "{place}");
                let tokens = windows.examples.tokens();
                assert_eq!(
                    tokens.ids(row),
                    numbers(&want["ids"], |id| id.as_u64().map(|id| id as u32)),
                    "{place}"
                );
                assert_eq!(
                    tokens.types(row),
                    numbers(&want["types"], |kind| kind.as_u64().map(|kind| kind as u8))
                );
                assert_eq!(targets[row].to_vec(), numbers(&want["target"], Value::as_i64), "{place}");
            }
            let mut answers = Answers::new(&questions, &windows);
            // In any order, and with filling behind.
            for (row, logits) in case["logits"].as_array().unwrap().iter().enumerate().rev() {
                let mut logits: Vec<f32> =
                    serde_json::from_value::<Vec<[f32; 2]>>(logits.clone()).unwrap().concat();
                logits.resize(logits.len() + 10, 99.0);
                answers.add(row, &logits);
            }
            let texts = answers.texts();
            let want: Vec<String> = serde_json::from_value(case["texts"].clone()).unwrap();
            assert_eq!(texts, want);
            let right: Vec<Vec<String>> = questions
                .questions
                .iter()
                .map(|q| q.answers.iter().map(|a| a.text.clone()).collect())
                .collect();
            assert_scores(&case["scores"], &texts, &right);
        }
    }
    let hard = &expected["hard"];
    let given: Vec<String> = serde_json::from_value(hard["given"].clone()).unwrap();
    let right: Vec<Vec<String>> = serde_json::from_value(hard["right"].clone()).unwrap();
    assert_scores(&hard["scores"], &given, &right);
}

fn assert_scores(want: &Value, predicted: &[String], expected: &[Vec<String>]) {
    for (name, want) in want.as_object().unwrap() {
        let metric = MetricName::named(name).unwrap();
        let found = score(metric, Outputs::Words { predicted, expected }).unwrap();
        assert!((found - want.as_f64().unwrap()).abs() < 1e-12, "{name}: {found}, not {want}");
    }
}

/// A question that leaves no room, and an answer that is not where it is said to be, are counted.
#[test]
fn what_cannot_be_learned_is_counted() {
    let mut questions = Questions::read(&file("squad/train-v1.1.json")).unwrap();
    questions.questions[3].answers[0].start += 1;
    let tokenizer = tokenizer("minilm");
    let division = Division { max_length: 32, overlap: 12 };
    let learned = Windows::new(&questions, &tokenizer, division, true).unwrap();
    assert_eq!((learned.misplaced, learned.too_long), (1, 1));
    assert!(learned.parts.iter().all(|part| part.question != 3 && part.question != 10));
    let windows = Windows::new(&questions, &tokenizer, division, false).unwrap();
    assert_eq!((windows.misplaced, windows.too_long), (0, 1));
    // No window, no answer.
    assert_eq!(Answers::new(&questions, &windows).texts()[10], "");
}

fn science(
    train: PathBuf,
    eval: Option<PathBuf>,
    split: &str,
    ratio: f64,
) -> evenkeel_trainer::Result<Science> {
    let data = TextData {
        train,
        eval,
        eval_fraction: 0.2,
        preset: Some("scienceqa".to_owned()),
        text: None,
        text_pair: None,
        label: None,
        labels: Vec::new(),
        regression: false,
        new_head: false,
        metrics: vec![MetricName::Accuracy],
        subsample: Subsample { ratio, choice: Choice::First },
        max_length: 256,
        doc_stride: 128,
        eval_split: split.to_owned(),
    };
    Science::read(&data, 13)
}

/// The prompts of some problems, as the script makes them.
fn prompts(ids: &Value) -> Vec<PromptedExample> {
    let all = &expected()["scienceqa"]["prompts"];
    let of = |id: &Value| {
        let case = &all[id.as_str().unwrap()];
        let text = |key: &str| case[key].as_str().unwrap().to_owned();
        let candidates: Vec<String> = serde_json::from_value(case["candidates"].clone()).unwrap();
        let right = candidates.iter().position(|candidate| *candidate == text("answer")).unwrap();
        PromptedExample { prompt: text("prompt"), answer: text("answer"), candidates, right }
    };
    ids.as_array().unwrap().iter().map(of).collect()
}

#[test]
fn science_is_asked_in_prompts() {
    let splits = expected()["scienceqa"]["splits"].clone();
    let whole = file("scienceqa/problems.json");
    let Science { train, eval, notes } = science(whole.clone(), None, "val", 1.0).unwrap();
    assert_eq!(train, prompts(&splits["train"]));
    assert_eq!(eval, prompts(&splits["val"]));
    assert!(notes[0].starts_with("3 questions have a picture, of 11 training questions"), "{notes:?}");
    assert_eq!(
        science(whole.clone(), Some(whole.clone()), "test", 1.0).unwrap().eval,
        prompts(&splits["test"])
    );
    assert_eq!(science(whole.clone(), None, "val", 0.5).unwrap().train, prompts(&splits["train"])[..5]);
    let message = science(whole.clone(), None, "dev", 1.0).unwrap_err().to_string();
    assert!(
        message.contains("no column `dev`; the columns are `train`, `val`, `test`, `minitrain`"),
        "{message}"
    );

    let hub = file("scienceqa/train.parquet");
    let from_hub = science(hub.clone(), Some(hub.clone()), "val", 1.0).unwrap();
    assert_eq!(from_hub.train, prompts(&splits["train"]));
    assert_eq!(from_hub.notes[0], notes[0]);
    let held = science(hub, None, "val", 1.0).unwrap();
    assert_eq!((held.train.len(), held.eval.len()), (9, 2));

    // Without the list of splits the problems say it themselves.
    let place = tempfile::tempdir().unwrap();
    let alone = place.path().join("problems.json");
    std::fs::copy(&whole, &alone).unwrap();
    assert_eq!(science(alone.clone(), None, "val", 1.0).unwrap().eval, prompts(&splits["val"]));
    let text = std::fs::read_to_string(&whole).unwrap().replacen("\"answer\": 1", "\"answer\": 9", 1);
    std::fs::write(&alone, text).unwrap();
    let message = science(alone, None, "val", 1.0).unwrap_err().to_string();
    assert!(message.contains("column `answer` is 9, but there are"), "{message}");
}
