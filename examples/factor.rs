//! A service of one's own on the locator: nodes that share out work.
//!
//! `factor(1: i64 number) -> list<i64>` may be asked of any node. The ring says whose number it is;
//! that node factors it. A client needs no look-up, and the locator deals with nodes that come
//! and go. Nothing is kept, so nothing has to move: `counter.rs` shows that.
//!
//! `factor [OPTIONS] [[PEER] PORT]` is a node, as `storeserver` is; `factor ask NUMBER` asks one.

use std::process::ExitCode;
use std::time::Duration;

use thrifty_p2p::cli::{self, ClientOptions, End, NodeOptions, Usage, run_node};
use thrifty_p2p::locator::{
    Application, Locator, Participant, read_arguments, request, request_of, write_answer,
};
use thrifty_p2p::service::{Call, Order, Service};
use thrifty_p2p::thrift::Exception;
use thrifty_p2p::thrift_struct;

const SERVICE_TYPES: &[&str] = &["locator.Base", "locator.Locator", "example.Factor"];

/// How long a node may take over a number.
const LIMIT: Duration = Duration::from_secs(5);

struct Factor {
    locator: Locator,
}

impl Service for Factor {
    fn call(&self, call: &Call<'_>, result: &mut Vec<u8>) -> Result<(), Exception> {
        match call.method {
            b"factor" => {
                let number = read_number(call.arguments)?;
                let view = self.locator.view();
                let owner = view.owner(number.to_string().as_bytes());
                let owner = owner.map(|owner| &owner.location);
                match owner.filter(|owner| *owner != self.locator.location()) {
                    None => write_answer(&self.factor(number), result),
                    Some(owner) => {
                        let request = request("factor_here", call.arguments.to_vec());
                        let answer = self.locator.call_member(owner, &request, LIMIT);
                        let answer = answer.map_err(|error| Exception::internal(error.to_string()));
                        result.extend_from_slice(&answer?);
                    }
                }
                Ok(())
            }
            // A number that another node has sent on is factored here, whatever this node's ring says. So it can't go
            // in circles.
            b"factor_here" => {
                write_answer(&self.factor(read_number(call.arguments)?), result);
                Ok(())
            }
            _ => self.locator.call(call, result, self),
        }
    }

    fn order(&self, method: &[u8]) -> Order {
        self.locator.order(method)
    }
}

impl Application for Factor {}

impl Participant for Factor {
    fn locator(&self) -> &Locator {
        &self.locator
    }
}

impl Factor {
    fn factor(&self, number: i64) -> Vec<i64> {
        self.locator.say(&format!("factors {number}"));
        let (mut left, mut factors) = (number, Vec::new());
        let mut divisor = 2;
        while divisor <= left / divisor {
            while left % divisor == 0 {
                factors.push(divisor);
                left /= divisor;
            }
            divisor += 1;
        }
        factors.extend((left > 1).then_some(left));
        factors
    }
}

/// The arguments of both calls.
struct Question {
    number: Option<i64>,
}
thrift_struct!(Question { 1 number });

fn read_number(arguments: &[u8]) -> Result<i64, Exception> {
    let question: Question = read_arguments(arguments)?;
    let missing = || Exception::missing_argument("number");
    question.number.ok_or_else(missing)
}

const NODE: Usage = NodeOptions::usage(
    "runs a node that factors numbers",
    ["factor --new", "factor -a 10.0.0.2 -h 10.0.0.1"],
);

const ASK: Usage = Usage {
    purpose: "has a number factored",
    arguments: ("NUMBER", 1..=1),
    flags: &[],
    notes: "",
    examples: ["factor ask 1000009", "factor ask -h 10.0.0.1 1000009"],
    codes: ["done", ""],
};

/// The client.
fn ask(options: ClientOptions) -> Result<ExitCode, End> {
    let text = String::from_utf8_lossy(&options.arguments[0]).into_owned();
    let number = text.parse().map_err(|_| End::usage("not a number"))?;
    let question = request_of(
        "factor",
        &Question {
            number: Some(number),
        },
    );
    let factors: Vec<i64> = options.client_of("example.Factor")?.ask(question)?;
    cli::print(format!("{number} = {factors:?}").as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

fn main() -> ExitCode {
    match std::env::args_os().nth(1) {
        Some(word) if word == "ask" => {
            let parse = |usage: &Usage, program: &str, arguments: &[String]| {
                ClientOptions::parse(usage, program, &arguments[1..])
            };
            cli::main("factor ask", &ASK, parse, ask)
        }
        _ => cli::main("factor", &NODE, NodeOptions::parse, |options| {
            run_node(options, SERVICE_TYPES, |locator| Factor { locator })
        }),
    }
}
