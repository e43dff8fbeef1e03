//! Ending: by a signal, by `die`, twice.

use std::process::Command;
use std::time::{Duration, Instant};

use thrifty_p2p::locator::{EMPTY, request, single_request};
use thrifty_p2p::net::{CallError, Network};

use crate::running::{
    CALL_LIMIT, LONG, Node, SECONDS, STOREPRIMER, STORESERVER, STORETEST, get, network,
    own_address, put, run, settle, status, wait_until,
};

/// Less than two seconds: so long a node once waited for others, though there were none.
const AT_ONCE: Duration = Duration::from_millis(1900);

/// Three nodes with keys, of which the first ends in some way; the others then have everything.
fn must_hand_over(replicas: &str, end: impl FnOnce(&Node)) {
    let address = own_address();
    let options = ["--replicas", replicas];
    let mut nodes: Vec<_> = (0..3).map(|_| Node::store(&address, &options)).collect();
    settle(&nodes.iter().collect::<Vec<_>>());
    let network = network();
    let keys: Vec<_> = (0..200).map(|number| format!("key {number}")).collect();
    for key in &keys {
        put(&network, &nodes[1].location, key.as_bytes(), key.as_bytes()).unwrap();
    }
    let mut leaver = nodes.remove(0);
    assert!(status(&network, &leaver.location).items > 0);
    end(&leaver);
    leaver.left();
    leaver.process.await_said("Leaving the network...");
    // At once: the leaving node has ended, so all is handed over and said.
    for node in &nodes {
        for key in &keys {
            let value = get(&network, &node.location, key.as_bytes()).unwrap();
            assert_eq!(value, key.as_bytes());
        }
    }
    settle(&nodes.iter().collect::<Vec<_>>());
    let removed = format!("removed {}", leaver.location);
    wait_until(LONG, "everybody says so", || {
        nodes.iter().all(|node| node.process.has_said(&removed))
    });
}

#[test]
fn must_hand_over_when_interrupted() {
    must_hand_over("1", |leaver| leaver.process.signal("INT"));
    must_hand_over("2", |leaver| leaver.process.signal("INT"));
}

#[test]
fn must_hand_over_when_terminated() {
    must_hand_over("1", |leaver| leaver.process.signal("TERM"));
    must_hand_over("2", |leaver| leaver.process.signal("TERM"));
}

#[test]
fn must_hand_over_when_told_to_die() {
    must_hand_over("1", |leaver| {
        let die = request("die", EMPTY.to_vec());
        network().call(&leaver.location, &die, CALL_LIMIT).unwrap();
    });
    must_hand_over("2", |leaver| {
        // As the original's programs say it: without waiting for an answer.
        let die = single_request("die", EMPTY.to_vec(), true);
        network().call(&leaver.location, &die, CALL_LIMIT).unwrap();
    });
}

/// Shells start what is in the background with SIGINT ignored.
#[test]
fn must_be_interruptible_though_started_in_the_background() {
    let address = own_address();
    let script = format!("trap '' INT; exec {STORESERVER} -a {address}");
    let node = Node::start(Command::new("sh").args(["-c", &script]));
    settle(&[&node]);
    node.leave("INT");
}

#[test]
fn must_end_at_once_when_interrupted_twice() {
    let address = own_address();
    let mut node = Node::store(&address, &["--replicas", "1"]);
    let other = Node::store(&address, &["--replicas", "1"]);
    settle(&[&node, &other]);
    let network = network();
    for number in 0..50 {
        put(
            &network,
            &node.location,
            format!("key {number}").as_bytes(),
            b"value",
        )
        .unwrap();
    }
    // A member that takes nothing, so that the leaving node stays for a while.
    other.process.signal("STOP");
    node.process.signal("INT");
    wait_until(LONG, "it begins to leave", || {
        node.process.has_said("Leaving the network...")
    });
    // A signal within a second of another one counts as the same.
    let first = Instant::now();
    node.process.signal("INT");
    node.process.signal("TERM");
    wait_until(LONG, "more than a second has gone by", || {
        first.elapsed() > Duration::from_millis(1200)
    });
    assert!(node.process.is_running());
    node.process.signal("INT");
    let status = node.process.wait(SECONDS);
    assert_eq!(status.code(), Some(2));
    assert_eq!(
        node.process.complaints(),
        ["storeserver: interrupted again: ended without handing over"]
    );
}

