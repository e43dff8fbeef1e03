//! The options of the programs that are clients.

use getopts::{Matches, Options, ParsingStyle};

use crate::client::{Client, Error, STORE};
use crate::location::Location;

use super::{End, PEERS_VARIABLE, Usage, narrow, peers, peers_of_environment, port};

/// Where to, and the program's own arguments as bytes.
pub struct ClientOptions {
    servers: Vec<Location>,
    matches: Matches,
    /// What stands behind the options, as many as the program takes.
    pub arguments: Vec<Vec<u8>>,
}

impl ClientOptions {
    /// Parses the options and arguments of a program.
    ///
    /// # Errors
    /// An option that the program doesn't have, or a wrong number of arguments.
    pub fn parse(usage: &Usage, program: &str, arguments: &[String]) -> Result<Self, End> {
        let parsed = Self::parse_all(usage, program, arguments);
        let dash = |argument: &String| argument.len() > 1 && argument.starts_with('-');
        match usage.first() {
            // Data may have been taken for an option, or an option for data.
            Some(first) if arguments.iter().any(dash) => {
                let hint = format!(
                    "options come before {first}, and -- before a {first} that begins with a dash"
                );
                parsed.map_err(|end| end.reworded(|cause| format!("{cause}; {hint}")))
            }
            _ => parsed,
        }
    }

    fn parse_all(usage: &Usage, program: &str, arguments: &[String]) -> Result<Self, End> {
        let mut options = Options::new();
        // What comes after the first argument is data, dashes or not.
        options.parsing_style(ParsingStyle::StopAtFirstFree);
        options.optopt(
            "h",
            "host",
            "ask this node, or the first of several that answers",
            "PEER[,PEER...]",
        );
        options.optopt("p", "port", "the port of the node to ask", "PORT");
        let mut about = format!(
            "Asks the node that -h names, or {PEERS_VARIABLE} in the environment, or else the\n\
             first node of the service found on this machine from port 9900 up. PEER is\n\
             HOST:PORT, or HOST alone: then PORT counts, or else 9900."
        );
        if let Some(first) = usage.first() {
            about += &format!(
                "\nOptions come before {first}, and -- before a {first} that begins with a dash."
            );
        }
        let matches = usage.parse(options, program, &about, arguments)?;
        let free = matches.free.iter();
        let arguments = free.map(|argument| narrow(argument)).collect();
        Ok(ClientOptions {
            servers: servers(&matches)?,
            matches,
            arguments,
        })
    }

    /// Whether an option without an argument was given.
    pub fn has(&self, flag: &str) -> bool {
        self.matches.opt_present(flag)
    }

    /// Finds the node to ask, and finds out what it is. Nodes that were named have 10 s together, or 1 s each if there
    /// are more than ten. Without a name, one is looked for on this machine for up to 3 s.
    ///
    /// # Errors
    /// There is none, or it doesn't answer, or it is no store.
    pub fn client(&self) -> Result<Client, Error> {
        self.client_of(STORE)
    }

    /// The same for any service.
    ///
    /// # Errors
    /// There is none, or it doesn't answer, or it has another service.
    pub fn client_of(&self, service: &'static str) -> Result<Client, Error> {
        match &self.servers[..] {
            [] => Client::find_of(service),
            servers => Client::connect_of(service, servers),
        }
    }
}

fn servers(matches: &Matches) -> Result<Vec<Location>, End> {
    let port = matches
        .opt_str("port")
        .map(|text| port(&text))
        .transpose()?;
    match (matches.opt_str("host"), port) {
        (Some(hosts), port) => peers(&hosts, port),
        (None, Some(port)) => {
            let location = Location::new("localhost", port).map_err(End::usage)?;
            Ok(vec![location])
        }
        (None, None) => peers_of_environment(),
    }
}
