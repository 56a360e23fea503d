//! Which scales and zero points belong to a quantised weight, by the operations that use it.

use super::flow::{Consumer, Flow};
use super::model::Node;
use super::quantised::Groups;

/// The parameters of a weight: positions in [`super::model::Model::tensors`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Parameters {
    pub scale: usize,
    pub zero: Option<usize>,
    /// The axis along which scales differ, if they do; negative from the end.
    pub axis: i64,
    /// Neighbours on the axis that share a scale; 0 where each index has its own.
    pub block: i64,
}

/// The weight of a MatMulNBits node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BlockParameters {
    pub scale: usize,
    pub zero: Option<usize>,
    pub rows: usize,
    pub cols: usize,
    pub bits: usize,
    pub block: usize,
}

/// The scale and zero point of a weight, for the first operation that has some.
pub(super) fn parameters(flow: &Flow, consumers: &[Consumer]) -> Option<Parameters> {
    consumers.iter().find_map(|consumer| {
        let node = flow.node(consumer.node())?;
        match consumer.dequantised_by() {
            Some(by) => dequantize_linear(flow, flow.node(by)?),
            None => of_operation(flow, node, consumer.input()),
        }
    })
}

fn dequantize_linear(flow: &Flow, node: &Node) -> Option<Parameters> {
    Some(Parameters {
        scale: flow.input_tensor(node, 1)?,
        zero: flow.input_tensor(node, 2),
        axis: node.integer("axis").unwrap_or(1),
        block: node.integer("block_size").unwrap_or(0),
    })
}

/// Operations that take a quantised weight as it is, with scale and zero point as further inputs.
fn of_operation(flow: &Flow, node: &Node, input: usize) -> Option<Parameters> {
    let columns = -1;
    let transposed = node.integer("transB").unwrap_or(0) != 0;
    let (scale, zero, axis) = match (node.op.as_str(), input) {
        ("QLinearMatMul", 3) => (flow.input_tensor(node, 4)?, 5, columns),
        ("QGemm", 3) => (flow.input_tensor(node, 4)?, 5, if transposed { 0 } else { columns }),
        ("QLinearConv", 3) => (flow.input_tensor(node, 4)?, 5, 0),
        ("DynamicQuantizeMatMul", 1) => (flow.input_tensor(node, 2)?, 3, columns),
        ("MatMulIntegerToFloat", 1) => (flow.input_tensor(node, 3)?, 5, columns),
        ("MatMulInteger", 1) => (scale_behind(flow, node)?, 3, columns),
        ("ConvInteger", 1) => (scale_behind(flow, node)?, 3, 0),
        // The rows of a quantised table are dequantised after they were looked up.
        ("Gather", 0) => {
            let (by, _) =
                flow.users(node).find(|(user, input)| user.op == "DequantizeLinear" && *input == 0)?;
            return dequantize_linear(flow, by);
        }
        _ => return None,
    };
    Some(Parameters { scale, zero: flow.input_tensor(node, zero), axis, block: 0 })
}

/// An integer product is cast and multiplied by the product of two scales; that of the weight is the
/// one which is a tensor.
fn scale_behind(flow: &Flow, node: &Node) -> Option<usize> {
    let (cast, _) = flow.users(node).find(|(user, _)| user.op == "Cast")?;
    let (scaled, input) = flow.users(cast).find(|(user, _)| user.op == "Mul")?;
    let scales = flow.input_node(scaled, 1 - input.min(1)).filter(|scales| scales.op == "Mul")?;
    match (flow.input_tensor(scales, 0), flow.input_tensor(scales, 1)) {
        (Some(scale), None) | (None, Some(scale)) => Some(scale),
        _ => None,
    }
}

/// The parameters of a weight that MatMulNBits uses; an error is why it is not read.
pub(super) fn blocks(flow: &Flow, consumers: &[Consumer]) -> Option<Result<BlockParameters, String>> {
    let node = consumers.iter().find_map(|consumer| {
        flow.node(consumer.node()).filter(|node| node.op == "MatMulNBits" && consumer.input() == 1)
    })?;
    let attribute =
        |name: &str| node.integer(name).and_then(|value| usize::try_from(value).ok()).filter(|n| *n > 0);
    let bits = attribute("bits").unwrap_or(4);
    let parameters = || {
        Some(BlockParameters {
            scale: flow.input_tensor(node, 2)?,
            zero: flow.input_tensor(node, 3),
            rows: attribute("N")?,
            cols: attribute("K")?,
            bits,
            block: attribute("block_size").filter(|block| block.is_multiple_of(2))?,
        })
    };
    if !matches!(bits, 4 | 8) {
        return Some(Err(format!("blocks of {bits}-bit codes, which are not read")));
    }
    if node.inputs.get(4).is_some_and(|name| !name.is_empty()) {
        return Some(Err("blocks in an order of their own (g_idx), which are not read".to_owned()));
    }
    Some(parameters().ok_or_else(|| "blocks without their scales".to_owned()))
}

/// Which elements of a weight share a scale; `None` where the scales do not fit it.
pub(super) fn groups(shape: &[usize], scale: &[usize], parameters: &Parameters) -> Option<Groups> {
    let count: usize = scale.iter().product();
    if count == 1 {
        return Some(Groups::Tensor);
    }
    let from_end = usize::try_from(parameters.axis.unsigned_abs()).ok()?;
    let axis = if parameters.axis < 0 { shape.len().checked_sub(from_end)? } else { from_end };
    let length = *shape.get(axis).filter(|length| **length > 0)?;
    let inner: usize = shape.get(axis + 1..)?.iter().product();
    if inner == 0 {
        return None;
    }
    let block = usize::try_from(parameters.block).ok()?;
    if block == 0 {
        return (count == length).then_some(Groups::Axis { length, inner });
    }
    let fits = |(at, (size, scale)): (usize, (&usize, &usize))| {
        if at == axis { size.div_ceil(block) == *scale } else { size == scale }
    };
    let fits = shape.len() == scale.len() && shape.iter().zip(scale).enumerate().all(fits);
    fits.then_some(Groups::Block { length, inner, block })
}
