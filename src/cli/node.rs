//! The programs that are nodes: `location`, `storeserver`, and any other that is built on the library.

use std::io;
use std::net::{Ipv6Addr, SocketAddr, TcpListener, ToSocketAddrs};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use getopts::{Options, ParsingStyle};

use crate::http::Pages;
use crate::location::{DEFAULT_PORT, Location, host_and_port};
use crate::locator::{
    self, EMPTY, EXTENSION, LIMITS, Locator, Participant, Status, kind, read_answer, request,
    service_types,
};
use crate::membership::State;
use crate::net::{CallError, Environment, Level, Network, Random, SystemClock, TcpNetwork, secret};
use crate::node::Node;
use crate::os::{Signals, give_back_large_pieces};
use crate::server::{Http, Traffic};
use crate::words::counted;
use crate::{log, server};

use super::status::Question;
use super::{End, Usage, memory, peers, peers_of_environment, port};
use crate::client::discovery::{Offer, Until, search};

/// The interval between two looks at the others, in milliseconds; and what it may be.
const TICK_MILLIS: usize = 500;
const TICK_MILLIS_RANGE: std::ops::RangeInclusive<usize> = 50..=60_000;

/// The option whose argument may be missing.
const WAIT: &str = "wait";

/// How long `--status` may wait, in seconds, if there is a limit.
const WAIT_SECONDS_RANGE: std::ops::RangeInclusive<usize> = 0..=86_400;

/// Copies of a key: any one node may die at any instant.
const REPLICAS: usize = 2;

const REPLICAS_MAX: usize = 5;

/// Signals closer together than this are one.
const IMPATIENCE: Duration = Duration::from_secs(1);

const ABOUT: &str = "\
Joins the network of PEER, or of the first of several that answers and is in
one; the node itself may be among them. If all of the others look for a network
as well, one of them starts it. THRIFTY_PEERS in the environment may name them
instead. Without any, the node joins the first one of its kind found on its own
address from port 9900 up, or starts a network. PEER is HOST:PORT, or HOST for
port 9900; -h and -p beat PEER and PORT.";

/// The options of a node.
pub struct NodeOptions {
    program: String,
    address: String,
    port: Option<u16>,
    /// Nodes in the network that it is to join; there may be none.
    peers: Vec<Location>,
    replicas: usize,
    tick: Duration,
    connections_max: usize,
    memory: usize,
    die_from_anywhere: bool,
    http: bool,
    /// The least that is logged.
    level: Level,
    /// What is to be asked, instead of starting a node.
    question: Option<Question>,
    new: bool,
}

