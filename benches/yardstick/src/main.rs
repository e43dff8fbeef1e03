//! The measuring tools behind `scripts/bench`: one program, a subcommand for each tool.
//!
//! Read [`message`] first (what is asked and what must come back), then [`load`] (the generator). It depends on nothing
//! of thrifty-p2p, so that a mistake there can't hide itself here.
//!
//! - [`load`]: many connections, checked answers, rates and latencies;
//! - [`echo`]: the echo server, the limit of a thread-per-connection design;
//! - [`sketch`]: the least store of that design;
//! - [`relay`]: a ring of that design that stores nothing;
//! - [`nodes`]: asks nodes which keys they hold, how many they have, and which nodes they know;
//! - [`loopback`]: how many bytes the loopback carried;
//! - [`process`]: how long a program takes from start to exit;
//! - [`figures`]: what a file of measurements has; [`report`] and [`plot`]: table and picture of it.
//!
//! Every tool prints lines of `metric TAB value`, except the report.

mod echo;
mod figures;
mod latency;
mod load;
mod loopback;
mod message;
mod nodes;
mod plot;
mod process;
mod relay;
mod report;
mod sketch;

use std::error::Error;
use std::process::ExitCode;

/// What a tool comes back with: any error ends the program with a line that says so.
type Outcome<T = ()> = Result<T, Box<dyn Error>>;

const USAGE: &str = "usage: yardstick load|echo|sketch|relay|holders|await|watch|carried|time|report [options], --help for each";

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let tool = arguments.next().unwrap_or_default();
    let arguments: Vec<String> = arguments.collect();
    let outcome = match tool.as_str() {
        "load" => load::run(&arguments),
        "echo" => echo::run(&arguments),
        "sketch" => sketch::run(&arguments),
        "holders" => nodes::holders(&arguments),
        "await" => nodes::await_members(&arguments),
        "carried" => loopback::carried(),
        "watch" => nodes::watch(&arguments),
        "time" => process::run(&arguments),
        "relay" => relay::run(&arguments),
        "report" => report::run(&arguments),
        _ => Err(USAGE.into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("yardstick {tool}: {error}");
            ExitCode::from(2)
        }
    }
}

/// The value of option `name`, or `default` where it was not given.
fn option<T: std::str::FromStr>(matches: &getopts::Matches, name: &str, default: T) -> Outcome<T> {
    match matches.opt_str(name) {
        None => Ok(default),
        Some(text) => text
            .parse()
            .map_err(|_| format!("--{name} {text}: not understood").into()),
    }
}
