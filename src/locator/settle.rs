//! Comparing with others what both should hold, and leaving once they have all.

use std::time::Duration;

use crate::location::Location;
use crate::membership::{Member, Shared, State};
use crate::net::CallError;
use crate::thrift::Exception;

use super::calls::{Compared, Comparison, read_answer, read_arguments, request_of, write_answer};
use super::participant::{Application, Held};
use super::{ANSWER_TICKS, Locator};

/// A comparison may take this long: the other one walks through all that it has.
const COMPARE_TICKS: u32 = 4;

/// Where there was no room for an item, here or there, nothing is compared again for so long.
const REST_TICKS: u32 = 8;

/// A leaving node whose keys no other has taken for so long stops trying.
const NO_PROGRESS_MAX: Duration = Duration::from_secs(10);

impl Locator {
    /// Compares what this node has with each member that it has to compare with, and exchanges what differs.
    pub fn settle(&self, application: &dyn Application) {
        let (me, view, owed) = self.with(|membership, _| {
            let owed = membership.owed().into_iter();
            let owed = owed.map(|(to, shared)| (membership.caller(&to), to, shared));
            let owed: Vec<_> = owed.collect();
            (membership.me(), membership.view().clone(), owed)
        });
        let owed = owed.into_iter().filter(|(_, to, _)| !self.rests_from(to));
        let owed: Vec<_> = owed.collect();
        if owed.is_empty() || !me.state.takes_part() {
            return;
        }
        let others: Vec<_> = owed.iter().map(|(_, to, _)| to.clone()).collect();
        let digests = application.digests(&view, &others);
        let mut calls = Vec::new();
        for ((caller, to, shared), digests) in owed.iter().zip(&digests) {
            let Some(member) = view.get(to) else { continue };
            let comparison = Comparison {
                caller: caller.clone(),
                shared: shared.digest,
                digests: digests.clone(),
                exchanged: false,
                view: view.digest(),
            };
            calls.push((member.clone(), request_of("compare", &comparison)));
        }
        let answers = self.call_members(&calls, self.ticks(COMPARE_TICKS));
        for ((((member, _), answer), (_, _, shared)), own) in
            calls.iter().zip(answers).zip(&owed).zip(&digests)
        {
            let compared = answer.and_then(|result| read_answer(&result, "compare"));
            self.settle_with(member, *shared, own, compared, application);
        }
    }

    fn settle_with(
        &self,
        member: &Member,
        shared: Shared,
        own: &[u64],
        compared: Result<Compared, CallError>,
        application: &dyn Application,
    ) {
        if let Err(CallError::Exception(why)) = &compared
            && why.kind == Exception::NO_ROOM
        {
            self.rest_from(&member.location);
        }
        // With another than the one that was asked nothing is exchanged.
        let compared = compared.ok();
        let compared = compared.filter(|it| it.me.location == member.location);
        let Some(compared) = compared else { return };
        let Some(theirs) = compared.digests else {
            return self.differs(member, &compared.members.unwrap_or_default());
        };
        let differs = |range: &usize| theirs.get(*range) != own.get(*range);
        let ranges = 0..own.len().max(theirs.len());
        let ranges: Vec<_> = ranges.filter(differs).collect();
        if !ranges.is_empty() {
            if !self.with(|membership, _| membership.drives(&compared.me)) {
                return; // It has seen that they differ.
            }
            if !application.exchange(&compared.me, shared.digest, &ranges) {
                return;
            }
            let exchanged = Comparison {
                caller: self.caller(&self.me(), &member.location),
                shared: shared.digest,
                digests: Vec::new(),
                exchanged: true,
                view: self.view().digest(),
            };
            let call = (compared.me.clone(), request_of("compare", &exchanged));
            let mut answers = self.call_members(&[call], self.ticks(ANSWER_TICKS));
            match answers.pop().map(|answer| read_answer(&answer?, "compare")) {
                Some(Ok(Compared {
                    digests: Some(_), ..
                })) => {}
                _ => return,
            }
        }
        self.with(|membership, _| {
            membership.hear_left(&compared.left);
            membership.done(&compared.me, shared, compared.members.as_deref());
        });
    }

    /// There was no room for an item, here or at that member: nothing more moves between the two for a while.
    pub fn rest_from(&self, member: &Location) {
        let now = self.now();
        let rests = &mut self.lock().rests;
        rests.retain(|_, until| now < *until);
        rests.insert(member.clone(), now + self.ticks(REST_TICKS));
    }

    /// Whether that time has not passed.
    pub fn rests_from(&self, member: &Location) -> bool {
        let until = self.lock().rests.get(member).copied();
        until.is_some_and(|until| self.now() < until)
    }

    /// The last of these times, past or not.
    pub fn rests_until(&self) -> Duration {
        let inner = self.lock();
        inner.rests.values().max().copied().unwrap_or_default()
    }

