//! What nodes tell each other: that somebody is new, doesn't answer, or goes; and how they ask.
//!
//! Nothing is told along a chain: who has news tells everybody, all at once. Whom it doesn't reach
//! learns by comparing lists (`watch.rs`).

use std::collections::BTreeSet;
use std::time::Duration;

use crate::location::Location;
use crate::net::{Answer, CallError, Request};

use super::calls::{self, Hello, HelloArguments, Known, News, request, single_request};
use super::member::{Member, State};
use super::membership::{Change, Membership};
use super::view::View;
use super::{ANSWER_TICKS, Locator};

impl Locator {
    /// Calls a member. One that refuses is dropped, and the others are told.
    pub fn call_member(&self, to: &Location, request: &Request, limit: Duration) -> Answer {
        let mut answers = self.call_members(&[(to.clone(), request.clone())], limit);
        answers.pop().expect("BUG: an answer for each call")
    }

    /// Calls members, all at once. Those that refuse are dropped, and the others are told.
    pub fn call_members(&self, calls: &[(Location, Request)], limit: Duration) -> Vec<Answer> {
        if calls.is_empty() {
            return Vec::new();
        }
        let view = self.view();
        let answers = self.environment.network.call_all(calls, limit);
        let refused = calls.iter().zip(&answers);
        let refused: BTreeSet<_> = refused
            .filter(|(_, answer)| matches!(answer, Err(CallError::Refused)))
            .map(|((location, _), _)| location)
            .collect();
        for location in refused {
            self.refused(location, &view);
        }
        answers
    }

    /// A fresh connection to this node, as it stands in that view, was refused.
    pub(super) fn refused(&self, location: &Location, asked: &View) {
        let is_original = {
            let mut membership = self.membership();
            if let Some(track) = membership.tracks.get_mut(location) {
                track.asked = false;
            }
            membership
                .view
                .get(location)
                .is_some_and(|member| !member.is_ours())
        };
        if !(is_original && self.is_starting(location)) {
            self.drop_members(std::slice::from_ref(location), asked);
        }
    }

    /// Takes out members that went without goodbye, and tells the others, who will ask them once.
    /// Of those that are no members any more, as they stand in that view, nothing is said.
    pub(super) fn drop_members(&self, locations: &[Location], asked: &View) {
        let dropped = locations
            .iter()
            .filter(|location| self.take_out(location, asked));
        let dropped: Vec<_> = dropped.cloned().collect();
        if !dropped.is_empty() {
            self.tell_lost(&dropped);
        }
    }

    /// Takes out a member that went without goodbye, if it is still the one that was asked, as it
    /// stands in that view; true: it was. Otherwise another run would be taken out, which believes
    /// that it is a member:
    ///
    /// ```text
    /// A                         B
    ///   asks -------------------> (was killed: the port refuses)
    ///                           starts again
    ///     <-------------------- pull: A takes it in, B is full
    ///   learns of the refusal
    /// ```
    pub(super) fn take_out(&self, location: &Location, asked: &View) -> bool {
        let stamp = |view: &View| view.get(location).map(|member| member.stamp);
        let removed = *location != self.location && {
            let now = self.now();
            let mut membership = self.membership();
            stamp(&membership.view) == stamp(asked) && membership.remove(location, None, now)
        };
        if removed {
            self.environment.network.forget(location);
            self.note_removed(location);
        }
        removed
    }

    /// `suspect`: somebody can't reach these members. One is taken out only if, asked once, it doesn't
    /// answer here either. (A silent original is busy: it has to refuse.)
    pub(super) fn on_suspect(&self, locations: &[Location]) {
        let view = self.view();
        let members = locations.iter().filter_map(|location| view.get(location));
        let others = members.filter(|member| member.location != self.location);
        let (ours, originals): (Vec<_>, Vec<_>) = others.partition(|member| member.is_ours());
        let ours: Vec<_> = ours.iter().map(|member| member.location.clone()).collect();
        for (location, hello) in ours.iter().zip(self.hello(&ours)) {
            match hello {
                Ok(hello) if hello.me.state == State::Gone => self.believe_goodbye(&hello.me),
                Ok(hello) if !self.is_stranger(location, &hello) => {}
                // Trouble here, which says nothing of it.
                Err(CallError::Local(_)) => {}
                Ok(_) | Err(_) => {
                    self.take_out(location, &view);
                }
            }
        }
        for original in originals {
            let answer = self.service_types_of(&original.location);
            let refused = matches!(answer, Err(CallError::Refused));
            if refused && !self.is_starting(&original.location) {
                self.take_out(&original.location, &view);
            }
        }
    }

    /// One that has said goodbye still answers what it has been asked, so the connections to it
    /// are not cut: its puts would get no answer though they are carried out.
    pub(super) fn note_removed(&self, location: &Location) {
        self.say(&format!("removed {location}"));
        self.changed();
    }

    /// Tells the others of nodes that don't answer any more: ours are to ask them themselves, the
    /// originals are told that they have gone. Those it doesn't reach learn by comparing lists.
    fn tell_lost(&self, lost: &[Location]) {
        let mut notices = self.tell_ours(&request("suspect", calls::write_locations(lost)));
        for location in lost {
            notices.extend(self.tell_originals("remove", location));
        }
        // Who refuses here is found by its neighbour: dropping it now could go round in circles.
        // The others ask those in question, so they may take a tick longer.
        self.notify(&notices, 2 * ANSWER_TICKS);
    }

    /// The same request for each other member of ours.
    pub(super) fn tell_ours(&self, request: &Request) -> Vec<(Location, Request)> {
        let others = self.others_of_ours().into_iter();
        others.map(|location| (location, request.clone())).collect()
    }

