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

/// Why a program ends in trouble: the line that it prints, without its own name.
#[derive(Debug)]
pub struct Trouble(String);

impl Trouble {
    /// Trouble at a place: a peer, a file, an address.
    pub fn new(place: impl fmt::Display, cause: impl fmt::Display) -> Self {
        Trouble(format!("{place}: {cause}"))
    }

    /// Wrong usage: the line points to `--help`.
    pub fn usage(cause: impl fmt::Display) -> Self {
        Trouble(format!("{cause} (--help tells more)"))
    }
}

impl From<client::Error> for Trouble {
    fn from(error: client::Error) -> Self {
        Trouble(error.to_string())
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a program's options came to.
pub enum Parsed<T> {
    /// The options, for the program to run with.
    Run(T),
    /// `--help` or `--version`: the text to print, and nothing to do.
    Tell(String),
}

/// Runs a program: parses its options, does its work, turns trouble into a line and an exit code.
pub fn main<T>(
    program: &str,
    parse: impl FnOnce(&str, &[String]) -> Result<Parsed<T>, Trouble>,
    work: impl FnOnce(T) -> Result<ExitCode, Trouble>,
) -> ExitCode {
    let arguments = std::env::args_os().skip(1);
    let arguments: Vec<String> = arguments.map(|argument| widen(&argument)).collect();
    let done = match parse(program, &arguments) {
        Ok(Parsed::Run(options)) => work(options),
        Ok(Parsed::Tell(text)) => print(text.trim_end().as_bytes()).map(|()| ExitCode::SUCCESS),
        Err(trouble) => Err(trouble),
    };
    let code = done.unwrap_or_else(|trouble| {
        complain(program, &trouble);
        ExitCode::from(2)
    });
    log::flush();
    code
}

/// Prints a line on stdout: what the program was run for.
///
/// # Errors
/// The line is lost. If the reader has gone, it wants no more, and nothing is lost.
pub fn print(line: &[u8]) -> Result<(), Trouble> {
    write(&[line, b"\n"].concat()).map(|_| ())
}

/// Writes bytes to stdout. False: the reader has gone, and wants no more.
///
/// # Errors
/// They are lost.
pub fn write(bytes: &[u8]) -> Result<bool, Trouble> {
    let trouble = |cause: &dyn fmt::Display| Trouble::new("standard output", cause);
    if output_was_closed() {
        return Err(trouble(&"closed"));
    }
    let mut out = io::stdout().lock();
    let written = out.write_all(bytes);
    match written.and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(trouble(&error)),
    }
}

/// Why a program that writes much to stdout ends early.
pub enum Stop {
    /// The reader has gone, and wants no more.
    Gone,
    /// Something went wrong.
    Trouble(Trouble),
}

impl From<client::Error> for Stop {
    fn from(error: client::Error) -> Self {
        Stop::Trouble(error.into())
    }
}

impl Stop {
    /// Writes bytes to stdout.
    ///
    /// # Errors
    /// They are lost, or nobody wants them.
    pub fn write(bytes: &[u8]) -> Result<(), Stop> {
        match write(bytes) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Stop::Gone),
            Err(trouble) => Err(Stop::Trouble(trouble)),
        }
    }

    /// `None`: the reader has gone.
    ///
    /// # Errors
    /// Something went wrong.
    pub fn settle<T>(done: Result<T, Stop>) -> Result<Option<T>, Trouble> {
        match done {
            Ok(done) => Ok(Some(done)),
            Err(Stop::Gone) => Ok(None),
            Err(Stop::Trouble(trouble)) => Err(trouble),
        }
    }
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
fn peer(text: &str, port: Option<u16>) -> Result<Location, Trouble> {
    let text = String::from_utf8_lossy(&narrow(text)).into_owned();
    let Some((host, own)) = host_and_port(&text) else {
        return Err(Trouble::usage(format!(
            "not HOST:PORT or HOST: {}",
            text.escape_debug()
        )));
    };
    if let (Some(_), Some(port)) = (own, port) {
        return Err(Trouble::usage(format!(
            "the port is given twice: {} and {port}",
            text.escape_debug()
        )));
    }
    let port = own.or(port).unwrap_or(DEFAULT_PORT);
    Location::new(host, port).map_err(Trouble::usage)
}

/// Several of them, with commas between.
///
/// # Errors
/// As of [`peer`].
fn peers(text: &str, port: Option<u16>) -> Result<Vec<Location>, Trouble> {
    text.split(',').map(|text| peer(text, port)).collect()
}

/// The nodes to ask, or to join, where no option says anything of it.
const PEERS_VARIABLE: &str = "THRIFTY_PEERS";

/// What the environment names, in the form of [`peers`]; may be none.
///
/// # Errors
/// As of [`peers`].
fn peers_of_environment() -> Result<Vec<Location>, Trouble> {
    let list = std::env::var_os(PEERS_VARIABLE).unwrap_or_default();
    if list.is_empty() {
        return Ok(Vec::new());
    }
    let wrong = |trouble| Trouble(format!("{PEERS_VARIABLE}: {trouble}"));
    peers(&widen(&list), None).map_err(wrong)
}

fn port(text: &str) -> Result<u16, Trouble> {
    match text.parse() {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(Trouble::usage(format!(
            "not a port (1 to 65535): {}",
            text.escape_debug()
        ))),
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
