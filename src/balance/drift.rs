//! `--spectra-interval auto`: which alphas are due to be computed again, and what they are meanwhile.
//!
//! Between two computations the alpha of a unit is taken to move in proportion to the displacement of its
//! weights, d = ‖W − W_last‖_F/‖W_last‖_F, with the velocity v (per displacement) of the last interval:
//! what is in use is alpha_last + v·d. How wrong that may be is learned from how wrong it was, in two ways,
//! of which the larger counts. The secant of an interval d₁ misses a curve with second derivative 2c by
//! c·d·(d + d₁) after a further d, so that every computation tells a c; and it tells by which part of itself
//! the predicted move was wrong. What is known of one unit is a first guess for the others, and
//! where nothing is known yet, constants are (of MiniLM in fine-tuning: fixtures/alpha_paths.py).
//!
//! A unit is due when the uncertainty exceeds the tolerance, and also where the prediction reaches further
//! than what was seen bears out: a path may turn at any time. Units whose weights hardly move are never
//! due. For d a sample of the rows is enough: it is a mean over many elements.

use serde::{Deserialize, Serialize};

/// The tolerance for alpha that training uses.
pub const TOLERANCE: f64 = 0.003;
/// The part of it within which alphas are to be known where a target is near: a block that is shaken at a high
/// gain wanders, and would else be taken to stand where it stood when the target was first reached.
pub const CLOSELY: f64 = 0.25;

