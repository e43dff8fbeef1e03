//! A service of one's own on the locator: nodes that share out work.
//!
//! `factor(1: i64 number) -> list<i64>` may be asked of any node. The ring says whose number it is;
//! that node factors it. Who asks doesn't bother with look-up, and who comes or goes is the
//! locator's business. Run it with `cargo run --example factor`: three nodes in one process.

use std::error::Error;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use thrifty_p2p::location::Location;
use thrifty_p2p::locator::{
    Application, LIMITS, Locator, Options, Participant, read_answer, read_arguments, request,
    request_of, write_answer,
};
use thrifty_p2p::net::{Environment, Network, Random, SystemClock, TcpNetwork, secret};
use thrifty_p2p::node::Node;
use thrifty_p2p::service::{Call, Order, Service};
use thrifty_p2p::thrift::Exception;
use thrifty_p2p::thrift_struct;

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
                let owner = view
                    .owner(number.to_string().as_bytes())
                    .map(|owner| &owner.location);
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
            // What is passed on is done here, whatever the own ring says: it can't go in circles.
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
        println!("{} factors {number}", self.locator.location());
        let (mut left, mut factors) = (number, Vec::new());
        let mut divisor = 2;
        while divisor * divisor <= left {
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

fn start(peer: Option<&Location>) -> Result<(Node<Factor>, Location), Box<dyn Error>> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let location = Location::new("127.0.0.1", listener.local_addr()?.port())?;
    let options = Options {
        service_types: &["locator.Base", "locator.Locator", "example.Factor"],
        replicas: 1,
        tick: Duration::from_millis(500),
        die_from_anywhere: false,
        on_die: Box::new(|| {}),
    };
    let environment = Environment {
        network: Arc::new(TcpNetwork::new(LIMITS)),
        clock: Arc::new(SystemClock::new()),
        random: Random::new(secret()),
        secret: secret(),
        log: Box::new(|line| println!("{line}")),
    };
    let locator = Locator::new(location.clone(), options, environment);
    let mut node = Node::start(listener, Arc::new(Factor { locator }), Default::default())?;
    match peer {
        Some(peer) => node.join(peer)?,
        None => node.begin(&[])?,
    }
    Ok((node, location))
}

fn main() -> Result<(), Box<dyn Error>> {
    let (first, at) = start(None)?;
    let nodes = [first, start(Some(&at))?.0, start(Some(&at))?.0];
    let network = TcpNetwork::new(LIMITS);
    for number in 1_000_001..1_000_010_i64 {
        let question = Question {
            number: Some(number),
        };
        let answer = network.call(&at, &request_of("factor", &question), LIMIT)?;
        let factors: Vec<i64> = read_answer(&answer, "factor")?;
        assert_eq!(factors.iter().product::<i64>(), number);
        println!("{number} = {factors:?}");
    }
    for node in nodes {
        // Nothing is kept, so nothing can be left behind.
        let _ = node.leave();
    }
    Ok(())
}
