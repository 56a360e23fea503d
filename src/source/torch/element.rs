//! torch's element types, under the names of its dtypes and of its storage classes.

use crate::tensors::Dtype;

/// An element type of torch.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Element {
    /// The name of the dtype, after `torch.`.
    pub name: &'static str,
    /// The name of the storage class without its ending `Storage`; empty where there is none.
    storage: &'static str,
    /// Bytes per element.
    pub bytes: u64,
    /// The type that the later stages know it as; `None` where they know none.
    pub dtype: Option<Dtype>,
}

/// A reference to an entry of [`ELEMENTS`].
pub(super) type ElementRef = &'static Element;

const fn element(name: &'static str, storage: &'static str, bytes: u64, dtype: Option<Dtype>) -> Element {
    Element { name, storage, bytes, dtype }
}

static ELEMENTS: [Element; 27] = [
    element("float64", "Double", 8, Some(Dtype::F64)),
    element("float32", "Float", 4, Some(Dtype::F32)),
    element("float16", "Half", 2, Some(Dtype::F16)),
    element("bfloat16", "BFloat16", 2, Some(Dtype::BF16)),
    element("int64", "Long", 8, Some(Dtype::I64)),
    element("int32", "Int", 4, Some(Dtype::I32)),
    element("int16", "Short", 2, Some(Dtype::I16)),
    element("int8", "Char", 1, Some(Dtype::I8)),
    element("uint8", "Byte", 1, Some(Dtype::U8)),
    element("bool", "Bool", 1, Some(Dtype::Bool)),
    element("complex64", "ComplexFloat", 8, Some(Dtype::C64)),
    element("complex128", "ComplexDouble", 16, None),
    element("complex32", "", 4, None),
    element("uint16", "", 2, Some(Dtype::U16)),
    element("uint32", "", 4, Some(Dtype::U32)),
    element("uint64", "", 8, Some(Dtype::U64)),
    element("float8_e4m3fn", "", 1, Some(Dtype::F8E4M3)),
    element("float8_e5m2", "", 1, Some(Dtype::F8E5M2)),
    element("float8_e4m3fnuz", "", 1, Some(Dtype::F8E4M3Fnuz)),
    element("float8_e5m2fnuz", "", 1, Some(Dtype::F8E5M2Fnuz)),
    element("float8_e8m0fnu", "", 1, Some(Dtype::F8E8M0)),
    element("float4_e2m1fn_x2", "", 1, None),
    element("qint8", "QInt8", 1, None),
    element("quint8", "QUInt8", 1, None),
    element("qint32", "QInt32", 4, None),
    element("quint4x2", "QUInt4x2", 1, None),
    element("quint2x4", "QUInt2x4", 1, None),
];

/// The type that a dtype's name stands for: `float32`.
pub(super) fn of_dtype(name: &str) -> Option<ElementRef> {
    ELEMENTS.iter().find(|e| e.name == name)
}

/// The type that a storage class or a tensor class holds: `FloatStorage`, `FloatTensor`.
pub(super) fn of_class(name: &str, ending: &str) -> Option<ElementRef> {
    let prefix = name.strip_suffix(ending)?;
    ELEMENTS.iter().find(|e| e.storage == prefix && !prefix.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_agree_with_the_types() {
        for element in &ELEMENTS {
            if let Some(dtype) = element.dtype {
                assert_eq!(dtype.bits() as u64, 8 * element.bytes, "{}", element.name);
            }
        }
        assert_eq!(of_class("HalfStorage", "Storage").unwrap().dtype, Some(Dtype::F16));
        assert!(of_class("Storage", "Storage").is_none() && of_dtype("float31").is_none());
    }
}