impl NodeOptions {
    /// What a program takes that is a node.
    pub const fn usage(purpose: &'static str, examples: [&'static str; 2]) -> Usage {
        Usage {
            purpose,
            arguments: ("[[PEER] PORT]", 0..=2),
            flags: &[],
            notes: "",
            examples,
            codes: [
                "the node has left in good order; --status: every key is safe",
                "--status: not every key is safe now",
            ],
        }
    }

    /// Parses the options of a node, and what `--help` and `--version` are to print.
    ///
    /// # Errors
    /// Options that aren't any, with a line that says which.
    pub fn parse(usage: &Usage, program: &str, arguments: &[String]) -> Result<Self, End> {
        let mut options = Options::new();
        options.parsing_style(ParsingStyle::FloatingFrees);
        let text = "start nothing: print how the network is, and end";
        options.optflag("s", "status", text);
        let text = "the same, and no more alarm for what was lost";
        options.optflag("", "accept-loss", text);
        let text = "with --status: ask again until every key is safe, so long at most; without SECONDS, as long as it takes";
        options.optflagopt("", WAIT, text, "SECONDS");
        options.optflag("", "json", "with --status: print a document of JSON");
        let text = "join the network of this node, or of the first of several that answers";
        options.optopt("h", "host", text, "PEER[,PEER...]");
        options.optflag(
            "",
            "new",
            "start a network, whatever is found or THRIFTY_PEERS names",
        );
        let text = "serve at this port (first free one from 9900 up); with --status, the port of the one to ask";
        options.optopt("p", "port", text, "PORT");
        options.optopt(
            "a",
            "address",
            "bind this address and give it to others (127.0.0.1)",
            "ADDRESS",
        );
        options.optopt(
            "",
            "replicas",
            "copies of each key, 1 to 5, the same on all nodes (2)",
            "N",
        );
        let text = "time between two looks at the others in ms, the same on all nodes (500); more than 100 ms of round trip \
            want more; a silent node is lost after 8 to 20";
        options.optopt("", "tick", text, "MS");
        let text = "connections at a time, at most three quarters of the descriptor limit, as by default; four are kept for \
            each other node, at most half of all";
        options.optopt("", "connections", text, "N");
        let text = "for items, with k, m or g, and an eighth of it more for messages (three quarters of what the \
            machine or its cgroup allows); above it puts are refused";
        options.optopt("", "memory", text, "BYTES");
        options.optflag(
            "",
            "die-from-anywhere",
            "obey die() from other machines as well",
        );
        options.optflag("", "no-http", "show nothing by HTTP");
        let text = "log to stderr down to error, warn, info (as by default), debug or trace";
        options.optopt("", "log-level", text, "LEVEL");
        options.optflag("v", "verbose", "--log-level trace: a line for each request");
        let matches = usage.parse(options, program, ABOUT, &joined(arguments))?;
        let mut free = matches.free.iter().rev().cloned();
        let (free_port, free_peer) = (free.next(), free.next());
        let host = matches.opt_str("host").or(free_peer);
        let own_port = matches.opt_str("port").or(free_port);
        let own_port = own_port.map(|text| port(&text)).transpose()?;
        let accept_loss = matches.opt_present("accept-loss");
        let status = matches.opt_present("status") || accept_loss;
        let new = matches.opt_present("new");
        if new && (status || host.is_some()) {
            let with = if status { "--status" } else { "PEER" };
            return Err(End::usage(format!("--new and {with} exclude each other")));
        }
        let seconds = number(&matches, WAIT, WAIT_SECONDS_RANGE)?;
        let waits = matches.opt_present(WAIT);
        let json = matches.opt_present("json");
        if !status && (waits || json) {
            return Err(End::usage("--wait and --json go with --status"));
        }
        // To ask a node is to be a client: there is no port of one's own.
        let peer_port = own_port.filter(|_| status);
        let address = matches.opt_str("address");
        let asks_here = status && (own_port.is_some() || address.is_some());
        let peers = match host {
            Some(hosts) => peers(&hosts, peer_port)?,
            None if new || asks_here => Vec::new(),
            None => peers_of_environment()?,
        };
        let address = checked_address(address.as_deref().unwrap_or("127.0.0.1"))?;
        let question = status.then(|| Question {
            peers: peers.clone(),
            address: address.clone(),
            port: own_port,
            accept_loss,
            json,
            wait: match seconds {
                None if waits => None,
                seconds => Some(Duration::from_secs(seconds.unwrap_or(0) as u64)),
            },
        });
        Ok(NodeOptions {
            program: program.to_owned(),
            address,
            port: own_port,
            peers,
            replicas: number(&matches, "replicas", 1..=REPLICAS_MAX)?.unwrap_or(REPLICAS),
            tick: Duration::from_millis(
                number(&matches, "tick", TICK_MILLIS_RANGE)?.unwrap_or(TICK_MILLIS) as u64,
            ),
            connections_max: connections(&matches)?,
            memory: memory::limit(matches.opt_str("memory").as_deref())?,
            die_from_anywhere: matches.opt_present("die-from-anywhere"),
            http: !matches.opt_present("no-http"),
            level: level(&matches)?,
            question,
            new,
        })
    }

    /// How many bytes items may take, 1 MiB or more.
    pub fn memory(&self) -> usize {
        self.memory
    }

    /// How many bytes the messages may take that are being received or answered.
    pub fn memory_for_messages(&self) -> usize {
        self.memory / 8
    }
}

/// The arguments with `--wait SECONDS` as `--wait=SECONDS`: the parser looks for an argument that may be missing behind
/// a "=" alone.
fn joined(arguments: &[String]) -> Vec<String> {
    let wait = format!("--{WAIT}");
    let mut joined: Vec<String> = Vec::new();
    let mut only_data = false;
    for argument in arguments {
        only_data |= argument == "--";
        match joined.last_mut() {
            Some(last) if *last == wait && !only_data && !argument.starts_with('-') => {
                *last += &format!("={argument}");
            }
            _ => joined.push(argument.clone()),
        }
    }
    joined
}

fn number(
    matches: &getopts::Matches,
    name: &str,
    range: std::ops::RangeInclusive<usize>,
) -> Result<Option<usize>, End> {
    let Some(text) = matches.opt_str(name) else {
        return Ok(None);
    };
    match text.parse() {
        Ok(number) if range.contains(&number) => Ok(Some(number)),
        _ => {
            let (low, high) = (range.start(), range.end());
            let wanted = format!("--{name}: not a number from {low} to {high}");
            Err(End::unfit(wanted, &text))
        }
    }
}

