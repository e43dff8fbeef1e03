//! The question that nodes put to each other, and what follows from the answer.
//!
//! One question does for everything: a sign of life, news of states, the comparison of views, the lease,
//! and the meeting of two nodes that had lost each other.

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use crate::location::Location;

use super::{
    Caller, DIFFERENCES_MAX, LEASE_TICKS, LISTS_MAX, Life, Member, Membership, NAMED_MAX, NEWS_MAX,
    Named, Peer, RANGES_MAX, Range, State,
};

/// What one node is to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Neither a member nor lost.
    Unknown,
    /// It was a member in that incarnation, and never will be again.
    Lost(i64),
    /// A member, in that state and incarnation.
    Member(State, i64),
}

/// What decides which side of a cut comes back to the other. `None` while it isn't known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Side {
    /// Members, full or leaving, that answered of late and have the node as a member; itself included.
    pub confirmed: i32,
    /// The least name in the view.
    pub first: Location,
    /// It stood still of late: the others may have gone on without it.
    pub slept: bool,
    /// It has stopped waiting for the other node, which can come back to it with nothing only.
    pub expired: bool,
}

/// What a node asks, and says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The node that asks.
    pub caller: Caller,
    /// What the node that is asked is to it.
    pub you: Standing,
    /// Whether a lease is asked for: for all ranges of which the asker is the primary and the answerer the granter.
    pub wants_lease: bool,
    /// The digest of the asker's view.
    pub digest: u64,
    /// Its side, should the two have lost each other.
    pub side: Option<Side>,
    /// Whether the answerer is to send its members, if the views differ.
    pub wants_members: bool,
    /// Members that the asker has just lost: a reason to ask them.
    pub lost: Vec<Location>,
    /// What the answerer is to bring back when it calls this node.
    pub token: u64,
    /// See [`Membership::floor`].
    pub floor: i64,
}

/// A question that waits for its answer.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The node that was asked.
    pub to: Location,
    /// When.
    pub at: Duration,
    /// What it was asked.
    pub question: Question,
}

/// The answer to a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The node that answers.
    pub me: Member,
    /// What the node that asked is to it.
    pub you: Standing,
    /// The ranges for which a lease is granted, by the answerer's view.
    pub granted: Vec<Range>,
    /// The digest of the answerer's view.
    pub digest: u64,
    /// Its side, should the two have lost each other.
    pub side: Option<Side>,
    /// The answerer's members, and the last that left, if they were wanted and the views differ.
    pub members: Option<Vec<Member>>,
    /// Lives that were lost together; see [`Membership::alarm`].
    pub missing: Option<Vec<Member>>,
    /// See [`Membership::floor`].
    pub floor: i64,
    /// Nothing old can turn up by way of the answerer; see [`Membership::all_clean`].
    pub clean: bool,
}

impl Membership {
    /// What to ask that node now.
    pub fn question(&mut self, now: Duration, to: &Location) -> Asked {
        let digest = self.view.digest();
        let differs = |peer: &Peer| peer.digest != digest && self.lists < LISTS_MAX;
        let peer = self.peers.get(to);
        let wants_members = peer.is_none_or(differs);
        self.lists += usize::from(wants_members && peer.is_some());
        let question = Question {
            caller: self.caller(to),
            you: self.standing(to),
            wants_lease: self.ties.get(to).is_some_and(|ties| !ties.lease.is_empty()),
            digest,
            side: self.side(now, to),
            wants_members,
            lost: self.news.clone(),
            token: self.token_for(to),
            floor: self.floor(),
        };
        Asked {
            to: to.clone(),
            at: now,
            question,
        }
    }

    fn standing(&self, of: &Location) -> Standing {
        match (self.view.get(of), self.lost.get(of)) {
            (Some(member), _) => Standing::Member(member.state, member.incarnation),
            (None, Some(lost)) => Standing::Lost(lost.incarnation),
            (None, None) => Standing::Unknown,
        }
    }