#[test]
fn must_end_well_when_it_is_the_last_and_say_what_is_dropped() {
    let mut node = Node::store(&own_address(), &[]);
    settle(&[&node]);
    let network = network();
    for key in ["a", "b", "c"] {
        put(&network, &node.location, key.as_bytes(), b"value").unwrap();
    }
    // One that was removed is none.
    put(&network, &node.location, b"d", b"value").unwrap();
    put(&network, &node.location, b"d", b"").unwrap();
    let began = Instant::now();
    node.process.signal("INT");
    let status = node.process.wait(LONG);
    assert!(began.elapsed() < AT_ONCE);
    assert_eq!(status.code(), Some(0));
    let line = format!(
        "storeserver: {}: 3 keys dropped: nobody was left to take them",
        node.location
    );
    assert_eq!(node.process.complaints(), [line]);
    let empty = Node::store(&own_address(), &[]);
    settle(&[&empty]);
    empty.leave("TERM");
}

#[test]
fn must_end_well_when_all_are_told_to_together() {
    for replicas in ["1", "2"] {
        let address = own_address();
        let options = ["--replicas", replicas];
        let mut nodes: Vec<_> = (0..3).map(|_| Node::store(&address, &options)).collect();
        settle(&nodes.iter().collect::<Vec<_>>());
        let network = network();
        for number in 0..100 {
            let key = format!("key {number}");
            put(&network, &nodes[0].location, key.as_bytes(), b"value").unwrap();
        }
        let began = Instant::now();
        nodes.iter().for_each(|node| node.process.signal("TERM"));
        let mut dropped = 0;
        for node in &mut nodes {
            let status = node.process.wait(LONG);
            let errors = node.process.errors();
            assert_eq!(status.code(), Some(0), "{errors}");
            let said = errors.lines().find_map(|line| {
                let (_, said) = line.split_once(&format!("{}: ", node.location))?;
                said.strip_suffix(" dropped: nobody was left to take them")
            });
            let count = said.and_then(|said| said.split(' ').next());
            dropped += count.map_or(0, |count| count.parse().unwrap());
        }
        assert!(began.elapsed() < AT_ONCE);
        assert!(dropped >= 100, "only {dropped} were said");
    }
}

/// No node takes anything, though there is one that could.
#[test]
fn must_not_drop_anything_while_somebody_stays() {
    let address = own_address();
    let options = ["--replicas", "1"];
    let mut nodes: Vec<_> = (0..4).map(|_| Node::store(&address, &options)).collect();
    settle(&nodes.iter().collect::<Vec<_>>());
    let network = network();
    let keys: Vec<_> = (0..100).map(|number| format!("key {number}")).collect();
    for key in &keys {
        put(&network, &nodes[0].location, key.as_bytes(), b"value").unwrap();
    }
    let stays = nodes.pop().unwrap();
    nodes.iter().for_each(|node| node.process.signal("TERM"));
    nodes.iter_mut().for_each(Node::left);
    for key in &keys {
        let value = get(&network, &stays.location, key.as_bytes()).unwrap();
        assert_eq!(value, b"value");
    }
}

/// It gives up ten seconds after the last key that was taken.
#[test]
fn must_end_in_time_when_the_only_other_one_has_no_room() {
    let address = own_address();
    let options = ["--replicas", "1", "--memory"];
    let node = |memory| Node::store(&address, &[&options[..], &[memory]].concat());
    let (mut leaver, stays) = (node("64m"), node("4m"));
    settle(&[&leaver, &stays]);
    let network = network();
    let mut put_there = 0;
    for number in 0..3000 {
        let key = format!("key {number}");
        // What belongs to the other one has no room after a while.
        let answer = put(&network, &leaver.location, key.as_bytes(), &[b'v'; 10_000]);
        put_there += usize::from(answer.is_ok());
    }
    let held = status(&network, &leaver.location).items;
    assert!(held > 1000 && held < put_there, "{held} of {put_there}");
    let began = Instant::now();
    leaver.process.signal("TERM");
    let status = leaver.process.wait(LONG);
    let took = began.elapsed();
    assert_eq!(status.code(), Some(2));
    let complaints = leaver.process.complaints();
    let [said] = &complaints[..] else {
        panic!("{complaints:?}");
    };
    let counted = said.strip_prefix(&format!("storeserver: {}: up to ", leaver.location));
    let counted = counted.and_then(|said| said.strip_suffix(" keys not taken by others"));
    assert_eq!(counted, Some(&*held.to_string()), "{said}");
    let (least, most) = (Duration::from_secs(10), Duration::from_secs(16));
    assert!(took >= least && took < most, "{took:?}");
    assert!(
        get(&network, &stays.location, b"key 0").is_ok(),
        "it serves"
    );
}

