//! Coming in, and letting others in.

use std::fmt;

use crate::location::Location;
use crate::membership::{Entry, Member, Reply, State, View};
use crate::net::{Answer, CallError, Level, Request};
use crate::thrift::Exception;
use crate::words::counted;

use super::calls::{
    self, Candidate, EMPTY, Reach, Reached, read_answer, read_arguments, request, request_of,
    write_answer,
};
use super::originals::BUSY;
use super::{ANSWER_TICKS, EXTENSION, Locator, Status, VERSION, kind};

/// How long `reach` may take: a member asks the candidate at its name before the member answers.
const REACH_TICKS: u32 = 2 * ANSWER_TICKS;

/// Why a node can't take part. It hasn't become a member anywhere.
#[derive(Debug)]
pub enum StartError {
    /// The peer doesn't answer.
    Unreachable(Location, CallError),
    /// The peer runs another service, or is no node at all; what it said of itself.
    OtherService(Location, String),
    /// This node's port can't be told to originals, which know ports up to 32767.
    PortTooHigh(Location),
    /// None of several peers will do: why each doesn't.
    NoneOf(Vec<StartError>),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Unreachable(peer, cause) => write!(f, "peer {peer}: {cause}"),
            StartError::OtherService(peer, service) => {
                write!(f, "peer {peer}: it runs another service: {service}")
            }
            StartError::PortTooHigh(peer) => write!(
                f,
                "peer {peer}: a network with nodes of the original takes no port above 32767"
            ),
            StartError::NoneOf(reasons) => {
                let reasons: Vec<_> = reasons.iter().map(ToString::to_string).collect();
                f.write_str(&reasons.join("; "))
            }
        }
    }
}

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            StartError::Unreachable(_, cause) => Some(cause),
            _ => None,
        }
    }
}

impl Locator {
    /// Begins to look for the network of the first of `peers` that answers and is in one. This node asks it again and
    /// again until it lets this node in or says why it doesn't; see [`Locator::end_reason`]. If none is in a network yet,
    /// this node asks all of them: they may be about to start.
    ///
    /// # Errors
    /// All of `peers` are unfit, as [`StartError`] says; nothing has changed.
    pub fn join(&self, peers: &[Location]) -> Result<(), StartError> {
        let (mut possible, mut unfit) = (Vec::new(), Vec::new());
        for peer in peers {
            match self.service_types_of(peer) {
                Ok(types) if kind(&types).is_some_and(|kind| kind != self.service_type()) => {
                    unfit.push(StartError::OtherService(peer.clone(), types.join(", ")));
                    continue;
                }
                Ok(types) => {
                    let ours = types.iter().any(|name| name == EXTENSION);
                    if peers.len() == 1 || !ours || self.is_in_network(peer) {
                        return self.start(std::slice::from_ref(peer), false);
                    }
                }
                // It may be about to start.
                Err(CallError::Refused | CallError::Broken(_)) => {}
                Err(cause) => unfit.push(StartError::Unreachable(peer.clone(), cause)),
            }
            // One that is silent may be in the network: none is to be started beside it.
            possible.push(peer.clone());
        }
        if unfit.len() == peers.len() {
            return Err(match unfit.len() {
                1 => unfit.remove(0),
                _ => StartError::NoneOf(unfit),
            });
        }
        self.start(&possible, false)
    }

    fn is_in_network(&self, peer: &Location) -> bool {
        let status = request("status", EMPTY.to_vec());
        let network = &self.environment.network;
        let status = network.call(peer, &status, self.ticks(ANSWER_TICKS));
        let status = status.and_then(|result| read_answer::<Status>(&result, "status"));
        status.is_ok_and(|status| !matches!(status.me.state, State::Outside | State::Left))
    }