    pub(super) fn on_compare(
        &self,
        arguments: &[u8],
        result: &mut Vec<u8>,
        application: &dyn Application,
    ) -> Result<(), Exception> {
        let Comparison {
            caller,
            shared,
            digests: theirs,
            exchanged,
            view: other_view,
        } = read_arguments(arguments)?;
        // This node exchanges nothing with that one now, nor walks through all that it has for it.
        let rests = self.rests_from(&caller.me.location);
        if rests && self.with(|membership, _| membership.drives(&caller.me)) {
            return Err(Exception::new(Exception::NO_ROOM, "no room"));
        }
        let (me, view, left, same) = self.with(|membership, _| {
            let same = membership.shared_with(&caller);
            let same = same.filter(|same| same.digest == shared);
            let other = &caller.me.location;
            let same = same.filter(|same| !exchanged || membership.has_compared(other, *same));
            if let Some(same) = same {
                membership.compared(other, same);
            }
            let view = membership.view().clone();
            (membership.me(), view, membership.left().to_vec(), same)
        });
        let own = same.map(|_| {
            if exchanged {
                return Vec::new();
            }
            let others = std::slice::from_ref(&caller.me.location);
            application.digests(&view, others).pop().unwrap_or_default()
        });
        if let Some(own) = &own {
            let equal = exchanged || *own == theirs;
            self.with(|membership, _| {
                if same.is_some() && membership.shared_with(&caller) == same {
                    membership.synced(&caller.me.location, equal);
                }
            });
        }
        let members = (view.digest() != other_view).then(|| view.members().to_vec());
        let compared = Compared {
            me,
            members,
            left,
            digests: own,
        };
        write_answer(&compared, result);
        Ok(())
    }

    /// Hands over and says goodbye, while another thread does [`super::Participant::work`]. The answer is the
    /// number of items that go with this node, as nobody is left to take them.
    ///
    /// # Errors
    /// How many items at most were not taken, though there was somebody.
    pub fn leave(&self, application: &dyn Application) -> Result<usize, usize> {
        if !self.begin_leaving() {
            self.say_goodbye_to_originals();
            return Ok(0);
        }
        let mut progress = Progress {
            confirmed: 0,
            state: self.me().state,
            since: self.now(),
        };
        loop {
            self.with(|membership, now| membership.ask_all(now));
            // What the answers named is asked as well: a newcomer that only another leaver knew.
            self.announce();
            self.announce();
            let held = application.held();
            let (state, settled, alone) = self.with(|membership, now| {
                let (settled, alone) = (membership.is_settled(now), membership.is_left_alone());
                (membership.me().state, settled, alone)
            });
            let empty = state == State::Outside && held.items == 0;
            let gone = state == State::Left;
            if gone || alone || empty || (settled && held.elsewhere == 0) {
                self.say_goodbye();
                if self.view().has_originals() {
                    return self.give_to_originals(application, progress);
                }
                if !alone {
                    // Requests may still be on their way from nodes that have just heard of it.
                    self.environment.clock.pause(self.ticks(1) / 2);
                }
                return Ok(if alone { held.items } else { 0 });
            }
            if progress.has_ended(self.now(), &held, state) {
                // One that goes with what it came back with is lost once more.
                if state != State::Returning {
                    self.say_goodbye();
                }
                // Of what it shares with others it doesn't know how much they have.
                let shared = if settled {
                    0
                } else {
                    held.items.saturating_sub(held.deleted)
                };
                return Err(held.elsewhere.max(shared).max(1));
            }
            self.wake_work();
            self.environment.clock.pause(self.ticks(1) / 10);
        }
    }

    /// Gives the originals what is theirs now. They take it only after the goodbye: before, they would hand it back.
    fn give_to_originals(
        &self,
        application: &dyn Application,
        mut progress: Progress,
    ) -> Result<usize, usize> {
        while !application.give() {
            let held = Held {
                sent_until: Duration::ZERO,
                ..application.held()
            };
            if progress.has_ended(self.now(), &held, State::Left) {
                return Err(held.elsewhere.max(1));
            }
            self.environment.clock.pause(self.ticks(1) / 10);
        }
        Ok(0)
    }
}

/// How a leaver gets on.
struct Progress {
    /// Items that others have confirmed, when one was last; or how far it was in its life, when that changed last.
    confirmed: usize,
    state: State,
    since: Duration,
}

impl Progress {
    /// Whether nothing has been confirmed for too long, and nothing is on its way.
    fn has_ended(&mut self, now: Duration, held: &Held, state: State) -> bool {
        if (held.confirmed, state) != (self.confirmed, self.state) {
            (self.confirmed, self.state, self.since) = (held.confirmed, state, now);
        }
        now.saturating_sub(self.since.max(held.sent_until)) > NO_PROGRESS_MAX
    }
}

#[cfg(test)]
mod tests;
