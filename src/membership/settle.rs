//! What services need to know of membership: whether a node may answer from its own copy, and with which members
//! it has to compare what it has.

use std::time::Duration;

use crate::location::Location;

use super::{Caller, LEASE_TICKS, Member, Membership, Peer, Range, State, Ties};

/// What two members share, as one of them sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shared {
    /// The digest of the ranges of which both are replicas, and of their lists; 0: there are none. Two members with the
    /// same digest mean the same.
    pub digest: u64,
    /// Differs from that of an earlier time at which the two shared the same. Each node counts for itself.
    doubts: u64,
}

impl Membership {
    /// Whether this node is the only member and has lost none: then it need not look at a clock.
    pub fn is_by_itself(&self) -> bool {
        self.lost.is_empty() && self.state() == State::Full && self.view.members().len() == 1
    }

    /// Whether the list of keys with that hash is the one with this digest, and has this node in it.
    pub fn is_replica(&self, hash: u32, digest: u64) -> bool {
        let list: Vec<_> = self.view.list(hash, self.rules.copies).collect();
        let members = self.view.members();
        let is_me = |place: &usize| members[*place].location == self.location;
        self.view.list_digest(list.iter().copied()) == digest && list.iter().any(is_me)
    }

    /// Whether the list of keys with that hash is the one with this digest.
    pub fn has_list(&self, hash: u32, digest: u64) -> bool {
        let list = self.view.list(hash, self.rules.copies);
        self.view.list_digest(list) == digest
    }

    /// Whether this node, being the primary of keys with that hash under the list with this digest, may
    /// answer and acknowledge from what it has: by a lease, if the other replicas are known to have the
    /// same; or because all on the list have accepted what was sent at the time `asked`.
    pub fn may_decide(
        &self,
        now: Duration,
        hash: u32,
        digest: u64,
        asked: Option<Duration>,
    ) -> bool {
        let copies = self.rules.copies;
        let members = self.view.members();
        let far = self.far(hash);
        let (near, primary) = self.view.near(&far, copies);
        let list = &far[..near];
        if !self.has_taken_over()
            || !primary.is_some_and(|primary| primary < near && self.is_me(far[primary]))
            || self.view.list_digest(list.iter().copied()) != digest
        {
            return false;
        }
        let Some((granter, digest)) = self.granter(&far) else {
            return self.needs_no_lease(now);
        };
        let limit = self.ticks(LEASE_TICKS);
        let fresh = asked.is_some_and(|at| now.saturating_sub(at) < limit);
        let mut others = list.iter().map(|place| &members[*place].location);
        (fresh && copies > 1)
            || (self.has_lease(now, hash, granter, digest)
                && self.is_awake(now)
                && others.all(|other| self.is_synced(other) && self.has_heard(other)))
    }

    /// Whether this node, being the primary of keys with that hash, may answer with what all on the list with this digest
    /// have said that they have.
    pub fn may_show(&self, hash: u32, digest: u64) -> bool {
        self.has_taken_over() && self.is_replica(hash, digest)
    }

    /// The list of keys with that hash; with one replica only, as it would be with two.
    pub(super) fn far(&self, hash: u32) -> Vec<usize> {
        self.view.list(hash, self.rules.copies.max(2)).collect()
    }

    fn is_me(&self, place: usize) -> bool {
        self.view.members()[place].location == self.location
    }

    /// The node that grants this one, as the primary, the lease for keys with that far list; and the digest of that.
    pub(super) fn granter(&self, far: &[usize]) -> Option<(&Location, u64)> {
        let members = self.view.members();
        let mut behind = far.iter().skip_while(|place| !self.is_me(**place)).skip(1);
        let next = behind.find(|place| members[**place].state.holds_all())?;
        let digest = self.view.list_digest(far.iter().copied());
        Some((&members[*next].location, digest))
    }

    /// A request waits for the lease for keys with that hash: it is asked for now, not at the next tick.
    pub fn want_lease(&mut self, now: Duration, hash: u32) {
        if let Some((granter, digest)) = self.granter(&self.far(hash))
            && !self.has_lease(now, hash, granter, digest)
        {
            self.ask(granter.clone());
        }
    }

    pub(super) fn is_awake(&self, now: Duration) -> bool {
        now.saturating_sub(self.ticked) < self.ticks(LEASE_TICKS)
    }

    /// Whether that one still has this node as a member, if this node stood still since it was asked.
    pub(super) fn has_heard(&self, other: &Location) -> bool {
        self.peers.get(other).is_none_or(|peer| {
            self.woke == Duration::ZERO
                || (peer.has_me && peer.answered.is_some_and(|at| at >= self.woke))
        })
    }

