//! Gradient checkpointing: a part of a model whose intermediate values are not kept.

use std::ffi::{c_char, c_void};
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};

use tch::{TchError, Tensor};
use torch_sys::C_tensor;

use super::shim::checked;

/// A part of a model: a function of one tensor. The engine of libtorch may call it from another
/// thread, though never from two at once.
type Part = Box<dyn Fn(&Tensor) -> Result<Tensor, TchError> + Send>;

unsafe extern "C" {
    fn evenkeel_message(text: *const c_char, length: usize) -> *mut c_char;
    fn evenkeel_recomputed(
        input: *const C_tensor,
        state: *mut c_void,
        call: unsafe extern "C" fn(*const c_void, *mut C_tensor, *mut *mut C_tensor) -> *mut c_char,
        drop: unsafe extern "C" fn(*mut c_void),
        output: *mut *mut C_tensor,
    ) -> *mut c_char;
}

/// Computes `part(input)`, keeping nothing but `input` until the gradient is wanted: then it is computed
/// again, under the same autocast. It must give the same result again: what is random in it wants its own
/// seed. Gradients reach the parameters that `part` holds as in any other backward pass.
///
/// # Errors
/// Those of `part`, and libtorch's; an input that requires no gradient is refused. When `part` fails the
/// second time, the backward pass does.
pub fn recomputed(
    input: &Tensor,
    part: impl Fn(&Tensor) -> Result<Tensor, TchError> + Send + 'static,
) -> Result<Tensor, TchError> {
    let part: Part = Box::new(part);
    let state = Box::into_raw(Box::new(part)).cast::<c_void>();
    let mut output = std::ptr::null_mut();
    // SAFETY: `input` outlives the call. `state` is a `Box<Part>`, which the other side calls with
    // `call` alone, and hands back once, to `drop`, also when it fails.
    checked(unsafe { evenkeel_recomputed(input.as_ptr(), state, call, drop_part, &raw mut output) })?;
    // SAFETY: without a message, `output` is a tensor allocated for us alone.
    Ok(unsafe { Tensor::from_ptr(output) })
}

/// Runs a part for the other side, which owns `output` afterwards. Returns a message where it fails.
unsafe extern "C" fn call(
    state: *const c_void,
    input: *mut C_tensor,
    output: *mut *mut C_tensor,
) -> *mut c_char {
    // SAFETY: `state` is what `recomputed` made, and not yet dropped.
    let part = unsafe { &*state.cast::<Part>() };
    // SAFETY: a live tensor of the caller, which stays the caller's.
    let input = ManuallyDrop::new(unsafe { Tensor::from_ptr(input) });
    // A panic must not cross into C++.
    let message = match catch_unwind(AssertUnwindSafe(|| part(&input))) {
        Ok(Ok(result)) => {
            // SAFETY: `output` is the caller's variable; the tensor's owner is now the caller.
            unsafe { *output = ManuallyDrop::new(result).as_mut_ptr() };
            return std::ptr::null_mut();
        }
        Ok(Err(error)) => error.to_string(),
        Err(_) => "a recomputed part panicked".to_owned(),
    };
    // SAFETY: pointer and length of a string that lives until the call returns.
    unsafe { evenkeel_message(message.as_ptr().cast(), message.len()) }
}

unsafe extern "C" fn drop_part(state: *mut c_void) {
    // SAFETY: made by `Box::into_raw` in `recomputed`; the other side calls this once.
    drop(unsafe { Box::from_raw(state.cast::<Part>()) });
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    fn leaf(values: &[f32]) -> Tensor {
        Tensor::from_slice(values).set_requires_grad(true)
    }

    #[test]
    fn gradients_are_those_of_the_plain_computation() {
        let (x, w) = (leaf(&[1.0, -2.0]), leaf(&[0.5, 3.0]));
        let held = w.shallow_clone();
        // 3x is no leaf: the gradient must travel through the part to x.
        let y = recomputed(&(&x * 3.0), move |x| x.f_mul(&held)?.f_mul(&held)).unwrap();
        assert_eq!(Vec::<f32>::try_from(&y.detach()).unwrap(), [0.75, -54.0]);
        y.f_sum(Kind::Float).unwrap().f_backward().unwrap();
        assert_eq!(Vec::<f32>::try_from(&x.grad()).unwrap(), [0.75, 27.0]);
        assert_eq!(Vec::<f32>::try_from(&w.grad()).unwrap(), [3.0, -36.0]);
    }

    #[test]
    fn a_failure_is_an_error_in_either_pass() {
        let x = leaf(&[1.0, 2.0]);
        let wrong = Tensor::zeros([3], (Kind::Float, Device::Cpu));
        let error = recomputed(&x, move |x| x.f_add(&wrong)).unwrap_err().to_string();
        assert!(error.contains("size"), "{error}");
        let calls = std::sync::atomic::AtomicUsize::new(0);
        let second = recomputed(&x, move |x| match calls.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
            0 => x.f_exp(),
            _ => Err(TchError::Torch("no second time".to_owned())),
        });
        let loss = second.unwrap().f_sum(Kind::Float).unwrap();
        let error = loss.f_backward().unwrap_err().to_string();
        assert!(error.contains("no second time"), "{error}");
        assert!(recomputed(&x.detach(), |x| x.f_exp()).is_err());
    }

    #[test]
    fn a_panic_becomes_an_error_and_the_part_is_dropped() {
        struct Told(std::sync::Arc<std::sync::atomic::AtomicBool>);
        impl Drop for Told {
            fn drop(&mut self) {
                self.0.store(true, std::sync::atomic::Ordering::SeqCst);
            }
        }
        let dropped = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let told = Told(dropped.clone());
        let failed = recomputed(&leaf(&[1.0]), move |_| {
            let _held = &told;
            panic!("on purpose")
        });
        assert!(failed.unwrap_err().to_string().contains("panicked"));
        assert!(dropped.load(std::sync::atomic::Ordering::SeqCst));
    }
}
