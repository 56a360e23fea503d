//! The calls into src/torch/shim.cpp, and into the loader of libraries.

use std::ffi::{CStr, c_char, c_int, c_void};

use tch::{Device, TchError};

unsafe extern "C" {
    fn evenkeel_autocast_bf16(cuda: c_int, enabled: c_int) -> *mut c_char;
    fn evenkeel_free_memory(gpu: c_int, bytes: *mut u64) -> *mut c_char;
    fn free(pointer: *mut c_void);
}

/// Turns a message of the shim into an error.
pub(super) fn checked(message: *mut c_char) -> Result<(), TchError> {
    if message.is_null() {
        return Ok(());
    }
    // SAFETY: the shim returns null or a string that strdup allocated, which nobody else holds.
    let text = unsafe { CStr::from_ptr(message) }.to_string_lossy().into_owned();
    // SAFETY: as above; it is not used after this.
    unsafe { free(message.cast()) };
    Err(TchError::Torch(text))
}

/// While this lives, matrix products and what else autocast covers are computed in bfloat16.
#[derive(Debug)]
pub struct Autocast {
    cuda: bool,
}

impl Autocast {
    /// Switches it on for a device's kind.
    ///
    /// # Errors
    /// What libtorch says.
    pub fn bf16(device: Device) -> Result<Autocast, TchError> {
        let cuda = device.is_cuda();
        // SAFETY: plain integers; every exception is caught on the other side.
        checked(unsafe { evenkeel_autocast_bf16(cuda.into(), 1) })?;
        Ok(Autocast { cuda })
    }
}

impl Drop for Autocast {
    fn drop(&mut self) {
        // SAFETY: as above. Switching off does not fail in a way that anybody could act on.
        let _ = checked(unsafe { evenkeel_autocast_bf16(self.cuda.into(), 0) });
    }
}

/// Loads libtorch's CUDA half where there is one. The linker leaves it out of the program, because no
/// symbol of it is named; it registers itself when it is loaded. Must come before any other call of
/// libtorch; whether there is a usable GPU is then what [`tch::Cuda::is_available`] says.
pub fn load_cuda() {
    #[cfg(target_os = "linux")]
    {
        // SAFETY: a terminated name; libtorch's own initialisers run, as they do in every program
        // that links it. The library stays loaded.
        unsafe { libc::dlopen(c"libtorch_cuda.so".as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
    }
}

/// The bytes that a GPU, by its number, has left for anybody; `None` where there is no such GPU, or nobody says.
pub fn free_memory(gpu: usize) -> Option<u64> {
    // libtorch numbers devices in eight bits.
    let gpu = i8::try_from(gpu).ok()?;
    let mut bytes = 0;
    // SAFETY: the shim writes through the pointer before it returns, and catches every exception.
    checked(unsafe { evenkeel_free_memory(gpu.into(), &mut bytes) }).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_says_what_it_has_left_and_one_that_is_not_there_nothing() {
        load_cuda();
        let count = usize::try_from(tch::Cuda::device_count()).unwrap();
        for gpu in 0..count {
            assert!(free_memory(gpu).is_some_and(|bytes| bytes > 0));
        }
        assert_eq!([count, 127, 128].map(free_memory), [None; 3]);
    }
}
