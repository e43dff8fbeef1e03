//! thrifty-p2p.
pub mod location;
pub mod net;
pub mod ring;
pub mod service;
pub mod thrift;
