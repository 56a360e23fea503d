//! Runs as a user types them, with the two programs: a small random BERT, and every option that changes
//! what a run does.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

const WORDS: &str = "a the film plot cast score is was very not wonderful dreadful fine weak great poor long short one \
                     two three four five six seven eight nine ten";

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures")
}

/// The program that a user calls: as new as this test, wherever it was built.
static EVENKEEL: LazyLock<PathBuf> = LazyLock::new(|| {
    let arguments = ["build", "--quiet", "--package", "evenkeel", "--bin", "evenkeel"];
    let built = Command::new(env!("CARGO")).args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).status();
    assert!(built.unwrap().success());
    // Beside the trainer, or in the folder of the dev profile next to its own.
    let profile = Path::new(env!("CARGO_BIN_EXE_evenkeel-trainer")).parent().unwrap();
    profile.with_file_name("debug").join("evenkeel")
});

/// A directory with a model, data, and whatever runs leave.
struct Place(tempfile::TempDir);

impl Place {
    /// The small BERT with a head, and a vocabulary for its 50 tokens.
    fn new(head: &str) -> Place {
        let place = Place(tempfile::tempdir().unwrap());
        let model = place.path("model");
        fs::create_dir(&model).unwrap();
        let from = fixtures().join("trainer/models/bert");
        for folder in [from.clone(), from.join("heads").join(head)] {
            for file in fs::read_dir(folder).unwrap().map(Result::unwrap).filter(|file| file.path().is_file())
            {
                fs::copy(file.path(), model.join(file.file_name())).unwrap();
            }
        }
        let special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];
        let vocabulary: Vec<&str> = special.into_iter().chain(WORDS.split_whitespace()).collect();
        fs::write(model.join("vocab.txt"), vocabulary.join("\n") + "\n").unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn without_dropout(self) -> Place {
        let path = self.path("model/config.json");
        let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        for key in ["hidden_dropout_prob", "attention_probs_dropout_prob"] {
            config[key] = json!(0.0);
        }
        fs::write(path, config.to_string()).unwrap();
        self
    }

    /// Sentences whose third word says the label.
    fn with_sentences(self) -> Place {
        let number = |i: usize| WORDS.split_whitespace().nth(18 + i % 10).unwrap();
        let line = |i: usize| {
            let (word, label) =
                if i.is_multiple_of(2) { ("wonderful", "LABEL_1") } else { ("dreadful", "LABEL_0") };
            json!({"text": format!("film {} {word}", number(i)), "label": label}).to_string() + "\n"
        };
        self.write("train.jsonl", &(0..24).map(line).collect::<String>());
        self
    }

    fn command(&self, output: &str, more: &str) -> Command {
        let mut command = Command::new(&*EVENKEEL);
        command.current_dir(self.0.path()).env("EVENKEEL_TRAINER", env!("CARGO_BIN_EXE_evenkeel-trainer"));
        command.args(["rebalance", "model", "--output", output, "--threads", "1", "--quiet"]);
        command.args(["--max-length", "12"]).args(more.split_whitespace());
        command
    }

    /// Runs it, wants an exit code, and gives what it printed.
    fn run(&self, output: &str, more: &str, code: i32) -> String {
        ended(self.command(output, more).output().unwrap(), code)
    }

    /// A run on the sentences with the usual numbers.
    fn train(&self, output: &str, more: &str) -> String {
        self.run(output, &format!("{USUAL} {more}"), 0)
    }

