//! The programs as processes of their own, and what they promise to people and scripts that start them.

#[path = "../running/mod.rs"]
mod running;

mod batches;
mod bytes;
mod complaints;
mod crowds;
mod descriptors;
mod discovery;
mod http;
mod ipv6;
mod large;
mod leaving;
mod limits;
mod lines;
mod listing;
mod logging;
mod memory;
mod moving;
mod output;
mod ring_script;
mod starting;
mod status;
mod strangers;
mod tools;
mod versions;
mod wording;