    /// Whether the other one has this life of this node in its view; and whether in its present state.
    fn has_me(&self, you: Standing) -> (bool, bool) {
        match you {
            Standing::Member(state, incarnation) => {
                let same = incarnation == self.incarnation && self.state().takes_part();
                (same, same && state == self.state())
            }
            _ => (false, false),
        }
    }

    fn has_lost_me(&self, you: Standing) -> bool {
        you == Standing::Lost(self.incarnation)
    }

    /// The side of this node where it meets that one. Known when each full member has been asked within the
    /// time of a lease.
    fn side(&self, now: Duration, met: &Location) -> Option<Side> {
        let limit = self.ticks(LEASE_TICKS);
        let fresh = |at: Duration| now.saturating_sub(at) < limit;
        let mut confirmed = i32::from(self.state().holds_all());
        let counts = |member: &&Member| member.state.holds_all() && member.location != *met;
        for member in self.others().filter(counts) {
            let peer = &self.peers[&member.location];
            match (peer.answered.is_some_and(fresh), peer.waiting) {
                (true, _) => confirmed += i32::from(peer.has_me),
                (false, Some(_)) => {}
                (false, None) => return None,
            }
        }
        let first = self.view.members().first()?.location.clone();
        self.state().takes_part().then_some(Side {
            confirmed,
            first,
            slept: self.ticks < self.slept_until,
            expired: self.lost.get(met).is_some_and(|lost| lost.expired),
        })
    }

    /// Answers a question.
    pub fn answer(&mut self, now: Duration, question: &Question) -> Reply {
        let itself = self.is_itself(&question.caller);
        self.keep_token(&question.caller, question.token, itself);
        let caller = &question.caller.me;
        if self.state().takes_part() && caller.location != self.location {
            self.hear_caller(question, itself);
        }
        if caller.state.takes_part() {
            self.hear_outside(&caller.location);
        }
        let present = itself && self.view.get(&caller.location) == Some(caller);
        let tick = self.rules.tick;
        let mut granted = Vec::new();
        if present
            && self.state().holds_all()
            && self.has_taken_over()
            && question.wants_lease
            && let Some(ties) = self.ties.get(&caller.location)
            && !ties.grant.is_empty()
        {
            let peer = self.peers.get_mut(&caller.location);
            let peer = peer.expect("BUG: a member of ours that is no peer");
            let waits = peer
                .waiting
                .is_some_and(|(since, _)| now.saturating_sub(since) > tick);
            if !waits {
                peer.granted = Some(now);
                granted.clone_from(&ties.grant);
            }
        }
        let digest = self.view.digest();
        let differ = question.wants_members && digest != question.digest;
        if let Some(nothing) = self.shared(&caller.location).filter(|it| it.digest == 0) {
            // See `answered`: it may take this for "done".
            self.compared(&caller.location, nothing);
        }
        Reply {
            me: self.me(),
            you: self.standing(&caller.location),
            granted,
            digest,
            side: self.side(now, &caller.location),
            members: differ.then(|| self.known()),
            missing: Some(self.lost_together()).filter(|lives| !lives.is_empty()),
            floor: self.floor(),
            clean: self.is_clean(),
        }
    }

    /// A question is its sender's own word, if it comes from the node itself, but it may be a late one.
    fn hear_caller(&mut self, question: &Question, itself: bool) {
        let caller = &question.caller.me;
        let both = matches!(question.you, Standing::Lost(_));
        let both = both && self.lost.contains_key(&caller.location);
        let lost = self.is_lost(&caller.location, caller.incarnation);
        if both || lost || self.has_lost_me(question.you) {
            // Which of the two comes back follows from its answer.
            if caller.state.takes_part() {
                self.ask(caller.location.clone());
            }
        } else if itself && self.is_member(&caller.location, caller.incarnation) {
            self.raise_floor(question.floor);
            self.hear_state(caller, question.you);
            self.suspect(&question.lost[..question.lost.len().min(NEWS_MAX)]);
            self.hear_digest(&caller.location, question.digest);
        } else if self.view.get(&caller.location).is_some() {
            self.ask(caller.location.clone());
        } else if caller.state.takes_part() {
            let reached = |named: &Named| {
                named.location == caller.location
                    && named.incarnation == caller.incarnation
                    && named.reached
            };
            if !self.has_me(question.you).0 || !self.named.iter().any(reached) {
                return;
            }
            if itself {
                self.take_in(caller.clone());
                if let Some(peer) = self.peers.get_mut(&caller.location) {
                    peer.has_me = true;
                }
            } else {
                self.ask(caller.location.clone());
            }
        }
    }

