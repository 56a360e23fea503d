//! Eigenvalues of a symmetric tridiagonal matrix in single precision: bisection with Sturm's counts.
//!
//! The iteration of `tridiagonal` waits for one division after the other. Here the counts of
//! many shifts are taken at once, each in a lane of a vector, and groups of shifts on all threads: for single
//! precision, which needs few bits, that is several times faster, and its errors are far below those of
//! the reduction. All operations are rounded the same whatever the vectors: no result depends on them.
//!
//! Sturm's counts in floating point are those of a matrix that is off by a few units roundoff of its
//! elements (Kahan 1966; Demmel, Applied Numerical Linear Algebra, 1997, lemma 5.3).

use pulp::Simd;
use rayon::prelude::*;

use super::two_stage::{Work, vectorised};
use super::{NoConvergence, power_of_two_for};

/// Shifts that are counted together: enough to hide the time that a division takes.
const TOGETHER: usize = 64;

/// Squares of off-diagonal elements (of a matrix of norm one) are at least this, so that no quotient is
/// 0/0: an eigenvalue moves by its root, 10⁻¹⁵, at most.
const LEAST_SQUARE: f32 = 1e-30;

/// A matrix scaled to a norm of about one.
struct Scaled {
    diagonal: Vec<f32>,
    /// Squares of what is beside it; the first one is before the matrix, and the least there is.
    squares: Vec<f32>,
    /// What the matrix was multiplied by.
    scale: f64,
}

/// Eigenvalues, ascending, of the matrix with this diagonal and with `below[i]` between elements `i`
/// and `i + 1`; right to a few units roundoff of single precision, times the norm.
///
/// # Errors
/// [`NoConvergence`] where an element is not finite.
pub(super) fn single_tridiagonal_eigenvalues(
    diagonal: &[f64],
    below: &[f64],
) -> Result<Vec<f64>, NoConvergence> {
    let below = below.get(..diagonal.len().saturating_sub(1)).unwrap_or(below);
    if diagonal.iter().chain(below).any(|v| !v.is_finite()) {
        return Err(NoConvergence);
    }
    let largest = diagonal.iter().chain(below).fold(0.0, |max: f64, v| max.max(v.abs()));
    if largest == 0.0 {
        return Ok(vec![0.0; diagonal.len()]);
    }
    let matrix = Scaled::new(diagonal, below, power_of_two_for(largest));
    let (low, high) = matrix.range();
    let grid = Grid::new(&matrix, low, high);
    let numbers: Vec<usize> = (0..diagonal.len()).collect();
    let groups: Vec<Vec<f64>> =
        numbers.par_chunks(TOGETHER).map(|numbers| matrix.bisect(numbers, &grid)).collect();
    let mut values: Vec<f64> = groups.into_iter().flatten().map(|value| value / matrix.scale).collect();
    // Neighbours that cannot be told apart may come in any order.
    values.sort_by(f64::total_cmp);
    Ok(values)
}

impl Scaled {
    fn new(diagonal: &[f64], below: &[f64], scale: f64) -> Scaled {
        let square = |e: &f64| ((e * scale) * (e * scale)) as f32;
        let squares = std::iter::once(0.0).chain(below.iter().map(square));
        Scaled {
            diagonal: diagonal.iter().map(|d| (d * scale) as f32).collect(),
            squares: squares.map(|square| square.max(LEAST_SQUARE)).collect(),
            scale,
        }
    }

    /// An interval that holds all eigenvalues (Gershgorin), with room for rounding.
    fn range(&self) -> (f32, f32) {
        let after = self.squares.iter().skip(1).copied().chain([0.0]);
        let discs = self.diagonal.iter().zip(self.squares.iter().zip(after));
        let (low, high) = discs.fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), (d, (e, f))| {
            let radius = e.sqrt() + f.sqrt();
            (low.min(d - radius), high.max(d + radius))
        });
        let room = 4.0 * f32::EPSILON * low.abs().max(high.abs());
        (low - room, high + room)
    }

    /// How many eigenvalues lie below each shift.
    fn counts(&self, shifts: &[f32; TOGETHER]) -> [u32; TOGETHER] {
        let mut counts = [0; TOGETHER];
        vectorised(Count { matrix: self, shifts, counts: &mut counts });
        counts
    }

    /// The eigenvalues of these numbers (at most TOGETHER), each halved down from a step of the grid.
    fn bisect(&self, numbers: &[usize], grid: &Grid) -> Vec<f64> {
        let mut low = [0f32; TOGETHER];
        let mut high = [0f32; TOGETHER];
        for ((low, high), number) in low.iter_mut().zip(&mut high).zip(numbers) {
            (*low, *high) = grid.step(*number);
        }
        for _ in 0..grid.halvings {
            let mut middle = low;
            middle.iter_mut().zip(&high).for_each(|(middle, high)| *middle = 0.5 * (*middle + high));
            let counts = self.counts(&middle);
            let ends = low.iter_mut().zip(&mut high).zip(middle.iter().zip(counts));
            for ((ends, (middle, count)), number) in ends.zip(numbers) {
                let is_below = usize::try_from(count).is_ok_and(|count| count > *number);
                *(if is_below { ends.1 } else { ends.0 }) = *middle;
            }
        }
        let middle = |(low, high): (&f32, &f32)| 0.5 * (f64::from(*low) + f64::from(*high));
        low.iter().zip(&high).take(numbers.len()).map(middle).collect()
    }
}

