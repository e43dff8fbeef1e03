//! The load generator: one thread, non-blocking, every answer checked.
//!
//! - Each connection keeps a given number of requests outstanding: an answer makes the next request, and the
//!   requests of one batch of answers leave in one write.
//! - Or (`--fresh`) each request has a connection of its own, a given number of them at once.
//! - Only what happens after the warm-up counts. Requests that are outstanding when time is up are waited for: their
//!   latencies count, so a starved connection can't hide behind the end of the run; the rate doesn't count them.
//! - A wrong, missing or surplus byte ends the run with an error that shows it. So does [`PATIENCE`] without any answer.

use crate::latency::Histogram;
use crate::message::{Exchange, KEY_BYTES, KEYS_MAX, Operation, Protocol};
use crate::{Outcome, nodes, option};
use getopts::Options;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::{Duration, Instant};

/// How long no connection may get an answer before the run is given up.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes taken by one read at most.
const READ_BYTES: usize = 256 * 1024;
/// Keys to draw from where they are chosen by holder.
const CHOSEN_KEYS: usize = 1000;

/// Runs a load as the options say and prints its figures.
pub fn run(arguments: &[String]) -> Outcome {
    let mut options = Options::new();
    options
        .optopt("", "protocol", "thrift, echo, redis or memcached", "NAME")
        .optopt("", "operation", "get or put", "NAME")
        .optopt(
            "",
            "gets",
            "how many of 100 requests are gets, instead",
            "N",
        )
        .optflag(
            "",
            "wait",
            "redis: a WAIT for one replica behind each batch, whose answer counts",
        )
        .optopt("", "connections", "how many at once (1)", "N")
        .optopt("", "outstanding", "requests outstanding on each (1)", "N")
        .optflag("", "fresh", "a new connection for each request")
        .optopt("", "seconds", "to measure (1)", "S")
        .optopt("", "warm-up", "seconds before that (0.2)", "S")
        .optopt("", "keys", "keys to draw from (100000)", "N")
        .optopt("", "value-bytes", "length of a value (100)", "N")
        .optflag("", "fill", "each key once, in order, instead of for a time")
        .optopt(
            "",
            "held",
            "only keys that get_node says are held `here` or `elsewhere`",
            "WHERE",
        )
        .optflag(
            "",
            "hold",
            "afterwards keep the connections open until standard input ends",
        );
    let matches = options.parse(arguments)?;
    if matches.free.is_empty() {
        return Err(options
            .usage("usage: yardstick load [options] HOST:PORT...")
            .into());
    }
    let addresses = matches.free.iter().map(|address| {
        let mut found = address.to_socket_addrs()?;
        Ok(found.next().ok_or("the address is none")?)
    });
    let addresses = addresses.collect::<Outcome<Vec<SocketAddr>>>()?;
    let address = addresses[0];
    let keys: u32 = option(&matches, "keys", 100_000)?;
    let value_bytes = option(&matches, "value-bytes", 100)?;
    let connections: usize = option(&matches, "connections", 1)?;
    let outstanding = option(&matches, "outstanding", 1)?;
    let fresh = matches.opt_present("fresh");
    if keys == 0
        || keys > KEYS_MAX
        || value_bytes < KEY_BYTES
        || connections == 0
        || outstanding == 0
    {
        return Err("keys, connections and outstanding start at 1, value-bytes at 13".into());
    }
    if fresh && outstanding != 1 {
        return Err("--fresh has one request outstanding on each connection".into());
    }
    let draw = match matches.opt_str("held").as_deref() {
        _ if matches.opt_present("fill") => Draw::Once(0..keys),
        None => Draw::Any(Random(1), keys),
        Some(place @ ("here" | "elsewhere")) => Draw::Among(
            Random(1),
            nodes::keys_held(address, place == "here", keys, CHOSEN_KEYS)?,
        ),
        Some(_) => return Err("--held is `here` or `elsewhere`".into()),
    };
    let filling = matches!(draw, Draw::Once(_));
    let warm_up = if filling {
        0.0
    } else {
        option(&matches, "warm-up", 0.2)?
    };
    let seconds = if filling {
        f64::MAX
    } else {
        option(&matches, "seconds", 1.0)?
    };
    let protocol = option(&matches, "protocol", Protocol::Thrift)?;
    let gets = match option(&matches, "operation", Operation::Get)? {
        Operation::Get => 100,
        Operation::Put => 0,
    };
    let gets = option(&matches, "gets", gets)?;
    let waits = matches.opt_present("wait");
    if gets > 100 || waits && (protocol != Protocol::Redis || fresh) {
        return Err("--gets is at most 100; --wait is for redis, without --fresh".into());
    }

    let mut load = Load {
        poll: Poll::new()?,
        addresses,
        exchanges: [Operation::Get, Operation::Put]
            .map(|operation| Exchange::new(protocol, operation, value_bytes)),
        wait: waits.then(Exchange::wait),
        gets,
        choice: Random(2),
        draw,
        outstanding,
        fresh,
        input: vec![0; READ_BYTES],
        expected: Vec::new(),
        latencies: Histogram::new(),
        answers: 0,
    };
    let mut links = (0..connections)
        .map(|number| load.open(Token(number)))
        .collect::<Outcome<Vec<Link>>>()?;
    let took = load.drive(&mut links, warm_up, seconds)?;
    load.print(&links, took);
    if matches.opt_present("hold") {
        std::io::stdin().read_to_end(&mut Vec::new())?;
    }
    Ok(())
}

