//! Whole runs with adapters and with decoders, as a user types them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod place;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use evenkeel::{Checkpoint, OpenOptions};
use place::{EVENKEEL, LAYERS, Place, USUAL, WORDS, ended, llama};
use serde_json::{Value, json};

/// Every tensor of a checkpoint, to the bit.
fn tensors(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let checkpoint = Checkpoint::open(directory, &OpenOptions::default()).unwrap();
    let bytes = |tensor| checkpoint.read(tensor, 0..tensor.elements).unwrap().into_owned();
    checkpoint.tensors().iter().map(|tensor| (tensor.name.clone(), bytes(tensor))).collect()
}

/// What `evenkeel analyze` says, as JSON.
fn analyze(place: &Place, arguments: &str) -> Value {
    let mut command = Command::new(&*EVENKEEL);
    command.current_dir(place.0.path()).arg("analyze").args(arguments.split_whitespace());
    let output = command.args(["--format", "json", "--quiet"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn an_adapter_is_trained_and_the_base_is_not() {
    let place = Place::new().with_sentences();
    let before = fs::read(place.path("model/model.safetensors")).unwrap();
    let said = place
        .train("out", "--lora 4 --lora-dropout 0.1 --spectra-interval 1 --warmup 0 --epochs 8 --lr 1e-2");
    assert!(said.contains("The result is out"), "{said}");
    assert!(fs::read(place.path("model/model.safetensors")).unwrap() == before);
    let mut files: Vec<String> = fs::read_dir(place.path("out"))
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    assert_eq!(files, ["adapter_config.json", "adapter_model.safetensors", "report.json", "training"]);
    // What was learned moved the spectra, and they are those of `analyze`.
    let report = place.report("out");
    let found = analyze(&place, "model --adapter out");
    for key in ["blocks", "matrices", "summary"] {
        assert_eq!(report["spectra_after"][key], found[key], "{key}");
    }
    assert_ne!(report["spectra_before"]["blocks"], found["blocks"]);
    assert_eq!(report["spectra_before"]["blocks"], analyze(&place, "model")["blocks"]);
    let value = |when: &str| report[when][0]["value"].as_f64().unwrap();
    assert!(value("after") > value("before"), "{} {}", value("after"), value("before"));
    // Adapters have the rates of their blocks: the log's are those of the formula.
    let log = place.log("out");
    let numbers = |key: &str| -> Vec<f64> {
        log[3][key].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
    };
    let (alphas, rates) = (numbers("alphas"), numbers("rates"));
    assert_eq!((alphas.len(), rates.len()), (LAYERS, LAYERS));
    let mean = alphas.iter().sum::<f64>() / alphas.len() as f64;
    for (alpha, rate) in alphas.iter().zip(&rates) {
        let factor = 10f64.powf(1.25 * (1.0 / (1.0 + (-10.0 * (alpha - mean)).exp()) - 0.5));
        assert!((rate / (log[3]["rate"].as_f64().unwrap() * factor) - 1.0).abs() < 1e-9);
    }
    assert_ne!(log[0]["alphas"], log[23]["alphas"]);
}

#[test]
fn the_authors_spectra_are_those_without_the_scale() {
    let place = Place::new().with_sentences();
    place.train("out", "--lora 4 --lora-alpha 32 --rslora --lora-spectra unscaled --lora-targets all-linear");
    let report = place.report("out");
    let unscaled = analyze(&place, "model --adapter out --adapter-scale 1");
    assert_eq!(report["spectra_after"]["blocks"], unscaled["blocks"]);
    assert_ne!(report["spectra_after"]["blocks"], analyze(&place, "model --adapter out")["blocks"]);
}

#[test]
fn merging_changes_what_was_adapted_and_nothing_else() {
    let place = Place::new().with_sentences();
    place.train("adapter", "--lora 4 --lora-targets query,dense");
    place.train("merged", "--lora 4 --lora-targets query,dense --merge");
    let (base, merged) = (tensors(&place.path("model")), tensors(&place.path("merged")));
    for (name, bytes) in &base {
        let adapted = name.ends_with("query.weight") || name.ends_with("dense.weight");
        assert_eq!(merged[&format!("bert.{name}")] != *bytes, adapted, "{name}");
    }
    assert_eq!(merged.len(), base.len() + 2);
    // The same training, whatever is written: the merged model has nearly the adapter's spectra.
    let [of_adapter, of_merged] = ["model --adapter adapter", "merged"].map(|what| {
        let report = analyze(&place, what);
        report["blocks"]
            .as_array()
            .unwrap()
            .iter()
            .map(|b| b["alpha"].as_f64().unwrap())
            .collect::<Vec<f64>>()
    });
    assert!(
        of_adapter.iter().zip(&of_merged).all(|(a, b)| (a - b).abs() < 1e-3),
        "{of_adapter:?} {of_merged:?}"
    );
    assert_eq!(place.report("merged")["spectra_after"]["blocks"], analyze(&place, "merged")["blocks"]);
    assert!(place.path("merged/vocab.txt").is_file());
}

/// Steps enough that a kill finds the run at work, with states all along.
const LONG: &str = "--train train.jsonl --eval train.jsonl --batch 4 --epochs 30 --lr 1e-3 --save-steps 3 \
                    --lora 4 --lora-dropout 0.1";

#[test]
fn a_killed_run_with_adapters_goes_on_to_the_same_bits() {
    let place = Place::new().with_sentences();
    place.run("whole", LONG, 0);
    let mut child = place.command("killed", LONG);
    let mut child = child.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let (state, started) = (place.path("killed/training/state"), Instant::now());
    while !state.exists() && started.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    place.run("killed", &format!("{LONG} --resume"), 0);
    let weights = |output: &str| fs::read(place.path(output).join("adapter_model.safetensors")).unwrap();
    assert!(weights("whole") == weights("killed"));
    let steps: Vec<u64> = place.log("killed").iter().map(|record| record["step"].as_u64().unwrap()).collect();
    assert!(steps.into_iter().eq(1..=180));
}

/// A vocabulary and a decoder, with prompts whose third word says the answer.
fn decoder() -> Place {
    let place = Place::new();
    llama(&place, 50);
    let words: Vec<&str> = WORDS.split_whitespace().skip(18).collect();
    let line = |i: usize| {
        let (word, answer) =
            if i.is_multiple_of(2) { ("wonderful", " great") } else { ("dreadful", " poor") };
        json!({"question": format!("film {} {word}", words[i % 10]), "answer": answer}).to_string() + "\n"
    };
    place.write("prompts.jsonl", &(0..24).map(line).collect::<String>());
    place
}

const PROMPTS: &str = "--train prompts.jsonl --eval prompts.jsonl --prompt question --answer answer --batch 8 --epochs 6 \
                       --keep last";

#[test]
fn a_language_model_learns_its_answers() {
    let place = decoder();
    let mut command = place.command("whole", &format!("{PROMPTS} --lr 5e-3"));
    let said = ended(command.arg("--labels").arg(" great, poor").output().unwrap(), 0);
    assert!(said.contains("accuracy") && said.contains("log-likelihood"), "{said}");
    let report = place.report("whole");
    assert_eq!(
        (&report["after"][0]["name"], &report["after"][0]["value"]),
        (&json!("accuracy"), &json!(1.0))
    );
    let likelihood = |when: &str| report[when][1]["value"].as_f64().unwrap();
    // An untrained model knows next to nothing of fifty tokens.
    assert!((-5.0..-3.0).contains(&likelihood("before")), "{report}");
    assert!(likelihood("after") > -0.5, "{report}");
    let config: Value = serde_json::from_slice(&fs::read(place.path("whole/config.json")).unwrap()).unwrap();
    assert_eq!(config["architectures"], json!(["LlamaForCausalLM"]));
    assert_eq!(tensors(&place.path("whole")).len(), tensors(&place.path("model")).len());

    let way = "--lora 8 --lora-targets all-linear --lr 1e-2 --bf16 --gradient-checkpointing";
    place.run("adapter", &format!("{PROMPTS} {way}"), 0);
    let report = place.report("adapter");
    assert_eq!(report["after"][0]["name"], "log-likelihood");
    let likelihood = |when: &str| report[when][0]["value"].as_f64().unwrap();
    assert!(likelihood("after") > likelihood("before") + 1.0, "{report}");
    assert_eq!(report["spectra_after"]["blocks"], analyze(&place, "model --adapter adapter")["blocks"]);
}

/// Answers of several lengths: every token counts alike, however the examples of a step are divided.
#[test]
fn batches_that_are_added_up_count_by_their_answers() {
    let place = decoder();
    let line = |i: usize| {
        let answer = if i % 8 < 4 { " great" } else { " poor long short plot" };
        json!({"question": "film one", "answer": answer}).to_string() + "\n"
    };
    place.write("prompts.jsonl", &(0..24).map(line).collect::<String>());
    let losses = |output: &str, more: &str| -> Vec<f64> {
        place.run(output, &format!("{PROMPTS} --epochs 2 {more}"), 0);
        place.log(output).iter().map(|record| record["loss"].as_f64().unwrap()).collect()
    };
    let whole = losses("whole", "--batch 8");
    let parts = losses("parts", "--batch 2 --accumulate 4");
    assert_eq!(whole.len(), 6);
    for (one, other) in parts.iter().zip(&whole) {
        assert!((one - other).abs() < 1e-4, "{one} {other}");
    }
}

#[test]
fn a_decoder_classifies() {
    let place = Place::new().with_sentences();
    llama(&place, 50);
    let said = place.train("out", "--lora 4 --merge --epochs 4 --lr 5e-3");
    assert!(said.contains("these begin at random: score.weight"), "{said}");
    let config: Value = serde_json::from_slice(&fs::read(place.path("out/config.json")).unwrap()).unwrap();
    assert_eq!(config["architectures"], json!(["LlamaForSequenceClassification"]));
    assert_eq!(config["pad_token_id"], 0);
    let again = place.path("out").display().to_string();
    let mut command = place.command("again", &format!("{USUAL} --epochs 1 --lr 1e-9"));
    // The merged model is a model like any other.
    fs::rename(place.path("model"), place.path("old")).unwrap();
    fs::rename(&again, place.path("model")).unwrap();
    let said = ended(command.output().unwrap(), 0);
    assert!(!said.contains("begin at random"), "{said}");
    let report: Value = serde_json::from_slice(&fs::read(place.path("model/report.json")).unwrap()).unwrap();
    let value = |report: &Value, when: &str| report[when][0]["value"].as_f64().unwrap();
    assert_eq!(value(&report, "after"), value(&place.report("again"), "before"));
}

#[test]
fn a_plan_tells_what_adapters_take() {
    let place = decoder();
    let plan = |more: &str| place.run("plan", &format!("{PROMPTS} --dry-run {more}"), 0);
    let whole = plan("");
    let adapters = plan("--lora 2");
    // A and B of rank 2 beside q_proj and v_proj, in three layers.
    let (all, two) = ("114240 parameters, on", format!("{} parameters, on", 3 * 2 * (64 + 64 + 64 + 32)));
    assert!(whole.contains(all) && adapters.contains(&two), "{whole}{adapters}");
    assert!(adapters.contains("Memory: about") && adapters.contains("model.layers.2"), "{adapters}");
    assert!(!place.path("plan").exists());
}

#[test]
fn what_does_not_fit_is_refused_in_a_sentence() {
    let place = decoder();
    let refused = |more: &str, part: &str| {
        let said = place.run("no", &format!("{PROMPTS} {more}"), 2);
        assert!(said.contains(part), "{said}");
        assert!(!place.path("no").exists());
    };
    refused(
        "--lora 4 --lora-targets query",
        "there are down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj",
    );
    refused("--lora 4 --lora-save embed_tokens", "`tie_word_embeddings`");
    refused("--lora 4 --lora-save head", "--lora-save head");
    refused("--lora 4 --lora-targets all-linear,q_proj", "no other name goes with it");
    refused("--lora 4 --lora-dropout 1", "--lora-dropout is a probability");
    refused("--lora 4 --lora-alpha 0", "--lora-alpha must be a number above 0");
    refused("--lora 4 --merge --lora-spectra unscaled", "--merge writes");
    refused("--merge", "--lora");
    refused("--max-length 25", "the model takes at most 24 tokens");
    refused("--labels good,bad", "` great` is none of the candidates good, bad");
    refused("--text question", "cannot be used with");
    place.write("empty.jsonl", "{\"question\": \"film\", \"answer\": \"\"}\n");
    refused("--train empty.jsonl", "row 1, column `answer`: the answer is missing");
    // The adapter of another model.
    place.run("adapter", &format!("{PROMPTS} --lora 4 --epochs 1"), 0);
    fs::rename(place.path("model"), place.path("llama")).unwrap();
    let other = Place::new();
    fs::rename(other.path("model"), place.path("model")).unwrap();
    let mut command = Command::new(&*EVENKEEL);
    command.current_dir(place.0.path()).args(["analyze", "model", "--adapter", "adapter"]);
    let said = ended(command.output().unwrap(), 2);
    assert!(said.contains("which the base does not hold"), "{said}");
    let mut command = place.command("no", PROMPTS);
    let said = ended(command.output().unwrap(), 2);
    assert!(said.contains("a model of the kind bert does not predict the next token"), "{said}");
}

#[test]
fn a_tokenizer_beyond_the_embedding_is_refused() {
    let place = decoder();
    llama(&place, 20);
    let said = place.run("no", PROMPTS, 2);
    assert!(said.contains("but the model knows 20: they do not belong together"), "{said}");
}
