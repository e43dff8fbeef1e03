//! Writes all keys and values of the store to stdout, for `storeload`.

use std::process::ExitCode;

use thrifty_p2p::cli::{self, ClientOptions, Usage, dump};

const USAGE: Usage = Usage {
    purpose: "writes all keys and values of the store to standard output",
    arguments: ("", 0..=0),
    flags: &[("q", "quiet", "show no progress on the terminal")],
    notes: "Each key has a value that it had while the dump ran. A line for each: the key,\n\
            a tab, the value; a tab, a newline and a backslash in them are \\t, \\n and \\\\,\n\
            other bytes that are not visible ASCII or a blank are \\xNN. The first line is\n\
            \"diststore dump 1\", the last one \"end\" and the number of keys.",
    examples: [
        "storedump > backup",
        "storedump -h a,b,c | gzip > backup.gz",
    ],
    codes: ["all is written", ""],
};

fn main() -> ExitCode {
    cli::main("storedump", &USAGE, ClientOptions::parse, |options| {
        dump(&options.client()?, options.has("quiet"))?;
        Ok(ExitCode::SUCCESS)
    })
}
