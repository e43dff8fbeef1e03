//! What a service on the locator has to be, and the least of them: nothing but the locator.

use std::sync::Arc;

use crate::location::Location;
use crate::service::{Call, Order, Service};
use crate::thrift::Exception;

use super::calls::{Item, ItemList};
use super::view::View;
use super::{EXTENSION, Locator};

/// What a service on the locator adds to it. All methods may be called from many threads.
pub trait Application: Send + Sync {
    /// Puts items that `newcomer` should hold by `view` into `items`, some megabytes at most, from where
    /// `cursor` says (empty: the beginning). The answer are the cursors of what is behind them, few, and
    /// none behind a page without items.
    fn page(
        &self,
        view: &View,
        newcomer: &Location,
        cursor: &[u8],
        items: &mut ItemList,
    ) -> Vec<Vec<u8>> {
        let _ = (view, newcomer, cursor, items);
        Vec::new()
    }

    /// Takes in an item that another node has.
    fn accept(&self, item: &Item<'_>) {
        let _ = item;
    }

    /// Everything has been pulled: whether this node may count as full. False: it is to be asked again.
    fn settle(&self) -> bool {
        true
    }

    /// This node is full: `view` is the first in which this node is full.
    fn filled(&self, view: &Arc<View>) {
        let _ = view;
    }

    /// Items held, items not known to be with all their holders, and whether a move is due.
    fn items(&self) -> (usize, usize, bool) {
        (0, 0, false)
    }
}

/// A service on the locator: what a node runs.
pub trait Participant: Service + Application + Sized + 'static {
    fn locator(&self) -> &Locator;

    /// What can take long, as far as there is any; called by the node's mover after each change of
    /// the view, and at the interval of the ticks.
    fn work(&self) {
        self.locator().fill(self);
        self.locator().look_after_originals();
    }

    /// Hands over and says goodbye, while the node still serves. The answer is the number of items that
    /// go with it, as nobody is left to take them.
    ///
    /// # Errors
    /// The number of items that were not taken, though there was somebody.
    fn leave(&self) -> Result<usize, usize> {
        self.locator().say_goodbye();
        Ok(0)
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
