//! The values of single arguments: what is a number, a pair, a part.

use anyhow::{Result, bail};
use evenkeel::balance::Gain;
use evenkeel::rebalance::options::Interval;

/// `--s`.
pub fn gain(text: &str) -> Result<Gain, String> {
    if text == "auto" {
        return Ok(Gain::AUTO);
    }
    if let Ok(s) = number(text) {
        return Ok(Gain::Fixed { below: s, above: s });
    }
    pair(text)
        .map(|(below, above)| Gain::Fixed { below, above })
        .map_err(|_| "one number, LOW,HIGH, or auto".to_owned())
}

fn number(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|x: &f64| x.is_finite()).ok_or_else(|| "a finite number is needed".to_owned())
}

/// LOW,HIGH.
pub fn pair(text: &str) -> Result<(f64, f64), String> {
    let (low, high) = text.split_once(',').ok_or("two numbers with a comma between them")?;
    Ok((number(low)?, number(high)?))
}

/// `--spectra-interval`.
pub fn interval(text: &str) -> Result<Interval, String> {
    match text {
        "auto" => Ok(Interval::Auto),
        "paper" => Ok(Interval::Paper),
        "epoch" => Ok(Interval::Epoch),
        steps => match steps.parse() {
            Ok(steps) if steps > 0 => Ok(Interval::Steps(steps)),
            _ => Err("auto, paper, epoch, or a number of steps".to_owned()),
        },
    }
}

/// A number above 0, where one was given.
pub fn positive(name: &str, value: Option<f64>) -> Result<Option<f64>> {
    match value {
        Some(x) if !(x > 0.0 && x.is_finite()) => bail!("{name} must be a number above 0."),
        value => Ok(value),
    }
}

/// A number above 0 and below 1.
pub fn fraction(name: &str, value: f64) -> Result<f64> {
    if value > 0.0 && value < 1.0 { Ok(value) } else { bail!("{name} is a part: above 0 and below 1.") }
}
