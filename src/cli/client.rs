//! The programs that are clients: `storeput`, `storeget`, `storeprimer`, `storetest`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use getopts::{Matches, Options, ParsingStyle};

use crate::diststore::KeyValue;
use crate::location::Location;
use crate::locator::{
    EXTENSION, LIMITS, read_answer, request, service_types, single_request, write_key,
};
use crate::net::{CallError, Network, Request, TcpNetwork};

use crate::words::counted;

use super::discovery::{SCAN_LIMIT, Until, first_node};
use super::{Parsed, Trouble, help_options, narrow, parse, peer, port};

/// A put takes at most twelve ticks at the node, of half a second unless it was told otherwise, and a little to get
/// there.
const CALL_LIMIT: Duration = Duration::from_secs(10);

/// How long a node is looked for. One that was started by the line before in the same script may
/// not listen yet.
const FIND_LIMIT: Duration = Duration::from_secs(2);

const STORE: &str = "diststore.Store";

/// Where to, and the program's own arguments as bytes.
pub struct ClientOptions {
    server: Option<Location>,
    /// What stands behind the options, as many as the program wants.
    pub arguments: Vec<Vec<u8>>,
}

impl ClientOptions {
    /// Takes exactly the arguments that `names` names.
    ///
    /// # Errors
    /// An option that the program doesn't have, or a wrong number of arguments.
    pub fn parse(
        program: &str,
        names: &[&str],
        arguments: &[String],
    ) -> Result<Parsed<Self>, Trouble> {
        let parsed = Self::parse_all(program, names, arguments);
        let dash = |argument: &String| argument.len() > 1 && argument.starts_with('-');
        match names.first() {
            // Data may have been taken for an option, or an option for data.
            Some(first) if arguments.iter().any(dash) => parsed.map_err(|trouble| {
                Trouble(format!(
                    "{trouble}; options come before {first}, and -- before a {first} that begins \
                     with a dash"
                ))
            }),
            _ => parsed,
        }
    }

    fn parse_all(
        program: &str,
        names: &[&str],
        arguments: &[String],
    ) -> Result<Parsed<Self>, Trouble> {
        let mut options = Options::new();
        // What comes after the first argument is data, dashes or not.
        options.parsing_style(ParsingStyle::StopAtFirstFree);
        options.optopt("h", "host", "ask this node", "PEER");
        options.optopt("p", "port", "the port of the node to ask", "PORT");
        help_options(&mut options);
        let words = names.join(" ");
        let mut brief = format!(
            "[OPTIONS] {words}\n\nAsks the first store node found on this machine from port 9900 \
             up, unless told which.\nPEER is HOST:PORT, or HOST alone: then PORT counts, or else 9900."
        );
        if let Some(first) = names.first() {
            brief += &format!(
                "\nOptions come before {first}, and -- before a {first} that begins with a dash."
            );
        }
        let matches = match parse(&options, program, &brief, arguments)? {
            Parsed::Run(matches) => matches,
            Parsed::Tell(text) => return Ok(Parsed::Tell(text)),
        };
        if matches.free.len() != names.len() {
            let wanted = if names.is_empty() {
                "no arguments"
            } else {
                &words
            };
            let found = counted(matches.free.len(), "argument", "arguments");
            return Err(Trouble::usage(format!("{wanted} expected, {found} found")));
        }
        Ok(Parsed::Run(ClientOptions {
            server: server(&matches)?,
            arguments: matches
                .free
                .iter()
                .map(|argument| narrow(argument))
                .collect(),
        }))
    }
}

fn server(matches: &Matches) -> Result<Option<Location>, Trouble> {
    let port = matches
        .opt_str("port")
        .map(|text| port(&text))
        .transpose()?;
    match (matches.opt_str("host"), port) {
        (Some(host), port) => peer(&host, port).map(Some),
        (None, Some(port)) => Location::new("localhost", port)
            .map(Some)
            .map_err(Trouble::usage),
        (None, None) => Ok(None),
    }
}

