//! Which nodes a request for a key concerns.

use std::ops::Range;
use std::sync::Arc;

use crate::location::Location;
use crate::membership::{Member, View};
use crate::ring;

use super::Locator;

/// The replicas of a key by one view.
pub struct Route {
    /// The key's place on the ring.
    pub hash: u32,
    /// The digest of the list.
    pub digest: u64,
    /// Where its list is among those of the look.
    places: Range<usize>,
    look: Arc<Look>,
}

/// What a node has seen when it looked for the replicas of some keys. Routes share it, as all threads count the owners of
/// the view and of its names.
struct Look {
    view: Arc<View>,
    me: Member,
    /// The lists, one behind the other: places in the view, in the order of the ring.
    places: Vec<usize>,
}

impl Route {
    /// This node.
    pub fn me(&self) -> &Member {
        &self.look.me
    }

    /// All replicas, in the order of the ring.
    pub fn list(&self) -> impl Iterator<Item = &Member> {
        let members = self.look.view.members();
        let places = self.look.places[self.places.clone()].iter();
        places.map(|place| &members[*place])
    }

    /// The primary: the first replica that is full or leaving.
    pub fn primary(&self) -> Option<&Member> {
        self.list().find(|member| member.state.holds_all())
    }

    /// The replicas of ours, but this node.
    pub fn others(&self) -> impl Iterator<Item = &Member> {
        self.list()
            .filter(|member| member.is_ours() && member.location != self.me().location)
    }

    /// Whether this node is a replica of the key.
    pub fn has_me(&self) -> bool {
        self.list()
            .any(|member| member.location == self.me().location)
    }

    /// Whether this node is the primary of the key.
    pub fn is_primary(&self) -> bool {
        self.primary()
            .is_some_and(|member| member.location == self.me().location)
    }

    /// The original that owns the key.
    pub fn original(&self) -> Option<&Location> {
        let first = self.list().next().filter(|member| !member.is_ours());
        first.map(|member| &member.location)
    }

    /// There are nodes of the original in the network.
    pub fn has_originals(&self) -> bool {
        self.look.view.has_originals()
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
        let (view, me) = {
            let membership = &self.lock().membership;
            (membership.view().clone(), membership.me())
        };
        let mut places = Vec::with_capacity(self.options.replicas * keys.size_hint().0);
        let found: Vec<_> = keys
            .map(|key| {
                let (hash, start) = (ring::hash(key), places.len());
                places.extend(view.list(hash, self.options.replicas));
                let digest = view.list_digest(places[start..].iter().copied());
                (hash, digest, start..places.len())
            })
            .collect();
        let look = Arc::new(Look { view, me, places });
        let route = |(hash, digest, places)| Route {
            hash,
            digest,
            places,
            look: look.clone(),
        };
        found.into_iter().map(route).collect()
    }
}
