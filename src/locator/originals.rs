//! Living beside nodes of the 2009 original, and answering what they say.
//!
//! An original serves one connection at a time, has no time limits, answers no one-way call, and
//! passes news along a chain: it sends `add` or `remove` to the first member, in name order, that
//! is in its ring and not among the authorities. So ours tell it everything with everybody as
//! authority, on a connection for each call, closed at once.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::location::Location;
use crate::net::{CallError, Network};
use crate::thrift::{Exception, wire};

use super::calls::{EMPTY, News, read_result, single_request};
use super::member::{Member, State};
use super::membership::{Change, Pulled};
use super::{ANSWER_TICKS, EXTENSION, Locator};

/// An original that was added less than this ago and refuses connections is starting: it joins
/// before it listens.
const STARTING: Duration = Duration::from_secs(2);

/// An original that has been silent for longer is gone.
const DEAF: Duration = Duration::from_secs(30);

/// How many looks lie between two questions to an original.
const VISIT_TICKS: usize = 20;

/// How long an original may be busy with somebody else before it is silent.
const BUSY: Duration = Duration::from_secs(15);

impl Locator {
    pub(super) fn service_types_of(&self, location: &Location) -> Result<Vec<String>, CallError> {
        let network = &*self.environment.network;
        service_types(network, location, self.ticks(2 * ANSWER_TICKS))
    }

    pub(super) fn members_of_original(&self, at: &Location) -> Result<Vec<Location>, CallError> {
        let request = single_request("get_all", EMPTY.to_vec(), false);
        let result = self.environment.network.call(at, &request, BUSY)?;
        read_result(&result, "get_all", wire::LIST, Location::read_list)
    }

    /// Asks a member that came in by an old call what it is, if that isn't known. One of ours is
    /// then known as such.
    pub fn ask_kind(&self, location: &Location) {
        let asked = self
            .membership()
            .tracks
            .get(location)
            .is_none_or(|track| track.asked);
        if asked {
            return;
        }
        let view = self.view();
        match self.service_types_of(location) {
            Ok(types) => {
                if let Some(track) = self.membership().tracks.get_mut(location) {
                    track.asked = true;
                }
                if types.iter().any(|name| name == EXTENSION) {
                    for hello in self
                        .hello(std::slice::from_ref(location))
                        .into_iter()
                        .flatten()
                    {
                        // Another name for a node that has its own: calls for what it would own
                        // would come back, and be passed on to it again.
                        if hello.me.location != *location {
                            self.take_out(location, &view);
                        }
                        self.admit(hello.me);
                    }
                }
            }
            Err(CallError::Refused) => self.refused(location, &view),
            Err(_) => {}
        }
    }

    /// Whether an original has come so recently that it may not listen yet.
    pub(super) fn is_starting(&self, location: &Location) -> bool {
        let now = self.now();
        let membership = self.membership();
        let track = membership.tracks.get(location);
        track.is_some_and(|track| now.saturating_sub(track.added) < STARTING)
    }

    /// Makes this node known to an original, and waits until that one has given it the keys that
    /// are this node's now. True: it has.
    pub(super) fn enter_original(&self, original: &Location) -> bool {
        self.ask_kind(original);
        let view = self.view();
        match view.get(original) {
            None => return true,
            Some(member) if member.is_ours() => return true,
            Some(_) => {}
        }
        let everybody = view.members().iter().map(|member| &member.location);
        let add = single_request("add", News::write(&self.location, everybody), true);
        let network = &self.environment.network;
        let added = network.call(original, &add, self.ticks(2 * ANSWER_TICKS));
        // It serves one connection after the other: when it answers this, it has acted on that.
        match added.and_then(|_| self.members_of_original(original)) {
            Ok(members) => {
                for location in members {
                    self.ask_newcomer(&location);
                }
                self.membership()
                    .pulled
                    .insert(original.clone(), Pulled::All);
                true
            }
            Err(CallError::Refused) => {
                self.refused(original, &view);
                true
            }
            Err(_) => false,
        }
    }

