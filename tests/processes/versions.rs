//! Nodes of another version don't become members, and both sides say so.

use std::net::TcpListener;
use std::sync::Arc;

use thrifty_p2p::locator::{EMPTY, EXTENSION, VERSION, read_answer, request};
use thrifty_p2p::membership::{Member, State};
use thrifty_p2p::net::{CallError, Network};
use thrifty_p2p::server::{Options, Server};
use thrifty_p2p::service::{Call, Order, Service};
use thrifty_p2p::thrift::{Exception, Write, put_field};
use thrifty_p2p::thrift_struct;

use crate::running::{
    CALL_LIMIT, Node, SECONDS, STORESERVER, members, network, own_address, run, wait_until,
};
use crate::strangers::{Candidate, encoded};

/// The answer to `enter`, as far as it is needed here.
#[derive(Debug)]
struct Entered {
    kind: i32,
    reason: String,
}
thrift_struct!(Entered { 1 kind, 5 reason });

const REFUSED: i32 = 6;

fn speaks(version: i32, not: &str) -> String {
    format!("this network speaks version {version} of {EXTENSION}, not {not}")
}

#[test]
fn must_refuse_a_node_of_another_version() {
    let node = Node::store(&own_address(), &["--new"]);
    let network = network();
    for version in [VERSION - 1, VERSION + 1] {
        let candidate = Candidate {
            me: Member {
                location: "127.0.0.1:9999".parse().unwrap(),
                state: State::Joining,
                incarnation: 2,
            },
            service: b"diststore.Store",
            replicas: 2,
            tick_millis: 500,
            version,
        };
        let enter = request("enter", encoded(&candidate));
        let answer = network.call(&node.location, &enter, CALL_LIMIT).unwrap();
        let entered: Entered = read_answer(&answer, "enter").unwrap();
        let reason = speaks(VERSION, &version.to_string());
        assert_eq!((entered.kind, entered.reason), (REFUSED, reason));
    }
    // Version 1 has a call of its own.
    let hello = request("hello", EMPTY.to_vec());
    match network.call(&node.location, &hello, CALL_LIMIT) {
        Err(CallError::Exception(exception)) => assert_eq!(exception.message, speaks(VERSION, "1")),
        other => panic!("{other:?}"),
    }
    for version in [VERSION - 1, VERSION + 1, 1] {
        let line = speaks(VERSION, &version.to_string());
        let line = format!(" warn {}: a node is refused: {line}\n", node.location);
        let said = || node.process.errors().matches(&line).count();
        wait_until(SECONDS, "it says so in its log", || said() > 0);
        assert_eq!(said(), 1, "{}", node.process.errors());
    }
    assert_eq!(members(&network, &node.location).unwrap().len(), 1);
}

/// What a network of a later version says to each candidate.
struct Refuses;

impl Service for Refuses {
    fn call(&self, call: &Call<'_>, result: &mut Vec<u8>) -> Result<(), Exception> {
        match call.method {
            b"service_types" => {
                let types = ["locator.Locator", "diststore.Store", EXTENSION].map(str::to_owned);
                put_field(result, 0, &types.to_vec());
            }
            b"enter" => {
                let (kind, reason) = (REFUSED, speaks(99, &VERSION.to_string()));
                put_field(result, 0, &Entered { kind, reason });
            }
            other => return Err(Exception::unknown_method(other)),
        }
        result.write_stop();
        Ok(())
    }

    fn order(&self, _: &[u8]) -> Order {
        Order::Free
    }
}

#[test]
fn must_end_with_the_reason_when_a_network_of_another_version_refuses_it() {
    let listener = TcpListener::bind((own_address(), 9900)).unwrap();
    let peer = listener.local_addr().unwrap().to_string();
    let server = Server::start(listener, Arc::new(Refuses), Options::default()).unwrap();
    let own = own_address();
    let output = run(STORESERVER, &["-a", &own, "-h", &peer], SECONDS);
    server.stop(SECONDS);
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{errors}");
    let reason = speaks(99, &VERSION.to_string());
    let line = format!("storeserver: {own}:9900: peer {peer}: {reason}\n");
    assert_eq!(errors, line);
}
