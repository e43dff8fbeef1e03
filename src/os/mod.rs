//! What the standard library has nothing for: C functions, declared by hand. This is the only module
//! with `unsafe`.

#![allow(unsafe_code)]

mod memory;
mod output;
mod signals;
mod socket;
#[cfg(all(
    target_os = "linux",
    any(
        target_arch = "x86_64",
        target_arch = "aarch64",
        target_arch = "arm",
        target_arch = "riscv64"
    )
))]
#[path = "linux.rs"]
mod system;
#[cfg(not(all(
    target_os = "linux",
    any(
        target_arch = "x86_64",
        target_arch = "aarch64",
        target_arch = "arm",
        target_arch = "riscv64"
    )
)))]
#[path = "elsewhere.rs"]
mod system;

pub use memory::{give_back_free_pages, give_back_large_pieces, is_to_be_had};
pub use output::output_was_closed;
pub use signals::Signals;
pub use socket::lengthen_backlog;
pub use system::{connect_from, has_ended, unacknowledged};
