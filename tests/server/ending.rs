//! Ending connections and the server.

use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use thrifty_p2p::server::{Options, Server};
use thrifty_p2p::service::{Call, Order, Service};
use thrifty_p2p::thrift::{Exception, MessageKind, Write as _};

use crate::house::{LONG, house, message, visit};

#[test]
fn must_finish_the_requests_at_hand_when_stopped() {
    let house = house(|_| {});
    let mut busy = house.visit();
    busy.send(&message(MessageKind::Call, "wait", 1, &[]));
    busy.send(&message(MessageKind::Call, "ping", 2, &[]));
    house.service.wait_for("wait", 1);
    let mut idle = house.visit();
    idle.call("ping", &[]);
    thread::scope(|scope| {
        let stopping = scope.spawn(|| house.server.stop(LONG));
        idle.must_be_closed();
        let deadline = Instant::now() + LONG;
        while TcpStream::connect(house.address).is_ok() {
            assert!(Instant::now() < deadline, "it still listens");
        }
        assert!(!stopping.is_finished());
        house.service.open_the_gate();
        stopping.join().unwrap();
    });
    assert_eq!(busy.answer().unwrap().sequence, 1);
    assert_eq!(busy.answer().unwrap().sequence, 2);
    busy.must_be_closed();
}

#[test]
fn must_stop_within_the_limit() {
    let house = house(|_| {});
    let mut busy = house.visit();
    busy.send(&message(MessageKind::Call, "wait", 1, &[]));
    house.service.wait_for("wait", 1);
    let started = Instant::now();
    house.server.stop(Duration::from_millis(100));
    assert!(started.elapsed() < LONG / 2);
    busy.must_be_closed();
    house.server.stop(Duration::from_millis(100));
    house.service.open_the_gate();
}

/// Closes the others' connections when asked to.
#[derive(Default)]
struct Closer(OnceLock<Server>);

impl Service for Closer {
    fn call(&self, call: &Call<'_>, result: &mut Vec<u8>) -> Result<(), Exception> {
        if call.method == b"close" {
            self.0.get().unwrap().close_connections();
        }
        result.write_stop();
        Ok(())
    }

    fn order(&self, _: &[u8]) -> Order {
        Order::Free
    }
}

#[test]
fn must_close_all_connections_but_the_one_that_asks() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let closer = Arc::new(Closer::default());
    let server = Server::start(listener, Arc::clone(&closer) as Arc<_>, Options::default());
    assert!(closer.0.set(server.unwrap()).is_ok());
    let [mut asking, mut other] = [visit(address), visit(address)];
    other.call("ping", &[]);
    asking.call("close", &[]);
    other.must_be_closed();
    asking.call("ping", &[]);
    closer.0.get().unwrap().close_connections();
    asking.must_be_closed();
}
