//! Prints a value of the store, and a newline: `storeget KEY`. For a missing key it prints an empty
//! line and ends with exit code 1.

use std::process::ExitCode;

use thrifty_p2p::cli::{self, Client, ClientOptions};

fn main() -> ExitCode {
    let parse =
        |program: &str, arguments: &[String]| ClientOptions::parse(program, &["KEY"], arguments);
    cli::main("storeget", parse, |options| {
        let value = Client::new(&options)?.get(&options.arguments[0])?;
        cli::print(&value)?;
        Ok(ExitCode::from(u8::from(value.is_empty())))
    })
}
