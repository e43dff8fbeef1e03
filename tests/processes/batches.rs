//! Requests that are sent together, on one connection.

use std::time::{Duration, Instant};

use thrifty_p2p::diststore::KeyValue;
use thrifty_p2p::location::Location;
use thrifty_p2p::locator::{read_answer, request, write_key};
use thrifty_p2p::net::{Answer, Event, Network, Request};
use thrifty_p2p::ring::{self, Ring};

use super::memory::highest;
use crate::running::{LONG, Node, network, own_address, put, settle};

/// A key whose replicas are these nodes, in this order.
fn key_of(nodes: &[Node], list: &[usize]) -> Vec<u8> {
    let ring = Ring::new(nodes.iter().map(|node| node.location.name().clone()));
    let mut names: Vec<_> = nodes.iter().map(|node| node.location.name()).collect();
    names.sort_unstable();
    let is_wanted = |key: &Vec<u8>| {
        let walk = ring.walk(ring::hash(key)).take(list.len());
        let wanted = list.iter().map(|number| nodes[*number].location.name());
        walk.map(|place| names[place]).eq(wanted)
    };
    let mut keys = (0..1_000_000).map(|number| format!("key {number}").into_bytes());
    keys.find(is_wanted).expect("such a key")
}

fn put_request(key: &[u8], value: &[u8]) -> Request {
    request("put", KeyValue::write(key, Some(value)))
}

fn get_request(key: &[u8]) -> Request {
    request("get", write_key(key))
}

fn value(answer: Answer) -> Vec<u8> {
    answer
        .and_then(|result| read_answer(&result, "get"))
        .expect("a value")
}

/// Sends all of them at once, and hands out the answers in their order.
fn send(to: &Location, requests: Vec<Request>, mut take: impl FnMut(usize, Answer)) {
    let calls = requests.into_iter().map(|request| (to.clone(), request));
    network().call_each(&calls.collect::<Vec<_>>(), LONG, &mut |event| {
        if let Event::Answer(place, answer) = event {
            take(place, answer);
        }
    });
}

fn ring_of_three(options: &[&str]) -> Vec<Node> {
    let address = own_address();
    let nodes: Vec<_> = (0..3).map(|_| Node::store(&address, options)).collect();
    settle(&nodes.iter().collect::<Vec<_>>());
    nodes
}

#[test]
fn must_carry_requests_for_a_key_out_in_their_order() {
    let nodes = ring_of_three(&[]);
    for list in [[0, 1], [1, 0], [1, 2], [2, 1]] {
        let key = key_of(&nodes, &list);
        let round = |number: usize| {
            let value = format!("value {number}").into_bytes();
            [put_request(&key, &value), get_request(&key)]
        };
        let mut read = Vec::new();
        send(
            &nodes[0].location,
            (0..100).flat_map(round).collect(),
            |place, answer| match place % 2 {
                0 => drop(answer.expect("acknowledged")),
                _ => read.push(String::from_utf8(value(answer)).expect("text")),
            },
        );
        let expected: Vec<_> = (0..100).map(|number| format!("value {number}")).collect();
        assert_eq!(read, expected);
    }
}

#[test]
fn must_answer_each_request_though_others_are_wrong() {
    let nodes = ring_of_three(&[]);
    let wrong = || request("put", write_key(b"no value"));
    let requests = [
        wrong(),
        put_request(b"a", b"apple"),
        wrong(),
        get_request(b"a"),
        request("nothing", Vec::from([0])),
        wrong(),
    ];
    for count in [1, 2, requests.len()] {
        let mut answers = Vec::new();
        send(
            &nodes[0].location,
            requests[..count].to_vec(),
            |_, answer| {
                answers.push(answer.is_ok());
            },
        );
        assert_eq!(answers, [false, true, false, true, false, false][..count]);
    }
}

/// What is put before is read before, though it is asked for only when it has been put.
#[test]
fn must_answer_what_comes_before_the_keys_of_a_silent_node() {
    const TICK: Duration = Duration::from_secs(3);
    let nodes = ring_of_three(&["--tick", &TICK.as_millis().to_string()]);
    let (own, far) = (key_of(&nodes, &[0, 1]), key_of(&nodes, &[2, 1]));
    let client = network();
    for key in [&own, &far] {
        put(&client, &nodes[0].location, key, b"value").unwrap();
    }
    nodes[2].process.signal("STOP");
    let (sent, mut answered) = (Instant::now(), 0);
    let new = put_request(&own, b"new");
    let requests = vec![get_request(&own), new, get_request(&own), get_request(&far)];
    send(&nodes[0].location, requests, |_, answer| {
        match answered {
            0 | 3 => assert_eq!(value(answer), b"value"),
            1 => drop(answer.expect("acknowledged")),
            _ => assert_eq!(value(answer), b"new"),
        }
        answered += 1;
        if answered == 3 {
            // The other one waits for two ticks before it looks elsewhere.
            let waited = sent.elapsed();
            assert!(waited < TICK, "{waited:?}");
            nodes[2].process.signal("CONT");
        }
    });
    assert_eq!(answered, 4);
}

/// A client that reads slowly takes longer than the ticks that each of its requests has.
#[test]
fn must_answer_several_large_values_to_a_client_that_reads_slowly() {
    const VALUE: usize = 2 << 20;
    let nodes = ring_of_three(&["--tick", "100"]);
    let key = key_of(&nodes, &[0, 1]);
    let at = ring::hash(&key);
    // Keys of the same place, as one of 32 hex digits is its own hash.
    let keys = (0..16).map(|number| format!("{at:08x}{number:024x}").into_bytes());
    let keys: Vec<_> = keys.collect();
    let client = network();
    for key in &keys {
        put(&client, &nodes[0].location, key, &vec![b'x'; VALUE]).unwrap();
    }
    for node in [&nodes[0], &nodes[2]] {
        let requests = keys.iter().map(|key| get_request(key)).collect();
        let mut count = 0;
        send(&node.location, requests, |_, answer| {
            assert_eq!(value(answer).len(), VALUE);
            count += 1;
            std::thread::sleep(Duration::from_millis(150));
        });
        assert_eq!(count, keys.len());
    }
}

#[test]
fn must_hold_few_large_answers_at_a_time() {
    const VALUE: usize = 2 << 20;
    let nodes = ring_of_three(&["--memory", "100m"]);
    let client = network();
    let mut keys: Vec<_> = (0..8)
        .flat_map(|_| [&[0, 1], &[1, 0]])
        .map(|list| key_of(&nodes, list))
        .collect();
    for (number, key) in keys.iter_mut().enumerate() {
        // Keys of the same place, as one of 32 hex digits is its own hash.
        *key = format!("{:08x}{number:024x}", ring::hash(key)).into_bytes();
    }
    for key in &keys {
        put(&client, &nodes[0].location, key, &vec![b'x'; VALUE]).unwrap();
    }
    let before = highest(&nodes[2]);
    let requests = keys.iter().map(|key| get_request(key)).collect();
    let mut count = 0;
    send(&nodes[2].location, requests, |_, answer| {
        assert_eq!(value(answer).len(), VALUE);
        count += 1;
    });
    assert_eq!(count, keys.len());
    let more = highest(&nodes[2]) - before;
    assert!(
        more < 10 * VALUE,
        "{more} bytes for {count} values of {VALUE}"
    );
    println!("{more} bytes more");
}