    /// A member has said the digest of its view. If the two views differ, it is asked for its members; not at once, as
    /// the news is mostly on its way.
    fn hear_digest(&mut self, of: &Location, digest: u64) {
        let differs = digest != self.view.digest();
        if let Some(peer) = self.peers.get_mut(of) {
            peer.digest = digest;
            if differs && self.doubted.len() < LISTS_MAX {
                self.doubted.insert(of.clone());
            }
        }
    }

    /// A member's own word on its state. A goodbye counts only from a leaver that still has this node as a member: any
    /// other has handed over to the members that it had, which may be lost here as well.
    fn hear_state(&mut self, member: &Member, you: Standing) {
        let known = self.view.get(&member.location);
        let later = known.is_some_and(|known| known.state < member.state);
        if member.state == State::Left {
            let goodbye = self.has_me(you).0;
            self.lose(&member.location, goodbye);
        } else if later && member.state.takes_part() {
            self.note_return(member);
            let member = member.clone();
            self.change_view(|view| view.insert(member));
            self.progress();
        }
    }

    /// A node was named: it is asked, at its name. `vouched`: a member has it in its view; otherwise it is a candidate
    /// that is to be reached.
    pub fn name(&mut self, member: &Member, vouched: bool) {
        self.expect(member, vouched);
        self.ask(member.location.clone());
    }

    /// The same, but the caller puts the question to the node itself.
    pub fn expect(&mut self, member: &Member, vouched: bool) {
        let Member {
            location,
            incarnation,
            ..
        } = member;
        let known = self
            .named
            .iter()
            .position(|named| named.location == *location);
        match known {
            Some(place) if self.named[place].incarnation == *incarnation => {
                self.named[place].vouched |= vouched;
            }
            _ => {
                known.map(|place| self.named.remove(place));
                if self.named.len() >= NAMED_MAX {
                    // Names that anybody made up and those that are known to be good get half each, if there are
                    // many of both: the oldest goes.
                    let good = |named: &Named| named.reached || named.vouched;
                    let count = self.named.iter().filter(|named| good(named)).count();
                    let many = 2 * count > self.named.len();
                    let mut named = self.named.iter();
                    let place = named.position(|named| good(named) == many).unwrap_or(0);
                    self.named.remove(place);
                }
                self.named.push(Named {
                    location: location.clone(),
                    incarnation: *incarnation,
                    vouched,
                    reached: false,
                });
            }
        }
    }

    /// Whether this node has asked that one at its name, and found that life there.
    pub fn has_reached(&self, member: &Member) -> bool {
        let mut named = self.named.iter();
        self.is_member(&member.location, member.incarnation)
            || named.any(|named| {
                named.location == member.location
                    && named.incarnation == member.incarnation
                    && named.reached
            })
    }

