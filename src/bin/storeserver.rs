//! A node of the distributed key-value store: service `diststore.Store`.

use std::process::ExitCode;

use thrifty_p2p::cli::{self, NodeOptions, Usage, run_node};
use thrifty_p2p::diststore::{SERVICE_TYPES, Store};

const USAGE: Usage = NodeOptions::usage(
    "runs a node of the store",
    [
        "storeserver -a 10.0.0.1 --new",
        "storeserver -a 10.0.0.2 -h 10.0.0.1",
    ],
);

fn main() -> ExitCode {
    cli::main("storeserver", &USAGE, NodeOptions::parse, |options| {
        let memory = options.memory();
        run_node(options, SERVICE_TYPES, |locator| {
            Store::new(locator, memory)
        })
    })
}
