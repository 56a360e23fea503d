//! The elements of an adapted weight: W + Σ scale·B·A, in double precision, formed when a matrix
//! is measured and never for the whole model.

use std::borrow::Cow;
use std::ops::Range;

use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};

use crate::error::{Error, Result};
use crate::tensors::{Bytes, Encoding, Factors, Tensor, decode};

/// Elements of a panel of rows, 2 MiB of `f64`: beside the result this is all that is needed.
const PANEL: usize = 1 << 18;
/// Elements of an update without a base that are formed at once, 1 GiB of `f64`. Two thin factors in
/// a small file can claim to be terabytes; what is measured are the factors, never this.
const LARGEST: usize = 1 << 27;

/// One product that is added to a weight.
#[derive(Clone, Debug)]
pub(super) struct Product {
    /// A, row by row: rank × (in·kernel).
    pub a: Tensor,
    /// B, row by row: out × rank.
    pub b: Tensor,
    pub rank: usize,
    pub scale: f64,
    /// ΔW is (B·A)ᵀ: of an embedding, and of weights stored as [in, out].
    pub transposed: bool,
}

/// Something that is added to a tensor of the base.
#[derive(Clone, Debug)]
pub(super) enum Term {
    Product(Product),
    /// A bias of the same shape, and its factor.
    Bias(Tensor, f64),
}

/// A tensor of the base with what adapters add to it, or an update alone.
#[derive(Debug)]
pub(super) struct Delta {
    base: Option<Tensor>,
    terms: Vec<Term>,
    /// Rows and columns: the first dimension of the shape, and all others together.
    rows: usize,
    cols: usize,
    sources: Vec<String>,
}

impl Delta {
    /// A weight (or bias) of the base and what is added to it.
    pub fn onto(base: Tensor, terms: Vec<Term>) -> Delta {
        let rows = base.shape.first().copied().unwrap_or(1).max(1);
        let cols = base.elements / rows;
        let added = terms.iter().flat_map(Term::tensors).map(|t| t.name.clone());
        let sources = [base.name.clone()].into_iter().chain(added).collect();
        Delta { base: Some(base), terms, rows, cols, sources }
    }

    /// An update alone, rows × cols.
    pub fn alone(product: Product, rows: usize, cols: usize) -> Delta {
        let sources = vec![product.a.name.clone(), product.b.name.clone()];
        Delta { base: None, terms: vec![Term::Product(product)], rows, cols, sources }
    }

    /// Rows that are best computed together: whole groups of the base's encoding.
    fn rows_together(&self) -> usize {
        let granule = self.base.as_ref().map_or(1, Tensor::granule);
        let (mut divisor, mut rest) = (granule, self.cols);
        while rest > 0 {
            (divisor, rest) = (rest, divisor % rest);
        }
        granule / divisor.max(1)
    }

    /// The rows `rows` of the sum, into `panel`; `read` are the products' factors.
    fn fill(
        &self,
        files: &dyn Bytes,
        read: &[Option<Factors>],
        rows: Range<usize>,
        panel: &mut [f64],
    ) -> Result<()> {
        let elements = rows.start * self.cols..rows.end * self.cols;
        match &self.base {
            Some(base) => decode(base.dtype, &base.read(files, elements.clone())?, 0, 1, panel),
            None => panel.fill(0.0),
        }
        for (term, factors) in self.terms.iter().zip(read) {
            match (term, factors) {
                (Term::Bias(bias, scale), _) => {
                    let mut values = vec![0.0; elements.len()];
                    decode(bias.dtype, &bias.read(files, elements.clone())?, 0, 1, &mut values);
                    panel.iter_mut().zip(&values).for_each(|(sum, value)| *sum += scale * value);
                }
                (Term::Product(_), Some(factors)) => {
                    let left = MatRef::from_column_major_slice(&factors.left, self.rows, factors.rank);
                    let right = MatRef::from_column_major_slice(&factors.right, self.cols, factors.rank);
                    let left = left.subrows(rows.start, rows.len());
                    let sum = MatMut::from_row_major_slice_mut(panel, rows.len(), self.cols);
                    matmul(sum, Accum::Add, left, right.transpose(), factors.scale, Par::Seq);
                }
                (Term::Product(_), None) => {}
            }
        }
        Ok(())
    }
}

