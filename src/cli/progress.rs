//! A progress bar on stderr, for people; silent when stderr is no terminal.

use std::sync::Mutex;
use std::time::Duration;

use evenkeel::Progress;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Counts operations rather than matrices, so that the estimate holds when sizes differ.
pub struct Bar {
    bar: ProgressBar,
    /// What small matrices have added up to and the bar does not show yet.
    rest: Mutex<f64>,
}

/// Operations in one step of the bar: totals beyond 2⁵³ would not fit its counter.
const STEP: f64 = 1e6;

impl Bar {
    /// A bar; hidden where it is not wanted or stderr is no terminal.
    pub fn new(quiet: bool) -> Bar {
        let target = if quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let bar = ProgressBar::with_draw_target(Some(0), target);
        let template = "{spinner} computing spectra [{bar:30}] {percent:>3}%, {eta} left";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("█▌ "));
        }
        Bar { bar, rest: Mutex::new(0.0) }
    }

    /// Takes the bar off the screen.
    pub fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

impl Progress for Bar {
    fn begin(&self, total: f64) {
        self.bar.set_length((total / STEP).ceil() as u64);
        self.bar.enable_steady_tick(Duration::from_millis(120));
    }

    fn advance(&self, work: f64) {
        let Ok(mut rest) = self.rest.lock() else { return };
        *rest += work / STEP;
        self.bar.inc(*rest as u64);
        *rest = rest.fract();
    }
}
