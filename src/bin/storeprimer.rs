//! Puts the NATO alphabet into the store, A Alpha to Z Zulu, for `storetest` to read back.

use std::process::ExitCode;

use thrifty_p2p::cli::{self, Client, ClientOptions, nato};

fn main() -> ExitCode {
    let parse = |program: &str, arguments: &[String]| ClientOptions::parse(program, &[], arguments);
    cli::main("storeprimer", parse, |options| {
        let client = Client::new(&options)?;
        for (key, value) in nato() {
            client.put(key.as_bytes(), value.as_bytes())?;
        }
        Ok(ExitCode::SUCCESS)
    })
}
