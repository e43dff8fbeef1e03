//! Is every key safe now? What a script waits for.

use std::process::ExitCode;
use std::time::Duration;

use crate::location::Location;
use crate::locator::{EMPTY, Status, read_answer, request, single_request};
use crate::net::{CallError, Network};
use crate::words::{counted, no_room};

use super::{Trouble, print};

/// For the list of members, and once more for all of their answers.
const LIMIT: Duration = Duration::from_secs(5);

/// The state of the network that a node is in.
pub struct Report {
    /// One for each member.
    pub lines: Vec<String>,
    /// Every key is safe now: all members say that they are full and settled, have nothing to hand over, and miss no
    /// member; all have the same view; and there are at least as many members as copies.
    pub safe: bool,
}

fn members(network: &dyn Network, asked: &Location) -> Result<Vec<Location>, Trouble> {
    let get_all = single_request("get_all", EMPTY.to_vec(), false);
    let members = network.call(asked, &get_all, LIMIT);
    let members = members.and_then(|result| read_answer(&result, "get_all"));
    members.map_err(|cause| Trouble::new(asked, cause))
}

/// Has all members end the alarm for members that were lost together. `asked` has 5 s to say who they are, and then they
/// have 5 s, all at once. One that doesn't answer may keep the alarm.
///
/// # Errors
/// `asked` doesn't answer.
pub fn accept_loss(network: &dyn Network, asked: &Location) -> Result<(), Trouble> {
    let accept = |member: Location| (member, request("accept_loss", EMPTY.to_vec()));
    let calls: Vec<_> = members(network, asked)?.into_iter().map(accept).collect();
    // One that doesn't answer says so when it is asked how it is.
    let _ = network.call_all(&calls, LIMIT);
    Ok(())
}

/// Asks all members of the network that `asked` is in. `asked` has 5 s to say who they are, and then they have 5 s, all
/// at once. One that doesn't answer has a line that says so, and then not every key is safe.
///
/// # Errors
/// `asked` doesn't answer.
pub fn ask_all(network: &dyn Network, asked: &Location) -> Result<Report, Trouble> {
    let ask = |member: Location| (member, request("status", EMPTY.to_vec()));
    let calls: Vec<_> = members(network, asked)?.into_iter().map(ask).collect();
    let mut report = Report {
        lines: Vec::new(),
        safe: true,
    };
    let mut digest = None;
    for ((member, _), answer) in calls.iter().zip(network.call_all(&calls, LIMIT)) {
        let status = answer.and_then(|result| read_answer::<Status>(&result, "status"));
        let line = match &status {
            Ok(status) => describe(status),
            Err(CallError::Exception(_)) => "a node of the original".to_owned(),
            Err(cause) => cause.to_string(),
        };
        report.lines.push(format!("{member} {line}"));
        report.safe &= status.is_ok_and(|status| {
            // As many as were asked: none came in since it was asked who is there.
            let all = status.members as usize == calls.len();
            status.is_safe() && all && *digest.get_or_insert(status.digest) == status.digest
        });
    }
    Ok(report)
}

/// Asks as [`ask_all`] does, and prints what it finds. The exit code is 0 if every key is safe, else 1.
///
/// # Errors
/// `asked` doesn't answer, or what is printed is lost.
pub fn report(network: &dyn Network, asked: &Location) -> Result<ExitCode, Trouble> {
    let report = ask_all(network, asked)?;
    for line in &report.lines {
        print(line.as_bytes())?;
    }
    Ok(ExitCode::from(u8::from(!report.safe)))
}

fn describe(status: &Status) -> String {
    let state = format!("{:?}", status.me.state).to_lowercase();
    let members = counted(status.members as usize, "member", "members");
    let keys = counted(status.items, "key", "keys");
    let mut line = format!("{state}, {members}, {keys}");
    if status.unconfirmed > 0 {
        let keys = counted(status.unconfirmed, "key", "keys");
        line += &format!(", {keys} not handed over");
    }
    if !status.settled {
        line += ", comparing with others";
    }
    if status.full < status.replicas {
        line += &format!(
            ", fewer nodes than copies: {} of {}",
            status.full, status.replicas
        );
    }
    if status.lacking > 0 {
        let no_room = no_room(status.lacking, status.taken, status.memory);
        line += &format!(", {no_room}");
    }
    if !status.missing.is_empty() {
        let members = counted(status.missing.len(), "member", "members");
        let names: Vec<_> = status.missing.iter().map(ToString::to_string).collect();
        line += &format!(
            ", {members} lost together: keys may be missing: {}",
            names.join(" ")
        );
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::locator::write_answer;
    use crate::membership::{Member, State};
    use crate::net::{Answer, Request};

    fn location(port: u16) -> Location {
        Location::new("127.0.0.1", port).unwrap()
    }

    /// A network in which all nodes say that they are safe, among so many members.
    struct Content {
        listed: Vec<Location>,
        members: u32,
    }

    impl Network for Content {
        fn call_all(&self, calls: &[(Location, Request)], _: Duration) -> Vec<Answer> {
            let answer = |(at, request): &(Location, Request)| {
                let mut result = Vec::new();
                if request.method == "get_all" {
                    write_answer(&self.listed, &mut result);
                    return Ok(result);
                }
                let status = Status {
                    me: Member {
                        location: at.clone(),
                        state: State::Full,
                        incarnation: 2,
                    },
                    replicas: 1,
                    members: self.members,
                    full: self.members,
                    digest: 7,
                    items: 0,
                    unconfirmed: 0,
                    settled: true,
                    missing: Vec::new(),
                    taken: 0,
                    memory: 0,
                    lacking: 0,
                };
                write_answer(&status, &mut result);
                Ok(result)
            };
            calls.iter().map(answer).collect()
        }

        fn forget(&self, _: &Location) {}
    }

    /// The node that was asked has come into a network since it gave its list.
    #[test]
    fn must_not_say_safe_unless_all_members_were_asked() {
        let says_safe = |listed: &[u16], members| {
            let listed = listed.iter().map(|port| location(*port)).collect();
            let network = Content { listed, members };
            ask_all(&network, &location(1)).unwrap().safe
        };
        assert!(says_safe(&[1, 2, 3], 3));
        assert!(!says_safe(&[1], 3));
    }
}
