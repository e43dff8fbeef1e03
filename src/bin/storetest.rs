//! Reads back what `storeprimer` has put, and prints each value; for a missing one, it prints the node
//! that should have had it, and ends with exit code 1.

use std::process::ExitCode;

use thrifty_p2p::cli::{self, Client, ClientOptions, nato};

fn main() -> ExitCode {
    let parse = |program: &str, arguments: &[String]| ClientOptions::parse(program, &[], arguments);
    cli::main("storetest", parse, |options| {
        let client = Client::new(&options)?;
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
