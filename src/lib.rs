//! thrifty-p2p.
pub mod cli;
pub mod diststore;
pub mod location;
pub mod locator;
pub mod net;
pub mod node;
pub mod ring;
pub mod server;
pub mod service;
#[cfg(unix)]
pub mod signal;
pub mod thrift;
