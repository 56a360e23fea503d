//! Writes GGUF files, right ones and wrong ones: every number in them can be set.

/// A value of the metadata: its type and its bytes.
pub type Value = (u32, Vec<u8>);

pub fn uint16(value: u16) -> Value {
    (2, value.to_le_bytes().to_vec())
}

pub fn uint32(value: u32) -> Value {
    (4, value.to_le_bytes().to_vec())
}

pub fn int32(value: i32) -> Value {
    (5, value.to_le_bytes().to_vec())
}

pub fn text(value: &str) -> Value {
    (8, string(value.as_bytes()))
}

/// An array of `count` elements of a type, with these bytes.
pub fn array(kind: u32, count: u64, bytes: &[u8]) -> Value {
    (9, [&kind.to_le_bytes()[..], &count.to_le_bytes(), bytes].concat())
}

/// A length and the bytes.
pub fn string(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u64).to_le_bytes()[..], bytes].concat()
}

/// A tensor, its shape outermost dimension first as everywhere else.
#[derive(Clone, Debug)]
pub struct Tensor {
    pub name: String,
    pub shape: Vec<u64>,
    pub kind: u32,
    /// `None`: where it belongs, behind the one before it.
    pub offset: Option<u64>,
    pub data: Vec<u8>,
}

impl Tensor {
    pub fn new(name: &str, shape: &[u64], kind: u32, data: Vec<u8>) -> Tensor {
        Tensor { name: name.to_owned(), shape: shape.to_vec(), kind, offset: None, data }
    }

    /// F32 zeros.
    pub fn zeros(name: &str, shape: &[u64]) -> Tensor {
        let elements: u64 = shape.iter().product();
        Tensor::new(name, shape, 0, vec![0; 4 * elements as usize])
    }
}

/// A file.
#[derive(Clone, Debug)]
pub struct File {
    pub version: u32,
    pub metadata: Vec<(String, Value)>,
    pub tensors: Vec<Tensor>,
    /// In place of the true counts of tensors and keys.
    pub counts: Option<(u64, u64)>,
}

impl File {
    pub fn new(metadata: Vec<(&str, Value)>, tensors: Vec<Tensor>) -> File {
        let metadata = metadata.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        File { version: 3, metadata, tensors, counts: None }
    }

    /// The file's bytes, and where each of its sections and entries ends.
    pub fn write(&self) -> (Vec<u8>, Vec<usize>) {
        const ALIGNMENT: u64 = 32;
        let (tensors, keys) = self.counts.unwrap_or((self.tensors.len() as u64, self.metadata.len() as u64));
        let mut bytes = b"GGUF".to_vec();
        bytes.extend(self.version.to_le_bytes());
        bytes.extend(tensors.to_le_bytes());
        bytes.extend(keys.to_le_bytes());
        let mut borders = vec![4, 8, 16, 24];
        for (key, (kind, value)) in &self.metadata {
            bytes.extend([&string(key.as_bytes())[..], &kind.to_le_bytes(), value].concat());
            borders.push(bytes.len());
        }
        let mut next = 0;
        for tensor in &self.tensors {
            bytes.extend(string(tensor.name.as_bytes()));
            bytes.extend((tensor.shape.len() as u32).to_le_bytes());
            bytes.extend(tensor.shape.iter().rev().flat_map(|d| d.to_le_bytes()));
            bytes.extend(tensor.kind.to_le_bytes());
            bytes.extend(tensor.offset.unwrap_or(next).to_le_bytes());
            next = (next + tensor.data.len() as u64).next_multiple_of(ALIGNMENT);
            borders.push(bytes.len());
        }
        for tensor in &self.tensors {
            bytes.resize(bytes.len().next_multiple_of(ALIGNMENT as usize), 0);
            borders.push(bytes.len());
            bytes.extend_from_slice(&tensor.data);
        }
        borders.push(bytes.len());
        (bytes, borders)
    }

    pub fn bytes(&self) -> Vec<u8> {
        self.write().0
    }
}
