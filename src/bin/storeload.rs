//! Puts what `storedump` has written.

use std::fs::File;
use std::io::{self, Seek, stdin};
use std::os::fd::AsFd;
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

/// How many bytes standard input has, if it is a file: from where it stands.
fn length() -> io::Result<Option<u64>> {
    let mut file = File::from(stdin().as_fd().try_clone_to_owned()?);
    let what = file.metadata()?;
    if !what.is_file() {
        return Ok(None);
    }
    Ok(what.len().checked_sub(file.stream_position()?))
}

fn main() -> ExitCode {
    cli::main("storeload", &USAGE, ClientOptions::parse, |options| {
        load(
            &options.client()?,
            &mut stdin().lock(),
            length().unwrap_or(None),
            options.has("quiet"),
        )?;
        Ok(ExitCode::SUCCESS)
    })
}
