//! What a variable is, by its layer: the name that Keras gives it, and its dimensions as other formats
//! have them.
//!
//! The files number a layer's variables (`vars/0`). Their roles follow from the layer's class, which
//! the configuration says, or else the name of the layer's group (the class in snake case). Kernels
//! of convolutions are stored [positions…, in, out]; as elsewhere, they are seen as [out, in,
//! positions…].

use crate::tensors::{Content, Dtype, Strided};

/// Kinds of layers whose variables are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layer {
    Convolution,
    Depthwise,
    Separable,
    Embedding,
    /// LSTM, GRU and the plain one, or a convolution in their place.
    Recurrent,
    /// Queries, keys, values: [in, heads, size].
    Projection,
    /// Back from the heads: [heads, size, out].
    Output,
    /// Any product that EinsumDense can do.
    Einsum,
    /// [in, out].
    Dense,
    /// Scale, shift, and what batches had on average.
    Normalization,
    Other,
}

impl Layer {
    /// By a class (`Conv2D`), or the name of a layer's group (`conv2d_1`, `_query_dense`).
    pub fn of(class: Option<&str>, group: &str) -> Layer {
        let by_class = class.map_or(Layer::Other, Layer::named);
        // The parts of an attention layer are of a class that says less than their names.
        match Layer::named(group) {
            of_attention @ (Layer::Projection | Layer::Output)
                if matches!(by_class, Layer::Other | Layer::Einsum) =>
            {
                of_attention
            }
            by_group if by_class == Layer::Other => by_group,
            _ => by_class,
        }
    }

    fn named(name: &str) -> Layer {
        let number = name.rsplit_once('_').filter(|(_, end)| end.bytes().all(|b| b.is_ascii_digit()));
        let name: String = number.map_or(name, |(start, _)| start).to_ascii_lowercase().replace('_', "");
        match name.as_str() {
            "conv1d" | "conv2d" | "conv3d" | "conv1dtranspose" | "conv2dtranspose" | "conv3dtranspose" => {
                Layer::Convolution
            }
            "depthwiseconv1d" | "depthwiseconv2d" => Layer::Depthwise,
            "separableconv1d" | "separableconv2d" => Layer::Separable,
            "embedding" | "reversibleembedding" | "tokenembedding" | "positionembedding" => Layer::Embedding,
            "cell" | "lstmcell" | "grucell" | "simplernncell" | "convlstmcell" => Layer::Recurrent,
            "query" | "key" | "value" | "querydense" | "keydense" | "valuedense" => Layer::Projection,
            "attentionoutput" | "outputdense" => Layer::Output,
            "einsumdense" => Layer::Einsum,
            "dense" => Layer::Dense,
            "batchnormalization" | "layernormalization" | "groupnormalization" => Layer::Normalization,
            _ => Layer::Other,
        }
    }
}

/// The name of a layer's variable by its number, where the layer's kind and the shapes of all its
/// variables say it.
pub(super) fn parameter(layer: Layer, index: usize, shapes: &[&[usize]]) -> Option<&'static str> {
    const RECURRENT: &[&str] = &["kernel", "recurrent_kernel", "bias"];
    const DENSE: &[&str] = &["kernel", "bias"];
    let rank = |index: usize| shapes.get(index).map_or(0, |shape| shape.len());
    let names = match layer {
        Layer::Convolution | Layer::Depthwise | Layer::Dense => DENSE,
        Layer::Projection | Layer::Output | Layer::Einsum => DENSE,
        Layer::Separable => &["depthwise_kernel", "pointwise_kernel", "bias"],
        Layer::Embedding => &["embeddings", "reverse_embeddings"],
        Layer::Recurrent => RECURRENT,
        Layer::Normalization if shapes.len() == 4 => &["gamma", "beta", "moving_mean", "moving_variance"],
        Layer::Normalization if shapes.len() == 2 => &["gamma", "beta"],
        Layer::Normalization => &[],
        Layer::Other if is_recurrent(shapes) => RECURRENT,
        // A weight, and nothing but a shift beside it. One of three dimensions may be a stack.
        Layer::Other if rank(0) == 3 && rank(1) < 2 => &[],
        Layer::Other if rank(0) >= 2 && shapes.len() <= 2 => {
            let (kernel, bias) = (shapes.first()?, shapes.get(1));
            if bias.is_some_and(|bias| !kernel.ends_with(bias) && bias.len() != 1) { &[] } else { DENSE }
        }
        Layer::Other => &[],
    };
    names.get(index).copied()
}

