//! What the standard library has nothing for: C functions, declared by hand. This is the only module
//! with `unsafe`.

#![allow(unsafe_code)]

mod connect;
mod memory;
mod output;
mod signals;
mod socket;

pub use connect::connect_from;
pub use memory::give_back_large_pieces;
pub use output::output_was_closed;
pub use signals::{Signal, Signals};
pub use socket::{lengthen_backlog, unacknowledged};
