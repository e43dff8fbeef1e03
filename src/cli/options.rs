//! The options of the programs that are clients.

use getopts::{Matches, Options, ParsingStyle};

use crate::client::{Client, Error, STORE};
use crate::location::Location;
use crate::words::counted;

use super::{Parsed, Trouble, help_options, narrow, parse, peers, port, widen};

/// The nodes to ask where no option names one.
const PEERS_VARIABLE: &str = "THRIFTY_PEERS";

/// How many arguments a program takes.
pub type Arity = std::ops::RangeInclusive<usize>;

/// What a program that is a client takes, and what its `--help` says.
pub struct Usage {
    /// What it is for: a sentence.
    pub purpose: &'static str,
    /// Its arguments, as `--help` shows them, and how many there may be.
    pub arguments: (&'static str, Arity),
    /// Options without an argument: short and long name, either of which may be empty, and what it does.
    pub flags: &'static [(&'static str, &'static str, &'static str)],
    /// More that is to be known, lines of up to 80 characters; may be empty.
    pub notes: &'static str,
    /// Command lines.
    pub examples: [&'static str; 2],
    /// What exit codes 0 and 1 mean; the latter may be empty.
    pub codes: [&'static str; 2],
}

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
    pub fn parse(
        usage: &Usage,
        program: &str,
        arguments: &[String],
    ) -> Result<Parsed<Self>, Trouble> {
        let parsed = Self::parse_all(usage, program, arguments);
        let dash = |argument: &String| argument.len() > 1 && argument.starts_with('-');
        match usage.first() {
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
        usage: &Usage,
        program: &str,
        arguments: &[String],
    ) -> Result<Parsed<Self>, Trouble> {
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
        for (short, long, text) in usage.flags {
            options.optflag(short, long, text);
        }
        help_options(&mut options);
        let matches = match parse(&options, program, &usage.brief(), arguments)? {
            Parsed::Run(matches) => matches,
            Parsed::Tell(text) => return Ok(Parsed::Tell(text)),
        };
        let (words, arity) = &usage.arguments;
        if !arity.contains(&matches.free.len()) {
            let wanted = match *words {
                "" => "no arguments",
                words => words,
            };
            let found = counted(matches.free.len(), "argument", "arguments");
            return Err(Trouble::usage(format!("{wanted} expected, {found} found")));
        }
        let free = matches.free.iter();
        let arguments = free.map(|argument| narrow(argument)).collect();
        Ok(Parsed::Run(ClientOptions {
            servers: servers(&matches)?,
            matches,
            arguments,
        }))
    }

    /// Whether an option without an argument was given.
    pub fn has(&self, flag: &str) -> bool {
        self.matches.opt_present(flag)
    }

    /// Finds the node to ask, and finds out what it is. Nodes that were named have 10 s to answer. Without a name, one is
    /// looked for on this machine for up to 3 s.
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

impl Usage {
    /// The name of the first argument, if there is one.
    fn first(&self) -> Option<&str> {
        let first = self.arguments.0.split_whitespace().next()?;
        Some(first.trim_matches(['[', ']', '.']))
    }

    fn brief(&self) -> String {
        let (words, _) = &self.arguments;
        let mut brief = format!("[OPTIONS] {words}");
        brief = format!("{}\n\n{}\n", brief.trim_end(), self.purpose);
        if !self.notes.is_empty() {
            brief += &format!("{}\n", self.notes);
        }
        brief += &format!(
            "\nAsks the node that -h names, or {PEERS_VARIABLE} in the environment, or else the\n\
             first node of the service found on this machine from port 9900 up. PEER is\n\
             HOST:PORT, or HOST alone: then PORT counts, or else 9900."
        );
        if let Some(first) = self.first() {
            brief += &format!(
                "\nOptions come before {first}, and -- before a {first} that begins with a dash."
            );
        }
        let [one, other] = self.examples;
        brief += &format!("\n\nExamples:\n    {one}\n    {other}");
        let [done, no] = self.codes;
        brief += &format!("\n\nExit codes: 0 {done}, ");
        if !no.is_empty() {
            brief += &format!("1 {no}, ");
        }
        brief + "2 trouble."
    }
}

fn servers(matches: &Matches) -> Result<Vec<Location>, Trouble> {
    let port = matches
        .opt_str("port")
        .map(|text| port(&text))
        .transpose()?;
    match (matches.opt_str("host"), port) {
        (Some(hosts), port) => peers(&hosts, port),
        (None, Some(port)) => {
            let location = Location::new("localhost", port).map_err(Trouble::usage)?;
            Ok(vec![location])
        }
        (None, None) => match std::env::var_os(PEERS_VARIABLE) {
            Some(hosts) if !hosts.is_empty() => peers(&widen(&hosts), None)
                .map_err(|trouble| Trouble(format!("{PEERS_VARIABLE}: {trouble}"))),
            _ => Ok(Vec::new()),
        },
    }
}
