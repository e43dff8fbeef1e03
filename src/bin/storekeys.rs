//! Prints the keys of the store: `storekeys [PREFIX]`.

use std::process::ExitCode;

use thrifty_p2p::cli::{self, ClientOptions, End, ORIGINALS, Usage};

const USAGE: Usage = Usage {
    purpose: "prints all keys of the store, or those that begin with PREFIX",
    arguments: ("[PREFIX]", 0..=1),
    flags: &[
        ("0", "null", "end each key with a NUL, not a newline"),
        ("", "sort", "print them sorted, at the end"),
    ],
    notes: "A key that is there all the time is printed once; one that is put or deleted\n\
            meanwhile, once or not at all.",
    examples: [
        "storekeys",
        "storekeys -0 picture: | xargs -0r -n 1 storeget --",
    ],
    codes: ["all keys are printed", ""],
};

fn main() -> ExitCode {
    cli::main("storekeys", &USAGE, ClientOptions::parse, |options| {
        let client = options.client()?;
        let prefix = options.arguments.first().map_or(&b""[..], Vec::as_slice);
        let end = if options.has("null") { b'\0' } else { b'\n' };
        let mut sorted = Vec::new();
        let print = |keys: &[Vec<u8>]| {
            let lines = keys.iter().flat_map(|key| key.iter().chain([&end]));
            cli::write(&lines.copied().collect::<Vec<_>>())
        };
        let all = client.keys(prefix, &mut |keys, _| {
            let mut keys: Vec<_> = keys.into_iter().map(|key| key.key).collect();
            if options.has("sort") {
                sorted.append(&mut keys);
            }
            print(&keys)
        })?;
        sorted.sort_unstable();
        print(&sorted)?;
        match all {
            true => Ok(ExitCode::SUCCESS),
            false => Err(End::trouble(client.server(), ORIGINALS)),
        }
    })
}
