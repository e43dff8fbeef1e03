//! Which nodes a request for a key concerns.

use crate::location::Location;
use crate::membership::Member;
use crate::ring;

use super::Locator;

/// The replicas of a key by one view.
pub struct Route {
    /// The epoch of the view.
    pub epoch: u64,
    /// The key's place on the ring.
    pub hash: u32,
    /// In the order of the ring.
    pub list: Vec<Member>,
    /// The digest of the list.
    pub digest: u64,
    /// This node.
    pub me: Member,
    /// There are nodes of the original in the network.
    pub has_originals: bool,
}

impl Route {
    /// The primary: the first replica that is full or leaving.
    pub fn primary(&self) -> Option<&Member> {
        self.list.iter().find(|member| member.state.holds_all())
    }

    /// The replicas of ours, but this node.
    pub fn others(&self) -> impl Iterator<Item = &Member> {
        let others = self.list.iter();
        others.filter(|member| member.is_ours() && member.location != self.me.location)
    }

    /// Whether this node is a replica of the key.
    pub fn has_me(&self) -> bool {
        let mut list = self.list.iter();
        list.any(|member| member.location == self.me.location)
    }

    /// Whether this node is the primary of the key.
    pub fn is_primary(&self) -> bool {
        self.primary()
            .is_some_and(|member| member.location == self.me.location)
    }

    /// The original that owns the key.
    pub fn original(&self) -> Option<&Location> {
        let first = self.list.first().filter(|member| !member.is_ours());
        first.map(|member| &member.location)
    }
}

impl Locator {
    /// The replicas of a key, as the network is known now.
    pub fn route(&self, key: &[u8]) -> Route {
        let mut routes = self.routes([key].into_iter());
        routes.pop().expect("BUG: a route for each key")
    }

    /// The same of several keys, by one view.
    pub fn routes<'a>(&self, keys: impl Iterator<Item = &'a [u8]>) -> Vec<Route> {
        let (view, me, epoch) = {
            let inner = self.lock();
            let membership = &inner.membership;
            (membership.view().clone(), membership.me(), self.epoch())
        };
        let route = |key: &[u8]| {
            let hash = ring::hash(key);
            let places: Vec<_> = view.list(hash, self.options.replicas).collect();
            let digest = view.list_digest(places.iter().copied());
            let list = places.iter().map(|place| view.members()[*place].clone());
            Route {
                epoch,
                hash,
                list: list.collect(),
                digest,
                me: me.clone(),
                has_originals: view.has_originals(),
            }
        };
        keys.map(route).collect()
    }
}
