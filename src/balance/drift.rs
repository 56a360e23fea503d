//! `--spectra-interval auto`: which alphas are due to be computed again, and what they are meanwhile.
//!
//! Between two computations the alpha of a unit is taken to move in proportion to the displacement of its
//! weights, d = ‖W − W_last‖_F/‖W_last‖_F, with the velocity (per displacement) of the last interval:
//! what is in use is alpha_last + v·d. How wrong that may be is learned from how wrong it was. The
//! secant of an interval d₁ misses a curve with second derivative 2c by c·d·(d + d₁) after a further d, so
//! that every computation tells a c, and the uncertainty of the next prediction is that of the c seen so
//! far. A unit is due when its uncertainty exceeds the tolerance. What is known of one unit is
//! a first guess for the others, and where nothing is known yet, constants are.

use serde::{Deserialize, Serialize};

/// The tolerance for alpha that training uses.
pub const TOLERANCE: f64 = 0.003;

/// First guess of |v|, as a part of the value.
const VELOCITY: f64 = 0.1;
/// First guess of |c|, as a part of the value.
const CURVATURE: f64 = 0.3;
/// How many computations a first guess counts for.
const GUESS_WEIGHT: f64 = 1.0;
/// What the weight of an older observation is multiplied by when a newer one comes.
const FORGET: f64 = 0.7;
/// What a typical error is multiplied by to be exceeded rarely.
const CAUTION: f64 = 1.5;
/// The most that an interval grows over the one before.
const GROWTH: f64 = 3.0;

/// Follows the value (alpha, or another metric) of every unit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Drift {
    tolerance: f64,
    units: Vec<Track>,
    /// |v| and |c| over all units, as parts of the value.
    velocity: Typical,
    curvature: Typical,
}

/// What is known of one unit.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Track {
    /// The value as last computed; `None` where it does not exist.
    value: Option<f64>,
    /// v and d₁, after the first interval.
    moving: Option<(f64, f64)>,
    /// |c| of this unit alone, as a part of the value.
    curvature: Typical,
}

/// A running root mean square that forgets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Typical {
    squares: f64,
    weight: f64,
}

/// What is in use for a unit, and how far it can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct InUse {
    /// The predicted value; `None` where the unit has none.
    pub predicted: Option<f64>,
    /// How far it may be off.
    pub uncertainty: f64,
    /// The displacement since the value was computed.
    pub displacement: f64,
    /// Whether it is to be computed again.
    pub due: bool,
}

impl Typical {
    fn add(&mut self, value: f64) {
        self.squares = FORGET * self.squares + value * value;
        self.weight = FORGET * self.weight + 1.0;
    }

    /// The root mean square together with a guess.
    fn with(&self, guess: f64) -> f64 {
        ((self.squares + GUESS_WEIGHT * guess * guess) / (self.weight + GUESS_WEIGHT)).sqrt()
    }
}

impl Drift {
    /// Starts from the values that the units have now. The tolerance is in the unit of the values:
    /// [`TOLERANCE`] for alpha.
    pub fn new(values: &[Option<f64>], tolerance: f64) -> Drift {
        let track = |value: &Option<f64>| Track {
            value: value.filter(|v| v.is_finite()),
            moving: None,
            curvature: Typical::default(),
        };
        Drift {
            tolerance,
            units: values.iter().map(track).collect(),
            velocity: Typical::default(),
            curvature: Typical::default(),
        }
    }

    /// What is in use for every unit, by the displacements since their values were computed.
    pub fn in_use(&self, displacements: &[f64]) -> Vec<InUse> {
        self.units.iter().zip(displacements).map(|(track, d)| self.predict(track, *d)).collect()
    }

    fn predict(&self, track: &Track, displacement: f64) -> InUse {
        let Some(value) = track.value else {
            return InUse { predicted: None, uncertainty: 0.0, displacement, due: false };
        };
        let scale = value.abs();
        let (moved, error, longest) = match track.moving {
            None => (0.0, self.velocity.with(VELOCITY) * scale * displacement, f64::INFINITY),
            Some((velocity, before)) => {
                let curvature = track.curvature.with(self.curvature.with(CURVATURE)) * scale;
                let error = curvature * displacement * (displacement + before);
                (velocity * displacement, error, GROWTH * before)
            }
        };
        let uncertainty = CAUTION * error;
        // NaN (weights that are no longer finite) is due, too: its computation says what is wrong.
        let known = uncertainty <= self.tolerance && displacement <= longest;
        InUse { predicted: Some(value + moved), uncertainty, displacement, due: !known }
    }

    /// Takes in the value of a unit, computed from weights that lie `displacement` from those of the
    /// computation before; from now on displacements count from them. Returns by how much the prediction was
    /// off, where there was one.
    pub fn computed(&mut self, unit: usize, displacement: f64, value: Option<f64>) -> Option<f64> {
        let predicted = self.units.get(unit).and_then(|track| self.predict(track, displacement).predicted);
        let track = self.units.get_mut(unit)?;
        let value = value.filter(|v| v.is_finite());
        let (Some(last), Some(now), Some(predicted)) = (track.value, value, predicted) else {
            // A value that comes and goes has no history.
            *track = Track { value, moving: None, curvature: track.curvature };
            return None;
        };
        track.value = Some(now);
        let error = now - predicted;
        if !(displacement > 0.0 && displacement.is_finite()) {
            return Some(error);
        }
        let scale = now.abs().max(f64::MIN_POSITIVE);
        let velocity = (now - last) / displacement;
        match track.moving {
            None => self.velocity.add(velocity.abs() / scale),
            Some((_, before)) => {
                let curvature = error.abs() / (displacement * (displacement + before)) / scale;
                track.curvature.add(curvature);
                self.curvature.add(curvature);
            }
        }
        track.moving = Some((velocity, displacement));
        Some(error)
    }
}