fn level(matches: &getopts::Matches) -> Result<Level, End> {
    let named = |text: String| {
        let level = Level::NAMES.iter().find(|(name, _)| *name == text);
        let names = Level::NAMES.map(|(name, _)| name).join(", ");
        level
            .map(|(_, level)| *level)
            .ok_or_else(|| End::unfit(format!("--log-level: none of {names}"), &text))
    };
    let level = matches.opt_str("log-level").map(named).transpose()?;
    Ok(match level {
        _ if matches.opt_present("verbose") => Level::Trace,
        level => level.unwrap_or(Level::Info),
    })
}

fn connections(matches: &getopts::Matches) -> Result<usize, End> {
    let most = server::connections_max();
    match number(matches, "connections", 1..=1_000_000)? {
        Some(wanted) if wanted > most => Err(End::usage(format!(
            "--connections: {wanted} is above {most}, three quarters of the descriptor limit (ulimit -n)"
        ))),
        wanted => Ok(wanted.unwrap_or(most)),
    }
}

/// The address, without the brackets that an IPv6 address may have. No port may follow: `::1:9900` is an
/// address here, and not `::1` with port 9900.
fn checked_address(text: &str) -> Result<String, End> {
    let address = match host_and_port(text) {
        Some((address, None)) => address,
        _ if text.parse::<Ipv6Addr>().is_ok() => text,
        _ => "",
    };
    match Location::new(address, 0) {
        Ok(_) => Ok(address.to_owned()),
        Err(_) => Err(End::unfit("not an address", text)),
    }
}

/// Runs a node until it is told to end: by SIGINT, SIGTERM, SIGHUP or `die`. Its service types
/// are `types`, and `build` makes its service. A second signal ends it at once.
///
/// # Errors
/// It can't start, or others didn't take all of its keys.
pub fn run_node<P: Participant>(
    options: NodeOptions,
    types: &'static [&'static str],
    build: impl FnOnce(Locator) -> P,
) -> Result<ExitCode, End> {
    if let Some(question) = options.question {
        return question.put();
    }
    give_back_large_pieces();
    let signals = Signals::block();
    let (end, ended) = mpsc::channel();
    let (listener, location) = bind(&options.address, options.port)?;
    let log = log::of_node(options.level, location.clone());
    log(
        Level::Said,
        &format!("Starting the server at {location}..."),
    );
    let bound = listener.local_addr();
    let bound = bound.map_err(|error| End::trouble(&location, error))?;
    let peers = others(&options.peers, bound);
    if peers.is_empty() && !options.peers.is_empty() {
        let cause = "no other node is named to join: --new starts a network";
        return Err(End::trouble(location, cause));
    }
    let network = Arc::new(TcpNetwork::new(LIMITS).from(bound.ip()));
    let participant = Arc::new(build(Locator::new(
        location.clone(),
        locator::Options {
            service_types: types,
            replicas: options.replicas,
            tick: options.tick,
            die_from_anywhere: options.die_from_anywhere,
            on_die: {
                let end = end.clone();
                // It fails if the node is ending already.
                Box::new(move || {
                    let _ = end.send(());
                })
            },
        },
        Environment {
            network: network.clone(),
            clock: Arc::new(SystemClock::new()),
            random: Random::new(secret()),
            secret: secret(),
            log: Box::new(log.clone()),
        },
    )));
    let traffic = Arc::new(Traffic::new(&participant.methods()));
    let pages = Pages::new(participant.clone(), traffic.clone(), bound.ip());
    let http: Arc<Http> = Arc::new(move |head| pages.answer(head));
    let server_options = server::Options {
        connections_max: options.connections_max,
        limits: LIMITS,
        messages_bytes_max: options.memory_for_messages(),
        verbose: options.level == Level::Trace,
        nodes: {
            let (network, participant) = (network.clone(), participant.clone());
            Arc::new(move || {
                let locator = participant.locator();
                let view = locator.view();
                let members = view.members().iter().map(|member| &member.location);
                let others = members.filter(|location| *location != locator.location());
                others
                    .flat_map(|location| network.known_addresses(location))
                    .collect()
            })
        },
        relieve: {
            let network = network.clone();
            Arc::new(move || network.close_idle())
        },
        http: options.http.then_some(http),
        traffic,
        log: Arc::new(log),
        ..server::Options::default()
    };
    let node = Node::start(listener, participant.clone(), server_options);
    let mut node = node.map_err(|error| End::trouble(&location, error))?;
    let program = options.program;
    watch_signals(program.clone(), signals, end).map_err(|error| End::trouble(&location, error))?;
    let service = types.last().expect("BUG: a node without a service type");
    let joined = match &peers[..] {
        [] if options.new => node.begin(&[]),
        [] => node.begin(&look_around(network.clone(), &location, service)),
        peers => node.join(peers),
    };
    if let Err(error) = joined {
        node.stop();
        return Err(End::trouble(location, error));
    }
    // It fails only if no sender is left: then there is nothing to wait for.
    let _ = ended.recv();
    if let Some(reason) = participant.locator().end_reason() {
        node.stop();
        return Err(End::trouble(location, reason));
    }
    participant.locator().say("Leaving the network...");
    match node.leave() {
        Ok(0) => Ok(ExitCode::SUCCESS),
        // The node has ended in good order: there was no other to take its keys.
        Ok(dropped) => {
            let cause = format!(
                "{} dropped: nobody was left to take them",
                counted(dropped, "key", "keys")
            );
            super::complain(&program, &format!("{location}: {cause}"));
            Ok(ExitCode::SUCCESS)
        }
        Err(left) => Err(End::trouble(
            location,
            format!("up to {} not taken by others", counted(left, "key", "keys")),
        )),
    }
}

