//! What the members of a network say of themselves, put together: is every key safe now, and if not, why not?
//!
//! It is what `location --status` prints and what a node shows by HTTP: as a table for people, and as a document of
//! JSON for programs.
//!
//! Invariant: what others say of themselves is not trusted to be short, or free of control characters.

mod json;
mod table;

pub use table::COLUMNS;

use std::time::Duration;

use crate::location::Location;
use crate::locator::{EMPTY, Status, one_line, read_answer, single_request};
use crate::membership::State;
use crate::net::{CallError, Network};
use crate::ring::Ring;
use crate::words::{counted, no_room, utc};

/// A longer version of a program is cut off here.
const VERSION_CHARS_MAX: usize = 20;

/// The state of the network that a node is in.
#[derive(Debug)]
pub struct Report {
    /// One for each member.
    pub members: Vec<Account>,
    /// Why not every key is safe, a sentence each. None: every key is safe now. All members say that they are full and
    /// settled, have nothing to hand over, and miss no member; all have the same view; and there are at least as many
    /// members as copies.
    pub why: Vec<String>,
    /// What else is to be known, a sentence each.
    pub notes: Vec<String>,
}

/// A member, and what it says of itself.
#[derive(Debug)]
pub struct Account {
    /// Its name.
    pub location: Location,
    /// The part of all keys that it owns by the ring, 0 to 1.
    pub share: f64,
    /// Its answer, or why there is none.
    pub status: Result<Status, CallError>,
}

/// What the document and the table show of a member, in a form of their own. `None`: it doesn't tell.
enum Value {
    Text(Option<String>),
    Number(Option<usize>),
    /// A part of all, 0 to 1.
    Share(f64),
}

/// The members of the network, as a node has them that is asked. Blocks for `limit` at most.
///
/// # Errors
/// It doesn't answer.
pub fn members(
    network: &dyn Network,
    asked: &Location,
    limit: Duration,
) -> Result<Vec<Location>, CallError> {
    let get_all = single_request("get_all", EMPTY.to_vec(), false);
    let members = network.call(asked, &get_all, limit);
    members.and_then(|result| read_answer(&result, "get_all"))
}

/// Asks these members, all at once, how they are. Blocks for `limit` at most.
pub fn ask(
    network: &dyn Network,
    members: &[Location],
    limit: Duration,
) -> Vec<Result<Status, CallError>> {
    // On a connection of its own: an original serves nobody else while one is kept.
    let status = single_request("status", EMPTY.to_vec(), false);
    let ask = |member: &Location| (member.clone(), status.clone());
    let calls: Vec<_> = members.iter().map(ask).collect();
    let answers = network.call_all(&calls, limit).into_iter();
    let read = |result: Vec<u8>| read_answer::<Status>(&result, "status");
    answers.map(|answer| answer.and_then(read)).collect()
}

/// Asks all members of the network that `asked` is in. Blocks for `limit` at most while that one names them, and again
/// while they answer.
///
/// # Errors
/// `asked` doesn't answer.
pub fn ask_all(
    network: &dyn Network,
    asked: &Location,
    limit: Duration,
) -> Result<Report, CallError> {
    let members = members(network, asked, limit)?;
    let answers = ask(network, &members, limit);
    Ok(Report::new(members.into_iter().zip(answers)))
}

impl Report {
    /// Of these members and their answers.
    pub fn new(answers: impl IntoIterator<Item = (Location, Result<Status, CallError>)>) -> Self {
        let (locations, answers): (Vec<_>, Vec<_>) = answers.into_iter().unzip();
        let ring = Ring::new(locations.iter().map(|member| member.name().clone()));
        let mut shares = vec![0.0; ring.names().len()];
        for (from, to, owner) in ring.arcs() {
            shares[owner] += (to - from) as f64 / (1_u64 << 32) as f64;
        }
        let account = |(location, status): (Location, _)| Account {
            share: ring
                .position(location.name())
                .map_or(0.0, |place| shares[place]),
            location,
            status,
        };
        let mut report = Report {
            members: locations.into_iter().zip(answers).map(account).collect(),
            why: Vec::new(),
            notes: Vec::new(),
        };
        report.judge();
        report
    }

