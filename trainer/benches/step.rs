//! One training step, forward and backward, without an optimizer: `step_pytorch.py` beside it measures the same in
//! PyTorch. Prints the times of each step in milliseconds, sorted.
//!
//! Arguments: the model's directory, threads, steps, `even` (all examples as long as the longest), `recompute`, `bf16`.

use std::path::Path;
use std::time::Instant;

use evenkeel_trainer::model::{Batch, Directory, Settings, Task};
use evenkeel_trainer::optimizer::zero_grad;
use evenkeel_trainer::torch::load_cuda;
use evenkeel_trainer::training::Mode;
use tch::{Device, Kind, Tensor};

const EXAMPLES: i64 = 16;
const LENGTH: i64 = 64;

fn main() -> anyhow::Result<()> {
    evenkeel_trainer::memory::settle();
    load_cuda();
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let number = |at: usize, default: i32| arguments.get(at).map_or(Ok(default), |text| text.parse());
    let Some(directory) = arguments.first() else {
        println!("the directory of a model is missing; nothing is measured");
        return Ok(());
    };
    tch::set_num_threads(number(1, 1)?);
    let steps = number(2, 15)?;
    let device = Device::cuda_if_available();
    let has = |word: &str| arguments.iter().any(|argument| argument == word);
    let settings = Settings { device, recompute: has("recompute"), bf16: has("bf16"), ..Settings::default() };
    let task = Task::Classes(vec!["no".to_owned(), "yes".to_owned()]);
    let model = Directory::open(Path::new(directory))?.load(&task, settings)?;

    // Three quarters of the examples are padded, as in a batch of sentences.
    let ids = Tensor::arange(EXAMPLES * LENGTH, (Kind::Int64, device)).remainder(1000).f_add_scalar(1000)?;
    let ids = ids.f_view([EXAMPLES, LENGTH])?;
    let lengths = Tensor::arange(EXAMPLES, (Kind::Int64, device)).remainder(4).f_mul_scalar(8)?;
    let lengths = lengths.f_add_scalar(LENGTH - 24)?.f_unsqueeze(1)?;
    let mask = Tensor::arange(LENGTH, (Kind::Int64, device)).f_unsqueeze(0)?.f_lt_tensor(&lengths)?;
    let batch = Batch {
        ids,
        mask: (!has("even")).then(|| mask.f_to_kind(Kind::Int64)).transpose()?,
        token_types: Some(Tensor::zeros([EXAMPLES, LENGTH], (Kind::Int64, device))),
        places: None,
        words: None,
    };
    let targets = Tensor::arange(EXAMPLES, (Kind::Int64, device)).remainder(2);

    let mut times = Vec::new();
    for step in 0..steps + 3 {
        let start = Instant::now();
        zero_grad(model.model().parameters())?;
        let loss = task.loss(&model.model().logits(&batch, Mode::Train)?, &targets)?;
        loss.f_backward()?;
        if let Device::Cuda(index) = device {
            tch::Cuda::synchronize(index as i64);
        }
        if step >= 3 {
            times.push(start.elapsed().as_secs_f64() * 1e3);
        }
    }
    times.sort_by(f64::total_cmp);
    println!("{}", times.iter().map(|time| format!("{time:.1}")).collect::<Vec<_>>().join(" "));
    Ok(())
}
