//! A flat peer-to-peer network, and a key-value store spread over it.
//!
//! README.md says what it is for, what it promises and how to use the programs. These are its layers,
//! the topmost first; each layer knows only the layers below it.
//!
//! | layer | what it is |
//! |---|---|
//! | `src/bin` | one small file a program: options in, exit code out |
//! | [`cli`] | what the programs share: options, dump and load, messages, exit codes |
//! | [`client`] | a client of the store: finding nodes, one operation, or many at once, all keys |
//! | [`node`] | a process: a service on a listener, and the threads that look after it |
//! | [`http`] | a page, metrics, and the report, for browsers and Prometheus |
//! | [`report`] | what all members say of themselves, put together |
//! | [`diststore`] | the Store service: items, requests, exchange |
//! | [`locator`] | the Locator service: carries out what membership decides; originals |
//! | [`membership`] | which nodes are in the network, as one node knows it: pure, no lock, no call, no clock |
//! | [`server`], [`net`] | calls that come in and calls that go out, over TCP |
//! | [`log`] | lines that nobody waits for |
//! | [`service`], [`net::Network`] | the seam: a service answers named calls, a network carries them |
//! | [`ring`], [`location`] | which nodes should hold a key; `host:port` |
//! | [`thrift`], [`digest`] | bytes to values to messages; a hash |
//! | [`os`] | signals, sockets, memory: C functions |
//!
//! Read first: [`service`] and [`net`], the seam that everything rests on; then
//! [`membership::View::list`], the one rule that says which nodes hold a key; then [`guide`], which tells
//! how it all works together. `examples/factor.rs` shows how to write a service of your own, and `examples/counter.rs`
//! one that keeps something.
//!
//! # Locks
//!
//! No lock is held while another node is called. So two nodes that call each other at the same moment both finish.
//! A thread that takes the lock of [`locator::Locator`] and a shard's takes them in this order: an item from another node
//! is stored, and one that was handed over is forgotten, while the view can't change. `src/diststore/underway.rs` has
//! locks too: a thread that takes one of these and the Locator's takes them after the Locator's.

// Allowed again in `os`, and nowhere else.
#![deny(unsafe_code)]
#![deny(missing_docs)]

pub mod cli;
pub mod client;
pub mod digest;
pub mod diststore;
pub mod guide;
pub mod http;
pub mod location;
pub mod locator;
pub mod log;
pub mod membership;
pub mod net;
pub mod node;
pub mod os;
pub mod report;
pub mod ring;
pub mod server;
pub mod service;
pub mod thrift;
pub(crate) mod words;
