//! Puts the NATO alphabet into the store, A Alpha to Z Zulu, for `storetest` to read back.

use std::process::ExitCode;

use thrifty_p2p::cli::{self, ClientOptions, Usage, nato};

const USAGE: Usage = Usage {
    purpose: "puts the NATO alphabet into the store, A Alpha to Z Zulu",
    arguments: ("", 0..=0),
    flags: &[],
    notes: "",
    examples: ["storeprimer", "storeprimer && storetest"],
    codes: ["all is put", ""],
};

fn main() -> ExitCode {
    cli::main("storeprimer", &USAGE, ClientOptions::parse, |options| {
        let client = options.client()?;
        for (key, value) in nato() {
            client.put(key.as_bytes(), value.as_bytes())?;
        }
        Ok(ExitCode::SUCCESS)
    })
}