    fn log(&self, output: &str) -> Vec<Value> {
        let text = fs::read_to_string(self.path(output).join("training/log.jsonl")).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn report(&self, output: &str) -> Value {
        serde_json::from_slice(&fs::read(self.path(output).join("report.json")).unwrap()).unwrap()
    }

    /// The weights of a result, to the bit: two shards and their index.
    fn weights(&self, output: &str) -> Vec<Vec<u8>> {
        let names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
        names.map(|name| fs::read(self.path(output).join(name)).unwrap()).to_vec()
    }
}

const USUAL: &str = "--train train.jsonl --eval train.jsonl --batch 8 --epochs 2 --lr 2e-3 --keep last";

fn ended(output: Output, code: i32) -> String {
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{text}");
    text
}

fn losses(log: &[Value]) -> Vec<f64> {
    log.iter().map(|record| record["loss"].as_f64().unwrap()).collect()
}

#[test]
fn every_optimizer_trains_in_its_own_way() {
    let place = Place::new("two").with_sentences();
    let ways = [
        "--optimizer adamw",
        "--optimizer adam",
        "--optimizer adafactor",
        "--optimizer sgd",
        "--sam 0.05",
        "--sam 0.5 --adaptive-sam",
    ];
    let mut weights = Vec::new();
    for (number, way) in ways.iter().enumerate() {
        let output = format!("out{number}");
        let said = place.train(&output, way);
        assert!(said.contains("The result is out") && said.contains("The run is drawn in out"), "{said}");
        let losses = losses(&place.log(&output));
        assert!(losses.len() == 6 && losses.iter().all(|loss| loss.is_finite()), "{way}: {losses:?}");
        weights.push(place.weights(&output));
    }
    for (number, one) in weights.iter().enumerate() {
        assert!(!weights[..number].contains(one), "{} is another one", ways[number]);
    }
}

/// What saves memory or time changes nothing, or next to nothing.
#[test]
fn ways_to_save_memory_give_the_same_run() {
    let place = Place::new("two").with_sentences().without_dropout();
    place.train("plain", "");
    let plain = losses(&place.log("plain"));
    place.train("accumulated", "--batch 4 --accumulate 2");
    for (one, other) in losses(&place.log("accumulated")).iter().zip(&plain) {
        assert!((one - other).abs() < 1e-4, "{one} {other}");
    }
    let said = place.train("bf16", "--batch 4 --accumulate 2 --bf16");
    assert!(!said.contains("error"), "{said}");
    let bf16 = losses(&place.log("bf16"));
    assert!(bf16.iter().zip(&plain).all(|(one, other)| (one - other).abs() < 0.1) && bf16 != plain);
    let place = Place::new("two").with_sentences();
    place.train("plain", "");
    place.train("checkpointed", "--gradient-checkpointing");
    assert_eq!(place.log("plain").len(), 6);
    assert!(place.weights("plain") == place.weights("checkpointed"));
}

#[test]
fn schedules_and_gains_set_the_rates() {
    let place = Place::new("two").with_sentences();
    let of = |output: &str, more: &str| {
        place.train(output, &format!("--warmup 0 --decay constant --spectra-interval 2 {more}"));
        let log = place.log(output);
        let numbers = |key: &str| -> Vec<f64> {
            log[0][key].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
        };
        let note = log[2]["notes"][0].as_str().unwrap().to_owned();
        (numbers("alphas"), numbers("rates").iter().map(|rate| rate / 2e-3).collect::<Vec<f64>>(), note)
    };
    let (alphas, linear, note) = of("linear", "--schedule linear --factors 0.25,4");
    // Weights have moved, though nobody looked at every step.
    assert!(note.contains("moved by up to") && !note.contains("up to 0.00e0"), "{note}");
    let (low, high) = if alphas[0] < alphas[1] { (0, 1) } else { (1, 0) };
    assert!((linear[low] - 0.25).abs() < 1e-9 && (linear[high] - 4.0).abs() < 1e-9, "{linear:?}");
    let (_, rank, _) = of("rank", "--schedule rank --factors 0.5,1.5");
    assert!(rank[low] < rank[high] && rank.iter().all(|f| (0.5..=1.5).contains(f)), "{rank:?}");
    let (_, gains, _) = of("gains", "--s 2,1 --tau 1e6");
    // Far from the mean the factors are 10^∓s/2.
    assert!((gains[low] - 0.1).abs() < 1e-6 && (gains[high] - 10f64.sqrt()).abs() < 1e-6, "{gains:?}");
    let (_, uniform, _) = of("uniform", "--schedule uniform");
    assert!(uniform.iter().all(|factor| (factor - 1.0).abs() < 1e-12), "{uniform:?}");
}

#[test]
fn layers_have_rates_of_their_own_and_spectra_may_come_later() {
    let place = Place::new("two").with_sentences();
    place.train("layers", "--granularity layer --spectra async --spectra-interval 1 --epochs 4");
    let log = place.log("layers");
    assert_eq!(log.len(), 12);
    // Six matrices in each of two layers.
    assert!(log.iter().all(|record| record["rates"].as_array().unwrap().len() == 12));
    assert!(log.iter().all(|record| record["lag"].as_u64().unwrap() < 12));
    let said: Vec<&str> =
        log.iter().flat_map(|r| r["notes"].as_array().unwrap()).filter_map(Value::as_str).collect();
    assert!(said.iter().any(|note| note.contains("in use from step")), "{said:?}");
    let picture = fs::read_to_string(place.path("layers/training/run.svg")).unwrap();
    assert!(picture.contains("layer.1.output.dense") && picture.contains("\nlearning rate\n"));
}

#[test]
fn numbers_are_predicted() {
    let place = Place::new("number");
    let words: Vec<&str> = WORDS.split_whitespace().skip(18).collect();
    let line = |i: usize| format!("film {}\t{}.5\n", words[i % 10], i % 10);
    place.write("train.tsv", &("sentence\tlabel\n".to_owned() + &(0..40).map(line).collect::<String>()));
    place.run("out", "--train train.tsv --regression --epochs 3 --batch 8 --lr 2e-3", 0);
    let report = place.report("out");
    assert_eq!(report["after"][0]["name"], "pearson-spearman");
    assert!(report["after"][0]["value"].as_f64().is_some());
}

/// The public layouts of tasks: MRPC's original TSV, with quotes that mean nothing; a domain set's JSONL
/// with extra fields; columns of Parquet.
#[test]
fn presets_read_their_releases() {
    let place = Place::new("two");
    let mut tsv = "\u{feff}Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\r\n".to_owned();
    for i in 0..20 {
        let other = if i % 2 == 1 { "the film is \"great" } else { "the plot is poor" };
        tsv += &format!("{}\t{i}\t{}\tthe film is \"great\t{other}\r\n", i % 2, i + 100);
    }
    place.write("msr_paraphrase_train.txt", &tsv);
    fs::rename(place.path("msr_paraphrase_train.txt"), place.path("mrpc.tsv")).unwrap();
    place.run("mrpc", "--preset mrpc --train mrpc.tsv --epochs 1 --subsample 0.9", 0);
    let report = place.report("mrpc");
    let names: Vec<&str> =
        report["after"].as_array().unwrap().iter().filter_map(|s| s["name"].as_str()).collect();
    assert_eq!(names, ["accuracy-f1", "accuracy", "f1"]);
    assert_eq!(report["options"]["optimizer"]["weight_decay"], 0.1);
    let config: Value = serde_json::from_slice(&fs::read(place.path("mrpc/config.json")).unwrap()).unwrap();
    assert_eq!(config["id2label"]["1"], "equivalent");

    let classes = ["background", "method", "result"];
    let line = |i: usize| {
        let label = classes[i % 3];
        json!({"text": format!("film {}", ["one", "two", "three"][i % 3]), "label": label, "metadata": {"id": i}})
            .to_string() + "\n"
    };
    place.write("scicite.jsonl", &(0..36).map(line).collect::<String>());
    let said = place.run("scicite", "--preset scicite --train scicite.jsonl --epochs 1", 0);
    assert!(said.contains("macro-f1"), "{said}");
    assert!(said.contains("no head for this task"), "{said}");

    let parquet = fixtures().join("trainer/data/pairs.parquet");
    let parquet = parquet.display();
    place.run("parquet", &format!("--preset rte --train {parquet} --eval {parquet} --epochs 1"), 0);
    assert_eq!(place.report("parquet")["after"][0]["name"], "accuracy");
}

#[test]
fn a_target_decides_over_the_exit_code_and_is_drawn() {
    let place = Place::new("two").with_sentences();
    let missed = place.run("missed", &format!("{USUAL} --lr 1e-7 --until-std-drops 90"), 1);
    assert!(missed.contains("alpha STD"), "{missed}");
    let picture = fs::read_to_string(place.path("missed/training/run.svg")).unwrap();
    assert!(picture.contains("\ntarget 0.") && picture.contains("model on train.jsonl"));
    let plan = place.run("plan", &format!("{USUAL} --dry-run"), 0);
    assert!(
        plan.contains("Memory: about") && plan.contains("optimizer") && !place.path("plan").exists(),
        "{plan}"
    );
}

/// Steps enough that a kill finds the run at work, with states all along.
const LONG: &str =
    "--train train.jsonl --eval train.jsonl --batch 4 --epochs 40 --lr 1e-3 --keep last --save-steps 3";

/// Killed without warning again and again, a run comes to the same bits.
#[test]
fn a_killed_run_goes_on_to_the_same_bits() {
    let place = Place::new("two").with_sentences();
    place.run("whole", LONG, 0);
    let mut resume = "";
    for kill in 0..3 {
        let mut child = place.command("killed", &format!("{LONG}{resume}"));
        let mut child = child.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let started = Instant::now();
        while !place.path("killed/training/state").exists() && started.elapsed() < Duration::from_secs(60) {
            std::thread::sleep(Duration::from_millis(5));
        }
        // Anywhere in a step or a save.
        let chance = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().subsec_nanos();
        let more = if kill == 0 { 0 } else { 900 };
        std::thread::sleep(Duration::from_millis(more + u64::from(chance % 150)));
        child.kill().unwrap();
        child.wait().unwrap();
        resume = " --resume";
    }
    place.run("killed", &format!("{LONG} --resume"), 0);
    assert!(place.weights("whole") == place.weights("killed"));
    let steps: Vec<u64> = place.log("killed").iter().map(|record| record["step"].as_u64().unwrap()).collect();
    assert!(steps.into_iter().eq(1..=240));
    assert!(place.path("killed/training/run.svg").is_file());
}

/// A disk without room, as a limit to the size of files: the run says so, and goes on once there is room.
#[cfg(unix)]
#[test]
fn a_full_disk_loses_nothing_that_was_saved() {
    let place = Place::new("two").with_sentences();
    place.run("whole", LONG, 0);
    let limited = |blocks: u32, more: &str| {
        let inner = place.command("full", &format!("{LONG}{more}"));
        let mut command = Command::new("sh");
        let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\"");
        command.arg("-c").arg(script).arg(inner.get_program()).args(inner.get_args());
        command.current_dir(place.0.path());
        command.envs(inner.get_envs().filter_map(|(key, value)| Some((key, value?))));
        ended(command.output().unwrap(), 2)
    };
    let log = fs::metadata(place.path("whole/training/log.jsonl")).unwrap().len();
    let state = place.path("whole/training/state/optimizer.safetensors");
    let optimizer = fs::metadata(state).unwrap().len();
    assert!(optimizer > 1024 && log > 1024);
    // Room for a state, but not for the whole log; then not even for a state.
    let said = limited(u32::try_from(log.max(optimizer + 2048) / 512).unwrap().min(u32::MAX), "");
    assert!(said.contains("error: cannot write"), "{said}");
    assert!(!place.path("full/config.json").exists());
    let said = limited(8, " --resume");
    assert!(said.contains("error: cannot write"), "{said}");
    place.run("full", &format!("{LONG} --resume"), 0);
    assert!(place.weights("whole") == place.weights("full"));
}