    /// Whether a replica that is not coming in is known to have the same as this node.
    pub(super) fn is_synced(&self, with: &Location) -> bool {
        let member = self.view.get(with);
        member.is_none_or(|member| member.state.is_coming()) || self.has_the_same(with)
    }

    /// Whether this node and that one have the same of what they share, if anything.
    pub(super) fn has_the_same(&self, with: &Location) -> bool {
        let shares = |ties: &Ties| ties.shared != 0;
        !self.ties.get(with).is_some_and(shares)
            || self.peers.get(with).is_none_or(|peer| peer.synced)
    }

    /// What this node and that one share now.
    pub(super) fn shared(&self, with: &Location) -> Option<Shared> {
        let peer = self.peers.get(with)?;
        Some(Shared {
            digest: self.ties.get(with).map_or(0, |ties| ties.shared),
            doubts: peer.doubts,
        })
    }

    /// Whether that one has granted a lease for keys with that hash: by its view, too, they have the list with this digest.
    /// Its ranges may begin and end elsewhere, as each of the two may have members that the other lacks.
    fn has_lease(&self, now: Duration, hash: u32, granter: &Location, list: u64) -> bool {
        let Some((asked, ranges)) = self.peers.get(granter).map(|peer| &peer.lease) else {
            return false;
        };
        let below = ranges.partition_point(|range| range.start <= hash.into());
        let is_for =
            |range: &Range| range.list == list && !self.view.ends_below(range.start as u32, hash);
        ranges[..below].last().is_some_and(is_for)
            && now.saturating_sub(*asked) < self.ticks(LEASE_TICKS)
    }

    /// While no other node is full or leaving. One that is coming in may have become it while this node stood still.
    pub(super) fn needs_no_lease(&self, now: Duration) -> bool {
        let nobody_else = self.peers.is_empty() && self.lost.is_empty();
        let mut peers = self.peers.keys();
        let heard = self.lost.is_empty() && peers.all(|peer| self.has_heard(peer));
        nobody_else || (self.is_awake(now) && (heard || self.ticks >= self.alone_from))
    }

    /// This node has accepted what a primary put: a lease for that.
    pub fn granted(&mut self, now: Duration, to: &Location) {
        if let Some(peer) = self.peers.get_mut(to) {
            peer.granted = Some(now);
        }
    }

    /// The members with which this node has to compare what both should have.
    pub fn owed(&self) -> Vec<(Location, Shared)> {
        let me = self.state();
        let owes = |member: &&Member| {
            let peer = &self.peers[&member.location];
            // Only with one that has this node as a member, as far as it has answered.
            if peer.waiting.is_some() || !peer.has_me {
                return false;
            }
            let differs = !self.has_the_same(&member.location);
            match (me.is_coming(), member.state.is_coming()) {
                (true, _) => {
                    let wants = peer.done.is_none()
                        || (peer.done == Some(false) && member.state.holds_all());
                    wants || differs
                }
                (false, true) => false,
                (false, false) => differs,
            }
        };
        let owed = self.others().filter(owes);
        owed.filter_map(|member| {
            let shared = self.shared(&member.location)?;
            Some((member.location.clone(), shared))
        })
        .collect()
    }

    /// Whether this node, and not the other one, exchanges what differs between the two: the one that is coming
    /// in does so, else the one that is leaving, else the first by name.
    pub fn drives(&self, other: &Member) -> bool {
        let order = |state: State| match state {
            State::Joining | State::Returning => 0,
            State::Leaving => 1,
            _ => 2,
        };
        let own = (order(self.state()), &self.location);
        self.state().is_coming() || own < (order(other.state), &other.location)
    }

    /// What both share, if the caller is that member, in that state and life.
    pub fn shared_with(&self, caller: &Caller) -> Option<Shared> {
        let other = &caller.me;
        let same = self.view.get(&other.location) == Some(other) && self.is_itself(caller);
        self.shared(&other.location).filter(|_| same)
    }

    /// The same for the answer of a member, whose state may have changed since.
    pub fn shared_with_life(&self, other: &Member) -> Option<Shared> {
        let same = self.is_member(&other.location, other.incarnation);
        self.shared(&other.location).filter(|_| same)
    }

    /// A member has other lists: the nodes in question are asked, and the member itself.
    pub fn differs(&mut self, with: &Member, members: &[Member]) {
        if self.is_member(&with.location, with.incarnation) {
            self.learn(members);
            self.ask(with.location.clone());
        }
    }

