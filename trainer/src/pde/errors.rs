//! How far predictions are off: PDEBench's measures (Takamoto et al. 2022, appendix B).
//!
//! Of a sample, channel and frame, over the points x of the grid: nRMSE = √mean_x (p − y)² / √mean_x y². What is
//! reported is the mean over samples, channels and predicted frames. PDEBench's own figure counts the frames that
//! the operator is given as predicted without error, and is smaller by their part: it is `nrmse_pdebench`.

use evenkeel::balance::Better;
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

use crate::error::Result;
use crate::training::Score;

/// Errors by frame and channel, over the samples that were added.
#[derive(Clone, Debug)]
pub(super) struct Errors {
    /// Frames that are given.
    initial: usize,
    channels: Vec<String>,
    /// One for each predicted frame and channel, channels innermost.
    sums: Vec<Sums>,
}

/// Sums over samples.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    samples: u64,
    /// Of mean squared errors.
    squares: f64,
    /// Of normalised errors, and how many have one: where the truth is 0 everywhere there is none.
    normalised: f64,
    with_norm: u64,
    largest: f64,
}

impl Sums {
    fn merge(self, other: &Sums) -> Sums {
        Sums {
            samples: self.samples + other.samples,
            squares: self.squares + other.squares,
            normalised: self.normalised + other.normalised,
            with_norm: self.with_norm + other.with_norm,
            // NaN stays.
            largest: if other.largest > self.largest || other.largest.is_nan() { other } else { &self }
                .largest,
        }
    }

    fn nrmse(&self) -> f64 {
        self.normalised / self.with_norm as f64
    }

    fn mse(&self) -> f64 {
        self.squares / self.samples as f64
    }

    fn report(&self) -> Value {
        json!({ "nrmse": self.nrmse(), "mse": self.mse(), "max_error": self.largest })
    }
}

impl Errors {
    pub fn new(initial: usize, times: usize, channels: &[String]) -> Errors {
        let count = times.saturating_sub(initial) * channels.len();
        Errors { initial, channels: channels.to_vec(), sums: vec![Sums::default(); count] }
    }

    /// Takes in a predicted frame by its number, and what it should have been, [samples, points…, channels] both.
    pub fn add(&mut self, time: usize, predicted: &Tensor, truth: &Tensor) -> Result<()> {
        let channels = self.channels.len();
        let truth = truth.f_to_kind(Kind::Double)?;
        let error = predicted.f_to_kind(Kind::Double)?.f_sub(&truth)?;
        let points: Vec<i64> = (1..error.dim() as i64 - 1).collect();
        let mean = |of: Tensor| of.f_square()?.f_mean_dim(points.as_slice(), false, Kind::Double);
        let largest = error.f_abs()?.f_amax(points.as_slice(), false)?;
        let numbers = Tensor::f_stack(&[mean(error)?, mean(truth)?, largest], -1)?;
        let numbers = Vec::<f64>::try_from(numbers.f_to_device(Device::Cpu)?.f_reshape([-1])?)?;
        for (position, triple) in numbers.chunks_exact(3).enumerate() {
            let place = time.saturating_sub(self.initial) * channels + position % channels.max(1);
            let (&[square, norm, largest], Some(sums)) = (triple, self.sums.get_mut(place)) else { continue };
            let has_norm = norm > 0.0;
            let normalised = if has_norm { (square / norm).sqrt() } else { 0.0 };
            let one = Sums { samples: 1, squares: square, normalised, with_norm: has_norm.into(), largest };
            *sums = sums.merge(&one);
        }
        Ok(())
    }

    fn of<'a>(sums: impl Iterator<Item = &'a Sums>) -> Sums {
        sums.fold(Sums::default(), Sums::merge)
    }

    /// The scores of an evaluation, the one that decides first.
    pub fn scores(&self) -> Vec<Score> {
        let all = Errors::of(self.sums.iter());
        let predicted = (self.sums.len() / self.channels.len().max(1)) as f64;
        let part = predicted / (predicted + self.initial as f64);
        let scores = [
            ("nrmse", all.nrmse()),
            ("nrmse_pdebench", all.nrmse() * part),
            ("mse", all.mse()),
            ("max_error", all.largest),
        ];
        let score = |(name, value): (&str, f64)| Score { name: name.to_owned(), value, better: Better::Less };
        scores.map(score).into()
    }

    /// The errors of each channel over all frames, and of each frame over all channels.
    pub fn report(&self) -> Value {
        let count = self.channels.len();
        let named = |key: &str, name: Value, sums: Sums| {
            let mut entry = sums.report();
            if let Some(entry) = entry.as_object_mut() {
                entry.shift_insert(0, key.to_owned(), name);
            }
            entry
        };
        let of_channel = |(channel, name): (usize, &String)| {
            named("channel", json!(name), Errors::of(self.sums.iter().skip(channel).step_by(count)))
        };
        let of_frame = |(frame, sums): (usize, &[Sums])| {
            named("frame", json!(self.initial + frame), Errors::of(sums.iter()))
        };
        let all = Errors::of(self.sums.iter());
        json!({
            "channels": self.channels.iter().enumerate().map(of_channel).collect::<Vec<_>>(),
            "frames": self.sums.chunks(count.max(1)).enumerate().map(of_frame).collect::<Vec<_>>(),
            "without_norm": all.samples - all.with_norm,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(values: &[f32]) -> Tensor {
        // Samples, points, channels.
        Tensor::from_slice(values).view([2, 2, 2])
    }

    #[test]
    fn measures_are_those_of_their_formulas() {
        let mut errors = Errors::new(1, 3, &["a".to_owned(), "b".to_owned()]);
        let truth = frame(&[3.0, 0.0, 4.0, 0.0, 1.0, 2.0, 1.0, 2.0]);
        // Off by 1 at one point of channel a of the first sample, by 2 everywhere in b.
        let off = frame(&[4.0, 2.0, 4.0, 2.0, 1.0, 4.0, 1.0, 4.0]);
        errors.add(1, &off, &truth).unwrap();
        errors.add(2, &truth, &truth).unwrap();
        let close =
            |found: f64, expected: f64| assert!((found - expected).abs() < 1e-12, "{found} {expected}");
        // √(1/2) / √(25/2), then exact; and in b 2/2 where there is a norm at all.
        let (a, b) = (0.2, 1.0);
        let scores = errors.scores();
        // Of eight one has no norm, and neither has its exact prediction: six are left.
        close(scores[0].value, (a + b) / 6.0);
        close(scores[1].value, (a + b) / 6.0 * 2.0 / 3.0);
        close(scores[2].value, (0.5 + 4.0 + 4.0) / 8.0);
        assert_eq!((scores[3].value, scores[3].name.as_str()), (2.0, "max_error"));
        assert!(scores.iter().all(|score| score.better == Better::Less));
        let report = errors.report();
        close(report["channels"][0]["nrmse"].as_f64().unwrap(), a / 4.0);
        close(report["channels"][1]["nrmse"].as_f64().unwrap(), b / 2.0);
        close(report["frames"][0]["mse"].as_f64().unwrap(), 8.5 / 4.0);
        assert_eq!(report["frames"][1]["frame"], 2);
        assert_eq!(report["without_norm"], 2);
    }

    #[test]
    fn a_prediction_that_is_no_number_is_no_good_one() {
        let mut errors = Errors::new(1, 2, &["a".to_owned(), "b".to_owned()]);
        let truth = frame(&[1.0; 8]);
        errors.add(1, &frame(&[f32::NAN; 8]), &truth).unwrap();
        assert!(errors.scores().iter().all(|score| score.value.is_nan()));
    }
}
