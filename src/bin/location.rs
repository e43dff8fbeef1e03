//! A node of nothing but the locator, without keys: service `locator.Locator`.

use std::process::ExitCode;

use thrifty_p2p::cli::{self, NodeOptions, Usage, run_node};
use thrifty_p2p::locator::{LocatorService, SERVICE_TYPES};

const USAGE: Usage = NodeOptions::usage(
    "runs a node of nothing but the locator",
    [
        "location -a 10.0.0.2 -h 10.0.0.1",
        "location --status -h 10.0.0.1",
    ],
);

fn main() -> ExitCode {
    cli::main("location", &USAGE, NodeOptions::parse, |options| {
        run_node(options, SERVICE_TYPES, LocatorService::new)
    })
}