    /// Looks for a network at these nodes, which are of this one's kind, and starts one if there is none. If
    /// several nodes look at once, the first in the order of the names starts it. `may_begin`: this node may
    /// start one even if none of them is looking.
    ///
    /// # Errors
    /// An original among them can't be told of this node's port.
    pub fn start(&self, contacts: &[Location], may_begin: bool) -> Result<(), StartError> {
        let (mut ours, mut originals) = (Vec::new(), Vec::new());
        for contact in contacts {
            match self.service_types_of(contact) {
                Ok(types) if !types.iter().any(|name| name == EXTENSION) => {
                    if self.location().port() > i16::MAX.cast_unsigned() {
                        return Err(StartError::PortTooHigh(contact.clone()));
                    }
                    originals.push(contact.clone());
                    let members = self.members_of_original(contact, BUSY);
                    let members = members.unwrap_or_default();
                    for member in members.into_iter().filter(|m| m != self.location()) {
                        match self.service_types_of(&member) {
                            Ok(types) if types.iter().any(|name| name == EXTENSION) => {
                                ours.push(member);
                            }
                            Ok(_) => originals.push(member),
                            Err(_) => {}
                        }
                    }
                }
                Err(CallError::Refused) if may_begin => {}
                _ => ours.push(contact.clone()),
            }
        }
        self.with(|membership, _| {
            if ours.is_empty() && !originals.is_empty() {
                membership.begin_among(&originals);
            } else {
                membership.start(&ours, may_begin);
            }
        });
        Ok(())
    }

    pub(super) fn enter_request(&self) -> Request {
        let candidate = Candidate {
            me: self.with(|membership, _| membership.candidate()),
            service: self.service_type().to_owned(),
            replicas: u32::try_from(self.replicas()).unwrap_or(u32::MAX),
            tick_millis: self.tick_millis(),
            version: VERSION,
        };
        request_of("enter", &candidate)
    }

    fn tick_millis(&self) -> i64 {
        i64::try_from(self.options.tick.as_millis()).unwrap_or(i64::MAX)
    }

    pub(super) fn take_entry(&self, from: &Location, incarnation: i64, answer: Answer) {
        let entry = match answer.and_then(|result| calls::read_entry(&result)) {
            Ok(entry) => entry,
            Err(CallError::Refused) => {
                return self.with(|membership, _| membership.entry_refused(from));
            }
            Err(CallError::Exception(exception)) => Entry::Refused(exception.message),
            Err(_) => return self.with(|membership, _| membership.entry_unanswered(from)),
        };
        let entry = match entry {
            Entry::Refused(reason) => Entry::Refused(format!("peer {from}: {reason}")),
            Entry::Later(reason) if !reason.is_empty() => {
                Entry::Later(format!("peer {from}: {reason}"))
            }
            entry => entry,
        };
        self.with(|membership, _| membership.entered(from, incarnation, entry));
    }

    /// Why a candidate can't be let into this network.
    fn misfit(&self, candidate: &Candidate) -> Option<String> {
        let Candidate {
            me,
            service,
            replicas,
            tick_millis,
            version,
        } = candidate;
        let own = self.me();
        if me.location == own.location && me.incarnation == own.incarnation {
            return Some("that is this node itself".to_owned());
        }
        if *version != VERSION {
            return Some(format!(
                "this network speaks version {VERSION} of {EXTENSION}, not {version}"
            ));
        }
        if service != self.service_type() {
            return Some(format!("this is a network of {}", self.service_type()));
        }
        if usize::try_from(*replicas) != Ok(self.replicas()) {
            let ours = counted(self.replicas(), "copy", "copies");
            return Some(format!(
                "this network keeps {ours} of each key, not {replicas}"
            ));
        }
        if *tick_millis != self.tick_millis() {
            let own = self.tick_millis();
            return Some(format!(
                "this network has a tick of {own} ms, not {tick_millis}"
            ));
        }
        None
    }

    pub(super) fn on_enter(&self, arguments: &[u8], result: &mut Vec<u8>) -> Result<(), Exception> {
        let candidate: Candidate = read_arguments(arguments)?;
        let entry = match self.misfit(&candidate) {
            Some(reason) => {
                if candidate.version != VERSION {
                    self.log(Level::Warn, &format!("a node is refused: {reason}"));
                }
                Entry::Refused(reason)
            }
            None => self.let_in(&candidate.me),
        };
        calls::write_entry(entry, result);
        Ok(())
    }

