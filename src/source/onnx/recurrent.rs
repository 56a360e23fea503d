//! The weights of LSTM, GRU and RNN nodes, as PyTorch has them: one matrix for each direction,
//! `weight_ih_l0` and `weight_hh_l0`, with the gates in its order, and two biases.

use std::ops::Range;
use std::sync::Arc;

use super::encodings::Pieces;
use super::flow::Consumer;
use super::model::Node;
use crate::tensors::{Content, Tensor};

/// What an input of a recurrent node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Recurrent {
    /// The gates' positions, in PyTorch's order.
    gates: &'static [usize],
    /// 1: W, 2: R, 3: B.
    input: usize,
}

impl Recurrent {
    /// Whether a node uses its input as a recurrent weight or bias.
    pub fn of(node: &Node, consumer: &Consumer) -> Option<Recurrent> {
        let gates: &[usize] = match node.op.as_str() {
            // ONNX: input, output, forget, cell; PyTorch: input, forget, cell, output.
            "LSTM" => &[0, 2, 3, 1],
            // ONNX: update, reset, hidden; PyTorch: reset, update, new.
            "GRU" => &[1, 0, 2],
            "RNN" => &[0],
            _ => return None,
        };
        (matches!(consumer.input(), 1..=3) && !consumer.flipped)
            .then_some(Recurrent { gates, input: consumer.input() })
    }

    /// The tensors in PyTorch's form; `None` where the shape is not that of the operation.
    pub fn split(self, of: &Tensor, module: &str, layer: usize) -> Option<Vec<Tensor>> {
        let (directions, rows, cols) = match (of.shape.as_slice(), self.input) {
            (&[directions, rows, cols], 1 | 2) => (directions, rows, cols),
            (&[directions, both], 3) if both % 2 == 0 => (directions, both / 2, 1),
            _ => return None,
        };
        let hidden = rows / self.gates.len();
        if !(1..=2).contains(&directions) || hidden * self.gates.len() != rows || of.elements == 0 {
            return None;
        }
        let parameters: &[&str] = match self.input {
            1 => &["weight_ih"],
            2 => &["weight_hh"],
            _ => &["bias_ih", "bias_hh"],
        };
        let each = rows * cols;
        let mut tensors = Vec::new();
        for direction in 0..directions {
            let suffix = if direction == 0 { "" } else { "_reverse" };
            for (part, parameter) in parameters.iter().enumerate() {
                let start = (direction * parameters.len() + part) * each;
                let gate = |gate: &usize| -> Range<usize> {
                    let from = start + gate * hidden * cols;
                    from..from + hidden * cols
                };
                let runs = self.gates.iter().map(gate).collect();
                tensors.push(Tensor {
                    name: format!("{module}.{parameter}_l{layer}{suffix}"),
                    dtype: of.dtype,
                    shape: if self.input == 3 { vec![rows] } else { vec![rows, cols] },
                    elements: each,
                    content: Content::Encoded(Arc::new(Pieces { of: of.clone(), runs })),
                    aliases: Vec::new(),
                });
            }
        }
        Some(tensors)
    }
}