impl Term {
    fn tensors(&self) -> impl Iterator<Item = &Tensor> {
        let (first, second) = match self {
            Term::Product(product) => (&product.a, Some(&product.b)),
            Term::Bias(bias, _) => (bias, None),
        };
        [first].into_iter().chain(second)
    }

    fn name(&self) -> String {
        match self {
            Term::Product(product) => format!("LoRA r={}", product.rank),
            Term::Bias(..) => "LoRA bias".to_owned(),
        }
    }
}

impl Product {
    /// Both factors, widened.
    fn factors(&self, files: &dyn Bytes) -> Result<Factors> {
        let outputs = self.b.elements / self.rank.max(1);
        // A is rank × inputs row by row, that is inputs × rank column by column, as it is wanted.
        let inputs = numbers(&self.a, files)?;
        let by_row = numbers(&self.b, files)?;
        let mut by_column = Vec::with_capacity(by_row.len());
        for column in 0..self.rank {
            by_column.extend(by_row.iter().skip(column).step_by(self.rank).take(outputs));
        }
        let (left, right) = if self.transposed { (inputs, by_column) } else { (by_column, inputs) };
        Ok(Factors { left, right, rank: self.rank, scale: self.scale })
    }
}

/// All elements of a factor.
fn numbers(tensor: &Tensor, files: &dyn Bytes) -> Result<Vec<f64>> {
    let mut values = vec![0.0; tensor.elements];
    decode(tensor.dtype, &tensor.read(files, 0..tensor.elements)?, 0, 1, &mut values);
    Ok(values)
}