/// Those that are not the node at this address and port, whatever name a list has for it.
fn others(peers: &[Location], me: SocketAddr) -> Vec<Location> {
    let me = (me.ip().to_canonical(), me.port());
    let is_other = |peer: &&Location| {
        let found = (peer.address(), peer.port()).to_socket_addrs();
        // A name that can't be looked up now may be another node's.
        let mut found = found.into_iter().flatten();
        peer.port() != me.1 || found.all(|one| one.ip().to_canonical() != me.0)
    };
    peers.iter().filter(is_other).cloned().collect()
}

/// The first node on this node's address that is of the same kind and in a network. If there is none: all nodes
/// of the same kind there that look for a network, too.
fn look_around(network: Arc<dyn Network>, me: &Location, service: &'static str) -> Vec<Location> {
    let own = me.clone();
    let ask = move |location: &Location, limit| {
        if *location == own {
            return Offer::Nothing;
        }
        let types = match service_types(&*network, location, limit) {
            Ok(types) => types,
            Err(CallError::Silent) => return Offer::Silence,
            Err(_) => return Offer::Nothing,
        };
        if kind(&types) != Some(service) {
            return Offer::Nothing;
        }
        if !types.iter().any(|name| name == EXTENSION) {
            return Offer::Wanted(location.clone());
        }
        let status = request("status", EMPTY.to_vec());
        let status = network.call(location, &status, limit);
        match status.and_then(|result| read_answer::<Status>(&result, "status")) {
            // It can't bring anybody in any more.
            Ok(status) if status.me.state == State::Left => Offer::Nothing,
            Ok(status) if status.me.state == State::Outside => Offer::Perhaps(location.clone()),
            Ok(_) => Offer::Wanted(location.clone()),
            Err(CallError::Silent) => Offer::Silence,
            // It has gone: as if it were not there.
            Err(_) => Offer::Nothing,
        }
    };
    let (found, looking) = search(me.address(), Until::once(), ask);
    found.map_or(looking, |found| vec![found])
}

/// Binds the port that was asked for, or the first free one from [`DEFAULT_PORT`] up.
fn bind(address: &str, port: Option<u16>) -> Result<(TcpListener, Location), End> {
    let ports = match port {
        Some(port) => port..=port,
        None => DEFAULT_PORT..=i16::MAX.cast_unsigned(),
    };
    for candidate in ports {
        let location = Location::new(address, candidate).map_err(End::usage)?;
        let resolved = (address, candidate).to_socket_addrs();
        let mut resolved = resolved.map_err(|error| End::trouble(&location, error))?;
        let Some(socket) = resolved.next() else {
            return Err(End::trouble(location, "no such address"));
        };
        // What others are told has to lead them here. Names may stand for it, "0" does.
        if socket.ip().to_canonical().is_unspecified() {
            let cause = "stands for all addresses: other nodes can't be told it";
            return Err(End::trouble(address, cause));
        }
        match TcpListener::bind(socket) {
            Ok(listener) => return Ok((listener, location)),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && port.is_none() => {}
            Err(error) => return Err(End::trouble(location, error)),
        }
    }
    Err(End::trouble(address, "no free port from 9900 up"))
}

/// The first signal ends the node in good order; one that comes a second or more after it, at once.
/// What comes sooner is the same wish said twice: `timeout` signals its child, and then its group.
fn watch_signals(program: String, signals: Signals, end: mpsc::Sender<()>) -> io::Result<()> {
    let watch = move || {
        signals.wait();
        let first = Instant::now();
        // It fails if the node is ending already.
        let _ = end.send(());
        while first.elapsed() < IMPATIENCE {
            signals.wait();
        }
        super::complain(&program, &"interrupted again: ended without handing over");
        log::flush();
        std::process::exit(2);
    };
    let thread = thread::Builder::new().name("signals".to_owned());
    thread.spawn(watch).map(drop)
}
