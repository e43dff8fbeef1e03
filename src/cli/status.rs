//! Is every key safe now? What a script waits for.

use std::process::ExitCode;
use std::time::Duration;

use crate::location::Location;
use crate::locator::{EMPTY, Status, read_result, request, single_request};
use crate::net::{CallError, Network};
use crate::thrift::wire;
use crate::words::counted;

use super::{Trouble, print};

const LIMIT: Duration = Duration::from_secs(5);

/// How the network is that a node is in.
pub struct Report {
    /// One for each member.
    pub lines: Vec<String>,
    /// Every key is safe now: all say that they are full, miss no copy, have nothing to move, and have
    /// the same list of members.
    pub safe: bool,
}

/// Asks all members of the network that `asked` is in.
///
/// # Errors
/// `asked` doesn't answer.
pub fn ask_all(network: &dyn Network, asked: &Location) -> Result<Report, Trouble> {
    let get_all = single_request("get_all", EMPTY.to_vec(), false);
    let members = network.call(asked, &get_all, LIMIT);
    let members =
        members.and_then(|result| read_result(&result, "get_all", wire::LIST, Location::read_list));
    let members = members.map_err(|cause| Trouble::new(asked, cause))?;
    let ask = |member: Location| (member, request("status", EMPTY.to_vec()));
    let calls: Vec<_> = members.into_iter().map(ask).collect();
    let mut report = Report {
        lines: Vec::new(),
        safe: true,
    };
    let mut digest = None;
    for ((member, _), answer) in calls.iter().zip(network.call_all(&calls, LIMIT)) {
        let status = answer.and_then(|result| Status::read(&result));
        let line = match &status {
            Ok(status) => describe(status),
            Err(CallError::Exception(_)) => "a node of the original".to_owned(),
            Err(cause) => cause.to_string(),
        };
        report.lines.push(format!("{member} {line}"));
        report.safe &= status.is_ok_and(|status| {
            status.is_safe() && *digest.get_or_insert(status.digest) == status.digest
        });
    }
    Ok(report)
}

/// Prints it. The exit code is 0 if every key is safe, else 1.
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
    let members = counted(status.members, "member", "members");
    let keys = counted(status.items, "key", "keys");
    let mut line = format!("{state}, {members}, {keys}");
    if status.unconfirmed > 0 {
        let whose = if status.unconfirmed == 1 {
            "its"
        } else {
            "their"
        };
        line += &format!(
            ", {} not known to be with all {whose} holders",
            status.unconfirmed
        );
    }
    if status.moving {
        line += ", moving";
    }
    if !status.agreed {
        line += ", comparing lists";
    }
    line
}
