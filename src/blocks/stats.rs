//! The across-block statistics of the paper: a block's alpha is the plain mean over its matrices,
//! and the imbalance of a model is the population standard deviation of the blocks' alphas.

use std::collections::HashMap;

/// What a block needs to know of one of its scheduled matrices; `None` where a number does not exist.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Member {
    /// The number of the block in the list of blocks.
    pub block: usize,
    /// PL_Alpha_Hill.
    pub alpha: Option<f64>,
    /// σ_max.
    pub spectral_norm: Option<f64>,
    /// ‖W‖_F²/σ_max².
    pub stable_rank: Option<f64>,
}

/// The numbers of one block: plain means over those of its matrices that have the number.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Block {
    /// How many scheduled matrices it has.
    pub matrices: usize,
    /// Mean alpha.
    pub alpha: Option<f64>,
    /// Mean spectral norm.
    pub spectral_norm: Option<f64>,
    /// Mean stable rank.
    pub stable_rank: Option<f64>,
}

/// Mean, spread and range of the alphas of several blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Statistics {
    /// Mean of the blocks' alphas.
    pub mean: Option<f64>,
    /// Population standard deviation (divided by the number of blocks); `None` below two blocks.
    pub std: Option<f64>,
    /// Smallest.
    pub min: Option<f64>,
    /// Largest.
    pub max: Option<f64>,
}

/// The statistics of one stack.
#[derive(Clone, Debug, PartialEq)]
pub struct Stack {
    /// Its name.
    pub name: String,
    /// How many blocks it has, with or without an alpha.
    pub blocks: usize,
    /// Over the blocks that have an alpha.
    pub alpha: Statistics,
}

impl Statistics {
    /// Of the alphas that exist. The mean does not depend on the order beyond rounding.
    pub fn of(alphas: impl Iterator<Item = Option<f64>>) -> Statistics {
        let alphas: Vec<f64> = alphas.flatten().collect();
        let Some(mean) = mean(alphas.iter().copied().map(Some)) else {
            return Statistics::default();
        };
        let squares: f64 = alphas.iter().map(|a| (a - mean) * (a - mean)).sum();
        Statistics {
            mean: Some(mean),
            std: (alphas.len() > 1).then(|| (squares / alphas.len() as f64).sqrt()),
            min: alphas.iter().copied().reduce(f64::min),
            max: alphas.iter().copied().reduce(f64::max),
        }
    }
}

/// The plain mean of the numbers that exist; `None` where none does.
pub fn mean(values: impl Iterator<Item = Option<f64>>) -> Option<f64> {
    let (mut sum, mut count) = (0.0, 0u32);
    for value in values.flatten() {
        sum += value;
        count += 1;
    }
    (count > 0).then(|| sum / f64::from(count))
}

/// The numbers of `count` blocks from those of their matrices.
pub fn blocks(count: usize, members: &[Member]) -> Vec<Block> {
    let mut groups: Vec<Vec<&Member>> = vec![Vec::new(); count];
    for member in members {
        if let Some(group) = groups.get_mut(member.block) {
            group.push(member);
        }
    }
    let of_block = |group: &Vec<&Member>| Block {
        matrices: group.len(),
        alpha: mean(group.iter().map(|m| m.alpha)),
        spectral_norm: mean(group.iter().map(|m| m.spectral_norm)),
        stable_rank: mean(group.iter().map(|m| m.stable_rank)),
    };
    groups.iter().map(of_block).collect()
}

/// The statistics of every stack, in the order in which the stacks first occur.
pub fn stacks(blocks: &[(String, Option<f64>)]) -> Vec<Stack> {
    let mut positions: HashMap<&str, usize> = HashMap::new();
    let mut groups: Vec<(&str, Vec<Option<f64>>)> = Vec::new();
    for (stack, alpha) in blocks {
        let position = *positions.entry(stack).or_insert(groups.len());
        match groups.get_mut(position) {
            Some((_, alphas)) => alphas.push(*alpha),
            None => groups.push((stack, vec![*alpha])),
        }
    }
    let of_stack = |(name, alphas): (&str, Vec<Option<f64>>)| Stack {
        name: name.to_owned(),
        blocks: alphas.len(),
        alpha: Statistics::of(alphas.into_iter()),
    };
    groups.into_iter().map(of_stack).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn population_standard_deviation() {
        let stats = Statistics::of([Some(1.0), None, Some(3.0)].into_iter());
        assert_eq!(stats.mean, Some(2.0));
        assert_eq!(stats.std, Some(1.0));
        assert_eq!((stats.min, stats.max), (Some(1.0), Some(3.0)));
        assert_eq!(Statistics::of([Some(1.0)].into_iter()).std, None);
        assert_eq!(Statistics::of([None].into_iter()), Statistics::default());
    }

    #[test]
    fn a_block_averages_what_exists() {
        let member = |block, alpha| Member { block, alpha, spectral_norm: Some(2.0), stable_rank: None };
        let found =
            blocks(2, &[member(0, Some(1.0)), member(0, None), member(0, Some(4.0)), member(1, None)]);
        assert_eq!((found[0].matrices, found[0].alpha), (3, Some(2.5)));
        assert_eq!((found[1].alpha, found[1].spectral_norm, found[1].stable_rank), (None, Some(2.0), None));
    }

    #[test]
    fn stacks_keep_their_order() {
        let found = stacks(&[("e".into(), Some(1.0)), ("d".into(), Some(5.0)), ("e".into(), Some(2.0))]);
        let names: Vec<(&str, usize)> = found.iter().map(|s| (s.name.as_str(), s.blocks)).collect();
        assert_eq!(names, [("e", 2), ("d", 1)]);
        assert_eq!(found[1].alpha.std, None);
    }
}
