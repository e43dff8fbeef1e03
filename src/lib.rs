//! thrifty-p2p.
pub mod diststore;
pub mod location;
pub mod locator;
pub mod net;
pub mod ring;
pub mod service;
pub mod thrift;
