//! Whose first request comes first.

use std::time::{Duration, Instant};

use thrifty_p2p::thrift::MessageKind;

use crate::house::{house, message};

/// The 2009 programs' patterns; each pair of connections is a chance to overtake.
#[test]
fn must_serve_connections_in_the_order_of_their_first_requests() {
    let house = house(|_| {});
    for round in 0..200 {
        let value = format!("{round}").into_bytes();
        let put = message(MessageKind::Oneway, "put", 0, &[b"k", &value]);
        house.visit().send(&put);
        assert_eq!(house.call("get", &[b"k"]).result(), Ok(value));
    }
}

#[test]
fn must_wait_for_a_write_but_not_for_ever() {
    let house = house(|_| {});
    let put = message(MessageKind::Oneway, "put_slowly", 0, &[b"k", b"new"]);
    house.visit().send(&put);
    house.service.wait_for("put_slowly", 1);
    let started = Instant::now();
    assert_eq!(house.call("get", &[b"k"]).result(), Ok(Vec::new()));
    assert!(started.elapsed() > Duration::from_millis(200));
    house.service.open_the_gate();
}

#[test]
fn must_see_a_write_that_ends_in_time() {
    let house = house(|_| {});
    let put = message(MessageKind::Oneway, "put_slowly", 0, &[b"k", b"new"]);
    house.visit().send(&put);
    house.service.wait_for("put_slowly", 1);
    let mut later = house.visit();
    later.send(&message(MessageKind::Call, "get", 0, &[b"k"]));
    // Held up so far: what it waits for is what the gate lets through.
    house.service.open_the_gate();
    assert_eq!(later.answer().unwrap().result(), Ok(b"new".to_vec()));
}

#[test]
fn must_not_wait_for_what_follows_a_write_nor_be_held_up_within_our_own_calls() {
    let house = house(|_| {});
    let started = Instant::now();
    for round in 1..=20 {
        let value = [round];
        let put = message(MessageKind::Oneway, "put_and_tell", 0, &[b"k", &value]);
        house.visit().send(&put);
        house.service.wait_for("put_and_tell", round.into());
        assert_eq!(house.call("get", &[b"k"]).result(), Ok(value.to_vec()));
        house.call("local", &[]);
    }
    assert!(
        started.elapsed() < Duration::from_secs(3),
        "half of what waiting takes"
    );
    house.service.open_the_gate();
}

#[test]
fn must_be_delayed_once_by_any_number_of_silent_connections() {
    let house = house(|_| {});
    let silent: Vec<_> = (0..300).map(|_| house.visit()).collect();
    let started = Instant::now();
    house.call("ping", &[]);
    // One after the other they would take 6 s.
    assert!(started.elapsed() < Duration::from_secs(3));
    for mut client in silent {
        client.call("get", &[b"k"]);
    }
}
