//! Ranges and ticks of axes, and fewer points where a line has more than can be seen.

/// The most points that a line is drawn with.
const MOST_POINTS: usize = 1600;

/// An axis from `low` to `high`, in the numbers that are drawn: logarithms on a logarithmic axis.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Scale {
    pub low: f64,
    pub high: f64,
    pub ticks: Vec<f64>,
    pub logarithmic: bool,
}

impl Scale {
    /// Around some values, with ticks at 1, 2 or 5 times a power of ten. `None` where there is none to be
    /// shown.
    pub fn linear(values: impl Iterator<Item = f64>) -> Option<Scale> {
        let (low, high) = bounds(values)?;
        // A constant stands in the middle of an axis that is as wide as itself.
        let room = if high > low { 0.06 * (high - low) } else { 0.5 * high.abs().max(1e-6) };
        let (low, high) = (low - room, high + room);
        Some(Scale { low, high, ticks: ticks(low, high, 5), logarithmic: false })
    }

    /// The same for positive values whose ratios matter. The smallest fiftieth of them does not widen
    /// it: a rate begins and ends near zero.
    pub fn logarithmic(values: impl Iterator<Item = f64>) -> Option<Scale> {
        let mut all: Vec<f64> =
            values.filter(|v| v.is_finite() && *v > 0.0).map(f64::log10).filter(|v| v.is_finite()).collect();
        all.sort_by(f64::total_cmp);
        let (low, high) = (*all.get(all.len() / 50)?, *all.last()?);
        let room = (0.06 * (high - low)).max(0.1);
        let (low, high) = (low - room, high + room);
        let within = |steps: &[f64]| -> Vec<f64> {
            let decades = low.floor() as i32..=high.ceil() as i32;
            let all = decades.flat_map(|decade| steps.iter().map(move |s| f64::from(decade) + s.log10()));
            all.filter(|tick| (low..=high).contains(tick)).collect()
        };
        // As few as tell something.
        const STEPS: [&[f64]; 4] =
            [&[1.0], &[1.0, 3.0], &[1.0, 2.0, 5.0], &[1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0]];
        let ticks = STEPS.map(within);
        let ticks = ticks.iter().find(|ticks| ticks.len() >= 3).unwrap_or(&ticks[3]).clone();
        Some(Scale { low, high, ticks, logarithmic: true })
    }

    /// A value in the numbers of the axis, drawn at its edge where it lies outside; `None` where it cannot
    /// be drawn at all.
    pub fn place(&self, value: f64) -> Option<f64> {
        let value = if self.logarithmic { if value > 0.0 { value.log10() } else { self.low } } else { value };
        value.is_finite().then(|| value.clamp(self.low, self.high))
    }

    /// What is written at a tick.
    pub fn label(&self, tick: f64) -> String {
        if self.logarithmic {
            let exponent = (tick + 1e-9).floor();
            let factor = 10f64.powf(tick - exponent);
            let digits = usize::from((factor - factor.round()).abs() > 1e-6);
            return format!("{factor:.digits$}e{exponent:.0}");
        }
        let apart = match self.ticks.as_slice() {
            [first, second, ..] => second - first,
            _ => self.high - self.low,
        };
        let digits = (-(apart.log10() + 1e-9).floor()).clamp(0.0, 9.0) as usize;
        // No zero with a minus sign.
        let tick = if tick.abs() < apart * 1e-6 { 0.0 } else { tick };
        format!("{tick:.digits$}")
    }
}

fn bounds(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    values.filter(|v| v.is_finite()).fold(None, |found, v| {
        let (low, high) = found.unwrap_or((v, v));
        Some((v.min(low), v.max(high)))
    })
}

/// About `wanted` round numbers between two.
pub(super) fn ticks(low: f64, high: f64, wanted: usize) -> Vec<f64> {
    let apart = (high - low) / wanted as f64;
    if !(apart.is_finite() && apart > 0.0) {
        return Vec::new();
    }
    let power = 10f64.powf(apart.log10().floor());
    let times = [1.0, 2.0, 5.0, 10.0].into_iter().find(|t| t * power >= apart * 0.999).unwrap_or(10.0);
    let apart = times * power;
    let first = (low / apart).ceil();
    (0..=2 * wanted).map(|n| (first + n as f64) * apart).take_while(|tick| *tick <= high).collect()
}