/// Whether these are a kernel [in, gates·units], one of [units, gates·units], and perhaps a bias.
fn is_recurrent(shapes: &[&[usize]]) -> bool {
    match shapes {
        [[_, all], [units, recurrent], bias @ ..] => {
            let gates = recurrent.checked_div(*units).filter(|gates| gates.checked_mul(*units) == Some(*all));
            all == recurrent
                && matches!(gates, Some(3 | 4))
                && bias.len() <= 1
                && bias.iter().all(|bias| bias.last() == Some(all))
        }
        _ => false,
    }
}

/// How a variable is to be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// As it is.
    Plain,
    /// A kernel [positions…, in, out], or of a transposed convolution [positions…, out, in]: with the
    /// last two dimensions first, in turn.
    Kernel,
    /// One filter for each channel, [positions…, in, each]: as [in·each, 1, positions…].
    Depthwise,
    /// A matrix whose rows have this many dimensions.
    Rows(usize),
    /// Several, and nothing says which.
    Unknown,
}

impl Form {
    /// The form of a layer's parameter, by its shape and that of the bias beside it.
    pub fn of(layer: Layer, parameter: &str, shape: &[usize], bias: Option<&[usize]>) -> Form {
        let rank = shape.len();
        let is_bias = |dim: Option<&usize>| dim.is_some() && bias == dim.map(std::slice::from_ref);
        match (layer, parameter) {
            _ if rank < 3 || !parameter.ends_with("kernel") => Form::Plain,
            (Layer::Depthwise, _) | (_, "depthwise_kernel") => Form::Depthwise,
            (Layer::Convolution | Layer::Recurrent | Layer::Separable, _) | (_, "pointwise_kernel") => {
                Form::Kernel
            }
            (Layer::Projection | Layer::Output | Layer::Einsum | Layer::Other, _)
                if bias.is_some_and(|bias| bias.len() > 1 && shape.ends_with(bias)) =>
            {
                Form::Rows(rank - bias.map_or(1, <[usize]>::len))
            }
            (Layer::Projection, _) => Form::Rows(1),
            (Layer::Output, _) => Form::Rows(rank - 1),
            (Layer::Einsum, _) if is_bias(shape.last()) => Form::Rows(rank - 1),
            (Layer::Other, _) if (4..=5).contains(&rank) => {
                // Only the bias of a depthwise convolution is as long as its input.
                let depthwise = shape.last() == Some(&1) && is_bias(shape.get(rank - 2));
                if depthwise && shape.get(rank - 2) != Some(&1) { Form::Depthwise } else { Form::Kernel }
            }
            _ => Form::Unknown,
        }
    }

