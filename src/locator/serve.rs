//! The calls of the Locator, and those of the extension that are its own.

use std::time::Duration;

use crate::location::Location;
use crate::membership::Membership;
use crate::net::Level;
use crate::service::{Call, Order};
use crate::thrift::{Exception, Write, put_field};

use super::calls::{read_arguments, read_key};
use super::{Application, EXTENSION, Locator, Status};

/// The methods of the Locator, and those of the extension that are its own; those that are called most come first.
pub const METHODS: &[&str] = &[
    "ask",
    "compare",
    "get_node",
    "get_all",
    "ping",
    "service_types",
    "service_type",
    "status",
    "enter",
    "reach",
    "accept_loss",
    "join",
    "add",
    "remove",
    "debug",
    "die",
];

impl Locator {
    /// How the first calls of connections wait for each other; see [`Order`].
    pub fn order(&self, method: &[u8]) -> Order {
        match method {
            b"add" | b"remove" | b"join" | b"die" => Order::Write,
            b"ask" | b"enter" | b"reach" | b"compare" | b"status" | b"accept_loss" => Order::Free,
            _ => Order::Read,
        }
    }

    /// Serves the calls of the Locator, and those of the extension that are its own.
    ///
    /// # Errors
    /// An unknown method, or arguments that are missing.
    pub fn call(
        &self,
        call: &Call<'_>,
        result: &mut Vec<u8>,
        application: &dyn Application,
    ) -> Result<(), Exception> {
        match call.method {
            b"ping" => {}
            b"service_type" => {
                result.write_bytes_field(0, self.service_type().as_bytes());
            }
            b"service_types" => {
                let own = self.options.service_types.iter();
                let types = own.chain([&EXTENSION]).map(|name| name.as_bytes());
                put_field(result, 0, &types.collect::<Vec<_>>());
            }
            b"debug" => self.debug(application),
            b"die" => {
                if call.local || self.options.die_from_anywhere {
                    (self.options.on_die)();
                } else {
                    let message = "die is obeyed from the node's own machine only";
                    return Err(Exception::internal(message));
                }
            }
            b"get_all" => {
                put_field(result, 0, &self.members());
            }
            b"get_node" => {
                let view = self.view();
                let owner = view.owner(read_key(call.arguments)?);
                // The same.
                let owner = owner.map_or(self.location(), |owner| &owner.location);
                put_field(result, 0, owner);
            }
            b"accept_loss" => self.with(|membership, _| membership.accept_loss()),
            b"join" | b"add" | b"remove" => return self.on_news(call, result),
            b"ask" => {
                let question = read_arguments(call.arguments)?;
                let reply = self.with(|membership, now| membership.answer(now, &question));
                put_field(result, 0, &reply);
            }
            b"enter" => return self.on_enter(call.arguments, result),
            b"reach" => return self.on_reach(call.arguments, result),
            b"compare" => return self.on_compare(call.arguments, result, application),
            b"status" => put_field(result, 0, &self.status(application)),
            b"hello" | b"pull" => return Err(self.refuse_version_1()),
            _ => return Err(Exception::unknown_method(call.method)),
        }
        result.write_stop();
        Ok(())
    }

    /// The members of the network; outside of any it is this node alone.
    pub fn members(&self) -> Vec<Location> {
        let view = self.view();
        match view.members() {
            [] => vec![self.location.clone()],
            members => members.iter().map(|m| m.location.clone()).collect(),
        }
    }

    pub(super) fn service_type(&self) -> &'static str {
        self.options
            .service_types
            .last()
            .expect("BUG: a node without a service type")
    }

    /// Is everything where it should be, as far as this node can tell? All that share keys with it are
    /// asked first.
    pub fn status(&self, application: &dyn Application) -> Status {
        self.with(|membership, now| membership.ask_all(now));
        self.announce();
        self.state_if(application, Membership::is_settled)
    }

    /// The same without asking other nodes first.
    pub fn state(&self, application: &dyn Application) -> Status {
        self.state_if(application, |membership, _| membership.seems_settled())
    }

    /// All of it at one moment; `settled` says whether this node counts as settled then.
    fn state_if(
        &self,
        application: &dyn Application,
        settled: fn(&Membership, Duration) -> bool,
    ) -> Status {
        let traffic = self.traffic.get();
        let held = application.held();
        let count = |number| u32::try_from(number).unwrap_or(u32::MAX);
        self.with(|membership, now| Status {
            me: membership.me(),
            replicas: count(self.options.replicas),
            members: count(membership.view().members().len()),
            full: count(membership.count_full()),
            digest: membership.view().digest(),
            items: held.items,
            unconfirmed: held.elsewhere,
            settled: settled(membership, now),
            missing: membership.alarm(),
            taken: held.taken,
            memory: held.memory,
            lacking: held.lacking,
            deleted: Some(held.deleted),
            connections: traffic.map(|traffic| traffic.connections()),
            rate: traffic.map(|traffic| traffic.rate()),
            version: Some(env!("CARGO_PKG_VERSION").to_owned()),
            since: Some(self.since),
        })
    }

    /// What the original's `debug` is for: the node's state, on its own log.
    fn debug(&self, application: &dyn Application) {
        let status = self.status(application);
        let view = self.view();
        self.log(Level::Info, &format!("{status:?}"));
        for member in view.members() {
            let line = format!("{} {:?}", member.location, member.state);
            self.log(Level::Info, &line);
        }
    }
}
