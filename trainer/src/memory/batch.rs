//! What a batch takes: for each layer the values of a token that the backward pass wants. Examples count as if all were as
//! long as the longest, though layers are spared what fills up the others.
//!
//! | for each token and layer | encoder | decoder |
//! |---|---|---|
//! | query, key, value | 3 × heads | 3 × heads |
//! | attention's weights, its dropout, their product (on a CPU with dropout; other kernels keep none) | 3 × heads × length | the same |
//! | else what attention gives | hidden | heads |
//! | inputs of norms | 2 × hidden | 2 × hidden |
//! | dropout | 2 × hidden | |
//! | inputs of matrices that learn | 3 × hidden + intermediate | 2 × hidden + heads + intermediate |
//! | on the way through the second half | intermediate | 3 × intermediate |
//! | norms whose weights learn, on a CPU | | 2 × hidden |
//!
//! where `heads` stands for all their numbers together: keys and values are kept as often as queries need them.
//! Beside adapters the other matrices keep no inputs, and each adapter keeps its own, with a mask where it
//! drops some. And there are the gradients of one layer's values while it is being differentiated.

use evenkeel::rebalance::options::Training;

use super::{Batch, Sizes};
use crate::model::{Config, DecoderConfig, EncoderConfig, Kind};

/// Bytes of a value in single precision, and of one in BF16.
const SINGLE: u64 = 4;
const HALF: u64 = 2;

/// What one layer keeps of a token.
#[derive(Clone, Copy, Debug, Default)]
struct Layer {
    /// Values of matrix products, and their inputs: in BF16 where that is asked for.
    products: u64,
    /// Values that stay in F32.
    single: u64,
    /// Values that in BF16 are kept in F32 as well.
    twice: u64,
    /// Bytes of one moment of the backward pass.
    transient: u64,
}

/// The bytes of a batch of an evaluation, of which one layer is there at a time: of a token the states
/// before, within and after it, and either queries, keys and values or what stands between the halves.
pub(super) fn evaluated(training: &Training, sizes: &Sizes, batch: Batch) -> u64 {
    let config = sizes.config;
    let (hidden, inner) = (config.hidden as u64, config.intermediate as u64);
    let product = if training.bf16 { HALF } else { SINGLE };
    let of_token = match &config.kind {
        Kind::Encoder(_) => 4 * SINGLE * hidden + product * (3 * hidden).max(2 * inner),
        Kind::Decoder(own) => {
            let heads = config.heads as u64 * own.head as u64;
            4 * SINGLE * hidden + product * (heads + (5 * heads).max(3 * inner))
        }
    };
    // Numbers over the vocabulary, and their logarithms.
    let head = batch.places as u64 * config.vocabulary as u64 * 2 * SINGLE;
    batch.examples as u64 * batch.length as u64 * of_token + head
}

/// The bytes of a batch, forward and backward.
pub(super) fn learned(training: &Training, sizes: &Sizes, batch: Batch) -> u64 {
    let config = sizes.config;
    let (hidden, layers) = (config.hidden as u64, config.layers as u64);
    let layer = match &config.kind {
        Kind::Encoder(own) => encoder(config, own, sizes, batch),
        Kind::Decoder(own) => decoder(config, own, sizes, batch),
    };
    let product = if training.bf16 { HALF } else { SINGLE };
    let adapters = adapters(sizes, product, batch);
    let twice = if training.bf16 { layer.twice } else { 0 };
    let kept = SINGLE * (layer.single + twice) + product * layer.products;
    let in_layers = match training.checkpointing {
        // One layer is there as a whole, of the others their inputs.
        true => kept + adapters / layers.max(1) + SINGLE * hidden * layers,
        false => kept * layers + adapters,
    };
    let tokens = batch.examples as u64 * batch.length as u64;
    let embeddings = 4 * SINGLE * hidden;
    // Numbers over the vocabulary, their logarithms and gradients.
    let head = batch.places as u64 * config.vocabulary as u64 * 3 * SINGLE;
    tokens * (in_layers + layer.transient + embeddings) + head + casts(training, sizes)
}

/// Scores of attention where a kernel keeps them: weights, dropout, their product.
fn scores(config: &Config, batch: Batch) -> Option<u64> {
    let kept = config.attention_dropout > 0.0 && !batch.on_gpu;
    kept.then(|| 3 * config.heads as u64 * batch.length as u64)
}

fn encoder(config: &Config, own: &EncoderConfig, sizes: &Sizes, batch: Batch) -> Layer {
    let (hidden, inner) = (config.hidden as u64, config.intermediate as u64);
    let scores_kept = scores(config, batch);
    let masks = if own.hidden_dropout > 0.0 { 2 * hidden } else { 0 };
    let inputs = if sizes.is_adapted() { 0 } else { 3 * hidden + inner };
    // Gradients of a layer's values, while its own are still there.
    let differentiated = if batch.on_gpu { hidden } else { 3 * config.heads as u64 * batch.length as u64 };
    Layer {
        products: inputs + inner + masks,
        // Norms and attention stay in single precision.
        single: 5 * hidden + scores_kept.unwrap_or(hidden),
        twice: 2 * hidden,
        transient: SINGLE * (differentiated + 2 * inner),
    }
}

fn decoder(config: &Config, own: &DecoderConfig, sizes: &Sizes, batch: Batch) -> Layer {
    let (hidden, inner) = (config.hidden as u64, config.intermediate as u64);
    let heads = config.heads as u64 * own.head as u64;
    let kept = scores(config, batch);
    let inputs = if sizes.is_adapted() { 0 } else { 2 * hidden + heads + inner };
    let norms = if sizes.is_adapted() || batch.on_gpu { 0 } else { 2 * hidden };
    let head_norms = if own.norms { 2 * heads } else { 0 };
    Layer {
        products: inputs + 3 * heads + 3 * inner + kept.map_or(heads, |_| 0),
        single: 2 * hidden + norms + head_norms + kept.unwrap_or(0),
        twice: 0,
        transient: SINGLE * (2 * inner + 2 * heads),
    }
}

/// What adapters keep of a token, in all layers: their inputs, and what was dropped of them.
fn adapters(sizes: &Sizes, product: u64, batch: Batch) -> u64 {
    let mask = match sizes.drops_inputs {
        true if batch.on_gpu => 1,
        true => SINGLE,
        false => 0,
    };
    sizes.adapted_inputs * (product + mask)
}

/// Matrices are kept a second time in BF16, unless they are frozen and held in nothing else.
fn casts(training: &Training, sizes: &Sizes) -> u64 {
    if !training.bf16 || sizes.is_adapted() {
        return 0;
    }
    let config = sizes.config;
    let (hidden, inner, layers) = (config.hidden as u64, config.intermediate as u64, config.layers as u64);
    let matrices = match &config.kind {
        Kind::Encoder(_) => 4 * hidden * hidden + 2 * hidden * inner,
        Kind::Decoder(own) => {
            let (heads, keys) = ((config.heads * own.head) as u64, (own.key_heads * own.head) as u64);
            2 * hidden * (heads + keys) + 3 * hidden * inner
        }
    };
    HALF * layers * matrices
}
