//! What a service on the locator has to be, and the least of them: nothing but the locator.

use std::time::Duration;

use crate::location::Location;
use crate::membership::{Member, State, View};
use crate::net::Level;
use crate::service::{Call, Order, Service};
use crate::thrift::Exception;

use super::{EXTENSION, Locator, METHODS};

/// How many items a service has. `location --status` prints it, and says that all is safe only if `elsewhere` is 0; a
/// node that leaves waits for that, but not for ever: see `confirmed`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Held {
    /// All items.
    pub items: usize,
    /// Those of which there is only the tombstone.
    pub deleted: usize,
    /// Those of which this node is no replica by the present view, or of which it isn't known yet whether it is one.
    pub elsewhere: usize,
    /// Grows when other nodes confirm items that this node has sent: by this a leaving node sees its progress. If it
    /// doesn't grow for ten seconds, the node goes with what is left.
    pub confirmed: usize,
    /// Until when items that this node has sent may be on their way, by [`Locator::now`]: a leaving node counts the ten
    /// seconds from then at the earliest.
    pub sent_until: Duration,
    /// Bytes that the items take.
    pub taken: usize,
    /// Bytes that they may take.
    pub memory: usize,
    /// Bytes more that were wanted when something was refused last; 0: there is room for them now.
    pub lacking: usize,
}

/// What a service on the locator adds to it. All methods may be called from many threads.
///
/// A service that keeps nothing takes all as it is. One that keeps items has them at the replicas of their keys, the
/// nodes of [`View::list`], and implements all five. The locator decides when they are called; the service knows its
/// items. `examples/counter.rs` does it in the simplest way, [`crate::diststore`] for millions of items.
///
/// # What the service has to see to
///
/// | when | what happens | what it relies on |
/// |---|---|---|
/// | a list changes: a node comes, is full, begins to leave, or is lost | the replicas on the list compare, by [`digests`](Self::digests), and have what differs [exchanged](Self::exchange). A node that comes is full when it has done that with all members | equal digests mean equal items; `exchange` says true only if both have all |
/// | a node is no replica of an item any more | it [gives](Self::give) the item to those that are, and forgets it | an item is forgotten only once all its replicas have it |
/// | a node leaves | it stays a replica until it is settled, that is, equal with the others by the first row, and [`Held::elsewhere`] is 0 | the same |
/// | a client changes an item | the service sends it to the other replicas itself, and answers when all have it | the locator doesn't hear of it |
///
/// `location --status` says that all is safe if all members are full and settled, nothing lies elsewhere, and no
/// range has lost all its replicas. So if a service is wrong in one of these things, it says so too early. One thing the
/// locator can't see: a change that one replica has and another one may not have, while no list changes. Then
/// [`Membership::may_lack`](crate::membership::Membership::may_lack) has the two compare again.
///
/// # Lists
///
/// Each message with an item carries the digest of the item's list ([`Route::digest`](super::Route::digest)), or of
/// all that two nodes share (`shared` below). Its receiver looks whether it has the same
/// ([`Membership::is_replica`](crate::membership::Membership::is_replica),
/// [`Membership::shared_with`](crate::membership::Membership::shared_with)), and acts on it under the same lock, within
/// [`Locator::with`]; otherwise it refuses. Before an item is forgotten,
/// [`Membership::has_list`](crate::membership::Membership::has_list) is asked, in the same way. The service's own locks
/// are taken after that lock, and none is held while a node is called.
pub trait Application: Send + Sync {
    /// For each of these nodes, digests of what both it and this node should hold by `view`, range by range of
    /// the service's own; equal digests, equal items. At all nodes the ranges have to be the same. Called before each
    /// comparison, by this node or the other one.
    fn digests(&self, view: &View, others: &[Location]) -> Vec<Vec<u64>> {
        let _ = view;
        vec![Vec::new(); others.len()]
    }

    /// Gives that node what it lacks in the ranges with these numbers, and takes what it has, while both have the lists
    /// with the digest `shared`. True: each has what the other had, nothing was refused. For a node that is coming in
    /// to stay it is enough that it has what the other had, if that one had no room. False: it is done again. The calls
    /// for it are the service's own; one of the two nodes makes them.
    fn exchange(&self, with: &Member, shared: u64, ranges: &[usize]) -> bool {
        let _ = (with, shared, ranges);
        true
    }

    /// Gives what this node need not hold to those that should, and forgets it once they have it. True: nothing
    /// of that is left. Called after each change, and once a tick. A node that is outside or joining gives nothing:
    /// the others have what it has.
    fn give(&self) -> bool {
        true
    }

    /// Drops all that lies here: the network that this node comes back to has all that counts.
    fn drop_all(&self) {}

    /// What lies here, counted. Called for `status`, and again and again by a node that leaves.
    fn held(&self) -> Held {
        Held::default()
    }
}

/// A service on the locator: what a node runs. Only [`locator`](Self::locator) has to be written; `call` and `order` of
/// its [`Service`] pass what they don't know on to [`Locator::call`] and [`Locator::order`].
pub trait Participant: Service + Application + Sized + 'static {
    /// The locator that the service stands on.
    fn locator(&self) -> &Locator;

    /// What can take long: compares, exchanges and gives, as [`Application`] says. Called by one thread of the node,
    /// whenever something has changed, and at the interval of the ticks.
    fn work(&self) {
        if self
            .locator()
            .with(|membership, _| membership.has_to_drop())
        {
            let cause = "the network that lets it in has all that counts";
            let line = format!("dropping all keys: {cause}");
            self.locator().log(Level::Warn, &line);
            self.drop_all();
            self.locator().with(|membership, _| membership.dropped());
        }
        self.locator().look_after_originals();
        self.locator().settle(self);
        // After the goodbye `leave` gives, once the originals have heard it.
        let changes = self.locator().with(|membership, _| membership.changes());
        if self.locator().me().state != State::Left && self.give() {
            self.locator()
                .with(|membership, _| membership.brought(changes));
        }
    }

    /// Hands over and says goodbye, while the node still serves. The answer is the number of items that
    /// go with it, as nobody is left to take them.
    ///
    /// # Errors
    /// How many items at most were not taken, though there was somebody.
    fn leave(&self) -> Result<usize, usize> {
        self.locator().leave(self)
    }
}

/// The services that a node of nothing but the locator answers for.
pub const SERVICE_TYPES: &[&str] = &["locator.Base", "locator.Locator"];

/// What a node with these service types is: the last of them, which extends the others. Nodes of one
/// kind make up a network. `None` for an original that is too old to tell.
pub fn kind(types: &[String]) -> Option<&str> {
    let mut services = types.iter().rev().filter(|name| *name != EXTENSION);
    services.next().map(String::as_str)
}

/// A node of nothing but the locator.
pub struct LocatorService(Locator);

impl LocatorService {
    /// A node of the locator alone.
    pub fn new(locator: Locator) -> Self {
        LocatorService(locator)
    }
}

impl Application for LocatorService {}

impl Service for LocatorService {
    fn call(&self, call: &Call<'_>, result: &mut Vec<u8>) -> Result<(), Exception> {
        self.0.call(call, result, self)
    }

    fn methods(&self) -> Vec<&'static str> {
        METHODS.to_vec()
    }

    fn order(&self, method: &[u8]) -> Order {
        self.0.order(method)
    }
}

impl Participant for LocatorService {
    fn locator(&self) -> &Locator {
        &self.0
    }
}