    /// Whether every key is safe now.
    pub fn is_safe(&self) -> bool {
        self.why.is_empty()
    }

    fn judge(&mut self) {
        let (mut why, mut notes) = (Vec::new(), Vec::new());
        let mut add = |cause: String| {
            let cause = one_line(&cause);
            // Some causes are the network's, and each member names them.
            if !why.contains(&cause) {
                why.push(cause);
            }
        };
        let asked = self.members.len();
        let mut first: Option<(&Location, u64)> = None;
        for Account {
            location, status, ..
        } in &self.members
        {
            let status = match status {
                Ok(status) => status,
                Err(CallError::Exception(_)) => {
                    add(format!(
                        "{location} is a node of the original, which can't tell"
                    ));
                    continue;
                }
                Err(cause) => {
                    add(format!("{location} doesn't say how it is: {cause}"));
                    continue;
                }
            };
            if status.me.state != State::Full {
                add(format!("{location} is {}", state(status)));
            }
            if status.unconfirmed > 0 {
                let keys = counted(status.unconfirmed, "key", "keys");
                add(format!("{location} has {keys} not handed over"));
            }
            if !status.settled {
                add(format!("{location} is comparing with others"));
            }
            if status.full < status.replicas {
                let (full, replicas) = (status.full, status.replicas);
                add(format!("fewer nodes than copies: {full} of {replicas}"));
            }
            if !status.missing.is_empty() {
                let count = counted(status.missing.len(), "member", "members");
                let names: Vec<_> = status.missing.iter().map(ToString::to_string).collect();
                let names = names.join(" ");
                add(format!(
                    "{count} lost together: keys may be missing: {names}"
                ));
            }
            // As many as were asked: none came in since the members were asked for.
            if status.members as usize != asked {
                let members = counted(status.members as usize, "member", "members");
                add(format!("{location} knows {members}, not {asked}"));
            }
            let (other, digest) = *first.get_or_insert((location, status.digest));
            if digest != status.digest {
                add(format!("{location} doesn't see what {other} sees"));
            }
            if status.lacking > 0 {
                let no_room = no_room(status.lacking, status.taken, status.memory);
                notes.push(format!("{location} has {no_room}"));
            }
        }
        (self.why, self.notes) = (why, notes);
    }
}

impl Account {
    /// How far it is, in a word.
    pub fn state(&self) -> String {
        match &self.status {
            Ok(status) => state(status),
            Err(CallError::Exception(_)) => "original".to_owned(),
            Err(_) => "unknown".to_owned(),
        }
    }

    /// The version of its program, if it says so.
    pub fn version(&self) -> Option<String> {
        let version = self.status.as_ref().ok()?.version.as_ref()?;
        let cut_off: String = version.chars().take(VERSION_CHARS_MAX).collect();
        Some(one_line(&cut_off))
    }

    /// The fields of the document that are columns of the table as well, in their order there.
    fn columns(&self) -> [(&'static str, Value); COLUMNS.len()] {
        let status = self.status.as_ref().ok();
        let told = |number: fn(&Status) -> Option<usize>| Value::Number(status.and_then(number));
        let since = status.and_then(|status| status.since);
        [
            ("name", Value::Text(Some(self.location.to_string()))),
            ("state", Value::Text(Some(self.state()))),
            ("keys", told(|status| Some(status.keys()))),
            ("deleted", told(|status| status.deleted)),
            ("bytes", told(|status| Some(status.taken))),
            ("memory", told(|status| Some(status.memory))),
            ("connections", told(|status| status.connections)),
            ("requests_per_second", told(|status| status.rate)),
            ("share", Value::Share(self.share)),
            ("version", Value::Text(self.version())),
            ("since", Value::Text(since.map(utc))),
        ]
    }
}

fn state(status: &Status) -> String {
    format!("{:?}", status.me.state).to_lowercase()
}

impl Status {
    /// How many keys lie there that were not deleted, as far as it says.
    pub fn keys(&self) -> usize {
        self.items.saturating_sub(self.deleted.unwrap_or(0))
    }
}

#[cfg(test)]
pub(crate) mod tests;