    /// Shape and content in this form, of elements that lie in a file as they are; `None` where the
    /// form does not fit.
    pub fn view(
        self,
        shape: &[usize],
        dtype: Dtype,
        file: usize,
        bytes: std::ops::Range<u64>,
    ) -> Option<(Vec<usize>, Content)> {
        let stored = |bytes| Content::Stored { file, bytes };
        let (shape, strides): (Vec<usize>, Vec<u64>) = match self {
            Form::Plain => return Some((shape.to_vec(), stored(bytes))),
            Form::Rows(count) => {
                let (rows, columns) = shape.split_at_checked(count)?;
                return Some((vec![rows.iter().product(), columns.iter().product()], stored(bytes)));
            }
            Form::Unknown => return None,
            Form::Kernel | Form::Depthwise => {
                let (&[inputs, outputs], positions) = shape.split_last_chunk::<2>().map(|(p, l)| (l, p))?;
                let pixel = (inputs as u64).checked_mul(outputs as u64)?;
                let mut strides = Vec::with_capacity(positions.len());
                let mut stride = pixel;
                for size in positions.iter().rev() {
                    strides.push(stride);
                    stride = stride.checked_mul(*size as u64)?;
                }
                strides.reverse();
                let (outer, steps) = match self {
                    Form::Kernel => ([outputs, inputs], [1, outputs as u64]),
                    _ => ([inputs.checked_mul(outputs)?, 1], [1, 1]),
                };
                ([&outer, positions].concat(), [&steps[..], &strides].concat())
            }
        };
        if shape.contains(&0) {
            return Some((shape, stored(bytes)));
        }
        let view = Strided::new(file, bytes, dtype, &shape, &strides)?;
        Some((shape, Content::Encoded(std::sync::Arc::new(view))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_by_class_and_by_group() {
        assert_eq!(Layer::of(Some("Conv2D"), "stem"), Layer::Convolution);
        assert_eq!(Layer::of(None, "conv2d_transpose_12"), Layer::Convolution);
        assert_eq!(Layer::of(Some("EinsumDense"), "_query_dense"), Layer::Projection);
        assert_eq!(Layer::of(None, "output_dense"), Layer::Output);
        assert_eq!(Layer::of(Some("MyOwn"), "lstm_cell_1"), Layer::Recurrent);
        assert_eq!(Layer::of(None, "anything"), Layer::Other);
    }

    #[test]
    fn parameters_of_layers_that_nothing_is_known_of() {
        let name = |index, shapes: &[&[usize]]| parameter(Layer::Other, index, shapes);
        assert_eq!(name(0, &[&[4, 8], &[8]]), Some("kernel"));
        assert_eq!(name(1, &[&[4, 8], &[8]]), Some("bias"));
        assert_eq!(name(1, &[&[6, 12], &[3, 12], &[12]]), Some("recurrent_kernel"));
        assert_eq!(name(2, &[&[6, 15], &[5, 15], &[2, 15]]), Some("bias"));
        assert_eq!(name(1, &[&[4, 8], &[8, 8]]), None);
        assert_eq!(name(0, &[&[4, 8, 8]]), None);
        assert_eq!(name(0, &[&[4, 2, 3], &[2, 3]]), Some("kernel"));
        assert_eq!(name(0, &[&[4]]), None);
        assert_eq!(name(1, &[&[0, 0], &[0, 0], &[0]]), None);
    }

    #[test]
    fn forms_by_layer_and_bias() {
        let form = |layer, shape: &[usize], bias: Option<&[usize]>| Form::of(layer, "kernel", shape, bias);
        assert_eq!(form(Layer::Convolution, &[3, 4, 5], None), Form::Kernel);
        assert_eq!(form(Layer::Dense, &[3, 4], Some(&[4])), Form::Plain);
        assert_eq!(form(Layer::Projection, &[8, 2, 4], Some(&[2, 4])), Form::Rows(1));
        assert_eq!(form(Layer::Output, &[2, 4, 8], Some(&[8])), Form::Rows(2));
        assert_eq!(form(Layer::Einsum, &[8, 2, 4], Some(&[2, 4])), Form::Rows(1));
        assert_eq!(form(Layer::Einsum, &[2, 4, 8], Some(&[8])), Form::Rows(2));
        assert_eq!(form(Layer::Einsum, &[2, 4, 8], None), Form::Unknown);
        assert_eq!(form(Layer::Other, &[3, 3, 4, 8], Some(&[8])), Form::Kernel);
        assert_eq!(form(Layer::Other, &[3, 3, 4, 1], Some(&[4])), Form::Depthwise);
        assert_eq!(form(Layer::Other, &[3, 3, 4, 1], Some(&[1])), Form::Kernel);
        assert_eq!(form(Layer::Other, &[3, 3, 1, 1], Some(&[1])), Form::Kernel);
    }

    #[test]
    fn views_that_do_not_fit_are_none() {
        let view = |form: Form, shape: &[usize], bytes| form.view(shape, Dtype::F32, 0, bytes);
        assert!(view(Form::Kernel, &[3, 2, 4], 0..96).is_some());
        assert!(view(Form::Kernel, &[3, 2, 4], 0..92).is_none());
        assert!(view(Form::Kernel, &[usize::MAX, usize::MAX, 2], 0..96).is_none());
        assert!(view(Form::Kernel, &[3], 0..12).is_none());
        assert!(view(Form::Depthwise, &[3, usize::MAX, 2], 0..96).is_none());
        assert!(view(Form::Rows(4), &[3, 2, 4], 0..96).is_none());
        let (shape, _) = view(Form::Kernel, &[3, 0, 4], 0..0).unwrap();
        assert_eq!(shape, [4, 0, 3]);
        let (shape, _) = view(Form::Depthwise, &[3, 5, 2, 4], 0..480).unwrap();
        assert_eq!(shape, [8, 1, 3, 5]);
    }
}