/// Which key comes next.
enum Draw {
    Any(Random, u32),
    Among(Random, Vec<u32>),
    Once(std::ops::Range<u32>),
}

impl Draw {
    fn next(&mut self) -> Option<u32> {
        match self {
            Draw::Any(random, keys) => Some(random.below(*keys)),
            Draw::Among(random, keys) => Some(keys[random.below(keys.len() as u32) as usize]),
            Draw::Once(rest) => rest.next(),
        }
    }
}

/// Xorshift; the same keys in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (((self.0 >> 32) * u64::from(limit)) >> 32) as u32
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Get,
    Put,
    /// Not a request, but what has to come back before those of its batch are done.
    Wait,
}

/// A request that waits for its answer.
struct Asked {
    kind: Kind,
    key: u32,
    sequence: u32,
    at: Instant,
}

/// One connection; with `--fresh` one place that connections follow one another in.
struct Link {
    stream: TcpStream,
    /// Sent, not answered yet, oldest first.
    asked: VecDeque<Asked>,
    sequence: u32,
    /// Not sent yet.
    out: Vec<u8>,
    /// The start of an answer whose end has not come.
    partial: Vec<u8>,
    /// Counted answers.
    answers: u64,
}

struct Load {
    poll: Poll,
    /// Connections go to these in turn.
    addresses: Vec<SocketAddr>,
    /// Get and put.
    exchanges: [Exchange; 2],
    wait: Option<Exchange>,
    /// Of 100 requests.
    gets: u32,
    choice: Random,
    draw: Draw,
    outstanding: usize,
    fresh: bool,
    input: Vec<u8>,
    expected: Vec<u8>,
    latencies: Histogram,
    answers: u64,
}

/// What counts at the moment.
#[derive(Clone, Copy, PartialEq)]
enum Phase {
    WarmUp,
    Measuring,
    Draining,
}

impl Load {
    fn open(&self, token: Token) -> Outcome<Link> {
        Ok(Link {
            stream: self.connect(token)?,
            asked: VecDeque::new(),
            sequence: 0,
            out: Vec::new(),
            partial: Vec::new(),
            answers: 0,
        })
    }

    fn connect(&self, token: Token) -> Outcome<TcpStream> {
        let address = self.addresses[token.0 % self.addresses.len()];
        let mut stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll
            .registry()
            .register(&mut stream, token, interest)?;
        Ok(stream)
    }