/// At most [`MOST_POINTS`] points that look the same: of each stretch the first, the smallest, the
/// largest and the last.
pub(super) fn thin(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    if points.len() <= MOST_POINTS {
        return points.to_vec();
    }
    let stretch = (4 * points.len()).div_ceil(MOST_POINTS);
    let mut kept = Vec::with_capacity(MOST_POINTS + 4);
    for part in points.chunks(stretch) {
        let extreme = |sign: f64| {
            (0..part.len()).max_by(|a, b| {
                let value = |i: &usize| part.get(*i).map_or(0.0, |(_, y)| sign * y);
                value(a).total_cmp(&value(b))
            })
        };
        let mut places: Vec<usize> =
            [Some(0), extreme(-1.0), extreme(1.0), part.len().checked_sub(1)].into_iter().flatten().collect();
        places.sort_unstable();
        places.dedup();
        kept.extend(places.iter().filter_map(|place| part.get(*place)));
    }
    kept
}

/// The mean of every value's neighbourhood, `width` wide.
pub(super) fn smooth(points: &[(f64, f64)], width: usize) -> Vec<(f64, f64)> {
    let half = width / 2;
    let mean = |(place, (x, _)): (usize, &(f64, f64))| {
        let around = points.get(place.saturating_sub(half)..(place + half + 1).min(points.len()))?;
        Some((*x, around.iter().map(|(_, y)| y).sum::<f64>() / around.len() as f64))
    };
    points.iter().enumerate().filter_map(mean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(scale: &Scale) -> Vec<String> {
        scale.ticks.iter().map(|tick| scale.label(*tick)).collect()
    }

    #[test]
    fn ticks_are_round_and_labels_tell_them_apart() {
        let scale = Scale::linear([0.0451, 0.0507].into_iter()).unwrap();
        assert_eq!(labels(&scale), ["0.046", "0.048", "0.050"]);
        let scale = Scale::linear([-1.0, 1.0, f64::NAN].into_iter()).unwrap();
        assert_eq!(labels(&scale), ["-1.0", "-0.5", "0.0", "0.5", "1.0"]);
        let scale = Scale::logarithmic([1e-6, 4e-5, 0.0].into_iter()).unwrap();
        assert_eq!(labels(&scale), ["1e-6", "3e-6", "1e-5", "3e-5"]);
        let scale = Scale::logarithmic([1.5e-5, 2.5e-5].into_iter()).unwrap();
        assert_eq!(labels(&scale), ["1.5e-5", "2e-5", "2.5e-5", "3e-5"]);
    }

    #[test]
    fn odd_values_give_a_range_all_the_same() {
        assert_eq!(Scale::linear([f64::NAN, f64::INFINITY].into_iter()), None);
        assert_eq!(Scale::logarithmic([0.0, -1.0].into_iter()), None);
        for value in [0.0, 3.0, -2.0, 1e300] {
            let scale = Scale::linear([value].into_iter()).unwrap();
            assert!(scale.low < value && value < scale.high, "{scale:?}");
        }
        let scale = Scale::logarithmic([1e-5].into_iter()).unwrap();
        assert!(scale.low < -5.0 && scale.high > -5.0);
        assert_eq!(scale.place(0.0), Some(scale.low));
        assert_eq!(scale.place(f64::NAN), Some(scale.low));
    }

    #[test]
    fn thinning_keeps_ends_and_peaks() {
        let points: Vec<(f64, f64)> =
            (0..20_000).map(|i| (f64::from(i), if i == 7777 { 9.0 } else { 0.1 })).collect();
        let thin = thin(&points);
        assert!(thin.len() <= MOST_POINTS + 4, "{}", thin.len());
        assert!(thin.contains(&(7777.0, 9.0)) && thin.last() == points.last() && thin[0] == points[0]);
        assert!(thin.windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert_eq!(smooth(&[(0.0, 0.0), (1.0, 3.0), (2.0, 0.0)], 3), [(0.0, 1.5), (1.0, 1.0), (2.0, 1.5)]);
    }
}
