//! Spectra beside the training: weights go in, numbers come out, on another thread or at once.

use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::JoinHandle;

use evenkeel::Checkpoint;
use evenkeel::analysis::{Frozen, Remeasured};

use crate::error::{Error, Result};

/// Weights to be measured.
#[derive(Debug)]
pub struct Order {
    /// Optimizer steps done when they were copied.
    pub step: u64,
    /// The units they belong to.
    pub units: Vec<usize>,
    /// How far each of these units had moved since it was measured before.
    pub displacements: Vec<f64>,
    /// The tensors of these units.
    pub weights: Checkpoint,
}

/// What was found in them.
#[derive(Debug)]
pub struct Found {
    /// As in the order.
    pub step: u64,
    /// As in the order.
    pub units: Vec<usize>,
    /// As in the order.
    pub displacements: Vec<f64>,
    /// The numbers of the matrices.
    pub matrices: Vec<Remeasured>,
}

/// Measures an order.
///
/// # Errors
/// Those of [`Frozen::measure`].
pub fn measure(frozen: &Frozen, order: Order) -> Result<Found> {
    let Order { step, units, displacements, weights } = order;
    Ok(Found { step, units, displacements, matrices: frozen.measure(&weights)? })
}

/// A thread that measures while training goes on; one order at a time.
#[derive(Debug)]
pub struct Worker {
    orders: Option<Sender<Order>>,
    results: Receiver<Result<Found>>,
    thread: Option<JoinHandle<()>>,
    busy: bool,
}

impl Worker {
    /// Starts the thread.
    ///
    /// # Errors
    /// [`Error::Option`] where the system has no thread left.
    pub fn start(frozen: Frozen) -> Result<Worker> {
        let (orders, incoming) = channel::<Order>();
        let (outgoing, results) = channel();
        let work = move || {
            for order in incoming {
                if outgoing.send(measure(&frozen, order)).is_err() {
                    break;
                }
            }
        };
        let thread = std::thread::Builder::new()
            .name("spectra".to_owned())
            .spawn(work)
            .map_err(|e| Error::Option(format!("cannot start a thread for spectra: {e}.")))?;
        Ok(Worker { orders: Some(orders), results, thread: Some(thread), busy: false })
    }

    /// Whether an order is being measured.
    pub fn is_busy(&self) -> bool {
        self.busy
    }

    /// Hands an order over; ask [`Worker::is_busy`] first.
    ///
    /// # Errors
    /// [`Error::Option`] where the thread is gone.
    pub fn order(&mut self, order: Order) -> Result<()> {
        if self.orders.as_ref().is_none_or(|orders| orders.send(order).is_err()) {
            return Err(gone());
        }
        self.busy = true;
        Ok(())
    }

    /// What was found, where it is ready; with `wait` it is waited for.
    ///
    /// # Errors
    /// Those of [`measure`].
    pub fn result(&mut self, wait: bool) -> Result<Option<Found>> {
        if !self.busy {
            return Ok(None);
        }
        let found = match wait {
            true => self.results.recv().map_err(|_| gone())?,
            false => match self.results.try_recv() {
                Err(TryRecvError::Empty) => return Ok(None),
                Err(TryRecvError::Disconnected) => return Err(gone()),
                Ok(found) => found,
            },
        };
        self.busy = false;
        found.map(Some)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            // Its results are of no use any more, whatever became of it.
            let _ = thread.join();
        }
    }
}

fn gone() -> Error {
    Error::Option("the thread that computes spectra ended unexpectedly.".to_owned())
}
