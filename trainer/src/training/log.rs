//! What is written while training: one record an optimizer step, as CSV, as JSON Lines, and for
//! TensorBoard.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::events::Events;
use crate::error::{Error, Result};

/// One optimizer step.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Record {
    /// Its number, from 1.
    pub step: u64,
    /// Passes over the training examples so far, this step included.
    pub epoch: f64,
    /// The mean loss over the step's examples.
    pub loss: f64,
    /// The norm of the gradient before clipping.
    pub gradient_norm: f64,
    /// The base learning rate η.
    pub rate: f64,
    /// The gain s for metrics below and above the mean.
    pub gain: (f64, f64),
    /// The standard deviation of alpha across units, from the alphas in use.
    pub alpha_std: Option<f64>,
    /// Each unit's alpha in use, in the order of the units.
    pub alphas: Vec<Option<f64>>,
    /// Each unit's learning rate.
    pub rates: Vec<f64>,
    /// Optimizer steps between the weights that the rates follow from and this step's.
    pub lag: u64,
    /// The scores, where this step was followed by an evaluation, by name.
    pub scores: Vec<(String, f64)>,
    /// What was decided at this step, in words.
    pub notes: Vec<String>,
    /// Seconds of the whole step.
    pub seconds: f64,
    /// Seconds that training waited for spectra.
    pub seconds_spectra: f64,
}

/// The three logs of a run.
#[derive(Debug)]
pub struct Logs {
    csv: csv::Writer<BufWriter<File>>,
    json: BufWriter<File>,
    events: Events,
    units: Vec<String>,
    scores: Vec<String>,
    directory: PathBuf,
}

/// The columns of log.csv before those of scores and units.
const COLUMNS: [&str; 11] = [
    "step",
    "epoch",
    "loss",
    "gradient_norm",
    "rate",
    "gain_below",
    "gain_above",
    "alpha_std",
    "lag",
    "seconds",
    "seconds_spectra",
];

impl Logs {
    /// Opens the logs of a directory; what a killed run wrote after `step` is taken off again.
    ///
    /// # Errors
    /// Those of reading and writing.
    pub fn open(directory: &Path, step: u64, units: &[String], scores: &[String]) -> Result<Logs> {
        let (csv, json) = (directory.join("log.csv"), directory.join("log.jsonl"));
        keep(&csv, |line| {
            line.split(',').next().and_then(|s| s.parse().ok()).is_none_or(|s: u64| s <= step)
        })?;
        keep(&json, |line| step_of(line).is_some_and(|s| s <= step))?;
        let fresh = std::fs::metadata(&csv).map_or(true, |m| m.len() == 0);
        let mut logs = Logs {
            csv: csv::Writer::from_writer(append(&csv)?),
            json: append(&json)?,
            events: Events::create(directory).map_err(Error::io("write to", directory))?,
            units: units.to_vec(),
            scores: scores.to_vec(),
            directory: directory.to_path_buf(),
        };
        if fresh {
            let names = COLUMNS.iter().map(|c| (*c).to_owned()).chain(logs.scores.iter().cloned());
            let of_units = |what: &'static str| units.iter().map(move |unit| format!("{what}/{unit}"));
            let header: Vec<String> = names.chain(of_units("alpha")).chain(of_units("rate")).collect();
            logs.csv.write_record(header).map_err(|e| logs.failed(e.into()))?;
        }
        Ok(logs)
    }

    /// Writes a record to each.
    ///
    /// # Errors
    /// Those of writing.
    pub fn write(&mut self, record: &Record) -> Result<()> {
        self.row(record)
            .and_then(|()| serde_json::to_writer(&mut self.json, record).map_err(Into::into))
            .and_then(|()| self.json.write_all(b"\n"))
            .and_then(|()| self.events.scalars(record.step, &self.scalars(record)))
            .map_err(|e| self.failed(e))
    }

    /// Passes everything to the system: before a state is saved, and at the end.
    ///
    /// # Errors
    /// Those of writing.
    pub fn flush(&mut self) -> Result<()> {
        let done = self.csv.flush().and_then(|()| self.json.flush()).and_then(|()| self.events.flush());
        done.map_err(|e| self.failed(e))
    }

