//! The progress bar of a run, on stderr and for people only.

use std::time::Duration;

use evenkeel::text::number;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::log::Record;

/// A bar over the optimizer steps.
#[derive(Debug)]
pub struct Bar {
    bar: ProgressBar,
}

impl Bar {
    /// A bar that begins at `done` of `steps`; hidden where it is not wanted or stderr is no terminal.
    pub fn new(done: u64, steps: u64, quiet: bool) -> Bar {
        let target = if quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let bar = ProgressBar::with_draw_target(Some(steps), target);
        if let Ok(style) = ProgressStyle::with_template("[{bar:24}] step {pos}/{len} {msg} {eta} left") {
            bar.set_style(style.progress_chars("█▌ "));
        }
        bar.set_position(done);
        bar.reset_eta();
        bar.enable_steady_tick(Duration::from_millis(200));
        Bar { bar }
    }

    /// Shows a step that is done, with the metric of the newest evaluation.
    pub fn step(&self, record: &Record, metric: Option<(&str, f64)>) {
        let mut message = format!("· epoch {:.2} · loss {}", record.epoch, number(record.loss));
        if let Some((name, value)) = metric {
            message.push_str(&format!(" · {name} {}", number(value)));
        }
        if let Some(std) = record.alpha_std {
            message.push_str(&format!(" · alpha STD {std:.6}"));
        }
        if let Some((low, high)) = spread(&record.rates) {
            message.push_str(&format!(" · rates {low:.1e} … {high:.1e}"));
        }
        message.push_str(" ·");
        self.bar.set_message(message);
        self.bar.set_position(record.step);
    }

    /// Shows how far an evaluation is.
    pub fn evaluating(&self, done: usize, of: usize) {
        self.bar.set_message(format!("· evaluating {done}/{of} ·"));
    }

    /// Prints a line above the bar; without a terminal it is printed all the same.
    pub fn say(&self, line: &str) {
        if self.bar.is_hidden() {
            eprintln!("{line}");
        } else {
            self.bar.println(line);
        }
    }

    /// Takes the bar off the screen.
    pub fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

/// The smallest and the largest of some rates.
fn spread(rates: &[f64]) -> Option<(f64, f64)> {
    let first = *rates.first()?;
    Some(rates.iter().fold((first, first), |(low, high), rate| (low.min(*rate), high.max(*rate))))
}
