//! Which rows are used: a part of the training set, and a part held back for evaluation.

pub use evenkeel::rebalance::options::Choice;

use super::labels::Targets;
use crate::error::{Error, Result};
use crate::random::{Draws, Purpose};

/// A part of the rows; see [`choose_of`].
///
/// # Errors
/// Those of [`choose_of`].
pub fn choose(targets: &Targets, ratio: f64, choice: Choice, seed: u64) -> Result<Vec<usize>> {
    choose_of(targets.len(), targets.classes(), ratio, choice, seed)
}

/// ⌊N·ratio⌋ of N rows with these classes, in rising order; by stride ⌈N/k⌉.
///
/// # Errors
/// `ratio` is not in (0, 1], so small that no row is left, or none that a stride can take.
pub fn choose_of(
    rows: usize,
    classes: Option<&[i64]>,
    ratio: f64,
    choice: Choice,
    seed: u64,
) -> Result<Vec<usize>> {
    if !(ratio > 0.0 && ratio <= 1.0) {
        return Err(Error::Option(format!(
            "a part of {ratio} of the training examples: it must be in (0, 1]."
        )));
    }
    // As Python's int(N * ratio), with the same rounding of the product.
    let count = (rows as f64 * ratio) as usize;
    if count == 0 {
        let least = 1.0 / rows as f64;
        return Err(Error::Option(format!(
            "{ratio} of {rows} training examples is less than one; the part must be {least:.6} at least."
        )));
    }
    let mut draws = Draws::new(seed, Purpose::Subset, 0);
    Ok(match (choice, classes) {
        (Choice::First, _) => (0..count).collect(),
        (Choice::Stride, _) => (0..rows).step_by(step(ratio)?).collect(),
        (Choice::Stratified, Some(classes)) => stratified(classes, count, &mut draws),
        (Choice::Stratified, None) | (Choice::Random, _) => draws.choose(rows, count),
    })
}

/// k for a ratio of 1/k, to two hundredths: 0.0056 stands for 1/180.
fn step(ratio: f64) -> Result<usize> {
    let exact = 1.0 / ratio;
    let step = exact.round();
    if (exact - step).abs() > 0.02 * step {
        return Err(Error::Option(format!(
            "a part of {ratio} is not every k-th of the training examples: 1/{ratio} is {exact:.2}, no whole number \
             (--subsample-choice random takes any part)."
        )));
    }
    Ok(step as usize)
}

/// Splits the rows into those to train on and those held back, each in rising order: ⌊N·fraction⌋ are held
/// back, but one at least, with the classes in their proportions (regression: any).
///
/// # Errors
/// `fraction` is not in (0, 1), or no row is left for training.
pub fn hold_back(targets: &Targets, fraction: f64, seed: u64) -> Result<(Vec<usize>, Vec<usize>)> {
    let rows = targets.len();
    if !(fraction > 0.0 && fraction < 1.0) {
        return Err(Error::Option(format!("a part of {fraction} held back: it must be in (0, 1).")));
    }
    let count = ((rows as f64 * fraction) as usize).max(1);
    if count >= rows {
        return Err(Error::Option(format!(
            "of {rows} training examples none can be held back; give evaluation data."
        )));
    }
    let mut draws = Draws::new(seed, Purpose::Held, 0);
    let held = match targets.classes() {
        Some(classes) => stratified(classes, count, &mut draws),
        None => draws.choose(rows, count),
    };
    let mut next = held.iter().peekable();
    let rest = (0..rows).filter(|row| next.next_if_eq(&row).is_none()).collect();
    Ok((rest, held))
}

/// Splits rows that belong together in groups, as [`hold_back`] does with single ones: ⌊groups·fraction⌋ groups
/// are held back, but one at least, and no group is divided.
///
/// # Errors
/// As [`hold_back`].
pub fn hold_back_whole(groups: &[usize], fraction: f64, seed: u64) -> Result<(Vec<usize>, Vec<usize>)> {
    let distinct: std::collections::BTreeSet<usize> = groups.iter().copied().collect();
    let distinct: Vec<usize> = distinct.into_iter().collect();
    let (_, held) = hold_back(&Targets::Values(vec![0.0; distinct.len()]), fraction, seed)?;
    let held: std::collections::HashSet<usize> =
        held.iter().filter_map(|place| distinct.get(*place).copied()).collect();
    Ok((0..groups.len()).partition(|row| groups.get(*row).is_none_or(|group| !held.contains(group))))
}