impl Encoding for Delta {
    fn name(&self) -> Cow<'static, str> {
        let base = self.base.iter().map(|base| base.stored_as().into_owned());
        let names: Vec<String> = base.chain(self.terms.iter().map(Term::name)).collect();
        Cow::Owned(names.join(" + "))
    }

    fn file(&self) -> usize {
        let first = self.terms.iter().flat_map(Term::tensors).next();
        self.base.as_ref().or(first).map_or(0, Tensor::file)
    }

    fn stored_bytes(&self) -> u64 {
        let all = self.base.iter().chain(self.terms.iter().flat_map(Term::tensors));
        all.fold(0u64, |sum, tensor| sum.saturating_add(tensor.stored_bytes()))
    }

    fn granule(&self) -> usize {
        self.cols.saturating_mul(self.rows_together()).max(1)
    }

    fn decode(&self, files: &dyn Bytes, elements: Range<usize>) -> Result<Vec<u8>> {
        if self.base.is_none() && elements.len() > LARGEST {
            let name = self.sources.first().map_or("", String::as_str);
            return Err(Error::Setting(format!(
                "the update of `{}` is too large to be formed as a whole.",
                crate::text::printable(name)
            )));
        }
        let cols = self.cols.max(1);
        let read: Vec<Option<Factors>> = self
            .terms
            .iter()
            .map(|term| match term {
                Term::Product(product) => product.factors(files).map(Some),
                Term::Bias(..) => Ok(None),
            })
            .collect::<Result<_>>()?;
        let together = self.rows_together().max(1);
        let rows = elements.start / cols / together * together..elements.end.div_ceil(cols);
        let step = (PANEL / cols).max(1).next_multiple_of(together);
        let mut bytes = Vec::with_capacity(8 * elements.len());
        let mut panel = vec![0.0; step.min(rows.len()) * cols];
        for start in rows.clone().step_by(step) {
            let end = rows.end.min(start + step);
            let Some(part) = panel.get_mut(..(end - start) * cols) else { break };
            self.fill(files, &read, start..end, part)?;
            // Of the first and the last row perhaps only a piece is wanted.
            let from = elements.start.saturating_sub(start * cols).min(part.len());
            let to = elements.end.min(end * cols) - start * cols;
            let wanted = part.get(from..to).unwrap_or_default();
            bytes.extend(wanted.iter().flat_map(|value| value.to_le_bytes()));
        }
        Ok(bytes)
    }

    fn sources(&self) -> &[String] {
        &self.sources
    }

    fn update_rank(&self) -> Option<usize> {
        match (&self.base, self.terms.as_slice()) {
            (None, [Term::Product(product)]) => Some(product.rank),
            _ => None,
        }
    }

    fn factors(&self, files: &dyn Bytes) -> Result<Option<Factors>> {
        match (&self.base, self.terms.as_slice()) {
            (None, [Term::Product(product)]) => product.factors(files).map(Some),
            _ => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensors::{Content, Dtype};
    use std::sync::Arc;

    /// Element i of a base is i; it wants to be read in groups of nine.
    #[derive(Debug)]
    struct Counting;

    impl Encoding for Counting {
        fn name(&self) -> Cow<'static, str> {
            Cow::Borrowed("counting")
        }

        fn file(&self) -> usize {
            0
        }

        fn stored_bytes(&self) -> u64 {
            0
        }

        fn granule(&self) -> usize {
            9
        }

        fn decode(&self, _: &dyn Bytes, elements: Range<usize>) -> Result<Vec<u8>> {
            assert_eq!(elements.start % 9, 0);
            Ok(elements.flat_map(|i| (i as f64).to_le_bytes()).collect())
        }
    }

    /// One file: F64 numbers 0, 1, 2, …
    struct Numbers;

    impl Bytes for Numbers {
        fn bytes(&self, _: usize, range: Range<u64>) -> Result<Cow<'_, [u8]>> {
            let numbers = range.start / 8..range.end / 8;
            Ok(Cow::Owned(numbers.flat_map(|i| (i as f64).to_le_bytes()).collect()))
        }
    }

    fn tensor(shape: &[usize], content: Content) -> Tensor {
        let elements = shape.iter().product();
        Tensor {
            name: "t".to_owned(),
            dtype: Dtype::F64,
            shape: shape.to_vec(),
            elements,
            content,
            aliases: Vec::new(),
        }
    }

    fn stored(shape: &[usize]) -> Tensor {
        let bytes = 0..8 * shape.iter().product::<usize>() as u64;
        tensor(shape, Content::Stored { file: 0, bytes })
    }

    #[test]
    fn every_range_is_a_part_of_the_whole() {
        for transposed in [false, true] {
            // B is [[0, 1], [2, 3], …], A is [[0, 1, …], …].
            let (rows, cols) = (7, 6);
            let (out, inputs) = if transposed { (cols, rows) } else { (rows, cols) };
            let product =
                Product { a: stored(&[2, inputs]), b: stored(&[out, 2]), rank: 2, scale: 0.5, transposed };
            let base = tensor(&[rows, cols], Content::Encoded(Arc::new(Counting)));
            let delta = Delta::onto(base, vec![Term::Product(product)]);
            assert_eq!((delta.granule(), &*delta.name()), (18, "counting + LoRA r=2"));
            let element = |i: usize| {
                let (row, col) = (i / cols, i % cols);
                let (o, n) = if transposed { (col, row) } else { (row, col) };
                let sum = 2 * o * n + (2 * o + 1) * (inputs + n);
                i as f64 + 0.5 * sum as f64
            };
            for start in 0..rows * cols {
                for end in start..=rows * cols {
                    let found = delta.decode(&Numbers, start..end).unwrap();
                    let expected: Vec<u8> = (start..end).flat_map(|i| element(i).to_le_bytes()).collect();
                    assert_eq!(found, expected, "{start}..{end}");
                }
            }
        }
    }
}
