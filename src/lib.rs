//! thrifty-p2p.
pub mod diststore;
pub mod location;
pub mod locator;
pub mod net;
pub mod ring;
pub mod server;
pub mod service;
#[cfg(unix)]
pub mod signal;
pub mod thrift;
