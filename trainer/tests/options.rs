//! Runs as a user types them, with the two programs: a small random BERT, and every option that changes
//! what a run does.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod place;

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use place::{HIDDEN, Place, USUAL, WORDS, ended, fixtures, tensors};
use serde_json::{Value, json};

fn losses(log: &[Value]) -> Vec<f64> {
    log.iter().map(|record| record["loss"].as_f64().unwrap()).collect()
}

#[test]
fn every_optimizer_trains_in_its_own_way() {
    let place = Place::new().with_sentences();
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
    let place = Place::new().with_sentences().without_dropout();
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
    let place = Place::new().with_sentences();
    place.train("plain", "");
    place.train("checkpointed", "--gradient-checkpointing");
    assert_eq!(place.log("plain").len(), 6);
    assert!(place.weights("plain") == place.weights("checkpointed"));
}

#[test]
fn schedules_and_gains_set_the_rates() {
    let place = Place::new().with_sentences();
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
    let place_of = |best: fn(&f64, &f64) -> bool| {
        (0..alphas.len()).find(|i| alphas.iter().all(|other| !best(other, &alphas[*i]))).unwrap()
    };
    let (low, high) = (place_of(|a, b| a < b), place_of(|a, b| a > b));
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
    let place = Place::new().with_sentences();
    place.train("layers", "--granularity layer --spectra async --spectra-interval 1 --epochs 4");
    let log = place.log("layers");
    assert_eq!(log.len(), 12);
    // Six matrices in each of three layers.
    assert!(log.iter().all(|record| record["rates"].as_array().unwrap().len() == 18));
    assert!(log.iter().all(|record| record["lag"].as_u64().unwrap() < 12));
    let said: Vec<&str> =
        log.iter().flat_map(|r| r["notes"].as_array().unwrap()).filter_map(Value::as_str).collect();
    assert!(said.iter().any(|note| note.contains("in use from step")), "{said:?}");
    let picture = fs::read_to_string(place.path("layers/training/run.svg")).unwrap();
    assert!(picture.contains("layer.1.output.dense") && picture.contains("\nlearning rate\n"));
}

#[test]
fn numbers_are_predicted() {
    let place = Place::new();
    let words: Vec<&str> = WORDS.split_whitespace().skip(18).collect();
    let line = |i: usize| format!("film {}\t{}.5\n", words[i % 10], i % 10);
    place.write("train.tsv", &("sentence\tlabel\n".to_owned() + &(0..40).map(line).collect::<String>()));
    place.run("out", "--train train.tsv --regression --epochs 3 --batch 8 --lr 2e-3", 0);
    let report = place.report("out");
    assert_eq!(report["after"][0]["name"], "pearson-spearman");
    assert!(report["after"][0]["value"].as_f64().is_some());
}

/// One example to evaluate on has no correlation with anything.
#[test]
fn a_metric_that_cannot_exist_is_refused() {
    let place = Place::new();
    let line = |i: usize| format!("film one\t{i}.5\n");
    place.write("train.tsv", &("sentence\tlabel\n".to_owned() + &(0..12).map(line).collect::<String>()));
    let said = place.run("out", "--train train.tsv --regression --epochs 1", 2);
    assert!(said.contains("(1 example)") && said.contains("--eval-fraction"), "{said}");
    assert!(!place.path("out").exists());
}

#[test]
fn a_head_for_other_labels_is_replaced_when_that_is_asked_for() {
    let place = Place::new().with_sentences();
    place.train("two", "--epochs 1");
    fs::rename(place.path("model"), place.path("bare")).unwrap();
    fs::rename(place.path("two"), place.path("model")).unwrap();
    let labels = ["bad", "fair", "good"];
    let line = |i: usize| json!({"text": "film one", "label": labels[i % 3]}).to_string() + "\n";
    place.write("three.jsonl", &(0..24).map(line).collect::<String>());
    let three = "--train three.jsonl --eval three.jsonl --epochs 1";
    for more in ["", "--labels bad,fair,good"] {
        let said = place.run("three", &format!("{three} {more}"), 2);
        assert!(said.contains("--new-head begins with one for the data"), "{said}");
    }
    let said = place.run("three", &format!("{three} --new-head"), 0);
    assert!(said.contains("A new head was asked for; these begin at random: classifier.weight"), "{said}");
    assert!(said.contains("The classes are the labels that occur: `bad`, `fair`, `good`."), "{said}");
    let config: Value = serde_json::from_slice(&fs::read(place.path("three/config.json")).unwrap()).unwrap();
    assert_eq!(config["id2label"], json!({"0": "bad", "1": "fair", "2": "good"}));
    // And from there it is that model's own head.
    fs::rename(place.path("model"), place.path("two")).unwrap();
    fs::rename(place.path("three"), place.path("model")).unwrap();
    let said = place.run("again", three, 0);
    assert!(!said.contains("begin at random"), "{said}");
}