    /// Has all members reach a candidate at its name, and lets it in. Again, where one has turned out to be
    /// gone.
    fn let_in(&self, candidate: &Member) -> Entry {
        loop {
            let entered = self.with(|membership, _| {
                let entered = membership.enter(candidate);
                entered.map_err(|others| (others, membership.view().clone(), membership.me()))
            });
            let (others, view, before) = match entered {
                Ok(entry) => return entry,
                Err(found) => found,
            };
            let entry = self.reach_together(candidate, &others, &view, &before);
            let present = self.view();
            if entry != Entry::Later(String::new())
                || others.iter().all(|m| present.get(m).is_some())
            {
                return entry;
            }
        }
    }

    fn reach_together(
        &self,
        candidate: &Member,
        others: &[Location],
        view: &View,
        before: &Member,
    ) -> Entry {
        let reach = Reach {
            candidate: candidate.clone(),
        };
        let reach = request_of("reach", &reach);
        let calls: Vec<_> = others
            .iter()
            .filter_map(|other| Some((view.get(other)?.clone(), reach.clone())))
            .collect();
        // If there is no node at that name, the others need not look.
        let own = self.reach(candidate);
        if let Some(entry) = unreached(candidate, self.location(), Some(own)) {
            return entry;
        }
        let answers = self.call_members(&calls, self.ticks(REACH_TICKS));
        for ((by, _), answer) in calls.iter().zip(answers) {
            let answer = answer.and_then(|result| read_answer(&result, "reach"));
            if let Some(entry) = unreached(candidate, &by.location, answer.ok()) {
                return entry;
            }
        }
        self.with(|membership, _| {
            let same = membership.me().incarnation == before.incarnation;
            match same {
                true => membership.admit(candidate),
                false => Entry::Later(String::new()),
            }
        })
    }

    /// Asks a candidate at its name.
    fn reach(&self, candidate: &Member) -> Reached {
        let asked = self.with(|membership, now| {
            membership.expect(candidate, false);
            membership.question(now, &candidate.location)
        });
        let request = request_of("ask", &asked.question);
        let network = &self.environment.network;
        let answer = network.call(&candidate.location, &request, self.ticks(ANSWER_TICKS));
        let reason = match &answer {
            Err(error @ (CallError::Refused | CallError::Local(_))) => error.to_string(),
            Ok(result) => match read_answer::<Reply>(result, "ask") {
                Ok(reply) if reply.me.location != candidate.location => {
                    format!("{} answers there", reply.me.location)
                }
                _ => String::new(),
            },
            Err(_) => String::new(),
        };
        self.take_reply(&asked, answer);
        self.with(|membership, _| Reached {
            reached: membership.has_reached(candidate),
            reason,
        })
    }

    pub(super) fn on_reach(&self, arguments: &[u8], result: &mut Vec<u8>) -> Result<(), Exception> {
        let Reach { candidate } = read_arguments(arguments)?;
        write_answer(&self.reach(&candidate), result);
        Ok(())
    }

    /// What a node of version 1 hears.
    pub(super) fn refuse_version_1(&self) -> Exception {
        let message = format!("this network speaks version {VERSION} of {EXTENSION}, not 1");
        self.log(Level::Warn, &format!("a node is refused: {message}"));
        Exception::internal(message)
    }
}

/// What to say to a candidate that this member has not reached, or that didn't answer whether it has.
fn unreached(candidate: &Member, by: &Location, answer: Option<Reached>) -> Option<Entry> {
    let name = &candidate.location;
    let unreachable = |reason: &str| {
        format!("{name} can't be reached from {by}: {reason}: give another --address")
    };
    match answer {
        None => Some(Entry::Later(String::new())),
        Some(Reached { reached: true, .. }) => None,
        Some(Reached { reason, .. }) if reason.is_empty() => {
            Some(Entry::Later(unreachable("no answer")))
        }
        Some(Reached { reason, .. }) => Some(Entry::Refused(unreachable(&reason))),
    }
}