/// The first store on this machine.
fn find(network: Arc<TcpNetwork>) -> Option<(Location, Vec<String>)> {
    let now = Instant::now();
    let until = Until {
        deadline: now + SCAN_LIMIT,
        again: now + FIND_LIMIT,
    };
    first_node(network, "127.0.0.1", until, |types| {
        types.iter().any(|name| name == STORE)
    })
}

/// A connection to a store, ours or the original's.
///
/// Each call waits for 10 s, and for longer as long as bytes move. That is more than a node takes with its usual tick.
/// A node tries for 12 ticks: where `--tick` is above 700 ms, a call may end with "no answer" long before the node gives
/// up, and a put may take effect after that.
pub struct Client {
    network: Arc<TcpNetwork>,
    server: Location,
    manners: Manners,
}

/// What may be expected of a node.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Manners {
    /// One of ours: answers every call, keeps connections open.
    Ours,
    /// An original: one call a connection, and no answer to `put`.
    Original,
    /// An original of before June 2009: one call a connection, and an answer to every one.
    Early,
}

impl Client {
    /// Finds the node to ask, and finds out what it is. A node that was named has 10 s to answer. Without a name, one is
    /// looked for on this machine for up to 3 s.
    ///
    /// # Errors
    /// There is none, or it doesn't answer, or it is no store.
    pub fn new(options: &ClientOptions) -> Result<Self, Trouble> {
        let network = Arc::new(TcpNetwork::new(LIMITS));
        let (server, types) = match &options.server {
            Some(server) => {
                let types = service_types(&*network, server, CALL_LIMIT);
                (
                    server.clone(),
                    types.map_err(|cause| Trouble::new(server, cause))?,
                )
            }
            None => find(network.clone())
                .ok_or_else(|| Trouble::new("localhost:9900 and up", "No peer autodiscovered."))?,
        };
        let has = |wanted: &str| types.iter().any(|name| name == wanted);
        let manners = if types.is_empty() {
            Manners::Early
        } else if !has(STORE) {
            let cause = format!("it runs another service: {}", types.join(", "));
            return Err(Trouble::new(server, cause));
        } else if has(EXTENSION) {
            Manners::Ours
        } else {
            Manners::Original
        };
        Ok(Client {
            network,
            server,
            manners,
        })
    }

    /// Puts a value; an empty one deletes the key. Waits for 10 s.
    ///
    /// # Errors
    /// It is not acknowledged; it may have taken effect all the same, or may do so later. (An original acknowledges
    /// nothing.)
    pub fn put(&self, key: &[u8], value: &[u8]) -> Result<(), Trouble> {
        let oneway = self.manners == Manners::Original;
        let arguments = KeyValue::write(key, Some(value));
        let answer = self.call("put", arguments, oneway);
        answer.map(|_| ()).map_err(|cause| self.trouble(cause))
    }

    /// The value, empty for a missing key. Waits for 10 s.
    ///
    /// # Errors
    /// There is no answer.
    pub fn get(&self, key: &[u8]) -> Result<Vec<u8>, Trouble> {
        let answer = self.call("get", write_key(key), false);
        let value = answer.and_then(|result| read_answer(&result, "get"));
        value.map_err(|cause| self.trouble(cause))
    }

    /// The node that `key` belongs to. Waits for 10 s.
    ///
    /// # Errors
    /// There is no answer.
    pub fn get_node(&self, key: &[u8]) -> Result<Location, Trouble> {
        let answer = self.call("get_node", write_key(key), false);
        let node = answer.and_then(|result| read_answer(&result, "get_node"));
        node.map_err(|cause| self.trouble(cause))
    }

    fn call(
        &self,
        method: &'static str,
        arguments: Vec<u8>,
        oneway: bool,
    ) -> Result<Vec<u8>, CallError> {
        let request: Request = match self.manners {
            Manners::Ours => request(method, arguments),
            Manners::Original | Manners::Early => single_request(method, arguments, oneway),
        };
        self.network.call(&self.server, &request, CALL_LIMIT)
    }

    fn trouble(&self, cause: CallError) -> Trouble {
        Trouble::new(&self.server, cause)
    }
}
