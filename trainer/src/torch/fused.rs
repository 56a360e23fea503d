//! Computations over many tensors in one call: libtorch's fused optimizers, norms, and gradients taken away.

use std::ffi::{c_char, c_int};

use tch::{TchError, Tensor};
use torch_sys::C_tensor;

use super::shim::checked;

#[repr(C)]
struct RawAdamRow {
    weight: *const C_tensor,
    gradient: *const C_tensor,
    first: *const C_tensor,
    second: *const C_tensor,
}

#[repr(C)]
struct RawSgdRow {
    weight: *const C_tensor,
    gradient: *const C_tensor,
    momentum: *const C_tensor,
}

unsafe extern "C" {
    fn evenkeel_adam(
        rows: *const RawAdamRow,
        count: usize,
        decoupled: c_int,
        step: f64,
        rate: f64,
        beta1: f64,
        beta2: f64,
        decay: f64,
        epsilon: f64,
    ) -> *mut c_char;
    fn evenkeel_sgd(
        rows: *const RawSgdRow,
        count: usize,
        first: c_int,
        rate: f64,
        momentum: f64,
        decay: f64,
    ) -> *mut c_char;
    fn evenkeel_norm(tensors: *const *const C_tensor, count: usize, norm: *mut f64) -> *mut c_char;
    fn evenkeel_scale(tensors: *const *const C_tensor, count: usize, factor: f64) -> *mut c_char;
    fn evenkeel_clear_gradients(tensors: *const *const C_tensor, count: usize) -> *mut c_char;
}

/// What Adam reads and writes of one parameter: real tensors of one shape, dtype and device.
#[derive(Clone, Copy, Debug)]
pub struct AdamRow<'a> {
    /// The parameter; detached, overwritten.
    pub weight: &'a Tensor,
    /// Its gradient.
    pub gradient: &'a Tensor,
    /// The first moment; overwritten.
    pub first: &'a Tensor,
    /// The second moment; overwritten.
    pub second: &'a Tensor,
}

/// The numbers of one step of Adam, the same for all parameters of a call.
#[derive(Clone, Copy, Debug)]
pub struct AdamStep {
    /// Weight decay shrinks the weights (AdamW) instead of adding to the gradient (Adam).
    pub decoupled: bool,
    /// Its number, from 1: what the bias corrections follow from.
    pub number: u64,
    /// The learning rate.
    pub rate: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Weight decay.
    pub decay: f64,
    /// Added to the denominator.
    pub epsilon: f64,
}

impl AdamStep {
    /// Takes the step.
    ///
    /// # Errors
    /// What libtorch says, or tensors that do not fit each other.
    pub fn take(&self, rows: &[AdamRow<'_>]) -> Result<(), TchError> {
        let raw: Vec<RawAdamRow> = rows
            .iter()
            .map(|row| RawAdamRow {
                weight: row.weight.as_ptr(),
                gradient: row.gradient.as_ptr(),
                first: row.first.as_ptr(),
                second: row.second.as_ptr(),
            })
            .collect();
        // SAFETY: the pointers come from tensors that `rows` borrows; shapes, types and layout are
        // checked on the other side, which also catches every exception.
        checked(unsafe {
            evenkeel_adam(
                raw.as_ptr(),
                raw.len(),
                self.decoupled.into(),
                // Exact up to 2^24 steps, as in PyTorch.
                self.number as f64,
                self.rate,
                self.beta1,
                self.beta2,
                self.decay,
                self.epsilon,
            )
        })
    }
}

/// What SGD reads and writes of one parameter: real tensors of one shape, dtype and device.
#[derive(Clone, Copy, Debug)]
pub struct SgdRow<'a> {
    /// The parameter; detached, overwritten.
    pub weight: &'a Tensor,
    /// Its gradient.
    pub gradient: &'a Tensor,
    /// The momentum, overwritten; none where [`SgdStep::momentum`] is 0.
    pub momentum: Option<&'a Tensor>,
}

/// The numbers of one step of SGD, the same for all parameters of a call.
#[derive(Clone, Copy, Debug)]
pub struct SgdStep {
    /// The parameters' first one: the momentum is not read.
    pub first: bool,
    /// The learning rate.
    pub rate: f64,
    /// Decay of the momentum.
    pub momentum: f64,
    /// Weight decay, added to the gradient.
    pub decay: f64,
}

impl SgdStep {
    /// Takes the step.
    ///
    /// # Errors
    /// What libtorch says, or tensors that do not fit each other.
    pub fn take(&self, rows: &[SgdRow<'_>]) -> Result<(), TchError> {
        let raw: Vec<RawSgdRow> = rows
            .iter()
            .map(|row| RawSgdRow {
                weight: row.weight.as_ptr(),
                gradient: row.gradient.as_ptr(),
                momentum: row.momentum.map_or(std::ptr::null(), Tensor::as_ptr),
            })
            .collect();
        // SAFETY: as for Adam.
        checked(unsafe {
            evenkeel_sgd(raw.as_ptr(), raw.len(), self.first.into(), self.rate, self.momentum, self.decay)
        })
    }
}

fn pointers<'a>(tensors: impl IntoIterator<Item = &'a Tensor>) -> Vec<*const C_tensor> {
    tensors.into_iter().map(Tensor::as_ptr).collect()
}

/// The Euclidean norm of all elements of all tensors, 0 of none. Waits for a GPU.
///
/// # Errors
/// What libtorch says.
pub fn norm(tensors: &[Tensor]) -> Result<f64, TchError> {
    let (raw, mut norm) = (pointers(tensors), 0.0);
    // SAFETY: the pointers come from tensors that are borrowed; exceptions are caught.
    checked(unsafe { evenkeel_norm(raw.as_ptr(), raw.len(), &raw mut norm) })?;
    Ok(norm)
}

/// Multiplies all tensors by a number, in place.
///
/// # Errors
/// What libtorch says.
pub fn scale(tensors: &[Tensor], factor: f64) -> Result<(), TchError> {
    let raw = pointers(tensors);
    // SAFETY: as above.
    checked(unsafe { evenkeel_scale(raw.as_ptr(), raw.len(), factor) })
}

/// Takes the tensors' gradients away, so that the next backward pass stores new ones instead of adding.
///
/// # Errors
/// What libtorch says.
pub fn clear_gradients<'a>(tensors: impl IntoIterator<Item = &'a Tensor>) -> Result<(), TchError> {
    let raw = pointers(tensors);
    // SAFETY: as above; only what the tensors' own metadata points to is changed.
    checked(unsafe { evenkeel_clear_gradients(raw.as_ptr(), raw.len()) })
}
