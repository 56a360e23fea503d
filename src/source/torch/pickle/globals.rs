//! The names that a pickle may use: what torch itself writes for tensors, and containers of plain
//! data. None of them is imported or called; they only say what a record stands for.

use crate::source::torch::element::{self, ElementRef};

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Global {
    /// A class of mappings.
    Mapping,
    /// A class of sequences.
    Sequence,
    /// A class whose instances are bags of attributes.
    Namespace,
    /// `copyreg._reconstructor(class, base, state)`: makes an instance of its first argument.
    Reconstructor,
    /// A class of storages; `None` where it says nothing of its elements.
    Storage(Option<ElementRef>),
    /// An element type.
    Dtype(ElementRef),
    /// A function or class that makes a tensor.
    Rebuild(Rebuild),
    /// Data of no use here, or a placeholder.
    Inert,
}

/// How a tensor is made of its arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rebuild {
    /// (storage, offset, size, stride), and from `_v2` on (…, requires_grad, hooks, metadata).
    Plain,
    /// As `_v2`, with the element type before the metadata.
    Typed,
    /// Its first argument is the tensor itself.
    Parameter,
    /// (function, class, arguments, state): the function's result, with attributes.
    FromType,
    /// A NumPy array: data beside the weights.
    Array,
    /// A kind of tensor that is not read, and what it is.
    Unread(&'static str),
}

/// What a name stands for; `None` where it is not in the list.
pub fn known(module: &str, name: &str) -> Option<Global> {
    let global = match module {
        "torch._utils" => Global::Rebuild(rebuild(name)?),
        "torch" | "torch.cuda" | "torch.storage" => return torch(module, name),
        "torch._tensor" => match name {
            "_rebuild_from_type_v2" => Global::Rebuild(Rebuild::FromType),
            "Tensor" => Global::Inert,
            _ => return None,
        },
        "torch.nn.parameter" => match name {
            "Parameter" | "Buffer" => Global::Rebuild(Rebuild::Parameter),
            _ => return None,
        },
        "torch.serialization" if name == "_get_layout" => Global::Inert,
        "torch.utils.hooks" if name == "RemovableHandle" => Global::Inert,
        "copyreg" | "copy_reg" if name == "_reconstructor" => Global::Reconstructor,
        "builtins" | "__builtin__" => return builtin(name),
        _ => return container(module, name).or_else(|| numpy(module, name)),
    };
    Some(global)
}

fn rebuild(name: &str) -> Option<Rebuild> {
    Some(match name {
        "_rebuild_tensor" | "_rebuild_tensor_v2" => Rebuild::Plain,
        "_rebuild_tensor_v3" => Rebuild::Typed,
        "_rebuild_parameter" | "_rebuild_parameter_with_state" => Rebuild::Parameter,
        "_rebuild_qtensor" => {
            Rebuild::Unread("a tensor quantised by torch.ao, which this version does not read")
        }
        "_rebuild_sparse_tensor" | "_rebuild_sparse_csr_tensor" => {
            Rebuild::Unread("a sparse tensor, which this version does not read")
        }
        "_rebuild_nested_tensor" => Rebuild::Unread("a nested tensor, which this version does not read"),
        "_rebuild_meta_tensor_no_storage" => Rebuild::Unread("a tensor without data (meta)"),
        "_rebuild_device_tensor_from_numpy" | "_rebuild_device_tensor_from_cpu_tensor" => {
            Rebuild::Unread("a tensor of a device whose form is not read")
        }
        _ => return None,
    })
}

fn torch(module: &str, name: &str) -> Option<Global> {
    if matches!(name, "UntypedStorage" | "TypedStorage" | "_UntypedStorage" | "_TypedStorage") {
        return Some(Global::Storage(None));
    }
    if let Some(element) = element::of_class(name, "Storage") {
        return Some(Global::Storage(Some(element)));
    }
    if module == "torch" {
        match name {
            "Size" => return Some(Global::Sequence),
            "device" | "Tensor" | "strided" | "sparse_coo" | "per_tensor_affine" | "per_channel_affine"
            | "preserve_format" | "contiguous_format" | "channels_last" => return Some(Global::Inert),
            _ => {}
        }
    }
    if element::of_class(name, "Tensor").is_some() {
        return Some(Global::Inert);
    }
    element::of_dtype(name).filter(|_| module == "torch").map(Global::Dtype)
}

