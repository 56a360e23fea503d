//! torch files: what `torch.save` writes, in its three generations (zip, legacy stream, tar).
//!
//! All of them hold a pickle, which describes the tensors and everything around them, and storages,
//! whose bytes lie in the file as they are. The pickle is interpreted by `pickle`, which runs
//! nothing; `zip`, `legacy` and `tar` find the storages; `rebuild` checks what the pickle says of
//! each tensor against them; `containers` tells the model from the optimizer beside it, `found` names its
//! tensors, and `wrappers` takes off what training code adds to all names of a model.

mod containers;
mod element;
mod found;
mod legacy;
mod pickle;
mod rebuild;
mod tar;
mod wrappers;
mod zip;

use std::path::Path;

use super::problem::Problem;
use super::{Contents, Files, Format, OpenOptions};
use crate::error::Result;
use pickle::{Id, Unpickler};
use rebuild::Tensors;

/// Files of torch, by PyTorch's `save`.
pub struct Torch;

impl Format for Torch {
    fn name(&self) -> &'static str {
        "torch"
    }

    fn usual_name(&self) -> &'static str {
        "pytorch_model.bin"
    }

    fn suffixes(&self) -> &'static [&'static str] {
        &[".bin", ".pt", ".pth", ".ckpt"]
    }

    /// What trainers save beside the weights, under names that end alike.
    fn is_companion(&self, name: &str) -> bool {
        const STARTS: [&str; 7] = [
            "training_args.",
            "optimizer",
            "scheduler",
            "scaler.",
            "rng_state",
            "random_states",
            "trainer_state",
        ];
        STARTS.iter().any(|start| name.starts_with(start)) || name.ends_with("_optim_states.pt")
    }

    fn recognises(&self, head: &[u8], path: &Path) -> bool {
        let named = || {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            self.suffixes().iter().any(|suffix| name.ends_with(suffix))
        };
        match Kind::of(head) {
            Some(Kind::Zip) => zip::is_of_torch(head) || named(),
            Some(Kind::Pickle) => true,
            Some(Kind::Tar) => tar::is_of_torch(head) || named(),
            None => false,
        }
    }

    fn settle(&self, contents: &mut Contents) {
        wrappers::leave_out_averages(contents);
        wrappers::unwrap_names(&mut contents.tensors);
    }

    fn contents(&self, files: &mut Files, file: usize, options: &OpenOptions) -> Result<Contents> {
        let storage = files.get(file)?;
        let to_error = |problem: Problem| problem.of(storage.path(), "torch");
        let head = storage.copy(0..storage.len().min(512))?;
        let mut unpickler = Unpickler::new(&options.ignored_globals, storage.len());
        let read = match Kind::of(&head) {
            Some(Kind::Zip) => zip::read(storage, &mut unpickler),
            Some(Kind::Tar) => tar::read(storage, &mut unpickler),
            _ => legacy::read(storage, &mut unpickler),
        };
        // A global that is refused is said before anything else that may be wrong with the file.
        if let Some(reason) = unpickler.refusal() {
            return Err(to_error(Problem::Unusable(reason)));
        }
        let pickled = read.map_err(to_error)?;
        let tensors = Tensors::new(&unpickler.values, &pickled, file, storage.len());
        containers::contents(&tensors, pickled.root).map_err(to_error)
    }
}

/// The generations of torch files.
enum Kind {
    Zip,
    Pickle,
    Tar,
}

impl Kind {
    fn of(head: &[u8]) -> Option<Kind> {
        match head {
            [b'P', b'K', 3, 4, ..] => Some(Kind::Zip),
            [0x80, 2..=5, ..] => Some(Kind::Pickle),
            _ if head.get(257..262) == Some(b"ustar") => Some(Kind::Tar),
            _ => None,
        }
    }
}

/// A file's pickle, read, and where its storages lie.
struct Pickled {
    root: Id,
    places: rebuild::Places,
}
