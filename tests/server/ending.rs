//! Ending connections and the server.

use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use thrifty_p2p::thrift::MessageKind;

use crate::house::{LONG, house, message};

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