/// The one that has stopped is waited for until it is lost, and no longer.
#[test]
fn must_end_in_time_beside_a_node_that_has_stopped() {
    let address = own_address();
    let mut nodes: Vec<_> = (0..3).map(|_| Node::store(&address, &[])).collect();
    settle(&nodes.iter().collect::<Vec<_>>());
    let network = network();
    let keys: Vec<_> = (0..200).map(|number| format!("key {number}")).collect();
    for key in &keys {
        put(&network, &nodes[1].location, key.as_bytes(), key.as_bytes()).unwrap();
    }
    nodes[2].process.signal("STOP");
    let mut leaver = nodes.remove(0);
    let began = Instant::now();
    leaver.process.signal("TERM");
    let status = leaver.process.wait(LONG);
    let took = began.elapsed();
    assert_eq!(status.code(), Some(0), "{:?}", leaver.process.complaints());
    assert!(took < Duration::from_secs(20), "{took:?}");
    for key in &keys {
        let value = get(&network, &nodes[0].location, key.as_bytes()).unwrap();
        assert_eq!(value, key.as_bytes());
    }
}

#[test]
fn must_hand_over_when_the_terminal_has_gone() {
    must_hand_over("1", |leaver| leaver.process.signal("HUP"));
}

#[test]
fn must_stay_when_the_terminal_has_gone_under_nohup() {
    let address = own_address();
    let script = format!("trap '' HUP; exec {STORESERVER} -a {address}");
    let node = Node::start(Command::new("sh").args(["-c", &script]));
    settle(&[&node]);
    node.process.signal("HUP");
    // Had it been taken, it would be before the later one.
    put(&network(), &node.location, b"key", b"value").unwrap();
    node.process.signal("HUP");
    put(&network(), &node.location, b"key", b"").unwrap();
    assert!(!node.process.has_said("Leaving the network..."));
    node.leave("TERM");
}

/// `timeout` signals its child, and then the group that the child is part of; so it does when it is
/// told to end before the time is out.
#[test]
fn must_hand_over_when_its_time_is_out() {
    let address = own_address();
    let options = ["--replicas", "1"];
    let others = [(); 2].map(|()| Node::store(&address, &options));
    settle(&others.each_ref());
    let mut leavers = [(); 5].map(|()| {
        let mut limited = Command::new("timeout");
        limited.args(["--preserve-status", "600", STORESERVER, "-a", &address]);
        Node::start(limited.args(options))
    });
    settle(&others.iter().chain(&leavers).collect::<Vec<_>>());
    let network = network();
    let keys: Vec<_> = (0..200).map(|number| format!("key {number}")).collect();
    for key in &keys {
        put(&network, &others[0].location, key.as_bytes(), b"value").unwrap();
    }
    leavers
        .iter()
        .for_each(|leaver| leaver.process.signal("TERM"));
    leavers.iter_mut().for_each(Node::left);
    for key in &keys {
        let value = get(&network, &others[1].location, key.as_bytes()).unwrap();
        assert_eq!(value, b"value");
    }
}

#[test]
fn must_carry_a_put_out_at_the_next_when_its_holder_was_killed() {
    for replicas in ["1", "2"] {
        let address = own_address();
        let options = ["--replicas", replicas];
        let nodes: Vec<_> = (0..4).map(|_| Node::store(&address, &options)).collect();
        settle(&nodes.iter().collect::<Vec<_>>());
        let mut nodes = nodes;
        let network = network();
        // Kept connections to all of them, as a network in use has.
        for number in 0..200 {
            let key = format!("key {number}");
            put(&network, &nodes[0].location, key.as_bytes(), b"old").unwrap();
        }
        nodes.pop().unwrap().kill();
        for number in 0..200 {
            let key = format!("key {number}");
            put(
                &network,
                &nodes[number % 3].location,
                key.as_bytes(),
                b"new",
            )
            .unwrap();
            let value = get(&network, &nodes[(number + 1) % 3].location, key.as_bytes()).unwrap();
            assert_eq!(value, b"new");
        }
    }
}

#[test]
fn must_refuse_new_connections_when_it_has_left() {
    let address = own_address();
    let stays = Node::store(&address, &[]);
    let leaver = Node::store(&address, &[]);
    settle(&[&stays, &leaver]);
    assert!(
        run(STOREPRIMER, &["-h", stays.location.name()], LONG)
            .status
            .success()
    );
    let location = leaver.location.clone();
    leaver.leave("INT");
    assert_eq!(get(&network(), &location, b"A"), Err(CallError::Refused));
    let read = run(STORETEST, &["-h", stays.location.name()], LONG);
    assert!(read.status.success());
}
