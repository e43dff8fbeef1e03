//! Keys and values that are too large: the answer names the limit and the size.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;

use thrifty_p2p::client::Client;
use thrifty_p2p::locator::{LIMITS, request, write_key};
use thrifty_p2p::net::{CallError, Network};
use thrifty_p2p::thrift::{Exception, MessageKind, Write as _, begin_message, wire};

use crate::running::{
    CALL_LIMIT, LONG, Node, PROGRAMS, SECONDS, get, network, own_address, put, run, settle,
    wait_until,
};

const LARGEST: usize = LIMITS.string_bytes_max;

fn refused(what: &str, size: usize, limit: usize) -> CallError {
    let said = format!("{size} bytes in {what}, above the limit of {limit}");
    CallError::Exception(Exception::new(Exception::PROTOCOL_ERROR, said))
}

#[test]
fn must_name_limit_and_size_of_what_is_too_large() {
    let node = Node::store(&own_address(), &[]);
    settle(&[&node]);
    let at = &node.location;
    let network = network();
    let large = vec![b'x'; LARGEST + 1];
    let too_large = |what| refused(what, LARGEST + 1, LARGEST);
    let value = put(&network, at, b"key", &large);
    assert_eq!(value, Err(too_large("the value")));
    assert_eq!(put(&network, at, &large, b""), Err(too_large("the key")));
    assert_eq!(get(&network, at, &large), Err(too_large("the key")));
    let get_node = request("get_node", write_key(&large));
    let owner = network.call(at, &get_node, CALL_LIMIT);
    assert_eq!(owner, Err(too_large("the key")));
    // The largest of both fit together.
    let (key, value) = (&large[1..], &large[1..]);
    assert_eq!(put(&network, at, key, value), Ok(vec![wire::STOP]));
    assert!(get(&network, at, key).as_deref() == Ok(value));
}

#[test]
fn must_name_limit_and_size_of_a_message_and_say_that_the_connection_was_closed() {
    let node = Node::store(&own_address(), &[]);
    settle(&[&node]);
    let network = network();
    let size = LIMITS.message_bytes_max;
    let answer = put(&network, &node.location, b"key", &vec![b'x'; size]);
    // Its own limit is the narrower one.
    assert_eq!(answer, Err(refused("a string", size, LARGEST)));
    wait_until(LONG, "it says so", || {
        let log = node.process.errors();
        let line = log
            .lines()
            .find(|line| line.contains(": closed the connection of "));
        line.is_some_and(|line| line.ends_with("above the limit of 33554432"))
    });
    put(&network, &node.location, b"key", b"value").unwrap();
}

/// A client that sends too much may go on for as long as a message may take, and what it sends is read.
#[test]
fn must_let_go_of_what_is_too_large_while_the_rest_comes() {
    let node = Node::store(&own_address(), &[]);
    settle(&[&node]);
    let before = resident_bytes(&node);
    let mut large = Vec::new();
    begin_message(&mut large, MessageKind::Call, b"put", 1, false);
    while large.len() <= LIMITS.message_bytes_max {
        large.write_bytes_field(1, &[b'x'; 1 << 20]);
    }
    let mut client = TcpStream::connect(&**node.location.name()).unwrap();
    client.write_all(&large).unwrap();
    client.read_exact(&mut [0]).expect("it is answered");
    wait_until(SECONDS, "the memory is free again", || {
        client.write_all(b"x").expect("it is listened to");
        resident_bytes(&node) < before + LARGEST
    });
}

fn resident_bytes(node: &Node) -> usize {
    let status = fs::read_to_string(format!("/proc/{}/status", node.process.id()));
    let status = status.expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next());
    kilobytes.unwrap().parse::<usize>().unwrap() << 10
}

/// An argument has 128 KiB at most on Linux, so no shell gets there; a program that puts a file does.
#[test]
fn must_complain_of_what_is_too_large_in_one_line() {
    let node = Node::store(&own_address(), &[]);
    settle(&[&node]);
    let peer = node.location.name();
    let client = Client::connect(std::slice::from_ref(&node.location)).unwrap();
    let trouble = client.put(b"key", &vec![b'x'; LARGEST + 1]).unwrap_err();
    let expected = format!(
        "{peer}: 33554433 bytes in the value, above the limit of 33554432 (exception type 7)"
    );
    assert_eq!(trouble.to_string(), expected);
}

#[test]
fn must_state_the_limits() {
    let helps = PROGRAMS.map(|program| {
        let help = run(program, &["--help"], SECONDS);
        String::from_utf8(help.stdout).unwrap()
    });
    let texts = [
        include_str!("../../README.md"),
        include_str!("../../idl/diststore.thrift"),
        include_str!("../../idl/locator.thrift"),
    ];
    let key = format!("{} MiB", LARGEST >> 20);
    let message = format!("{} MiB", LIMITS.message_bytes_max >> 20);
    for text in helps.iter().map(String::as_str).chain(texts) {
        assert!(text.contains(&key) && text.contains(&message), "{text}");
    }
}
