//! A node of the distributed key-value store: service `diststore.Store`.

use std::process::ExitCode;

use thrifty_p2p::cli::{self, NodeOptions, run_node};
use thrifty_p2p::diststore::{SERVICE_TYPES, Store};

fn main() -> ExitCode {
    cli::main("storeserver", NodeOptions::parse, |options| {
        let memory = options.memory();
        run_node(options, SERVICE_TYPES, |locator| {
            Store::new(locator, memory)
        })
    })
}