/// First guess of |v|, as a part of the value.
const VELOCITY: f64 = 0.1;
/// First guess of |c|, as a part of the value.
const CURVATURE: f64 = 0.2;
/// First guess of how far a predicted move is off, as a part of it.
const DOUBT: f64 = 0.4;
/// Errors below this part of the tolerance teach nothing: over short ways they would look like curves.
const ROUGHNESS: f64 = 0.2;
/// How many computations a first guess counts for.
const GUESS_WEIGHT: f64 = 1.0;
/// What the weight of an older observation is multiplied by when a newer one comes.
const FORGET: f64 = 0.3;
/// What a typical error is multiplied by to be exceeded rarely.
const CAUTION: f64 = 1.5;
/// The most that an interval grows over the one before.
const GROWTH: f64 = 3.0;
/// The most that a value is extrapolated by, in tolerances: a path may stop, or turn, at any time.
const REACH: f64 = 1.2;

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
    /// How far predicted moves were off, as a part of them.
    doubt: Typical,
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
            doubt: Typical::default(),
        };
        Drift {
            tolerance,
            units: values.iter().map(track).collect(),
            velocity: Typical::default(),
            curvature: Typical::default(),
        }
    }

    /// What is in use for every unit, by the displacements since their values were computed. `part` is the
    /// part of the tolerance within which they are to be known: 1, or [`CLOSELY`].
    pub fn in_use(&self, displacements: &[f64], part: f64) -> Vec<InUse> {
        let tolerance = part * self.tolerance;
        self.units.iter().zip(displacements).map(|(track, d)| self.predict(track, *d, tolerance)).collect()
    }

    fn predict(&self, track: &Track, displacement: f64, tolerance: f64) -> InUse {
        let Some(value) = track.value else {
            return InUse { predicted: None, uncertainty: 0.0, displacement, due: false };
        };
        let scale = value.abs();
        let (moved, error, longest) = match track.moving {
            None => (0.0, self.velocity.with(VELOCITY) * scale * displacement, f64::INFINITY),
            Some((velocity, before)) => {
                let curvature = track.curvature.with(self.curvature.with(CURVATURE)) * scale;
                let moved = velocity * displacement;
                let bent = curvature * displacement * (displacement + before);
                let doubt = track.doubt.with(DOUBT) * moved.abs();
                (moved, bent.max(doubt), GROWTH * before)
            }
        };
        let uncertainty = CAUTION * error;
        // NaN (weights that are no longer finite) is due, too: its computation says what is wrong.
        let near = displacement <= longest && moved.abs() <= REACH * tolerance;
        let known = near && uncertainty <= tolerance;
        InUse { predicted: Some(value + moved), uncertainty, displacement, due: !known }
    }

    /// Takes in the value of a unit, computed from weights that lie `displacement` from those of the
    /// computation before; from now on displacements count from them. Returns by how much the prediction was
    /// off, where there was one.
    pub fn computed(&mut self, unit: usize, displacement: f64, value: Option<f64>) -> Option<f64> {
        let track = self.units.get(unit)?;
        let predicted = self.predict(track, displacement, self.tolerance).predicted;
        let track = self.units.get_mut(unit)?;
        let value = value.filter(|v| v.is_finite());
        let (Some(last), Some(now), Some(predicted)) = (track.value, value, predicted) else {
            // A value that comes and goes has no history.
            *track = Track { value, moving: None, ..*track };
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
            Some((velocity, before)) => {
                // A turn is worth as much as a standstill that was taken for a move.
                let moved = (velocity * displacement).abs().max(self.tolerance);
                let wrong = (error.abs() - ROUGHNESS * self.tolerance).max(0.0);
                track.doubt.add(wrong / moved);
                let curvature = wrong / (displacement * (displacement + before)) / scale;
                track.curvature.add(curvature);
                self.curvature.add(curvature);
            }
        }
        track.moving = Some((velocity, displacement));
        Some(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `fixtures/alpha_paths.py`: MiniLM in training, every alpha computed at every step.
    #[derive(Deserialize)]
    struct Recorded {
        alpha: Vec<Vec<f64>>,
        /// Block, step, coordinate.
        place: Vec<Vec<Vec<f64>>>,
    }

    fn recorded() -> std::collections::BTreeMap<String, Recorded> {
        serde_json::from_str(include_str!("../../fixtures/balance/paths.json")).unwrap()
    }

    #[derive(Debug, Default)]
    struct Outcome {
        steps: usize,
        units: usize,
        computations: usize,
        largest_error: f64,
        errors_above: usize,
        largest_move: f64,
    }

    impl Outcome {
        /// Computations of the whole model that cost as much.
        fn work(&self) -> f64 {
            self.computations as f64 / self.units as f64
        }
    }

    /// Follows paths (step, unit) given where the weights are at each step, as a training loop would.
    fn follow(alphas: &[Vec<f64>], part: f64, distance: impl Fn(usize, usize, usize) -> f64) -> Outcome {
        let start: Vec<Option<f64>> = alphas[0].iter().copied().map(Some).collect();
        let mut drift = Drift::new(&start, TOLERANCE);
        let mut last = vec![0; start.len()];
        let mut outcome = Outcome { steps: alphas.len() - 1, units: start.len(), ..Outcome::default() };
        for (step, now) in alphas.iter().enumerate().skip(1) {
            let moved: Vec<f64> = (0..now.len()).map(|unit| distance(unit, last[unit], step)).collect();
            for (unit, used) in drift.in_use(&moved, part).into_iter().enumerate() {
                let mut value = used.predicted.unwrap();
                if used.due {
                    drift.computed(unit, moved[unit], Some(now[unit]));
                    (value, last[unit]) = (now[unit], step);
                    outcome.computations += 1;
                }
                let error = (value - now[unit]).abs();
                outcome.largest_error = outcome.largest_error.max(error);
                outcome.errors_above += usize::from(error > TOLERANCE * 5.0 / 3.0);
                outcome.largest_move = outcome.largest_move.max((now[unit] - alphas[0][unit]).abs());
            }
        }
        outcome
    }

    #[test]
    fn real_paths_are_followed_with_little_work() {
        for (name, path) in recorded() {
            let distance = |unit: usize, a: usize, b: usize| {
                let place = &path.place[unit];
                let squares = place[a].iter().zip(&place[b]).map(|(x, y)| (x - y) * (x - y));
                squares.sum::<f64>().sqrt()
            };
            let outcome = follow(&path.alpha, 1.0, distance);
            println!("{name}: {outcome:?} {}", outcome.work());
            assert!(outcome.largest_error <= 0.005, "{name}: {outcome:?}");
            assert!(outcome.work() <= 2.2, "{name}: {outcome:?}");
            let closely = follow(&path.alpha, CLOSELY, distance);
            println!("{name}: {closely:?} {}", closely.work());
            assert!(closely.largest_error <= 0.003 && closely.work() <= 7.0, "{name}: {closely:?}");
        }
    }

    /// The shape of a value's path over x = 0..1, from 0 to about 1.
    fn shape(kind: usize, x: f64) -> f64 {
        match kind {
            0 => x,
            1 => x * x,
            2 => (3.0 * x).sin() / 3f64.sin().max(0.5),
            3 => (1.0 - (-4.0 * x).exp()) / (1.0 - (-4f64).exp()),
            // A turn: the optimizer leaves its direction.
            4 => 1.0 - (2.0 * x - 1.0).abs(),
            _ => 0.0,
        }
    }

    /// How far a value goes in all on a path of that shape, forth and back.
    fn way(kind: usize) -> f64 {
        let place = |step: u32| shape(kind, f64::from(step) / 1000.0);
        (0..1000).map(|step| (place(step + 1) - place(step)).abs()).sum()
    }

    /// Units whose values move by `moves` (with some noise) while their weights go straight ahead by `far`
    /// at the pace of a linearly decaying rate.
    fn synthetic(kinds: &[usize], moves: &[f64], far: f64, noise: f64, steps: usize) -> Outcome {
        let progress = |step: usize| 1.0 - (1.0 - step as f64 / steps as f64).powi(2);
        let mut random = 1u64;
        let mut jitter = || {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            ((random >> 33) as f64 / (1u64 << 31) as f64 - 0.5) * 2.0 * noise
        };
        let at = |step: usize, kind: usize, by: f64| 2.0 + by * shape(kind, progress(step));
        let alphas: Vec<Vec<f64>> = (0..=steps)
            .map(|step| kinds.iter().zip(moves).map(|(kind, by)| at(step, *kind, *by) + jitter()).collect())
            .collect();
        follow(&alphas, 1.0, |_, a, b| far * (progress(b) - progress(a)))
    }

    proptest::proptest! {
        #[test]
        fn paths_of_many_shapes_are_followed(
            kinds in proptest::collection::vec(proptest::sample::select(vec![0, 1, 2, 3, 5]), 6),
            moves in proptest::collection::vec(-0.06f64..0.06, 6),
            far in 0.15f64..0.5,
            noise in 0.0f64..0.0005,
            steps in 100usize..300,
        ) {
            let outcome = synthetic(&kinds, &moves, far, noise, steps);
            let seen = (outcome.steps * outcome.units) as f64;
            proptest::prop_assert!(outcome.errors_above as f64 <= 0.08 * seen, "{:?}", outcome);
            // The further values go, the more often they are to be computed: about once a tolerance.
            let way: f64 = kinds.iter().zip(&moves).map(|(kind, by)| by.abs() * way(*kind)).sum();
            let bound = way / TOLERANCE + 10.0 * outcome.units as f64;
            proptest::prop_assert!(outcome.computations as f64 <= bound, "{:?}, {}", outcome, bound);
        }
    }

    #[test]
    fn a_turn_costs_a_bounded_error() {
        let outcome = synthetic(&[4; 6], &[0.05, -0.05, 0.02, -0.02, 0.005, 0.1], 0.3, 0.0, 200);
        assert!(outcome.largest_error <= 5.0 * TOLERANCE, "{outcome:?}");
    }

    #[test]
    fn what_does_not_move_is_hardly_computed() {
        let outcome = synthetic(&[5; 6], &[0.0; 6], 0.2, 0.0, 1000);
        assert!(outcome.work() <= 4.0, "{outcome:?}");
        // Weights that stand still are never due.
        let outcome = synthetic(&[0; 6], &[0.0; 6], 0.0, 0.0, 100);
        assert_eq!(outcome.computations, 0);
    }

    #[test]
    fn a_straight_path_costs_ever_less() {
        let outcome = synthetic(&[0; 6], &[0.1; 6], 0.3, 0.0, 1000);
        assert!(outcome.largest_error < 0.005 && outcome.work() <= 28.0, "{outcome:?}");
    }

    #[test]
    fn values_that_come_and_go_start_anew() {
        let mut drift = Drift::new(&[None, Some(2.0)], TOLERANCE);
        let used = drift.in_use(&[0.5, 0.001], 1.0);
        assert_eq!((used[0].predicted, used[0].due), (None, false));
        assert_eq!((used[1].predicted, used[1].due), (Some(2.0), false));
        assert!(drift.in_use(&[0.0, f64::NAN], 1.0)[1].due);
        assert_eq!(drift.computed(0, 0.1, Some(3.0)), None);
        assert_eq!(drift.computed(1, 0.1, None), None);
        let used = drift.in_use(&[0.01, 0.5], 1.0);
        assert_eq!((used[0].predicted, used[1].predicted), (Some(3.0), None));
        assert_eq!(drift.computed(7, 0.1, Some(1.0)), None);
    }

    #[test]
    fn its_state_is_kept() {
        let mut drift = Drift::new(&[Some(2.0), Some(3.0)], TOLERANCE);
        drift.computed(0, 0.01, Some(2.002));
        drift.computed(0, 0.02, Some(2.007));
        let text = serde_json::to_string(&drift).unwrap();
        let again: Drift = serde_json::from_str(&text).unwrap();
        assert_eq!(again, drift);
        let used = again.in_use(&[0.01, 0.0], 1.0)[0];
        assert!((used.predicted.unwrap() - 2.0095).abs() < 1e-12 && used.uncertainty > 0.0);
    }
}
