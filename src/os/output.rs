//! Whether the program was started without a stdout.

use std::ffi::c_int;
use std::sync::atomic::{AtomicBool, Ordering};

static OUTPUT_WAS_CLOSED: AtomicBool = AtomicBool::new(false);

/// Whether the program was started with its stdout closed: what is printed reaches nobody.
///
/// Before `main`, Rust opens /dev/null in place of a stdout that is closed. A /dev/null that somebody
/// gave looks the same (Python's `DEVNULL` is open for reading and writing, too), so the descriptor is
/// looked at before that, when the system starts the program.
pub fn output_was_closed() -> bool {
    OUTPUT_WAS_CLOSED.load(Ordering::Relaxed)
}

extern "C" fn look_at_output() {
    unsafe extern "C" {
        fn fcntl(descriptor: c_int, command: c_int, ...) -> c_int;
    }
    /// The same number on every Unix.
    const F_GETFD: c_int = 1;
    const STDOUT: c_int = 1;
    // SAFETY: the command takes no argument and changes nothing; it fails if nothing is open there.
    let closed = unsafe { fcntl(STDOUT, F_GETFD) } == -1;
    OUTPUT_WAS_CLOSED.store(closed, Ordering::Relaxed);
}

/// Called before `main`, with all that the section holds (System V ABI, "Initialization and
/// Termination Functions"; macOS has a section of its own).
// SAFETY: the section holds pointers to C functions. They may be given arguments, which this one
// doesn't take, and it needs nothing that Rust sets up before `main`.
#[used]
#[cfg_attr(
    target_vendor = "apple",
    unsafe(link_section = "__DATA,__mod_init_func")
)]
#[cfg_attr(not(target_vendor = "apple"), unsafe(link_section = ".init_array"))]
static BEFORE_MAIN: extern "C" fn() = look_at_output;