    /// Runs until time is up or all keys are through, and every answer is there; the time that was measured.
    fn drive(&mut self, links: &mut [Link], warm_up: f64, seconds: f64) -> Outcome<Duration> {
        let begin = Instant::now() + Duration::from_secs_f64(warm_up);
        let end = Duration::try_from_secs_f64(seconds)
            .ok()
            .and_then(|length| begin.checked_add(length));
        for link in links.iter_mut() {
            self.ask(link, Instant::now());
            link.send()?;
        }
        let mut events = Events::with_capacity(1024);
        let mut took = None;
        loop {
            let patience_ends = Instant::now() + PATIENCE;
            while let Err(error) = self.poll.poll(&mut events, Some(PATIENCE)) {
                if error.kind() != ErrorKind::Interrupted {
                    return Err(error.into());
                }
            }
            let now = Instant::now();
            let phase = match end {
                Some(end) if now >= end => Phase::Draining,
                _ if now < begin => Phase::WarmUp,
                _ => Phase::Measuring,
            };
            if phase == Phase::Draining {
                took.get_or_insert(now - begin);
            }
            for event in &events {
                self.serve(&mut links[event.token().0], event.token(), phase)?;
            }
            if phase == Phase::Draining || end.is_none() {
                let done = links.iter().all(|link| link.asked.is_empty());
                if done {
                    return Ok(took.unwrap_or_else(|| begin.elapsed()));
                }
            }
            if events.is_empty() && now >= patience_ends {
                return Err(format!("no answer for {PATIENCE:?}").into());
            }
        }
    }