/// `count` rows with the classes in their proportions: each class gets the whole part of its share, and
/// what is then left over goes one by one to the largest remainders (of equal ones, the smaller class).
fn stratified(classes: &[i64], count: usize, draws: &mut Draws) -> Vec<usize> {
    let mut members: std::collections::BTreeMap<i64, Vec<usize>> = std::collections::BTreeMap::new();
    for (row, class) in classes.iter().enumerate() {
        members.entry(*class).or_default().push(row);
    }
    let all = classes.len().max(1) as u128;
    // (whole part, remainder) of size · count / all, exactly.
    let shares = members.values().map(|rows| rows.len() as u128 * count as u128);
    let mut shares: Vec<(usize, u128)> = shares.map(|share| ((share / all) as usize, share % all)).collect();
    let left = count.saturating_sub(shares.iter().map(|(whole, _)| whole).sum());
    let mut by_remainder: Vec<usize> = (0..shares.len()).collect();
    by_remainder.sort_by_key(|class| std::cmp::Reverse(shares.get(*class).map_or(0, |(_, rest)| *rest)));
    for class in by_remainder.into_iter().take(left) {
        if let Some((whole, _)) = shares.get_mut(class) {
            *whole += 1;
        }
    }
    let mut chosen: Vec<usize> = Vec::with_capacity(count);
    for (rows, (share, _)) in members.into_values().zip(shares) {
        let places = draws.choose(rows.len(), share);
        chosen.extend(places.into_iter().filter_map(|place| rows.get(place)));
    }
    chosen.sort_unstable();
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 60, 30 and 10 rows of three classes.
    fn three() -> Targets {
        Targets::Classes(
            (0..100)
                .map(|row| {
                    if row < 60 {
                        0
                    } else if row < 90 {
                        1
                    } else {
                        2
                    }
                })
                .collect(),
        )
    }

    fn counts(targets: &Targets, rows: &[usize]) -> Vec<usize> {
        let chosen = targets.select(rows);
        let classes = chosen.classes().unwrap().to_vec();
        (0..3).map(|class| classes.iter().filter(|c| **c == class).count()).collect()
    }

    #[test]
    fn the_first_rows_are_those_of_the_authors() {
        assert_eq!(choose(&three(), 0.29, Choice::First, 1).unwrap(), (0..28).collect::<Vec<_>>());
        // int(67349 * 0.0002) and int(104743 * 0.0005) in Python.
        let of = |rows| Targets::Values(vec![0.0; rows]);
        assert_eq!(choose(&of(67_349), 0.0002, Choice::First, 1).unwrap().len(), 13);
        assert_eq!(choose(&of(104_743), 0.0005, Choice::First, 1).unwrap().len(), 52);
    }

    #[test]
    fn strata_keep_their_proportions() {
        let targets = three();
        for (ratio, expected) in [(0.1, [6, 3, 1]), (0.05, [3, 2, 0]), (0.01, [1, 0, 0]), (1.0, [60, 30, 10])]
        {
            let rows = choose(&targets, ratio, Choice::Stratified, 3).unwrap();
            assert_eq!(counts(&targets, &rows), expected, "{ratio}");
        }
        let (rest, held) = hold_back(&targets, 0.1, 3).unwrap();
        assert_eq!(counts(&targets, &held), [6, 3, 1]);
        let mut all = [rest, held].concat();
        all.sort_unstable();
        assert_eq!(all, (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn a_stride_takes_every_kth() {
        let of = |rows, ratio| choose_of(rows, None, ratio, Choice::Stride, 1);
        assert_eq!(of(10, 0.25).unwrap(), [0, 4, 8]);
        assert_eq!(of(4, 1.0).unwrap(), [0, 1, 2, 3]);
        // PDEBench's 9000 training samples at 1/180, as it is usually rounded.
        assert_eq!(of(9000, 0.0056).unwrap().get(1), Some(&179));
        let message = of(100, 0.3).unwrap_err().to_string();
        assert!(message.contains("1/0.3 is 3.33") && message.contains("random"), "{message}");
    }

    #[test]
    fn seeds_decide() {
        for choice in [Choice::Random, Choice::Stratified] {
            let of = |seed| choose(&three(), 0.2, choice, seed).unwrap();
            assert_eq!(of(1), of(1));
            assert_ne!(of(1), of(2));
            assert_eq!(of(1).len(), 20);
            assert!(of(1).is_sorted());
        }
    }

    #[test]
    fn groups_stay_whole() {
        let groups: Vec<usize> = (0..40).map(|row| 7 * (row / 4)).collect();
        let (rest, held) = hold_back_whole(&groups, 0.2, 5).unwrap();
        assert_eq!((rest.len(), held.len()), (32, 8));
        assert!(rest.iter().all(|row| held.iter().all(|other| groups[*row] != groups[*other])));
        assert!(hold_back_whole(&[3, 3, 3], 0.5, 5).is_err());
    }

    #[test]
    fn too_small_parts_are_refused() {
        let message = choose(&three(), 0.009, Choice::Random, 1).unwrap_err().to_string();
        assert_eq!(
            message,
            "0.009 of 100 training examples is less than one; the part must be 0.010000 at least."
        );
        for ratio in [0.0, -1.0, 1.5, f64::NAN] {
            assert!(choose(&three(), ratio, Choice::First, 1).is_err());
            assert!(hold_back(&three(), ratio, 1).is_err());
        }
        assert!(hold_back(&Targets::Values(vec![1.0]), 0.5, 1).is_err());
        assert!(choose(&Targets::Values(vec![]), 0.5, Choice::First, 1).is_err());
    }
}
