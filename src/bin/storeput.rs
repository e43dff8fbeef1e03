//! Puts a value into the store: `storeput KEY VALUE`.

use std::process::ExitCode;

use thrifty_p2p::cli::{self, Client, ClientOptions};

fn main() -> ExitCode {
    let parse = |program: &str, arguments: &[String]| {
        ClientOptions::parse(program, &["KEY", "VALUE"], arguments)
    };
    cli::main("storeput", parse, |options| {
        Client::new(&options)?.put(&options.arguments[0], &options.arguments[1])?;
        Ok(ExitCode::SUCCESS)
    })
}