    /// Reads what has come, checks it, asks again and sends.
    fn serve(&mut self, link: &mut Link, token: Token, phase: Phase) -> Outcome {
        loop {
            match link.stream.read(&mut self.input) {
                Ok(0) if link.asked.is_empty() => return Ok(()),
                Ok(0) => {
                    return Err("the server closed a connection with requests outstanding".into());
                }
                Ok(length) => {
                    let now = Instant::now();
                    self.check(link, length, now, phase)?;
                    if self.fresh && link.asked.is_empty() && phase != Phase::Draining {
                        link.stream = self.connect(token)?;
                    }
                    if phase != Phase::Draining {
                        self.ask(link, now);
                    }
                    link.send()?;
                    // The kernel had less than was asked for: it is empty, and says so when there is more.
                    if length < self.input.len() {
                        return Ok(());
                    }
                }
                Err(error) if would_block(&error) => return link.send(),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Compares the first `length` bytes of the input with the answers that are due.
    fn check(&mut self, link: &mut Link, length: usize, now: Instant, phase: Phase) -> Outcome {
        let joined;
        let mut input = &self.input[..length];
        if !link.partial.is_empty() {
            link.partial.extend_from_slice(input);
            joined = std::mem::take(&mut link.partial);
            input = &joined;
        }
        while !input.is_empty() {
            let Some(asked) = link.asked.front() else {
                return Err(format!("surplus bytes: {}", shown(input)).into());
            };
            self.expected.clear();
            let exchange = match (asked.kind, &self.wait) {
                (Kind::Wait, Some(wait)) => wait,
                (Kind::Get, _) => &self.exchanges[0],
                _ => &self.exchanges[1],
            };
            exchange
                .answer
                .write(asked.key, asked.sequence, &mut self.expected);
            let there = input.len().min(self.expected.len());
            if input[..there] != self.expected[..there] {
                let (expected, input) = (shown(&self.expected), shown(input));
                return Err(format!(
                    "wrong answer for key {}:\nexpected {expected}\ngot {input}",
                    asked.key
                )
                .into());
            }
            if there < self.expected.len() {
                link.partial = input.to_vec();
                break;
            }
            input = &input[there..];
            // Where a batch is waited for, its requests are done with the wait's answer.
            let counts = match (&self.wait, asked.kind) {
                (Some(_), Kind::Wait) => asked.key,
                (Some(_), _) => 0,
                (None, _) => 1,
            };
            for _ in 0..counts {
                if phase != Phase::WarmUp {
                    self.latencies.record(now - asked.at);
                }
                if phase == Phase::Measuring {
                    link.answers += 1;
                    self.answers += 1;
                }
            }
            link.asked.pop_front();
        }
        Ok(())
    }

    /// Fills the connection up to its number of outstanding requests.
    fn ask(&mut self, link: &mut Link, now: Instant) {
        if self.wait.is_some() && !link.asked.is_empty() {
            return;
        }
        while link.asked.len() < self.outstanding {
            let Some(key) = self.draw.next() else { break };
            let kind = match self.choice.below(100) < self.gets {
                true => Kind::Get,
                false => Kind::Put,
            };
            link.sequence = link.sequence.wrapping_add(1);
            self.exchanges[usize::from(kind == Kind::Put)]
                .request
                .write(key, link.sequence, &mut link.out);
            link.asked.push_back(Asked {
                kind,
                key,
                sequence: link.sequence,
                at: now,
            });
        }
        if let Some(wait) = self.wait.as_ref().filter(|_| !link.asked.is_empty()) {
            wait.request.write(0, 0, &mut link.out);
            link.asked.push_back(Asked {
                kind: Kind::Wait,
                key: link.asked.len() as u32, // How many it is for.
                sequence: 0,
                at: now,
            });
        }
    }

    fn print(&self, links: &[Link], took: Duration) {
        let per_second = |count: u64| count as f64 / took.as_secs_f64();
        let microseconds = |share| self.latencies.quantile(share) as f64 / 1000.0;
        let (p50, p99) = (microseconds(0.5), microseconds(0.99));
        let counts = || links.iter().map(|link| link.answers);
        println!("requests_per_s\t{:.0}", per_second(self.answers));
        println!("p50_us\t{p50:.1}");
        println!("p99_us\t{p99:.1}");
        println!("p99/p50\t{:.2}", p99 / p50);
        println!("max_us\t{:.1}", microseconds(1.0));
        println!(
            "slowest_connection_per_s\t{:.0}",
            per_second(counts().min().unwrap_or(0))
        );
        println!(
            "fastest_connection_per_s\t{:.0}",
            per_second(counts().max().unwrap_or(0))
        );
    }
}

impl Link {
    /// Writes as much as the kernel takes; the rest goes when the connection is writable again.
    fn send(&mut self) -> Outcome {
        while !self.out.is_empty() {
            match self.stream.write(&self.out) {
                Ok(length) if length == self.out.len() => self.out.clear(),
                Ok(length) => drop(self.out.drain(..length)),
                Err(error) if would_block(&error) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

/// Nothing to do now: the socket is not ready, or not yet connected.
fn would_block(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::WouldBlock | ErrorKind::NotConnected
    )
}

fn shown(bytes: &[u8]) -> String {
    bytes[..bytes.len().min(200)].escape_ascii().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::thread;

    /// Starts a server; it ends with the process.
    fn started(serve: fn(TcpListener) -> Outcome) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound").to_string();
        thread::spawn(move || serve(listener).map_err(|error| error.to_string()));
        address
    }

    /// Runs a load with these options against an echo server.
    fn load(options: &str) -> Result<(), String> {
        load_on(&started(crate::echo::serve), options)
    }

    fn load_on(address: &str, options: &str) -> Result<(), String> {
        let mut arguments: Vec<String> = options.split(' ').map(str::to_owned).collect();
        arguments.push(address.to_owned());
        run(&arguments).map_err(|error| error.to_string())
    }

    #[test]
    fn right_answers_pass() {
        load("--protocol echo --fill --keys 5000 --connections 3 --outstanding 7").expect("a fill");
        load("--protocol echo --fill --keys 200 --connections 3 --fresh")
            .expect("a connection each");
        load("--protocol echo --seconds 0.1 --warm-up 0.1 --value-bytes 300000")
            .expect("long values");
    }

    #[test]
    fn the_sketch_is_a_store() {
        let sketch = started(crate::sketch::serve);
        let error = load_on(&sketch, "--protocol thrift --seconds 0.1 --keys 50");
        assert!(error.is_err(), "nothing is there yet");
        load_on(
            &sketch,
            "--protocol thrift --operation put --fill --keys 5000 --connections 3 --outstanding 7",
        )
        .expect("a fill");
        load_on(
            &sketch,
            "--protocol thrift --keys 5000 --outstanding 16 --seconds 0.1 --warm-up 0.1",
        )
        .expect("what was put");
    }

    #[test]
    fn a_wrong_answer_ends_the_run() {
        let error = load("--protocol redis --seconds 0.1").expect_err("an echo is no answer");
        assert!(error.starts_with("wrong answer for key "), "{error}");
    }
}
