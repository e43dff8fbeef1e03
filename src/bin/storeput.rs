//! Puts a value into the store: `storeput KEY VALUE`, or `storeput KEY` for what stdin has.

use std::io::{Read, stdin};
use std::process::ExitCode;

use thrifty_p2p::cli::{self, ClientOptions, End, Usage};
use thrifty_p2p::locator::LIMITS;

const USAGE: Usage = Usage {
    purpose: "puts a value into the store",
    arguments: ("KEY [VALUE]", 1..=2),
    flags: &[],
    notes: "Without VALUE it takes what standard input has, byte for byte. The empty VALUE\n\
            deletes the key; empty input is refused.",
    examples: ["storeput a apple", "storeput picture < picture.png"],
    codes: ["the put is acknowledged", ""],
};

fn main() -> ExitCode {
    cli::main("storeput", &USAGE, ClientOptions::parse, |options| {
        let value = match options.arguments.get(1) {
            Some(value) => value.clone(),
            None => read_input()?,
        };
        options.client()?.put(&options.arguments[0], &value)?;
        Ok(ExitCode::SUCCESS)
    })
}

fn read_input() -> Result<Vec<u8>, End> {
    let trouble = |cause: &str| End::trouble("standard input", cause);
    let mut value = Vec::new();
    let most = LIMITS.string_bytes_max;
    let read = stdin().take(most as u64 + 1).read_to_end(&mut value);
    read.map_err(|error| trouble(&error.to_string()))?;
    match value.len() {
        0 => Err(trouble(
            "empty, and no VALUE is given (storedel deletes; -- before a KEY that begins with a dash)",
        )),
        length if length > most => Err(trouble(&format!("more than {most} bytes"))),
        _ => Ok(value),
    }
}
