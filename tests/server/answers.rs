//! What is answered, and how.

use std::io::{Read, Write};
use std::net::Shutdown;

use thrifty_p2p::thrift::{Exception, MessageKind, begin_message, end_frame};

use crate::house::{house, message, write_arguments};

#[test]
fn must_answer_calls_and_no_oneway_ones_whatever_the_method() {
    let house = house(|_| {});
    let mut client = house.visit();
    let mut bytes = Vec::new();
    for (method, strings) in [
        ("put", &[b"a", &b"apple"[..]][..]),
        ("ping", &[]),
        ("nothing", &[]),
    ] {
        bytes.extend(message(MessageKind::Oneway, method, 1, strings));
    }
    bytes.extend(message(MessageKind::Call, "put", 2, &[b"b", b"banana"]));
    bytes.extend(message(MessageKind::Call, "nothing", 3, &[]));
    bytes.extend(message(MessageKind::Reply, "get", 4, &[]));
    bytes.extend(message(MessageKind::Exception, "get", 5, &[]));
    bytes.extend(message(MessageKind::Call, "get", 6, &[b"a"]));
    client.send(&bytes);
    for (name, sequence, result) in [
        ("put", 2, Ok(&b""[..])),
        ("nothing", 3, Err(Exception::UNKNOWN_METHOD)),
        ("get", 4, Err(Exception::WRONG_MESSAGE_TYPE)),
        ("get", 5, Err(Exception::WRONG_MESSAGE_TYPE)),
        ("get", 6, Ok(b"apple")),
    ] {
        let answer = client.answer().unwrap();
        assert_eq!((answer.name.as_str(), answer.sequence), (name, sequence));
        assert_eq!(answer.result(), result.map(<[u8]>::to_vec));
    }
}

#[test]
fn must_answer_in_the_way_it_was_asked() {
    let house = house(|_| {});
    let mut client = house.visit();
    let mut framed = Vec::new();
    let start = begin_message(&mut framed, MessageKind::Call, b"put", 8, true);
    write_arguments(&mut framed, &[b"f", b"fig"]);
    end_frame(&mut framed, start);
    let mut old = b"\0\0\0\x03get\x01\0\0\0\x09".to_vec();
    write_arguments(&mut old, &[b"f"]);
    // Byte by byte, and the three ways on one connection.
    for byte in [framed, old].concat() {
        client.send(&[byte]);
    }
    let answer = client.answer().unwrap();
    assert!(answer.framed && answer.sequence == 8);
    let answer = client.answer().unwrap();
    assert!(!answer.framed && answer.sequence == 9);
    assert_eq!(answer.result(), Ok(b"fig".to_vec()));
    assert!(!client.call("ping", &[]).framed);
}

#[test]
fn must_answer_a_pipeline_in_one_piece() {
    let house = house(|_| {});
    let mut client = house.visit();
    let ping = message(MessageKind::Call, "ping", 7, &[]);
    let answer_bytes = message(MessageKind::Reply, "ping", 7, &[]).len();
    // The buffer grows to what comes.
    client.send(&ping.repeat(100));
    (0..100).for_each(|_| drop(client.answer().unwrap()));
    client.send(&ping.repeat(100));
    let mut bytes = [0; 64 << 10];
    let count = client.stream.read(&mut bytes).unwrap();
    assert_eq!(count, 100 * answer_bytes);
}

#[test]
fn must_give_the_service_what_has_come_together() {
    let house = house(|_| {});
    let mut client = house.visit();
    client.call("ping", &[]);
    client.send(&message(MessageKind::Call, "ping", 7, &[]).repeat(20));
    (0..20).for_each(|_| drop(client.answer().unwrap()));
    let batches = house.service.batches();
    assert_eq!(batches.iter().sum::<usize>(), 21);
    assert!(batches.len() < 21, "{batches:?}");
}

#[test]
fn must_send_answers_before_a_slow_one_when_told_to() {
    let house = house(|_| {});
    let mut client = house.visit();
    client.call("ping", &[]);
    let calls = ["ping", "flush", "wait", "ping"];
    let calls = calls.map(|method| message(MessageKind::Call, method, 7, &[]));
    client.send(&calls.concat());
    (0..2).for_each(|_| drop(client.answer().unwrap()));
    house.service.wait_for("wait", 1);
    house.service.open_the_gate();
    (0..2).for_each(|_| drop(client.answer().unwrap()));
}

#[test]
fn must_answer_what_came_before_a_failure_of_the_service() {
    let house = house(|_| {});
    let mut client = house.visit();
    client.call("ping", &[]);
    let calls = ["ping", "panic", "ping"];
    let calls = calls.map(|method| message(MessageKind::Call, method, 7, &[]));
    client.send(&calls.concat());
    assert!(client.answer().unwrap().result().is_ok());
    assert!(client.answer().unwrap().result().is_err());
    client.must_be_closed();
}

#[test]
fn must_answer_a_client_that_only_listens_any_more() {
    let house = house(|_| {});
    let mut client = house.visit();
    let value = vec![b'x'; 300_000];
    client.send(&message(MessageKind::Call, "put", 1, &[b"k", &value]));
    client.send(&message(MessageKind::Call, "get", 2, &[b"k"]));
    client.stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.answer().unwrap().sequence, 1);
    assert!(client.answer().unwrap().result().unwrap() == value);
    client.must_be_closed();
}

#[test]
fn must_close_on_garbage_after_answering_what_came_before() {
    let house = house(|_| {});
    let huge = [&b"\x80\x01\0\x01\x7f\xff\xff\xff"[..], &[b'x'; 100]].concat();
    let forged = b"\x80\x01\0\x01\0\0\0\x04ping\0\0\0\0\x0f\0\x01\x0c\x7f\xff\xff\xff".to_vec();
    for garbage in [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
        b"\x80\x02\0\x01\0\0\0\x04ping".to_vec(),
        vec![0xff; 200_000],
        huge,
        forged,
    ] {
        let mut client = house.visit();
        client.send(&message(MessageKind::Call, "ping", 1, &[]));
        // The connection may have been closed before all of it is written.
        let _ = client.stream.write_all(&garbage);
        assert_eq!(client.answer().unwrap().sequence, 1);
        // What has a name gets an answer.
        if garbage.windows(5).any(|bytes| bytes == b"ping\0") {
            let answer = client.answer().unwrap();
            assert_eq!(answer.result(), Err(Exception::PROTOCOL_ERROR));
        }
        client.must_be_closed();
    }
    house.call("ping", &[]);
}

#[test]
fn must_survive_a_panic_of_the_service() {
    let house = house(|_| {});
    let mut client = house.visit();
    client.send(&message(MessageKind::Call, "ping", 1, &[]));
    client.send(&message(MessageKind::Call, "panic", 2, &[]));
    client.send(&message(MessageKind::Call, "ping", 3, &[]));
    assert_eq!(client.answer().unwrap().sequence, 1);
    let answer = client.answer().unwrap();
    assert_eq!(answer.sequence, 2);
    assert_eq!(answer.result(), Err(Exception::INTERNAL_ERROR));
    client.must_be_closed();
    for _ in 0..100 {
        house.call("ping", &[]);
    }
}

#[test]
fn must_know_which_callers_are_local() {
    let house = house(|_| {});
    assert_eq!(house.call("local", &[]).result(), Ok(vec![1]));
}