    /// Takes a node in of which an original says that it is a member, once it has answered.
    pub(super) fn ask_newcomer(&self, location: &Location) {
        if self.membership().is_member(location) || *location == self.location {
            return;
        }
        match self.service_types_of(location) {
            Ok(types) if types.iter().any(|name| name == EXTENSION) => {
                for hello in self
                    .hello(std::slice::from_ref(location))
                    .into_iter()
                    .flatten()
                {
                    if hello.me.state != State::Gone {
                        self.admit(hello.me);
                    }
                }
            }
            Ok(_) => {
                self.admit(Member::original(location.clone()));
            }
            Err(_) => {}
        }
    }

    /// Looks after the originals: asks newcomers what they are, and now and then asks an original
    /// for its list. Can take long.
    pub fn look_after_originals(&self) {
        let (unasked, chosen) = {
            let membership = self.membership();
            let unasked = membership.tracks.iter().filter(|(_, track)| !track.asked);
            let unasked: Vec<_> = unasked.map(|(location, _)| location.clone()).collect();
            let originals: Vec<_> = membership.others().filter(|m| !m.is_ours()).collect();
            let turn = self
                .environment
                .random
                .below(VISIT_TICKS * originals.len().max(1));
            let chosen = originals.get(turn).map(|member| member.location.clone());
            (unasked, chosen)
        };
        for location in unasked {
            self.ask_kind(&location);
        }
        self.watch_leaving_originals();
        let Some(location) = chosen else { return };
        let (asked, view) = (self.now(), self.view());
        match self.members_of_original(&location) {
            Ok(members) => {
                if let Some(track) = self.membership().tracks.get_mut(&location) {
                    track.silent_since = None;
                }
                for location in members {
                    self.ask_newcomer(&location);
                }
            }
            Err(CallError::Refused) => self.refused(&location, &view),
            Err(_) => {
                self.note_silence(&location, asked);
                let since = {
                    let membership = self.membership();
                    membership
                        .tracks
                        .get(&location)
                        .and_then(|track| track.silent_since)
                };
                if since.is_some_and(|since| self.now().saturating_sub(since) >= DEAF) {
                    self.drop_members(&[location], &view);
                }
            }
        }
    }

    /// Whether an original that has said `remove` of itself may still be handing its keys over.
    pub fn originals_are_leaving(&self) -> bool {
        !self.membership().leaving_originals.is_empty()
    }

    /// While it hands over, its port accepts connections that it never serves; then it refuses.
    fn watch_leaving_originals(&self) {
        let leaving = self.membership().leaving_originals.clone();
        for (location, since) in leaving {
            let ping = single_request("ping", EMPTY.to_vec(), false);
            let network = &self.environment.network;
            let answer = network.call(&location, &ping, self.ticks(ANSWER_TICKS));
            let long = self.now().saturating_sub(since) > DEAF;
            if long || matches!(answer, Err(CallError::Refused)) {
                self.membership().leaving_originals.remove(&location);
            }
        }
    }

    /// Waits until every original has acted on what it was sent: each answers a `ping`.
    pub(super) fn wait_for_originals(&self) {
        let view = self.view();
        let originals = view.members().iter().filter(|member| !member.is_ours());
        let ping = |member: &Member| {
            let request = single_request("ping", EMPTY.to_vec(), false);
            (member.location.clone(), request)
        };
        let pings: Vec<_> = originals.map(ping).collect();
        if !pings.is_empty() {
            // One that doesn't answer is told of nothing more.
            let _ = self.environment.network.call_all(&pings, BUSY);
        }
    }

    /// `join`: only originals, and scripts, say this. The newcomer may not listen yet.
    pub(super) fn on_join(&self, location: &Location, done: &dyn Fn()) {
        let new = self.admit_unasked(location);
        done();
        if new {
            let mut notices = self.tell_originals("add", location);
            notices.extend(self.tell_ours(&self.news("add", location)));
            self.notify(&notices, ANSWER_TICKS);
        }
    }

