//! When a node that has become full may act as one: as a primary, a granter, or a replica that accepts puts.
//!
//! Another node was the primary of its keys before, or granted the lease for them, and may not have heard of it. Until it
//! has, it may still use leases, or grant them. So the node waits until each member that it had then, and that may be full,
//! has said that it knows. A member lost for silence may still have a lease: from one that did not know yet that this node
//! is full, or that was lost or left since.

use std::collections::BTreeSet;

use crate::location::Location;

use super::{LEASE_TICKS, Member, Membership, Peer};

/// What a node that has become full waits for.
#[derive(Debug, Default)]
pub(super) struct Takeover {
    /// Of the members that this node had when it became full: those that may be full and have not said yet that they have
    /// it as full or leaving.
    unaware: BTreeSet<Location>,
    /// A member that may be full was lost for silence while this node was coming in, or before it took over.
    has_lost: bool,
    /// At this tick all leases have ended that such a one may have. Counts only if there was one.
    leases_until: u64,
}

impl Membership {
    /// This node is about to become full, or to leave: notes which nodes it waits for.
    pub(super) fn begin_takeover(&mut self) {
        let unaware = self.peers.keys().filter(|peer| self.may_be_full(peer));
        self.takeover.unaware = unaware.cloned().collect();
    }

    /// Whether a member is full or leaving, or may be without this node's knowing: it said so when this node was done with
    /// it, or it may be done with this node.
    fn may_be_full(&self, member: &Location) -> bool {
        let holds_all = |member: &Member| member.state.holds_all();
        let known = self.view.get(member).is_some_and(holds_all);
        let may = |peer: &Peer| peer.compared.is_some() || peer.done == Some(true);
        known || self.peers.get(member).is_some_and(may)
    }

    /// Whether this node may act as what it is. Always so for one that is neither full nor leaving.
    pub fn has_taken_over(&self) -> bool {
        let Takeover {
            unaware,
            has_lost,
            leases_until,
        } = &self.takeover;
        !self.state().holds_all()
            || (unaware.is_empty() && (!has_lost || self.ticks >= *leases_until))
    }

    /// The members that are to be asked, as they may not know.
    pub(super) fn unaware(&self) -> impl Iterator<Item = &Location> {
        self.takeover.unaware.iter()
    }

    /// A member has said that it has this node as full or leaving. `same_view`: it has the same view, so it has lost the
    /// silent ones, too, and no lease that it granted one of them can still hold.
    pub(super) fn note_aware(&mut self, member: &Location, same_view: bool) {
        let heard = self.takeover.unaware.remove(member);
        if heard && !(self.takeover.has_lost && same_view) {
            self.wait_for_leases();
        }
    }

    /// A member is lost for silence. A lease that it has comes from another one. That one goes, see
    /// [`Membership::note_gone`]; or it stays, and will say that it knows, or has just said so.
    pub(super) fn note_silent(&mut self, member: &Location) {
        let takes_over = self.state().is_coming() || !self.has_taken_over();
        if takes_over && self.may_be_full(member) {
            self.takeover.has_lost = true;
        }
        if self.takeover.unaware.remove(member) {
            self.wait_for_leases();
        }
    }

    /// A member is lost for another cause, or has left. It may just have granted a lease to one that is silent, or was lost
    /// for silence.
    pub(super) fn note_gone(&mut self, member: &Location) {
        if self.takeover.unaware.remove(member) || self.state().is_coming() {
            self.wait_for_leases();
        }
    }

    /// Whether a member that may be full is silent, from the second tick after this was noticed. A node that is coming in
    /// waits until it answers or is lost. As a full one it would have to wait for that as well, and meanwhile no node could
    /// serve its keys: the primary until then no more, this one not yet.
    pub(super) fn waits_for_a_silent_one(&self) -> bool {
        let silent = |peer: &Peer| peer.waiting.is_some_and(|(_, tick)| self.ticks - tick > 1);
        let mut peers = self.peers.iter();
        peers.any(|(name, peer)| silent(peer) && self.may_be_full(name))
    }

    fn wait_for_leases(&mut self) {
        self.takeover.leases_until = self.ticks + u64::from(LEASE_TICKS) + 1;
    }
}