    /// The answer to a question has come.
    pub fn answered(&mut self, now: Duration, asked: &Asked, reply: &Reply) {
        let me = &asked.question.caller.me;
        self.asking.remove(&asked.to);
        let outdated = me.incarnation != self.incarnation || !self.state().takes_part();
        if outdated || asked.to == self.location {
            return;
        }
        let present = |this: &Self| match this.standing(&asked.to) {
            Standing::Member(_, incarnation) => Some(incarnation),
            _ => None,
        };
        let then = match asked.question.you {
            Standing::Member(_, incarnation) => Some(incarnation),
            _ => None,
        };
        if present(self) != then {
            // It was another life that was asked. What is there now will be asked in turn.
            return;
        }
        let other = &reply.me;
        if other.location != asked.to {
            // Another name for a node that has its own.
            self.lose(&asked.to, false);
            self.lost.remove(&asked.to);
            return;
        }
        // (One that says of the same life that it is outside has not heard yet that it was let in.)
        if then.is_some() && then != Some(other.incarnation) {
            self.lose(&asked.to, false);
        }
        if present(self).is_some() {
            self.hear_state(other, reply.you);
        } else {
            self.hear_outsider(reply);
        }
        let (counted, exactly) = self.has_me(reply.you);
        if counted && matches!(reply.you, Standing::Member(state, _) if state.holds_all()) {
            self.note_aware(&asked.to, reply.digest == self.view.digest());
        }
        let same_state = me.state == self.state();
        let both = matches!(reply.you, Standing::Lost(_)) && self.lost.contains_key(&asked.to);
        let lost = both || self.is_lost(&asked.to, other.incarnation);
        let Some(peer) = self.peers.get_mut(&asked.to) else {
            if lost || self.has_lost_me(reply.you) {
                self.meet(now, reply);
            }
            return;
        };
        if counted && !peer.has_me {
            self.actions.push(super::Action::Settle);
        }
        peer.has_me = counted;
        if counted {
            peer.answered = peer.answered.max(Some(asked.at));
            peer.waiting = None;
        } else {
            // It is in another network, unless it is about to hear of this node.
            peer.waiting = peer.waiting.or(Some((asked.at, self.ticks)));
        }
        let granted = !reply.granted.is_empty() && asked.at >= peer.lease.0;
        if same_state && exactly && granted {
            let mut ranges: Vec<_> = reply.granted.iter().take(RANGES_MAX).copied().collect();
            ranges.sort_unstable();
            peer.lease = (asked.at, ranges);
        }
        let same_view = reply.digest == self.view.digest();
        peer.clean = (same_view && reply.clean).then_some((asked.at, reply.floor));
        if counted {
            self.raise_floor(reply.floor);
            self.hear_missing(reply.missing.as_deref().unwrap_or_default());
        }
        if self.has_lost_me(reply.you) {
            self.meet(now, reply);
        } else if let Some(members) = reply.members.as_ref().filter(|_| counted) {
            self.learn(members);
        } else if counted {
            if exactly && self.state().is_coming() && reply.digest == self.view.digest() {
                // As good as "done", if both share nothing.
                let shared = self.shared_with_life(other);
                if let Some(nothing) = shared.filter(|shared| shared.digest == 0) {
                    self.done(other, nothing, None);
                }
            }
            self.hear_digest(&asked.to, reply.digest);
            if self.untold.remove(&asked.to) {
                self.ask(asked.to.clone());
            }
        }
    }

    /// A node that is no member has answered.
    fn hear_outsider(&mut self, reply: &Reply) {
        let other = &reply.me;
        if self.is_lost(&other.location, other.incarnation) {
            return;
        }
        let same = |named: &&mut Named| {
            named.location == other.location && named.incarnation == other.incarnation
        };
        let has_me = self.has_me(reply.you).0;
        let Some(named) = self.named.iter_mut().find(same) else {
            return;
        };
        if other.state == State::Outside {
            named.reached = true;
        } else if other.state.takes_part() && (named.vouched || named.reached && has_me) {
            self.take_in(other.clone());
        }
    }

    /// A question got no answer. It is asked again: at once, if it was waited for, as the next tick may be far.
    pub fn unanswered(&mut self, now: Duration, asked: &Asked) {
        self.asking.remove(&asked.to);
        self.silent(&asked.to, asked.at);
        if self.peers.contains_key(&asked.to) && now.saturating_sub(asked.at) >= self.ticks(1) {
            self.ask(asked.to.clone());
        }
    }

    /// A question was refused: no program listens there.
    pub fn unasked(&mut self, asked: &Asked) {
        self.asking.remove(&asked.to);
        if let Standing::Member(_, incarnation) = asked.question.you {
            self.refused(&asked.to, incarnation);
        }
    }