fn builtin(name: &str) -> Option<Global> {
    Some(match name {
        "dict" => Global::Mapping,
        "list" | "tuple" => Global::Sequence,
        "set" | "frozenset" | "int" | "long" | "float" | "bool" | "str" | "unicode" | "bytes"
        | "bytearray" | "complex" | "slice" | "range" | "xrange" | "object" => Global::Inert,
        _ => return None,
    })
}

fn container(module: &str, name: &str) -> Option<Global> {
    Some(match (module, name) {
        ("collections", "OrderedDict" | "defaultdict" | "Counter") => Global::Mapping,
        ("collections", "deque") => Global::Sequence,
        ("argparse", "Namespace") | ("types", "SimpleNamespace") => Global::Namespace,
        // Lightning's dictionaries with attributes are dictionaries all the same.
        (
            "pytorch_lightning.utilities.parsing"
            | "lightning.pytorch.utilities.parsing"
            | "lightning_fabric.utilities.data"
            | "lightning.fabric.utilities.data",
            "AttributeDict",
        ) => Global::Mapping,
        (
            "pathlib" | "pathlib._local",
            "Path" | "PosixPath" | "WindowsPath" | "PurePath" | "PurePosixPath" | "PureWindowsPath",
        ) => Global::Inert,
        ("datetime", "datetime" | "date" | "time" | "timedelta" | "timezone") => Global::Inert,
        ("decimal", "Decimal") | ("uuid", "UUID") | ("_codecs", "encode") => Global::Inert,
        _ => return None,
    })
}

/// Arrays and numbers of NumPy: learning rates, random states, statistics.
fn numpy(module: &str, name: &str) -> Option<Global> {
    Some(match (module, name) {
        ("numpy.core.multiarray" | "numpy._core.multiarray", "_reconstruct")
        | ("numpy.core.numeric" | "numpy._core.numeric", "_frombuffer") => Global::Rebuild(Rebuild::Array),
        ("numpy.core.multiarray" | "numpy._core.multiarray", "scalar") => Global::Inert,
        ("numpy", "ndarray" | "dtype") => Global::Inert,
        ("numpy", _) if is_scalar(name) => Global::Inert,
        ("numpy.dtypes", _) if name.ends_with("DType") => Global::Inert,
        ("numpy.random._pickle", "__randomstate_ctor" | "__bit_generator_ctor" | "__generator_ctor") => {
            Global::Inert
        }
        _ => return None,
    })
}

fn is_scalar(name: &str) -> bool {
    const SCALARS: [&str; 14] = [
        "bool_",
        "int8",
        "int16",
        "int32",
        "int64",
        "uint8",
        "uint16",
        "uint32",
        "uint64",
        "float16",
        "float32",
        "float64",
        "complex64",
        "complex128",
    ];
    SCALARS.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_do_harm_is_not_in_the_list() {
        for (module, name) in [
            ("os", "system"),
            ("posix", "system"),
            ("builtins", "eval"),
            ("builtins", "exec"),
            ("builtins", "getattr"),
            ("builtins", "__import__"),
            ("subprocess", "Popen"),
            ("torch", "load"),
            ("torch.storage", "_load_from_bytes"),
            ("torch.storage", "float32"),
            ("torch.hub", "load"),
            ("numpy", "load"),
            ("numpy.testing._private.utils", "runstring"),
            ("argparse", "SimpleNamespacE"),
        ] {
            assert_eq!(known(module, name), None, "{module}.{name}");
        }
    }

    #[test]
    fn what_torch_writes_is() {
        let float = element::of_dtype("float32").unwrap();
        assert_eq!(known("torch", "FloatStorage"), Some(Global::Storage(Some(float))));
        assert_eq!(known("torch.cuda", "FloatStorage"), Some(Global::Storage(Some(float))));
        assert_eq!(known("torch.storage", "UntypedStorage"), Some(Global::Storage(None)));
        assert_eq!(known("torch", "float32"), Some(Global::Dtype(float)));
        assert_eq!(known("collections", "OrderedDict"), Some(Global::Mapping));
    }
}
