//! Is every key safe now? What a script waits for.

use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::client::discovery::{Until, first_node};
use crate::location::{DEFAULT_PORT, Location};
use crate::locator::{EMPTY, EXTENSION, LIMITS, request};
use crate::net::{Network, TcpNetwork};
use crate::report::{self, Report};

use super::{End, print};

/// For the list of members, and once more for all of their answers.
const LIMIT: Duration = Duration::from_secs(5);

/// The time between two questions while it is waited.
const AGAIN: Duration = Duration::from_millis(100);

/// What is asked, and how it is told.
pub(super) struct Question {
    /// The nodes to ask, if any are named: the first that answers.
    pub peers: Vec<Location>,
    /// Where a node is looked for otherwise.
    pub address: String,
    pub port: Option<u16>,
    /// The alarm is to be ended first.
    pub accept_loss: bool,
    pub json: bool,
    /// How long it is waited until every key is safe. `None`: as long as it takes.
    pub wait: Option<Duration>,
}

impl Question {
    /// Asks and prints what it finds: the last answer, if it has to ask again. The exit code is 0 if every key is safe,
    /// else 1.
    ///
    /// # Errors
    /// No node that is asked answers, not even while it is waited; or what is printed is lost.
    pub fn put(&self) -> Result<ExitCode, End> {
        let deadline = self.wait.map(|wait| Instant::now() + wait);
        let network = Arc::new(TcpNetwork::new(LIMITS));
        let mut accepted = !self.accept_loss;
        let report = loop {
            let report = self.ask(&network, &mut accepted);
            let is_safe = report.as_ref().is_ok_and(Report::is_safe);
            if is_safe || deadline.is_some_and(|at| Instant::now() >= at) {
                break report?;
            }
            thread::sleep(AGAIN);
        };
        let lines = match self.json {
            true => vec![report.to_json()],
            false => report.to_lines(),
        };
        for line in lines {
            print(line.as_bytes())?;
        }
        Ok(ExitCode::from(u8::from(!report.is_safe())))
    }

    fn ask(&self, network: &Arc<TcpNetwork>, accepted: &mut bool) -> Result<Report, End> {
        let mut members = self.members(network)?;
        if !*accepted {
            let accept = |member: &Location| {
                let request = request("accept_loss", EMPTY.to_vec());
                (member.clone(), request)
            };
            let calls: Vec<_> = members.iter().map(accept).collect();
            // One that doesn't answer may keep the alarm. It says so when it is asked how it is.
            let _ = network.call_all(&calls, LIMIT);
            *accepted = true;
            members = self.members(network)?;
        }
        let answers = report::ask(&**network, &members, LIMIT);
        Ok(Report::new(members.into_iter().zip(answers)))
    }

    /// The members, as the first peer that answers has them, or the node at the port, or the first on the address.
    fn members(&self, network: &Arc<TcpNetwork>) -> Result<Vec<Location>, End> {
        let own = |port| Location::new(&self.address, port).map_err(End::usage);
        let ours = |types: &[String]| types.iter().any(|name| name == EXTENSION);
        let asked = match (&self.peers[..], self.port) {
            ([], Some(port)) => vec![own(port)?],
            ([], None) => {
                let first = own(DEFAULT_PORT)?;
                let found = first_node(network.clone(), &self.address, Until::once(), ours);
                let nobody = || End::trouble(format!("{first} and up"), "no node found");
                vec![found.ok_or_else(nobody)?.0]
            }
            (peers, _) => peers.to_vec(),
        };
        let mut silent = Vec::new();
        for peer in asked {
            match report::members(&**network, &peer, LIMIT) {
                Ok(members) => return Ok(members),
                Err(cause) => silent.push(format!("{peer}: {cause}")),
            }
        }
        Err(End::Trouble(silent.join("; ")))
    }
}
