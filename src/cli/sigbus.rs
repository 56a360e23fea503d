//! SIGBUS as an error message. The system raises it where a mapped file has no bytes any more, because
//! another program shortened it or its disk failed, and by default it ends the program without a word.
//!
//! A handler may do next to nothing: no allocation, no locks, no formatting. So the message for each
//! file is written before anything of that file is read, and the handler only looks for the file by the
//! address, writes the message and leaves with exit code 2. Nothing is lost by leaving at once: a report
//! is written when all reading is over, and a report file in one piece.

use std::io::IsTerminal;
use std::ops::Range;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

use evenkeel::source::Storage;
use evenkeel::text::printable;
use libc::{c_int, c_void, siginfo_t};

/// A mapped file, and what to say if its bytes are gone.
struct Mapped {
    addresses: Range<usize>,
    message: Box<[u8]>,
    next: *const Mapped,
}

/// The newest file; the others hang on it. Entries are leaked, one a file, and never changed.
static NEWEST: AtomicPtr<Mapped> = AtomicPtr::new(ptr::null_mut());

/// What was done at SIGBUS before: the standard library looks there for stack overflows.
static PREVIOUS: OnceLock<libc::sigaction> = OnceLock::new();

/// From now on, bytes that this file lacks are an error that names it. Files stay mapped until the
/// program ends; one that is read, not mapped, raises no signal.
pub fn watch(file: &Storage) {
    let Some(addresses) = file.mapped() else { return };
    let message = message(&file.path().to_string_lossy());
    let mut next = NEWEST.load(Ordering::Acquire);
    let entry = Box::into_raw(Box::new(Mapped { addresses, message, next }));
    // Files are opened one after another; two threads that did it would only have to try again.
    while let Err(newer) = NEWEST.compare_exchange(next, entry, Ordering::AcqRel, Ordering::Acquire) {
        next = newer;
        // SAFETY: `entry` comes from `Box::into_raw` above, and is not yet known to anybody else.
        unsafe { (*entry).next = newer };
    }
    PREVIOUS.get_or_init(install);
}

fn message(path: &str) -> Box<[u8]> {
    // A progress bar may stand in the line.
    let clear = if std::io::stderr().is_terminal() { "\r\x1b[2K" } else { "" };
    let text = format!(
        "{clear}error: {} became shorter while it was being read, or its disk failed; run again when nothing writes to it, or with --no-mmap.\n",
        printable(path)
    );
    text.into_bytes().into_boxed_slice()
}

/// Installs the handler, and returns what was there.
fn install() -> libc::sigaction {
    // SAFETY: `sigaction` is a C structure for which all zeros are valid: no flags, the default action.
    let mut previous: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: as above.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = on_sigbus as *const () as usize;
    // On a stack of its own, as the standard library's: SIGBUS may mean that the stack is full.
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: both structures live on this stack, `on_sigbus` has the signature that SA_SIGINFO asks for
    // and calls nothing but async-signal-safe functions. Where it fails the old action stays.
    unsafe {
        libc::sigemptyset(&mut action.sa_mask);
        libc::sigaction(libc::SIGBUS, &action, &mut previous);
    }
    previous
}

extern "C" fn on_sigbus(_signal: c_int, info: *mut siginfo_t, _context: *mut c_void) {
    static SAID: AtomicBool = AtomicBool::new(false);
    // SAFETY: with SA_SIGINFO the system passes a valid structure, whose address SIGBUS fills in.
    let address = unsafe { (*info).si_addr() }.addr();
    let Some(file) = find(address) else { return give_up() };
    if SAID.swap(true, Ordering::AcqRel) {
        // Another thread is saying it; the program ends before this one goes on.
        loop {
            // SAFETY: `pause` only waits.
            unsafe { libc::pause() };
        }
    }
    // SAFETY: the message is memory that is never freed; `write` and `_exit` are async-signal-safe. Where
    // stderr takes no more the exit code says it.
    unsafe {
        libc::write(libc::STDERR_FILENO, file.message.as_ptr().cast(), file.message.len());
        libc::_exit(2)
    }
}

/// The file that is mapped to an address.
fn find(address: usize) -> Option<&'static Mapped> {
    let mut entry: *const Mapped = NEWEST.load(Ordering::Acquire);
    // SAFETY: what NEWEST and `next` lead to is null or a leaked entry, complete before it could be found.
    while let Some(mapped) = unsafe { entry.as_ref() } {
        if mapped.addresses.contains(&address) {
            return Some(mapped);
        }
        entry = mapped.next;
    }
    None
}

/// Not a file's address, so a fault of another kind: it happens again when the handler returns, and
/// then meets the action that was there before it.
fn give_up() {
    match PREVIOUS.get() {
        // SAFETY: the structure was filled in by `sigaction`; the function is async-signal-safe, and so
        // is `get`, which reads an atomic.
        Some(previous) => unsafe { libc::sigaction(libc::SIGBUS, previous, ptr::null_mut()) },
        // SAFETY: `signal` is async-signal-safe.
        None => unsafe { libc::signal(libc::SIGBUS, libc::SIG_DFL) as c_int },
    };
}
