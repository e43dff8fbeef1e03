//! Nodes of any service, as far as the locator knows them; and a ring of nodes whose service keeps nothing: membership
//! alone.

use std::sync::Arc;

use thrifty_p2p::location::Location;
use thrifty_p2p::locator::{self, Application, Errand, Locator, Participant};
use thrifty_p2p::membership::State;
use thrifty_p2p::net::{Environment, Network};
use thrifty_p2p::service::{Call, Order, Service};
use thrifty_p2p::thrift::Exception;

use super::world::{Item, Placement, SimNode, Subject, TICK, Way};

/// A service that adds nothing to the locator.
struct Plain(Locator);

impl Service for Plain {
    fn call(&self, call: &Call<'_>, result: &mut Vec<u8>) -> Result<(), Exception> {
        self.0.call(call, result, self)
    }

    fn order(&self, method: &[u8]) -> Order {
        self.0.order(method)
    }
}

impl Application for Plain {}

impl Participant for Plain {
    fn locator(&self) -> &Locator {
        &self.0
    }
}

/// A node that can't look for a network without a contact.
pub struct Node<P> {
    pub participant: Arc<P>,
    pub items: fn(&P) -> Vec<Item>,
}

impl<P: Participant> SimNode for Node<P> {
    fn service(&self) -> Arc<dyn Service> {
        self.participant.clone()
    }

    fn start(&self, way: &Way) -> bool {
        let locator = self.participant.locator();
        match way {
            Way::Join(contact) => locator.join(std::slice::from_ref(contact)).is_ok(),
            Way::Begin | Way::Look(_) => locator.start(&[], true).is_ok(),
        }
    }

    fn tick(&self) {
        self.participant.locator().tick();
    }

    fn work(&self) {
        self.participant.work();
    }

    fn ask(&self, silent: bool) {
        self.participant.locator().ask(silent);
    }

    fn on_errand(&self, wake: Box<dyn Fn(Errand) + Send + Sync>) {
        self.participant.locator().on_errand(wake);
    }

    fn gives_up(&self) -> bool {
        self.participant.locator().end_reason().is_some()
    }

    fn leave(&self) -> bool {
        self.participant.leave() == Ok(0)
    }

    fn members(&self) -> Vec<(Location, bool)> {
        let view = self.participant.locator().view();
        let members = view.members().iter();
        let members = members.map(|m| (m.location.clone(), m.state != State::Full));
        members.collect()
    }

    fn items(&self) -> Vec<Item> {
        (self.items)(&self.participant)
    }
}

pub struct PlainRing;

impl Subject for PlainRing {
    fn node(&self, location: &Location, environment: Environment, _: usize) -> Arc<dyn SimNode> {
        let options = locator::Options {
            service_types: &["locator.Base", "locator.Locator"],
            replicas: 1,
            tick: TICK,
            die_from_anywhere: false,
            on_die: Box::new(|| ()),
        };
        let locator = Locator::new(location.clone(), options, environment);
        Arc::new(Node {
            participant: Arc::new(Plain(locator)),
            items: |_| Vec::new(),
        })
    }

    fn put(&self, _: &dyn Network, _: &Location, _: &[u8], _: &[u8]) -> Result<(), String> {
        Err("keeps nothing".to_owned())
    }

    fn get(&self, _: &dyn Network, _: &Location, _: &[u8]) -> Result<Vec<u8>, String> {
        Err("keeps nothing".to_owned())
    }

    fn placement(&self, _: &[Location]) -> Placement {
        Box::new(|_| Vec::new())
    }
}
