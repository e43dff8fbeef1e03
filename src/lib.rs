//! A flat peer-to-peer network, and a key-value store spread over it.
//!
//! README.md says what it is for, what it promises and how to use the programs. This is the house
//! from the ground up; each floor knows only the floors below it.
//!
//! | floor | what it is |
//! |---|---|
//! | `src/bin` | one small file a program: options in, exit code out |
//! | [`cli`] | what the programs share: options, discovery, messages, exit codes |
//! | [`node`] | a process: a service on a listener, and the threads that look after it |
//! | [`diststore`] | the Store service: items, requests, the pass |
//! | [`locator`] | the Locator service: members, views, joining, watching, originals |
//! | [`membership`] | who is in the network, as one node knows it: pure; to take over from the locator's own |
//! | [`server`], [`net`] | calls that come in and calls that go out, over TCP |
//! | [`service`], [`net::Network`] | the seam: a service answers named calls, a network carries them |
//! | [`ring`], [`location`] | who owns a key; `host:port` |
//! | [`thrift`], [`digest`] | bytes to values to messages; a hash |
//! | [`log`] | lines that nobody waits for |
//!
//! Read first: [`service`] and [`net`], the seam that everything rests on; then
//! [`locator::View::holders`], the one rule of who holds what; then [`guide`], which tells how it
//! all works together. A service of one's own is `examples/factor.rs`.
//!
//! # Locks
//!
//! No lock is held while another node is called; that is what makes nodes that call each other at
//! the same moment both finish. Two are held at once in one place only: the pass looks at the view
//! (the lock of [`locator::Locator`]) while it has a shard's lock, to forget an item. The other
//! order never happens.

// Allowed again in `signal`, and nowhere else.
#![deny(unsafe_code)]

pub mod cli;
pub mod digest;
pub mod diststore;
pub mod guide;
pub mod location;
pub mod locator;
pub mod log;
pub mod membership;
pub mod net;
pub mod node;
pub mod ring;
pub mod server;
pub mod service;
#[cfg(unix)]
pub mod signal;
pub mod thrift;
pub(crate) mod words;
