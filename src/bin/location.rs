//! A node of nothing but the locator, without keys: service `locator.Locator`.

use std::process::ExitCode;

use thrifty_p2p::cli::{self, NodeOptions, run_node};
use thrifty_p2p::locator::{LocatorService, SERVICE_TYPES};

fn main() -> ExitCode {
    cli::main("location", NodeOptions::parse, |options| {
        run_node(options, SERVICE_TYPES, LocatorService::new)
    })
}
