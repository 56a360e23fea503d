//! Writes ONNX messages, right ones and wrong ones.
#![allow(dead_code)] // each test program uses a part

pub fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 128 {
        out.push(value as u8 | 128);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

/// A whole number as a field.
pub fn number(field: u64, value: u64) -> Vec<u8> {
    [varint(field << 3), varint(value)].concat()
}

/// A text, message or packed numbers as a field.
pub fn bytes(field: u64, content: impl AsRef<[u8]>) -> Vec<u8> {
    let content = content.as_ref();
    [varint(field << 3 | 2), varint(content.len() as u64), content.to_vec()].concat()
}

/// A tensor: name, type, dimensions, and further fields.
pub fn tensor(name: &str, kind: u64, dims: &[u64], data: Vec<u8>) -> Vec<u8> {
    let dims: Vec<u8> = dims.iter().flat_map(|dim| number(1, *dim)).collect();
    [dims, number(2, kind), bytes(8, name), data].concat()
}

/// A tensor of F32 zeros.
pub fn zeros(name: &str, dims: &[u64]) -> Vec<u8> {
    let count = 4 * dims.iter().product::<u64>() as usize;
    tensor(name, 1, dims, bytes(9, vec![0; count]))
}

/// A node: operation, inputs, outputs, name, and further fields.
pub fn node(op: &str, inputs: &[&str], outputs: &[&str], name: &str, more: &[Vec<u8>]) -> Vec<u8> {
    let inputs: Vec<u8> = inputs.iter().flat_map(|input| bytes(1, input)).collect();
    let outputs: Vec<u8> = outputs.iter().flat_map(|output| bytes(2, output)).collect();
    [inputs, outputs, bytes(3, name), bytes(4, op), more.concat()].concat()
}

/// An attribute with a whole number.
pub fn integer(name: &str, value: i64) -> Vec<u8> {
    bytes(5, [bytes(1, name), number(3, value as u64)].concat())
}

/// A graph of nodes and initializers.
pub fn graph(nodes: &[Vec<u8>], initializers: &[Vec<u8>]) -> Vec<u8> {
    let nodes: Vec<u8> = nodes.iter().flat_map(|node| bytes(1, node)).collect();
    let initializers: Vec<u8> = initializers.iter().flat_map(|tensor| bytes(5, tensor)).collect();
    [nodes, initializers].concat()
}

/// A model: version, producer, and a graph.
pub fn model(graph: &[u8]) -> Vec<u8> {
    [number(1, 9), bytes(2, "test"), bytes(7, graph)].concat()
}
