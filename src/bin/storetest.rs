//! Reads back what `storeprimer` has put, and prints each value; for a missing one, it prints the node
//! that should have had it, and ends with exit code 1.

use std::process::ExitCode;

use thrifty_p2p::cli::{self, ClientOptions, Usage, nato};

const USAGE: Usage = Usage {
    purpose: "reads back what storeprimer has put, and prints it",
    arguments: ("", 0..=0),
    flags: &[],
    notes: "For a missing value it prints the node that should have had it.",
    examples: ["storetest", "storetest -h 10.0.0.1"],
    codes: ["all is there", "something is missing"],
};

fn main() -> ExitCode {
    cli::main("storetest", &USAGE, ClientOptions::parse, |options| {
        let client = options.client()?;
        let mut missing = 0;
        for (key, _) in nato() {
            let value = client.get(key.as_bytes())?;
            if value.is_empty() {
                missing += 1;
                let node = client.get_node(key.as_bytes())?;
                cli::print(format!("None received from expected {node}").as_bytes())?;
            } else {
                cli::print(&value)?;
            }
        }
        Ok(ExitCode::from(u8::from(missing > 0)))
    })
}
