//! Many clients that send much and don't end, or ask for much and don't read, at a node of little memory.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use thrifty_p2p::diststore::KeyValue;
use thrifty_p2p::locator::write_key;
use thrifty_p2p::thrift::{MessageKind, begin_message};

use crate::memory::highest;
use crate::running::{LONG, Node, get, network, own_address, put, settle, wait_until};

const CLIENTS: usize = 60;

/// What a node of `--memory 64m` may take at its highest.
const PEAK_BYTES: usize = 110_000_000;

/// Half of what such a node has for messages.
const VALUE: usize = 4_000_000;

fn message(method: &str, arguments: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    begin_message(&mut bytes, MessageKind::Call, method.as_bytes(), 1, false);
    bytes.extend_from_slice(arguments);
    bytes
}

/// So many nodes of one network.
fn nodes(count: usize) -> Vec<Node> {
    let address = own_address();
    let first = Node::store(&address, &["--memory", "64m", "--new"]);
    let peer = first.location.name().to_string();
    let more = (1..count).map(|_| Node::store(&address, &["--memory", "64m", "-h", &peer]));
    let more: Vec<_> = more.collect();
    let mut nodes = vec![first];
    nodes.extend(more);
    settle(&nodes.iter().collect::<Vec<_>>());
    nodes
}

/// Sixty clients at each node each send `bytes` and read nothing, for some time. Others are served beside them.
fn must_bear(nodes: &[Node], bytes: &[u8]) {
    let network = network();
    thread::scope(|scope| {
        for node in nodes {
            for _ in 0..CLIENTS {
                let at = &**node.location.name();
                scope.spawn(move || {
                    let mut stream = TcpStream::connect(at).unwrap();
                    // It may be cut off while it speaks.
                    let _ = stream.write_all(bytes);
                    thread::sleep(Duration::from_secs(5));
                    // The end, or what has come; what counts is that it was there so long.
                    let _ = stream.read(&mut [0]);
                });
            }
        }
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(5) {
            for (number, node) in nodes.iter().enumerate() {
                let key = format!("small {number}");
                let asked = Instant::now();
                put(&network, &node.location, key.as_bytes(), b"value").unwrap();
                let value = get(&network, &node.location, key.as_bytes());
                assert_eq!(value.as_deref(), Ok(&b"value"[..]));
                assert!(asked.elapsed() < Duration::from_secs(2), "served late");
            }
        }
    });
    for node in nodes {
        let peak = highest(node);
        eprintln!("{peak} bytes at the highest");
        assert!(peak < PEAK_BYTES, "{peak} bytes at the highest");
        assert!(!node.process.out().contains("removed"), "it was lost");
    }
    // Afterwards there is room for large ones again.
    for (number, node) in nodes.iter().enumerate() {
        let key = format!("large {number}");
        let value = vec![number as u8; VALUE];
        let at = &node.location;
        wait_until(LONG, "there is room", || {
            put(&network, at, key.as_bytes(), &value).is_ok()
        });
        wait_until(LONG, "there is room", || {
            get(&network, at, key.as_bytes()).as_ref() == Ok(&value)
        });
    }
    settle(&nodes.iter().collect::<Vec<_>>());
}

/// An eighth of what the node may take is for messages: 8 MiB.
#[test]
fn must_take_messages_of_up_to_an_eighth_of_its_memory() {
    let node = &nodes(1)[0];
    let network = network();
    let message = |bytes| put(&network, &node.location, b"key", &vec![b'x'; bytes]);
    message((8 << 20) - 100).unwrap();
    message(8 << 20).unwrap_err();
    let kept = get(&network, &node.location, b"key").unwrap();
    assert_eq!(kept.len(), (8 << 20) - 100);
}

/// The first part of a put of that many bytes.
fn half_a_put(bytes: usize) -> Vec<u8> {
    let mut half = message("put", &KeyValue::write(b"key", Some(&vec![b'x'; bytes])));
    half.truncate(half.len() - 1000);
    half
}

#[test]
fn must_bear_clients_that_send_more_than_there_is_room_for() {
    must_bear(&nodes(1), &half_a_put(31 << 20));
}

#[test]
fn must_bear_clients_that_do_not_end_what_they_send() {
    must_bear(&nodes(1), &half_a_put(VALUE));
    must_bear(&nodes(3), &half_a_put(VALUE));
}

#[test]
fn must_bear_clients_that_ask_for_much_and_do_not_read() {
    for count in [1, 3] {
        let nodes = nodes(count);
        let network = network();
        for key in 0..count {
            let key = format!("large {key}");
            put(
                &network,
                &nodes[0].location,
                key.as_bytes(),
                &vec![b'x'; VALUE],
            )
            .unwrap();
        }
        must_bear(&nodes, &message("get", &write_key(b"large 0")));
    }
}
