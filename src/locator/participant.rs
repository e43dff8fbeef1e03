//! What a service on the locator has to be, and the least of them: nothing but the locator.

use crate::location::Location;
use crate::membership::{Member, State, View};
use crate::service::{Call, Order, Service};
use crate::thrift::Exception;

use super::{EXTENSION, Locator};

/// How many items a service has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Held {
    /// All items.
    pub items: usize,
    /// Those of which this node is no replica, or of which it isn't known yet whether it is one.
    pub elsewhere: usize,
    /// How many items other nodes have confirmed since the start of this node: by this a leaver sees its progress.
    pub confirmed: usize,
    /// Bytes that the items take.
    pub taken: usize,
    /// Bytes that they may take.
    pub memory: usize,
    /// Bytes more that were wanted when something was refused last; 0: there is room for them now.
    pub lacking: usize,
}

/// What a service on the locator adds to it. All methods may be called from many threads.
pub trait Application: Send + Sync {
    /// For each of these nodes, digests of what both it and this node should hold by `view`, range by range of
    /// the service's own; equal digests, equal items.
    fn digests(&self, view: &View, others: &[Location]) -> Vec<Vec<u64>> {
        let _ = view;
        vec![Vec::new(); others.len()]
    }

    /// Gives that node what it lacks in the ranges with these numbers, and takes what it has, while both
    /// have the lists with the digest `shared`. True: each has what the other had, nothing was refused. For a node that
    /// is coming in it is enough that it has what the other had, if that one had no room.
    fn exchange(&self, with: &Member, shared: u64, ranges: &[usize]) -> bool {
        let _ = (with, shared, ranges);
        true
    }

    /// Gives what this node need not hold to those that should, and forgets it once they have it. True: nothing
    /// of that is left.
    fn give(&self) -> bool {
        true
    }

    /// Drops all that lies here.
    fn drop_all(&self) {}

    /// What lies here, counted.
    fn held(&self) -> Held {
        Held::default()
    }
}

/// A service on the locator: what a node runs.
pub trait Participant: Service + Application + Sized + 'static {
    /// The locator that the service stands on.
    fn locator(&self) -> &Locator;

    /// What can take long, as far as there is any; called by one thread of the node, whenever
    /// something has changed, and at the interval of the ticks.
    fn work(&self) {
        if self
            .locator()
            .with(|membership, _| membership.has_to_drop())
        {
            let cause = "the network that lets it in has all that counts";
            self.locator().say(&format!("Dropping all keys: {cause}"));
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
    /// The number of items that were not taken, though there was somebody.
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

    fn order(&self, method: &[u8]) -> Order {
        self.0.order(method)
    }
}

impl Participant for LocatorService {
    fn locator(&self) -> &Locator {
        &self.0
    }
}
