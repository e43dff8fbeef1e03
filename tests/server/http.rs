//! Requests of HTTP on the port of a server: a server without an answer for them, half ones, late ones.

use std::io::Read;
use std::sync::Arc;
use std::time::{Duration, Instant};

use thrifty_p2p::server::Options;
use thrifty_p2p::thrift::MessageKind;

use crate::house::{Client, LONG, house, message};

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// Answers with the length of the head.
fn answers(options: &mut Options) {
    options.http = Some(Arc::new(|head| {
        assert!(head != b"GET /panic\r\n\r\n", "on purpose");
        head.len().to_string().into_bytes()
    }));
}

/// All that comes until the connection ends.
fn rest(client: &mut Client) -> String {
    let mut all = String::new();
    client.stream.read_to_string(&mut all).unwrap();
    all
}

#[test]
fn must_answer_one_request_and_close() {
    let house = house(answers);
    for request in [REQUEST.to_vec(), REQUEST.repeat(3)] {
        let mut client = house.visit();
        client.send(&request);
        assert_eq!(rest(&mut client), REQUEST.len().to_string());
    }
    let mut client = house.visit();
    client.send(&[b"POST ".to_vec(), vec![b'x'; 20_000]].concat());
    assert_eq!(rest(&mut client), "8192", "what is too long is cut off");
    let mut client = house.visit();
    client.send(b"GET /panic\r\n\r\n");
    assert_eq!(rest(&mut client), "");
    house.call("ping", &[]).result().unwrap();
}

#[test]
fn must_take_no_request_behind_a_message() {
    let house = house(answers);
    let mut client = house.visit();
    client.send(&message(MessageKind::Call, "ping", 1, &[]));
    assert_eq!(client.answer().unwrap().sequence, 1);
    client.send(REQUEST);
    client.must_be_closed();
}

#[test]
fn must_refuse_it_without_an_answer_for_it() {
    let house = house(|_| ());
    let mut client = house.visit();
    client.send(REQUEST);
    client.must_be_closed();
}

#[test]
fn must_wait_for_half_a_request_as_for_half_a_message() {
    let limit = Duration::from_millis(100);
    let house = house(|options| {
        answers(options);
        options.message_limit = limit;
    });
    let began = Instant::now();
    let mut half: Vec<_> = (0..REQUEST.len()).map(|_| house.visit()).collect();
    for (length, client) in half.iter_mut().enumerate().skip(1) {
        client.send(&REQUEST[..length]);
    }
    for client in half.iter_mut().skip(1) {
        assert_eq!(rest(client), "");
    }
    assert!(began.elapsed() >= limit && began.elapsed() < LONG);
}
