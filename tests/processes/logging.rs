//! What a node writes of itself: the original's lines on stdout, the log on stderr.

use std::process::Command;

use thrifty_p2p::location::Location;
use thrifty_p2p::locator::{EMPTY, request};
use thrifty_p2p::net::{Network, Request};

use crate::running::{
    CALL_LIMIT, LONG, Node, SECONDS, STORESERVER, get, network, own_address, owner, put, run,
    settle, wait_until,
};

/// What a node has logged: the level and the text of each line.
fn logged(node: &Node) -> Vec<(String, String)> {
    let errors = node.process.errors();
    let lines = errors.lines().map(|line| {
        let [_time, level, place, text] = line.splitn(4, ' ').collect::<Vec<_>>()[..] else {
            panic!("no line of a log: {line}");
        };
        assert_eq!(place, format!("{}:", node.location));
        (level.to_owned(), text.to_owned())
    });
    lines.collect()
}

fn has_logged(node: &Node, level: &str, text: &str) -> bool {
    logged(node).contains(&(level.to_owned(), text.to_owned()))
}

/// The time as `date` has it.
fn date() -> String {
    let date = Command::new("date").args(["-u", "+%FT%T.%3NZ"]).output();
    let text = String::from_utf8(date.expect("date").stdout).expect("text");
    text.trim_end().to_owned()
}

fn lost(location: &Location) -> String {
    format!("{location} is lost: gone, or silent for too long")
}

#[test]
fn must_log_what_goes_wrong_with_time_level_and_place() {
    let address = own_address();
    let mut nodes: Vec<_> = (0..3).map(|_| Node::store(&address, &[])).collect();
    settle(&nodes.iter().collect::<Vec<_>>());
    assert_eq!(nodes[0].process.errors(), "", "nothing while all is well");
    let names = [nodes[1].location.clone(), nodes[2].location.clone()];
    let began = date();
    nodes.drain(1..).for_each(Node::kill);
    let node = &nodes[0];
    let together = "2 members lost together: keys may be missing: ";
    let together = format!("{together}{}, {}", names[0], names[1]);
    wait_until(LONG, "it raises an alarm", || {
        has_logged(node, "error", &together)
    });
    for name in &names {
        assert!(has_logged(node, "warn", &lost(name)));
        node.process.await_said(&format!("removed {name}"));
    }
    // Of one form, so they can be compared as texts.
    let ended = date();
    let errors = node.process.errors();
    let times = errors.lines().filter_map(|line| line.split(' ').next());
    assert!(times.clone().all(|time| time.len() == began.len()));
    assert!(times.clone().all(|time| *began <= *time && *time <= *ended));
    assert_eq!(times.count(), 3, "{errors}");
}

#[test]
fn must_log_down_to_the_level() {
    let address = own_address();
    let nodes = [
        Node::store(&address, &["--log-level", "error"]),
        Node::store(&address, &["--log-level=debug"]),
        Node::store(&address, &["-v"]),
    ];
    settle(&nodes.iter().collect::<Vec<_>>());
    let last = Node::store(&address, &["--log-level", "warn", "--verbose"]);
    settle(&nodes.iter().chain([&last]).collect::<Vec<_>>());
    let network = network();
    for node in &nodes {
        put(&network, &node.location, b"a key", b"a value").expect("it is stored");
        assert_eq!(
            get(&network, &node.location, b"a key"),
            Ok(b"a value".to_vec())
        );
    }
    let name = last.location.clone();
    last.kill();
    for node in &nodes {
        let removed = format!("removed {name}");
        wait_until(SECONDS, "it is lost", || node.process.has_said(&removed));
    }
    let added = format!("{name} is a member now");
    wait_until(SECONDS, "it is logged", || {
        has_logged(&nodes[1], "warn", &lost(&name)) && has_logged(&nodes[2], "warn", &lost(&name))
    });
    assert_eq!(logged(&nodes[0]), []);
    for node in &nodes[1..] {
        assert!(has_logged(node, "debug", &added));
    }
    let requests = |node: &Node| {
        let lines = logged(node).into_iter();
        lines.filter(|(level, _)| level == "trace").count()
    };
    assert_eq!(requests(&nodes[1]), 0);
    assert!(requests(&nodes[2]) > 2);
    for node in &nodes {
        assert!(!node.process.errors().contains("a key"));
    }
}

#[test]
fn must_log_its_state_when_asked_to() {
    let address = own_address();
    let nodes = [0, 1].map(|_| Node::store(&address, &[]));
    settle(&nodes.iter().collect::<Vec<_>>());
    let node = &nodes[1];
    let debug = Request {
        oneway: true,
        ..request("debug", EMPTY.to_vec())
    };
    let answer = network().call(&node.location, &debug, CALL_LIMIT);
    answer.expect("it is sent");
    for member in &nodes {
        let line = format!("{} Full", member.location);
        wait_until(SECONDS, "it has logged its members", || {
            has_logged(node, "info", &line)
        });
    }
    let other = logged(&nodes[0]);
    let told = other.iter().find(|(level, _)| level == "info");
    assert_eq!(told, None, "only the one that was asked");
}

/// As the original did; of many keys the first ones.
#[test]
fn must_say_which_keys_have_moved() {
    let address = own_address();
    let first = Node::store(&address, &["--replicas", "1"]);
    let keys: Vec<_> = (0..200).map(|number| format!("key {number}")).collect();
    for key in &keys {
        put(&network(), &first.location, key.as_bytes(), b"value").expect("it is stored");
    }
    let second = Node::store(&address, &["--replicas", "1"]);
    settle(&[&first, &second]);
    let belongs = |key: &&String| {
        let owner = owner(&network(), &first.location, key.as_bytes());
        owner == second.location
    };
    let moved: Vec<_> = keys.iter().filter(belongs).collect();
    let says = |node: &Node, word: &str| {
        let said = |key: &&&String| node.process.has_said(&format!("{word} {key}"));
        moved.iter().any(|key| said(&key))
    };
    wait_until(SECONDS, "both have said it", || {
        says(&second, "received") && says(&first, "dropped")
    });
}

#[test]
fn must_refuse_a_level_that_is_none() {
    let refused = run(STORESERVER, &["--log-level", "loud"], LONG);
    assert_eq!(refused.status.code(), Some(2));
    let errors = String::from_utf8(refused.stderr).unwrap();
    let cause = "--log-level: none of error, warn, info, debug, trace: loud";
    assert!(errors.contains(cause), "{errors}");
}
