//! Inputs of the benchmarks: random numbers of a fixed seed, and a checkpoint of RoBERTa-base's shape.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// A small generator (xorshift64*): the benchmarks need noise, not quality.
pub struct Noise(pub u64);

impl Noise {
    /// Roughly normal: the sum of four uniform numbers, standard deviation 0.58.
    #[allow(clippy::should_implement_trait)] // not an iterator: it never ends
    pub fn next(&mut self) -> f64 {
        let mut sum = -2.0;
        for _ in 0..4 {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            sum += (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) as f64 / (1u64 << 53) as f64;
        }
        sum
    }
}

/// The tensors of RoBERTa-base: 12 blocks with 72 linear layers, 124.6 million parameters.
fn roberta_tensors() -> Vec<(String, Vec<usize>)> {
    let mut tensors = vec![
        ("roberta.embeddings.word_embeddings.weight".to_owned(), vec![50265, 768]),
        ("roberta.embeddings.position_embeddings.weight".to_owned(), vec![514, 768]),
        ("roberta.embeddings.token_type_embeddings.weight".to_owned(), vec![1, 768]),
        ("roberta.embeddings.LayerNorm.weight".to_owned(), vec![768]),
        ("roberta.embeddings.LayerNorm.bias".to_owned(), vec![768]),
    ];
    for block in 0..12 {
        let layers = [
            ("attention.self.query", 768, 768),
            ("attention.self.key", 768, 768),
            ("attention.self.value", 768, 768),
            ("attention.output.dense", 768, 768),
            ("intermediate.dense", 3072, 768),
            ("output.dense", 768, 3072),
        ];
        for (name, outputs, inputs) in layers {
            let prefix = format!("roberta.encoder.layer.{block}.{name}");
            tensors.push((format!("{prefix}.weight"), vec![outputs, inputs]));
            tensors.push((format!("{prefix}.bias"), vec![outputs]));
        }
        for norm in ["attention.output.LayerNorm", "output.LayerNorm"] {
            let prefix = format!("roberta.encoder.layer.{block}.{norm}");
            tensors.push((format!("{prefix}.weight"), vec![768]));
            tensors.push((format!("{prefix}.bias"), vec![768]));
        }
    }
    tensors.push(("roberta.pooler.dense.weight".to_owned(), vec![768, 768]));
    tensors.push(("roberta.pooler.dense.bias".to_owned(), vec![768]));
    tensors
}

/// Writes the checkpoint (499 MB of F32) under `target/`, once; returns its path.
pub fn roberta_shaped() -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("roberta-base-shaped.safetensors");
    if !path.is_file() {
        write_checkpoint(&path).expect("room for a checkpoint of 499 MB under target/");
    }
    path
}

fn write_checkpoint(path: &Path) -> std::io::Result<()> {
    let tensors = roberta_tensors();
    let mut header = serde_json::Map::new();
    let mut offset = 0;
    for (name, shape) in &tensors {
        let end = offset + 4 * shape.iter().product::<usize>();
        let entry = serde_json::json!({"dtype": "F32", "shape": shape, "data_offsets": [offset, end]});
        header.insert(name.clone(), entry);
        offset = end;
    }
    let header = serde_json::to_vec(&header)?;
    let partial = path.with_extension("partial");
    let mut file = BufWriter::new(std::fs::File::create(&partial)?);
    file.write_all(&(header.len() as u64).to_le_bytes())?;
    file.write_all(&header)?;
    let mut noise = Noise(0x9e37_79b9_7f4a_7c15);
    for _ in 0..offset / 4 {
        file.write_all(&((0.03 * noise.next()) as f32).to_le_bytes())?;
    }
    file.flush()?;
    std::fs::rename(partial, path)
}
