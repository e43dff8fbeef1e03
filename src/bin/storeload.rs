//! Puts what `storedump` has written.

use std::io::stdin;
use std::process::ExitCode;

use thrifty_p2p::cli::{self, ClientOptions, Usage, load};

const USAGE: Usage = Usage {
    purpose: "puts what storedump has written, from standard input",
    arguments: ("", 0..=0),
    flags: &[("q", "quiet", "show no progress on the terminal")],
    notes: "Keys that are there get the values of the input; others stay. Nobody else should\n\
            put the same keys meanwhile: where a put is tried again, theirs may be lost.",
    examples: [
        "storeload < backup",
        "gunzip -c backup.gz | storeload -h a,b,c",
    ],
    codes: ["all is put", ""],
};

fn main() -> ExitCode {
    let parse =
        |program: &str, arguments: &[String]| ClientOptions::parse(&USAGE, program, arguments);
    cli::main("storeload", parse, |options| {
        load(
            &options.client()?,
            &mut stdin().lock(),
            options.has("quiet"),
        )?;
        Ok(ExitCode::SUCCESS)
    })
}