    fn row(&mut self, of: &Record) -> std::io::Result<()> {
        let optional = |value: &Option<f64>| value.map_or_else(String::new, |v| v.to_string());
        let score = |name: &String| {
            let found = of.scores.iter().find(|(n, _)| n == name);
            found.map_or_else(String::new, |(_, value)| value.to_string())
        };
        let mut row = vec![
            of.step.to_string(),
            of.epoch.to_string(),
            of.loss.to_string(),
            of.gradient_norm.to_string(),
            of.rate.to_string(),
            of.gain.0.to_string(),
            of.gain.1.to_string(),
            optional(&of.alpha_std),
            of.lag.to_string(),
            format!("{:.6}", of.seconds),
            format!("{:.6}", of.seconds_spectra),
        ];
        row.extend(self.scores.iter().map(score));
        row.extend(of.alphas.iter().map(optional));
        row.extend(of.rates.iter().map(f64::to_string));
        self.csv.write_record(row).map_err(Into::into)
    }

    fn scalars(&self, of: &Record) -> Vec<(String, f64)> {
        let mut all = vec![
            ("train/loss".to_owned(), of.loss),
            ("train/gradient_norm".to_owned(), of.gradient_norm),
            ("train/rate".to_owned(), of.rate),
            ("balance/gain".to_owned(), of.gain.1),
        ];
        all.extend(of.alpha_std.map(|std| ("balance/alpha_std".to_owned(), std)));
        all.extend(of.scores.iter().map(|(name, value)| (format!("eval/{name}"), *value)));
        let alphas = self.units.iter().zip(&of.alphas);
        all.extend(alphas.filter_map(|(unit, alpha)| Some((format!("alpha/{unit}"), (*alpha)?))));
        all.extend(self.units.iter().zip(&of.rates).map(|(unit, rate)| (format!("rate/{unit}"), *rate)));
        all
    }

    fn failed(&self, error: std::io::Error) -> Error {
        Error::io("write the logs in", &self.directory)(error)
    }
}

fn append(path: &Path) -> Result<BufWriter<File>> {
    let file = OpenOptions::new().create(true).append(true).open(path).map_err(Error::io("write", path))?;
    Ok(BufWriter::new(file))
}

fn step_of(line: &str) -> Option<u64> {
    #[derive(serde::Deserialize)]
    struct Step {
        step: u64,
    }
    serde_json::from_str(line).ok().map(|Step { step }| step)
}

/// Keeps the whole lines that are wanted; a file that is not there stays so.
fn keep(path: &Path, wanted: impl Fn(&str) -> bool) -> Result<()> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::io("read", path)(error)),
    };
    let mut kept = Vec::new();
    let mut reader = BufReader::new(file);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line).map_err(Error::io("read", path))? > 0 {
        // A line without its end was being written when the run was killed.
        let whole = line.strip_suffix(b"\n").and_then(|text| std::str::from_utf8(text).ok());
        if whole.is_some_and(&wanted) {
            kept.extend_from_slice(&line);
        }
        line.clear();
    }
    let partial = path.with_extension("partial");
    std::fs::write(&partial, &kept).map_err(Error::io("write", &partial))?;
    std::fs::rename(&partial, path).map_err(Error::io("write", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(step: u64) -> Record {
        Record {
            step,
            loss: 0.5,
            alphas: vec![Some(3.0), None],
            rates: vec![1e-5, 2e-5],
            ..Record::default()
        }
    }

    fn open(directory: &Path, step: u64) -> Logs {
        let units = ["layer.0".to_owned(), "layer.1".to_owned()];
        Logs::open(directory, step, &units, &["accuracy".to_owned()]).unwrap()
    }

    /// A killed run leaves rows after its last state, and half a row: neither may stay.
    #[test]
    fn a_resumed_log_has_every_step_once() {
        let directory = tempfile::tempdir().unwrap();
        let mut logs = open(directory.path(), 0);
        for step in 1..=5 {
            logs.write(&record(step)).unwrap();
        }
        logs.flush().unwrap();
        drop(logs);
        let csv = directory.path().join("log.csv");
        let mut text = std::fs::read_to_string(&csv).unwrap();
        text.push_str("6,0.1");
        std::fs::write(&csv, text).unwrap();
        let mut logs = open(directory.path(), 3);
        logs.write(&record(4)).unwrap();
        logs.flush().unwrap();
        let text = std::fs::read_to_string(&csv).unwrap();
        let steps: Vec<&str> = text.lines().map(|line| line.split(',').next().unwrap()).collect();
        assert_eq!(steps, ["step", "1", "2", "3", "4"]);
        assert!(
            text.starts_with("step,epoch,loss,")
                && text.contains(",accuracy,alpha/layer.0,alpha/layer.1,rate/")
        );
        let json = std::fs::read_to_string(directory.path().join("log.jsonl")).unwrap();
        assert_eq!(json.lines().map(|line| step_of(line).unwrap()).collect::<Vec<_>>(), [1, 2, 3, 4]);
    }
}
