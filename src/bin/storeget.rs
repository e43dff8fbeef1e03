//! Prints a value of the store, and a newline: `storeget KEY`. For a missing key it prints an empty
//! line and ends with exit code 1.

use std::process::ExitCode;

use thrifty_p2p::cli::{self, ClientOptions, Usage};

const USAGE: Usage = Usage {
    purpose: "prints a value of the store",
    arguments: ("KEY", 1..=1),
    flags: &[("n", "no-newline", "print the value alone, byte for byte")],
    notes: "",
    examples: ["storeget a", "storeget -n picture > picture.png"],
    codes: ["the key is there", "it is not"],
};

fn main() -> ExitCode {
    cli::main("storeget", &USAGE, ClientOptions::parse, |options| {
        let value = options.client()?.get(&options.arguments[0])?;
        if options.has("no-newline") {
            cli::write(&value)?;
        } else {
            cli::print(&value)?;
        }
        Ok(ExitCode::from(u8::from(value.is_empty())))
    })
}