    /// Another member has these members in its view. Where its view differs from this one, the nodes in question are
    /// asked. True: it names no member that this node lacks.
    pub(super) fn learn(&mut self, members: &[Member]) -> bool {
        let mut complete = true;
        let mut left = DIFFERENCES_MAX;
        for member in members {
            if member.location == self.location {
                continue;
            }
            if left == 0 {
                return false;
            }
            if member.state == State::Left {
                self.note_left(member);
                continue;
            }
            let known = self.view.get(&member.location);
            if !member.is_ours() {
                if known.is_none() {
                    left -= 1;
                    self.actions
                        .push(super::Action::Meet(member.location.clone()));
                }
                continue;
            }
            match known {
                Some(known) if known.incarnation == member.incarnation => {
                    if known.state < member.state {
                        left -= 1;
                        self.ask(member.location.clone());
                    }
                }
                _ if self.is_lost(&member.location, member.incarnation) => {}
                Some(_) => {
                    complete = false;
                    left -= 1;
                    self.ask(member.location.clone());
                }
                None => {
                    complete = false;
                    left -= 1;
                    self.name(member, true);
                }
            }
        }
        let theirs = members.iter().filter(|member| member.state != State::Left);
        let theirs: HashSet<_> = theirs.map(|member| &member.location).collect();
        let theirs = |member: &Member| theirs.contains(&member.location);
        // An original that they have not is asked what it is.
        let view = self.view.members().iter();
        let originals = view.filter(|member| !member.is_ours() && !theirs(member));
        let meet = originals.map(|member| super::Action::Meet(member.location.clone()));
        self.actions.extend(meet);
        let missing = self.others().filter(|member| !theirs(member)).take(left);
        for location in missing.map(|m| m.location.clone()).collect::<Vec<_>>() {
            self.ask(location);
        }
        complete
    }

    /// One of the two has lost the other, and both live: one of them comes back as a candidate, with what
    /// it has.
    fn meet(&mut self, now: Duration, reply: &Reply) {
        let other = &reply.me;
        if !other.state.takes_part() {
            return;
        }
        let mine = self.side(now, &other.location);
        let is_unknown = mine.is_none();
        let (Some(mine), Some(theirs)) = (mine, &reply.side) else {
            // Each is to know how many stand behind it. In a large network there are many that it seldom asks.
            self.stay_quiet(2);
            if is_unknown {
                let others = self.others().filter(|member| member.state.holds_all());
                let others: Vec<_> = others.map(|member| member.location.clone()).collect();
                self.doubted.extend(others);
            }
            self.doubted.insert(other.location.clone());
            return;
        };
        let i_am_lost = self.has_lost_me(reply.you);
        let it_is_lost = self.is_lost(&other.location, other.incarnation);
        let key = |side: &Side, lost: bool, name: &Location| {
            // The greatest comes back.
            let lost = lost && i_am_lost != it_is_lost;
            let first = side.first.clone();
            (
                !side.expired,
                side.slept,
                -side.confirmed,
                lost,
                first,
                name.clone(),
            )
        };
        let me = key(&mine, i_am_lost, &self.location);
        if me > key(theirs, it_is_lost, &other.location) {
            let members = reply.members.as_deref();
            let known = self.lost.contains_key(&other.location);
            self.come_back(members.unwrap_or(std::slice::from_ref(other)), known);
        } else {
            self.doubted.insert(other.location.clone());
        }
    }

    /// Begins a new life outside, with what this node has, and asks these members to be let in. `known`: it knew the one
    /// that named them.
    pub(super) fn come_back(&mut self, to: &[Member], known: bool) {
        let returning = match self.life {
            Life::Joining => false,
            Life::Outside(_) | Life::Left => return,
            Life::Returning { .. } | Life::Full | Life::Leaving => true,
        };
        let own = self.view.members().iter().filter(|m| m.is_ours());
        let own = own.map(|member| &member.location).chain(self.lost.keys());
        let own: BTreeSet<_> = own.cloned().collect();
        let to = to.iter().filter(|m| m.is_ours()).map(|m| &m.location);
        let contacts: Vec<_> = to.chain(&own).cloned().collect();
        self.begin_anew(returning, contacts);
        if let Life::Outside(search) = &mut self.life
            && !known
        {
            search.trusted = own;
        }
    }
}