/// A step with a finite loss after which nothing is: it is neither a state to go on from nor a result.
#[test]
fn a_model_that_is_no_longer_one_is_not_kept() {
    let place = Place::new().with_sentences();
    let said = place.run("out", &format!("{USUAL} --batch 24 --warmup 0 --lr 1e38"), 2);
    assert!(said.contains("the model is no longer one after step 1"), "{said}");
    assert!(!place.path("out/config.json").exists() && !place.path("out/training/state").exists());
    // One that never was: its head gives NaN.
    place.train("broken", "--epochs 1");
    let path = place.path("broken/model.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    let found = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let bias = found.tensor("classifier.bias").unwrap().data();
    let (start, length) = (bias.as_ptr() as usize - bytes.as_ptr() as usize, bias.len());
    bytes[start..start + length].copy_from_slice(&f32::NAN.to_le_bytes().repeat(length / 4));
    fs::write(&path, &bytes).unwrap();
    fs::rename(place.path("model"), place.path("whole")).unwrap();
    fs::rename(place.path("broken"), place.path("model")).unwrap();
    let said = place.run("no", USUAL, 2);
    assert!(said.contains("is NaN: its weights cannot be trained"), "{said}");
}

/// The public layouts of tasks: MRPC's original TSV, with quotes that mean nothing; a domain set's JSONL
/// with extra fields; columns of Parquet.
#[test]
fn presets_read_their_releases() {
    let place = Place::new();
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

    let parquet = fixtures().join("trainer/data/pairs.parquet");
    let parquet = parquet.display();
    place.run("parquet", &format!("--preset stsb --train {parquet} --eval {parquet} --epochs 1"), 0);
    assert_eq!(place.report("parquet")["after"][0]["name"], "pearson-spearman");

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
}

#[test]
fn a_target_decides_over_the_exit_code_and_is_drawn() {
    let place = Place::new().with_sentences();
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

/// The numbers behind `a batch`, `evaluation` and `weights` of a dry run, in kB.
fn planned(place: &Place, more: &str) -> [f64; 3] {
    let said = place.run("plan", &format!("{USUAL} --dry-run {more}"), 0);
    let kilobytes = |name: &str| -> f64 {
        let (_, rest) = said.split_once(name).unwrap();
        let (number, rest) = rest.split_once(' ').unwrap();
        let unit = if rest.starts_with("MB") { 1e3 } else { 1.0 };
        number.parse::<f64>().unwrap() * unit
    };
    ["a batch ", "of an evaluation ", "weights "].map(kilobytes)
}

#[test]
fn memory_follows_from_the_sizes() {
    let place = Place::new().with_sentences();
    let [eight, evaluation, weights] = planned(&place, "--batch 8");
    let parameters: usize = tensors().iter().map(|(_, shape)| shape.iter().product::<usize>()).sum();
    // And a head for two labels.
    let expected = 4.0 * (parameters + 2 * HIDDEN + 2) as f64 / 1e3;
    assert!((weights - expected).abs() < 0.06, "{weights} {expected}");
    // The formula of memory/batch.rs, for five tokens an example: layers, one layer's gradients, embeddings.
    let (hidden, scores) = (HIDDEN as f64, 4.0 * 5.0);
    let token =
        3.0 * (10.0 * hidden + 4.0 * hidden + 3.0 * scores) + 3.0 * scores + 4.0 * hidden + 4.0 * hidden;
    assert!((eight - 8.0 * 5.0 * 4.0 * token / 1e3).abs() < 0.06, "{eight}");
    // Four times as many where there are: 24 and 16 here.
    let most = 24.0 * 5.0 * 4.0 * (4.0 * hidden + 4.0 * hidden) / 1e3;
    assert!((evaluation - most).abs() < 0.06, "{evaluation} {most}");
    let [four, fewer, _] = planned(&place, "--batch 4");
    assert!((3.0 * fewer - 2.0 * evaluation).abs() < 0.2, "{fewer} {evaluation}");
    assert!((2.0 * four - eight).abs() < 0.2, "{four} {eight}");
    let [checkpointed, ..] = planned(&place, "--batch 8 --gradient-checkpointing");
    assert!(checkpointed < 0.6 * eight, "{checkpointed} {eight}");
}

/// Terabytes of embeddings, all of them a hole in the file: nothing of it is read to see that it does not fit.
#[cfg(unix)]
#[test]
fn a_model_larger_than_the_memory_is_refused_before_it_is_read() {
    use std::io::Write as _;

    const WIDE: usize = 1024;
    let place = Place::new().with_sentences();
    // The most words that a model may have.
    let rows = 1usize << 24;
    let wide = |name: &str, shape: &[usize]| -> Vec<usize> {
        let mut shape: Vec<usize> = shape.iter().map(|n| if *n < HIDDEN { *n } else { n * WIDE }).collect();
        if name.contains("word_embeddings") {
            shape[0] = rows;
        }
        shape
    };
    let (mut end, mut narrow) = (0, 0);
    let mut entry = |name: &str, shape: Vec<usize>| {
        let (start, elements) = (end, shape.iter().product::<usize>());
        end += 4 * elements;
        narrow += if shape.len() > 1 { 2 * elements } else { 4 * elements };
        (name.to_owned(), json!({"dtype": "F32", "shape": shape, "data_offsets": [start, end]}))
    };
    let header: serde_json::Map<String, Value> =
        tensors().iter().map(|(name, shape)| entry(name, wide(name, shape))).collect();
    let mut header = serde_json::to_string(&header).unwrap();
    header += &" ".repeat(header.len().next_multiple_of(8) - header.len());
    let mut file = fs::File::create(place.path("model/model.safetensors")).unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(header.as_bytes()).unwrap();
    file.set_len((8 + header.len() + end) as u64).unwrap();
    let path = place.path("model/config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    config["vocab_size"] = json!(rows);
    config["hidden_size"] = json!(WIDE * HIDDEN);
    config["intermediate_size"] = json!(2 * WIDE * HIDDEN);
    fs::write(path, config.to_string()).unwrap();
    for (more, need) in [("", end), ("--dry-run", end), ("--lora 4 --bf16", narrow)] {
        let said = place.run("no", &format!("{USUAL} {more}"), 2);
        let need = evenkeel::text::bytes(need as u64);
        assert!(said.contains(&format!("too little memory: the weights alone need {need}, and ")), "{said}");
        assert!(!place.path("no").exists());
    }
}

/// Steps enough that a kill finds the run at work, with states all along.
const LONG: &str =
    "--train train.jsonl --eval train.jsonl --batch 4 --epochs 40 --lr 1e-3 --keep last --save-steps 3";

/// Waits until a run has saved a state.
fn await_state(place: &Place, output: &str) {
    let (state, started) = (place.path(output).join("training/state"), Instant::now());
    while !state.exists() && started.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Killed without warning again and again, a run comes to the same bits.
#[test]
fn a_killed_run_goes_on_to_the_same_bits() {
    let place = Place::new().with_sentences();
    place.run("whole", LONG, 0);
    let mut resume = "";
    for kill in 0..3 {
        let mut child = place.command("killed", &format!("{LONG}{resume}"));
        let mut child = child.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        await_state(&place, "killed");
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
    let place = Place::new().with_sentences();
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
    let size = |file: &str| fs::metadata(place.path("whole/training/state").join(file)).unwrap().len();
    let (parameters, optimizer) = (size("parameters.safetensors"), size("optimizer.safetensors"));
    assert!(optimizer > parameters + 4096);
    // Room for the weights of a state, but not for the rest.
    let blocks = u32::try_from((parameters + optimizer) / 2 / 512).unwrap();
    let full = |more: &str| {
        let said = limited(blocks, more);
        assert!(said.contains("error: cannot write") && said.contains("optimizer.safetensors"), "{said}");
        assert!(!place.path("full/config.json").exists());
    };
    full("");
    // The same with a state that is good.
    let mut child = place.command("full", &format!("{LONG} --resume"));
    let mut child = child.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    await_state(&place, "full");
    child.kill().unwrap();
    child.wait().unwrap();
    full(" --resume");
    place.run("full", &format!("{LONG} --resume"), 0);
    assert!(place.weights("whole") == place.weights("full"));
}