    /// `add`: from an original's chain, from one of ours that was told by an original, or from a
    /// script.
    pub(super) fn on_add(&self, news: News, done: &dyn Fn()) {
        self.admit_unasked(&news.location);
        done();
        self.pass_on("add", news);
    }

    /// Until it is asked, a node is taken for an original: the mover asks, and serves it.
    fn admit_unasked(&self, location: &Location) -> bool {
        if *location == self.location {
            return false;
        }
        let change = {
            let now = self.now();
            let mut membership = self.membership();
            let known = membership.is_member(location);
            if known {
                Change::None
            } else {
                membership.admit(Member::original(location.clone()), now)
            }
        };
        self.note_admitted(location, change)
    }

    /// `remove`, from an original or a script. Of one of ours it is not believed: it is asked.
    pub(super) fn on_remove(&self, news: News, done: &dyn Fn()) {
        let location = &news.location;
        if *location == self.location {
            self.come_back(&news);
        } else if self.view().get(location).is_some_and(Member::is_ours) {
            self.on_suspect(std::slice::from_ref(location));
        } else if self.view().get(location).is_some() {
            // The other originals first: what they are asked for as soon as this one is out they
            // would else ask of it, while it waits for them.
            self.notify(&self.tell_originals("remove", location), ANSWER_TICKS);
            let now = self.now();
            self.membership()
                .leaving_originals
                .insert(location.clone(), now);
            self.take_out(location, &self.view());
        }
        done();
        self.pass_on("remove", news);
    }

    /// Somebody says that this node has gone. If it was an original, it has to be told again.
    fn come_back(&self, news: &News) {
        let view = self.view();
        if view
            .get(&self.location)
            .is_none_or(|me| me.state == State::Leaving)
        {
            return;
        }
        let mut membership = self.membership();
        for teller in &news.authorities {
            if view.get(teller).is_some_and(|member| !member.is_ours()) {
                membership.pulled.remove(teller);
            }
        }
        let wall = self.wall();
        membership.refill(wall);
        drop(membership);
        self.changed();
    }

    /// Passes a piece of news on as originals expect: to the first member, in name order, that is
    /// no authority yet. Among ours everybody is, so this ends there.
    fn pass_on(&self, method: &'static str, news: News) {
        let told: BTreeSet<_> = news.authorities.iter().collect();
        let view = self.view();
        let others = view.members().iter().map(|member| &member.location);
        let mut next = others.filter(|location| {
            **location != self.location && **location != news.location && !told.contains(location)
        });
        let authorities: Vec<_> = news.authorities.iter().chain([&self.location]).collect();
        let arguments = News::write(&news.location, authorities.into_iter());
        let request = single_request(method, arguments, true);
        let limit = self.ticks(ANSWER_TICKS);
        // The first that is there is told, and goes on from there.
        next.any(|location| {
            self.environment
                .network
                .call(location, &request, limit)
                .is_ok()
        });
    }
}

/// Asks a node which services it answers for, on a connection of its own, as it may be an original.
/// Nodes of before June 2009 don't know the question: no names.
///
/// # Errors
/// Any but that exception.
pub fn service_types(
    network: &dyn Network,
    location: &Location,
    limit: Duration,
) -> Result<Vec<String>, CallError> {
    let request = single_request("service_types", EMPTY.to_vec(), false);
    match network.call(location, &request, limit) {
        Ok(result) => read_result(&result, "service_types", wire::LIST, |reader| {
            let mut names = Vec::new();
            for _ in 0..reader.list(wire::STRING)? {
                names.push(String::from_utf8_lossy(reader.bytes()?).into_owned());
            }
            Ok(names)
        }),
        Err(CallError::Exception(exception)) if exception.kind == Exception::UNKNOWN_METHOD => {
            Ok(Vec::new())
        }
        Err(cause) => Err(cause),
    }
}