/// The counts at evenly spaced shifts, as many as there are eigenvalues: one pass over them is worth as
/// many halvings as the logarithm of their number.
struct Grid {
    low: f32,
    step: f32,
    /// At `low + step·(i + 1)`; they never decrease.
    counts: Vec<u32>,
    /// Halvings of a step down to the resolution of the shifts.
    halvings: u32,
}

impl Grid {
    fn new(matrix: &Scaled, low: f32, high: f32) -> Grid {
        let groups = matrix.diagonal.len().div_ceil(TOGETHER);
        let step = (high - low) / (groups * TOGETHER) as f32;
        let shift = |i: usize| low + step * (i + 1) as f32;
        let counted = (0..groups).into_par_iter().map(|group| {
            let shifts = std::array::from_fn(|lane| shift(group * TOGETHER + lane));
            matrix.counts(&shifts)
        });
        let mut counts: Vec<u32> = counted.collect::<Vec<_>>().into_iter().flatten().collect();
        // Rounding may let a count fall by one where eigenvalues lie close to a shift.
        let mut most = 0;
        counts.iter_mut().for_each(|count| {
            most = most.max(*count);
            *count = most;
        });
        let resolution = f32::EPSILON * low.abs().max(high.abs());
        let halvings = (step / resolution).log2().ceil().max(0.0) as u32;
        Grid { low, step, counts, halvings }
    }

    /// The ends of the step in which the eigenvalue of a number lies.
    fn step(&self, number: usize) -> (f32, f32) {
        let before = self.counts.partition_point(|count| usize::try_from(*count).is_ok_and(|c| c <= number));
        (self.low + self.step * before as f32, self.low + self.step * (before + 1) as f32)
    }
}

/// The number of negative pivots of T − x for each x.
struct Count<'a> {
    matrix: &'a Scaled,
    shifts: &'a [f32; TOGETHER],
    counts: &'a mut [u32; TOGETHER],
}

impl Work for Count<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let mut pivots = [1f32; TOGETHER];
        for (diagonal, square) in self.matrix.diagonal.iter().zip(&self.matrix.squares) {
            for ((pivot, shift), count) in pivots.iter_mut().zip(self.shifts).zip(self.counts.iter_mut()) {
                // A pivot of zero makes the next one −∞ and the one after that a usual one again.
                *pivot = (diagonal - shift) - square / *pivot;
                *count += u32::from(*pivot < 0.0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spectrum::tridiagonal_eigenvalues;

    fn compare(diagonal: Vec<f64>, below: &[f64], what: &str) {
        let norm = diagonal.iter().chain(below).fold(0.0, |max: f64, v| max.max(v.abs()));
        let found = single_tridiagonal_eigenvalues(&diagonal, below).unwrap();
        let expected = tridiagonal_eigenvalues(diagonal, below).unwrap();
        assert_eq!(found.len(), expected.len());
        for (f, e) in found.iter().zip(&expected) {
            let tolerance = 12.0 * f64::from(f32::EPSILON) / 2.0 * norm;
            assert!((f - e).abs() <= tolerance, "{what}: {f} against {e}, norm {norm}");
        }
    }

    #[test]
    fn as_in_double_precision() {
        let mut state = 9u64;
        let mut noise = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 11) as f64 / (1u64 << 53) as f64
        };
        for n in (1..=70).chain([128, 129, 1000]) {
            let diagonal: Vec<f64> = (0..n).map(|_| noise()).collect();
            let below: Vec<f64> = (1..n).map(|_| noise()).collect();
            compare(diagonal.clone(), &below, "random");
            compare(diagonal.iter().map(|d| d * 1e30).collect(), &vec![1e-9; n - 1], "nearly diagonal");
            compare(vec![0.0; n], &below, "symmetric about zero");
            compare(vec![2.0; n], &vec![-1.0; n - 1], "second difference");
            compare(diagonal.iter().map(|d| d * 1e-12).collect(), &vec![0.0; n - 1], "diagonal");
            let graded: Vec<f64> = (0..n).map(|i| 0.5f64.powi(i as i32)).collect();
            compare(graded.clone(), &graded[1..], "graded");
        }
    }

    #[test]
    fn equal_zero_and_infinite() {
        compare(vec![3.0; 80], &[0.0; 79], "one eigenvalue");
        compare(vec![0.0; 5], &[0.0; 4], "zero");
        assert_eq!(single_tridiagonal_eigenvalues(&[], &[]).unwrap(), Vec::<f64>::new());
        assert_eq!(single_tridiagonal_eigenvalues(&[1.0, f64::NAN], &[1.0]), Err(NoConvergence));
    }
}
