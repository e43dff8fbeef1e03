//! What the programs share: options, dump and load, messages, exit codes.
//!
//! Exit codes are grep's: 0 done, 1 no (no such key, not every key is safe), 2 trouble. Trouble is one line on stderr
//! that names the program, the place and the cause.

mod dump;
mod memory;
mod node;
mod options;
mod progress;
mod status;
mod usage;

pub use dump::{ORIGINALS, dump, load};
pub use node::{NodeOptions, run_node};
pub use options::ClientOptions;
pub use usage::{Arity, Usage};

use std::ffi::OsStr;
use std::fmt;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;

use crate::client;
use crate::location::{DEFAULT_PORT, Location, host_and_port};
use crate::locator::one_line;
use crate::log;
use crate::os::output_was_closed;

/// Why a program ends early.
#[derive(Debug)]
pub enum End {
    /// Something went wrong: the line that the program prints, without its own name.
    Trouble(String),
    /// `--help` or `--version`: the text to print, and nothing to do.
    Tell(String),
    /// The reader of stdout has gone, and wants no more.
    ReaderGone,
}

impl End {
    /// Trouble at a place: a peer, a file, an address.
    pub fn trouble(place: impl fmt::Display, cause: impl fmt::Display) -> Self {
        End::Trouble(format!("{place}: {cause}"))
    }

    /// Wrong usage: the line points to `--help`.
    pub fn usage(cause: impl fmt::Display) -> Self {
        End::Trouble(format!("{cause} (--help tells more)"))
    }

    /// Wrong usage: a text that is none of what is wanted.
    fn unfit(wanted: impl fmt::Display, text: &str) -> Self {
        End::usage(format!("{wanted}: {}", text.escape_debug()))
    }

    /// Trouble in other words. Any other end stays as it is.
    fn reworded(self, words: impl FnOnce(String) -> String) -> Self {
        match self {
            End::Trouble(cause) => End::Trouble(words(cause)),
            end => end,
        }
    }
}

impl From<client::Error> for End {
    fn from(error: client::Error) -> Self {
        End::Trouble(error.to_string())
    }
}

/// Runs a program: parses its options, does its work, turns trouble into a line and an exit code.
pub fn main<T>(
    program: &str,
    usage: &Usage,
    parse: impl FnOnce(&Usage, &str, &[String]) -> Result<T, End>,
    work: impl FnOnce(T) -> Result<ExitCode, End>,
) -> ExitCode {
    let arguments = std::env::args_os().skip(1);
    let arguments: Vec<String> = arguments.map(|argument| widen(&argument)).collect();
    let mut done = parse(usage, program, &arguments).and_then(work);
    if let Err(End::Tell(text)) = &done {
        done = print(text.trim_end().as_bytes()).map(|()| ExitCode::SUCCESS);
    }
    let code = match done {
        Ok(code) => code,
        Err(End::Trouble(cause)) => {
            complain(program, &cause);
            ExitCode::from(2)
        }
        Err(End::Tell(_) | End::ReaderGone) => ExitCode::SUCCESS,
    };
    log::flush();
    code
}

/// Prints a line on stdout: what the program was run for.
///
/// # Errors
/// The line is lost. If the reader has gone, it wants no more, and nothing is lost.
pub fn print(line: &[u8]) -> Result<(), End> {
    match write(&[line, b"\n"].concat()) {
        Err(End::ReaderGone) => Ok(()),
        done => done,
    }
}

/// Writes bytes to stdout.
///
/// # Errors
/// They are lost, or nobody wants them.
pub fn write(bytes: &[u8]) -> Result<(), End> {
    let trouble = |cause: &dyn fmt::Display| End::trouble("standard output", cause);
    if output_was_closed() {
        return Err(trouble(&"closed"));
    }
    let mut out = io::stdout().lock();
    let written = out.write_all(bytes);
    written
        .and_then(|()| out.flush())
        .map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => End::ReaderGone,
            _ => trouble(&error),
        })
}

/// Prints a line on stderr: one line, whatever the options or a peer had in them.
pub fn complain(program: &str, cause: &dyn fmt::Display) {
    let line = one_line(&cause.to_string());
    log::complain(&format!("{program}: {line}"));
}

/// Arguments are bytes, the option parser wants text: a character for each byte, and back again
/// with [`narrow`].
fn widen(argument: &OsStr) -> String {
    argument
        .as_bytes()
        .iter()
        .map(|byte| char::from(*byte))
        .collect()
}

fn narrow(argument: &str) -> Vec<u8> {
    argument
        .chars()
        .map(|c| u8::try_from(c).expect("BUG: a character for each byte"))
        .collect()
}

/// Reads `HOST:PORT` or `HOST`. With `HOST` alone the port is `port`, or else [`DEFAULT_PORT`].
///
/// # Errors
/// The text is neither, or both the text and `port` name a port.
fn peer(text: &str, port: Option<u16>) -> Result<Location, End> {
    let text = String::from_utf8_lossy(&narrow(text)).into_owned();
    let Some((host, own)) = host_and_port(&text) else {
        return Err(End::unfit("not HOST:PORT or HOST", &text));
    };
    if let (Some(_), Some(port)) = (own, port) {
        return Err(End::usage(format!(
            "the port is given twice: {} and {port}",
            text.escape_debug()
        )));
    }
    let port = own.or(port).unwrap_or(DEFAULT_PORT);
    Location::new(host, port).map_err(End::usage)
}

/// Several of them, with commas between.
///
/// # Errors
/// As of [`peer`].
fn peers(text: &str, port: Option<u16>) -> Result<Vec<Location>, End> {
    text.split(',').map(|text| peer(text, port)).collect()
}

/// The nodes to ask, or to join, where no option says anything of it.
const PEERS_VARIABLE: &str = "THRIFTY_PEERS";

/// What the environment names, in the form of [`peers`]; may be none.
///
/// # Errors
/// As of [`peers`].
fn peers_of_environment() -> Result<Vec<Location>, End> {
    let list = std::env::var_os(PEERS_VARIABLE).unwrap_or_default();
    if list.is_empty() {
        return Ok(Vec::new());
    }
    let wrong = |cause| format!("{PEERS_VARIABLE}: {cause}");
    peers(&widen(&list), None).map_err(|end| end.reworded(wrong))
}

fn port(text: &str) -> Result<u16, End> {
    match text.parse() {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(End::unfit("not a port (1 to 65535)", text)),
    }
}

/// What `storeprimer` puts and `storetest` reads: the letters and their names.
pub fn nato() -> impl Iterator<Item = (&'static str, &'static str)> {
    const NAMES: [&str; 26] = [
        "Alpha", "Bravo", "Charlie", "Delta", "Echo", "Foxtrot", "Golf", "Hotel", "India",
        "Juliet", "Kilo", "Lima", "Mike", "November", "Oscar", "Papa", "Quebec", "Romeo", "Sierra",
        "Tango", "Uniform", "Victor", "Whiskey", "X-ray", "Yankee", "Zulu",
    ];
    NAMES.into_iter().map(|name| (&name[..1], name))
}