    /// `add` or `remove`, with everybody as authority: who gets it has nobody to pass it on to, so
    /// no stuck one can end the news.
    pub(super) fn news(&self, method: &'static str, about: &Location) -> Request {
        let view = self.view();
        let everybody = view.members().iter().map(|member| &member.location);
        single_request(method, News::write(about, everybody), true)
    }

    /// That for each original but one.
    pub(super) fn tell_originals(
        &self,
        method: &'static str,
        about: &Location,
    ) -> Vec<(Location, Request)> {
        let view = self.view();
        let originals = view.members().iter().filter(|member| !member.is_ours());
        let originals = originals.filter(|member| member.location != *about);
        let mut originals = originals.map(|member| member.location.clone()).peekable();
        if originals.peek().is_none() {
            return Vec::new();
        }
        let news = self.news(method, about);
        originals.map(|location| (location, news.clone())).collect()
    }

    /// Sends what wants no answer but that it has arrived.
    pub(super) fn notify(&self, notices: &[(Location, Request)], ticks: u32) {
        if !notices.is_empty() {
            let _ = self
                .environment
                .network
                .call_all(notices, self.ticks(ticks));
        }
    }

    /// Takes in what is said of a node. True: it is new here.
    pub(super) fn admit(&self, member: Member) -> bool {
        let now = self.now();
        let location = member.location.clone();
        let change = self.membership().admit(member, now);
        self.note_admitted(&location, change)
    }

    pub(super) fn note_admitted(&self, location: &Location, change: Change) -> bool {
        if change == Change::Added {
            self.say(&format!("added {location}"));
        }
        if change != Change::None {
            self.changed();
        }
        change == Change::Added
    }

    /// Asks nodes of ours how they are. Answers are taken in; a refusal drops nobody yet.
    pub(super) fn hello(&self, to: &[Location]) -> Vec<Result<Hello, CallError>> {
        let calls: Vec<_> = {
            let membership = self.membership();
            let ask = |location: &Location| {
                let arguments = HelloArguments {
                    me: membership.me.clone(),
                    digest: membership.view.digest(),
                    counted: membership.is_member(location),
                };
                (location.clone(), request("hello", arguments.write()))
            };
            to.iter().map(ask).collect()
        };
        let limit = self.ticks(ANSWER_TICKS);
        let answers = self.environment.network.call_all(&calls, limit);
        let answers = answers.into_iter();
        answers
            .map(|answer| answer.and_then(|result| Hello::read(&result)))
            .collect()
    }

    pub(super) fn on_hello(&self, hello: &HelloArguments, result: &mut Vec<u8>) {
        let caller = &hello.me.location;
        let (answer, view, change, removed) = {
            let now = self.now();
            let mut membership = self.membership();
            let known = membership.known(caller);
            let alone = membership.view.members().len() == 1;
            let mut change = Change::None;
            let mut removed = false;
            if hello.me.state == State::Gone {
                removed = is_goodbye(&membership, &hello.me)
                    && membership.remove(caller, Some(hello.me.stamp), now);
            } else if known == Known::Member {
                change = membership.admit(hello.me.clone(), now);
            } else if hello.counted
                && *caller != self.location
                && membership.me.state == State::Full
                && (alone || known == Known::Lost)
            {
                // It has this node in its ring: this one is another run of the same name and found
                // nobody, or they lost each other. The caller knows the network.
                membership.contacts.insert(caller.clone());
                change = Change::Updated;
            }
            let answer = Hello {
                me: membership.me.clone(),
                digest: membership.view.digest(),
                known,
                members: None,
            };
            (answer, membership.view.clone(), change, removed)
        };
        if removed {
            self.note_removed(caller);
        }
        self.note_admitted(caller, change);
        let members = (answer.digest != hello.digest).then(|| view.members());
        answer.write(members, result);
    }

    /// Says goodbye: this node is no member any more, and everybody is told.
    pub fn say_goodbye(&self) {
        self.set_state(State::Gone);
        // A hello of a node that has gone is its goodbye.
        let _ = self.hello(&self.others_of_ours());
        self.notify(&self.tell_originals("remove", &self.location), ANSWER_TICKS);
        self.wait_for_originals();
    }

    /// This node begins to hand over, and everybody is told. False: it has never been full, and others
    /// have what it has. Then it is just to go: a leaver counts as a node that has everything, and two
    /// that never had would be a network of their own for each other.
    #[must_use]
    pub fn begin_leaving(&self) -> bool {
        let wall = self.wall();
        let hands_over = {
            let mut membership = self.membership();
            let hands_over = membership.rooted;
            // At once, or it may become full before it says so.
            let state = if hands_over {
                State::Leaving
            } else {
                State::Gone
            };
            membership.set_state(state, wall);
            hands_over
        };
        self.changed();
        if hands_over {
            // Who doesn't hear it is told with each item.
            let _ = self.hello(&self.others_of_ours());
        }
        hands_over
    }

    pub(super) fn others_of_ours(&self) -> Vec<Location> {
        let membership = self.membership();
        let ours = membership.others().filter(|member| member.is_ours());
        ours.map(|member| member.location.clone()).collect()
    }

    pub(super) fn set_state(&self, state: State) {
        let wall = self.wall();
        self.membership().set_state(state, wall);
        self.changed();
    }
}

/// Whether that ends a membership: not this node's own, and not that of a later run under the same
/// name, whose news came first.
pub(super) fn is_goodbye(membership: &Membership, said: &Member) -> bool {
    let known = membership.view.get(&said.location);
    said.location != membership.me.location && known.is_none_or(|known| known.stamp <= said.stamp)
}