    /// Doubts the replicas at these names: they may lack an item that this node has, and are to be compared with it
    /// again, from the beginning.
    pub fn may_lack<'a>(&mut self, others: impl Iterator<Item = &'a Location>) {
        for other in others {
            if let Some(peer) = self.peers.get_mut(other) {
                peer.synced = false;
                peer.doubts += 1;
            }
        }
    }

    /// Doubts the other full and leaving replicas of keys with that hash, except `from`, if this node is the primary.
    /// It holds an item that `from` has sent, or that no other may hold. The others may lack it, as it may be a copy of
    /// a put that no node finishes.
    pub fn doubt_others(&mut self, hash: u32, from: Option<&Location>) {
        let members = self.view.members();
        let list: Vec<_> = self.view.list(hash, self.rules.copies).collect();
        let holds = |place: &&usize| members[**place].state.holds_all();
        let primary = list.iter().find(holds);
        if primary.is_none_or(|place| members[*place].location != self.location) {
            return;
        }
        // Not one that is coming in: that it becomes full changes the list.
        let others = list.iter().filter(holds);
        let others = others.map(|place| members[*place].location.clone());
        let others: Vec<_> = others.filter(|other| Some(other) != from).collect();
        self.may_lack(others.iter());
    }

    /// A member gets this node's digests, and the two may exchange what differs. `shared`: what the two share.
    pub fn compared(&mut self, with: &Location, shared: Shared) {
        if let Some(peer) = self.peers.get_mut(with) {
            peer.compared = Some(shared);
        }
    }

    /// Whether the two share the same now as when the member got this node's digests.
    pub fn has_compared(&self, with: &Location, shared: Shared) -> bool {
        let peer = self.peers.get(with);
        peer.is_some_and(|peer| peer.compared == Some(shared))
    }

    /// Whether both have the same of all ranges that they share.
    pub fn synced(&mut self, with: &Location, synced: bool) {
        if let Some(peer) = self.peers.get_mut(with) {
            peer.synced = synced;
            self.note_safety();
        }
    }

    /// A member has said "done": it and this node have the same of what both should have, nothing was refused.
    /// Counts only if it names no member that this node lacks; otherwise those are asked, and it is to be
    /// compared with again.
    pub fn done(&mut self, by: &Member, shared: Shared, names: Option<&[Member]>) {
        let same = self.is_member(&by.location, by.incarnation);
        let complete = same && names.is_none_or(|names| self.learn(names));
        if !complete || self.shared(&by.location) != Some(shared) {
            return;
        }
        self.forget_earlier_losses();
        if let Some(peer) = self.peers.get_mut(&by.location) {
            peer.synced = true;
            let full = peer.done == Some(true) || by.state.holds_all();
            peer.done = Some(full);
            self.progress();
            self.note_safety();
        }
    }

    /// Whether no other member stays: all of them are leaving.
    pub fn is_left_alone(&self) -> bool {
        let mut others = self.view.members().iter();
        let goes =
            |member: &Member| member.location == self.location || member.state == State::Leaving;
        !self.is_outside_with_items() && others.all(goes)
    }

    /// Every other replica has what this node should have, as far as it knows, by answers not older than a lease: the
    /// replicas have to be asked for that.
    pub fn is_settled(&self, now: Duration) -> bool {
        let limit = self.ticks(LEASE_TICKS);
        let fresh = |at: Duration| now.saturating_sub(at) < limit;
        let fresh = |(_, peer): (_, &Peer)| peer.answered.is_some_and(fresh);
        self.seems_settled() && self.replicas().all(fresh)
    }

    /// The same by answers of any age: in a large network most of them are old. But no question is without an answer.
    pub fn seems_settled(&self) -> bool {
        if self.is_outside_with_items() {
            return false;
        }
        // Noted: should others be lost now, that they were lost together is known.
        if self.state() == State::Full && self.safe.digest() != self.view.digest() {
            return false;
        }
        // A node that is coming in may have all already, but it ends if the last full member goes before it hears so.
        let nobody_full = !self.others().any(|member| member.state == State::Full);
        if nobody_full && self.others().any(|member| member.state.is_coming()) {
            return false;
        }
        let mut replicas = self.replicas();
        replicas.all(|(_, peer)| peer.synced && peer.waiting.is_none())
    }

    /// The other replicas of what this node should have.
    pub(super) fn replicas(&self) -> impl Iterator<Item = (&Location, &Peer)> {
        let shares = |name: &Location| self.ties.get(name).is_some_and(|ties| ties.shared != 0);
        self.peers.iter().filter(move |(name, _)| shares(name))
    }
}
