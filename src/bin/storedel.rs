//! Deletes keys of the store: `storedel KEY...`.

use std::process::ExitCode;

use thrifty_p2p::cli::{self, ClientOptions, Usage};
use thrifty_p2p::client::{Answer, Operation};

const USAGE: Usage = Usage {
    purpose: "deletes keys of the store",
    arguments: ("KEY...", 1..=usize::MAX),
    flags: &[],
    notes: "To the store the empty value means that a key is deleted: it reads as absent,\n\
            and storeput KEY \"\" does the same.",
    examples: ["storedel a", "storekeys -0 old: | xargs -0r storedel --"],
    codes: ["a key was there, and is deleted", "none was there"],
};

fn main() -> ExitCode {
    cli::main("storedel", &USAGE, ClientOptions::parse, |options| {
        let client = options.client()?;
        let keys = options.arguments.iter();
        let operations: Vec<_> = keys.map(|key| Operation::Delete(key)).collect();
        let (mut some, mut failed) = (false, None);
        client.many(&operations, &mut |_, answer| match answer {
            Ok(answer) => some |= answer == Answer::Deleted(true),
            Err(error) => failed = Some(error),
        });
        if let Some(error) = failed {
            return Err(error.into());
        }
        Ok(ExitCode::from(u8::from(!some)))
    })
}
