//! The programs that copy, delete, list, dump and load, and how clients find a node.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use thrifty_p2p::client::{Answer, Client, Operation};
use thrifty_p2p::location::Location;

use crate::running::{
    LOCATION, LONG, Node, STOREDEL, STOREDUMP, STOREGET, STOREKEYS, STORELOAD, STOREPUT, get,
    network, own_address, run, settle, wait_until,
};

/// Nodes that have come together, at an address of their own.
fn ring(count: usize, options: &[&str]) -> Vec<Node> {
    let address = own_address();
    let nodes: Vec<_> = (0..count).map(|_| Node::store(&address, options)).collect();
    settle(&nodes.iter().collect::<Vec<_>>());
    nodes
}

/// Runs a program with this input, and the node to ask in front of the arguments.
fn feed(program: &str, at: &Location, arguments: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(program)
        .args(["-h", at.name()])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut pipe = child.stdin.take().unwrap();
    let input = input.to_vec();
    let feeder = thread::spawn(move || {
        // It may end before it has read all.
        let _ = pipe.write_all(&input);
    });
    let output = child.wait_with_output().unwrap();
    feeder.join().unwrap();
    output
}

/// What it prints, if it ends with that code and says nothing else.
fn says(program: &str, at: &Location, arguments: &[&str], code: i32) -> Vec<u8> {
    let output = feed(program, at, arguments, b"");
    let errors = String::from_utf8_lossy(&output.stderr);
    let outcome = (output.status.code(), &*errors);
    assert_eq!(outcome, (Some(code), ""), "{program} {arguments:?}");
    output.stdout
}

/// What it complains of: one line, with exit code 2.
fn complains(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let errors = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(errors.lines().count(), 1, "{errors}");
    errors
}

#[test]
fn must_copy_a_value_byte_for_byte() {
    let nodes = ring(2, &[]);
    let at = &nodes[0].location;
    for value in [&b"apple"[..], b"\n", b"\0\xff\n\n", &vec![7; 3 << 20]] {
        let put = feed(STOREPUT, at, &["a"], value);
        assert!(put.status.success() && put.stderr.is_empty(), "{put:?}");
        let copied = says(STOREGET, at, &["-n", "a"], 0);
        assert!(copied == value);
        assert!(feed(STOREPUT, at, &["b"], &copied).status.success());
        assert!(says(STOREGET, &nodes[1].location, &["b"], 0) == [value, b"\n"].concat());
    }
    says(STOREPUT, at, &["dash", "-"], 0);
    assert_eq!(says(STOREGET, at, &["-n", "dash"], 0), b"-");
    assert_eq!(says(STOREGET, at, &["-n", "missing"], 1), b"");
    let empty = complains(&feed(STOREPUT, at, &["a"], b""));
    assert!(
        empty.contains("standard input: empty, and no VALUE"),
        "{empty}"
    );
    let great = complains(&feed(STOREPUT, at, &["a"], &vec![7; (32 << 20) + 1]));
    assert!(great.contains("more than 33554432 bytes"), "{great}");
    says(STOREGET, at, &["a"], 0);
}

#[test]
fn must_say_whether_there_was_something_to_delete() {
    for count in [1, 3] {
        let nodes = ring(count, &[]);
        for (number, node) in nodes.iter().enumerate() {
            let at = &node.location;
            // Keys of all nodes, by way of each.
            let keys: Vec<_> = (0..20).map(|key| format!("{number} {key}")).collect();
            for key in &keys {
                says(STOREDEL, at, &[key], 1);
                says(STOREPUT, at, &[key, "value"], 0);
                says(STOREDEL, at, &[key], 0);
                says(STOREDEL, at, &[key], 1);
                says(STOREGET, at, &["-n", key], 1);
            }
            let keys: Vec<_> = keys.iter().map(String::as_str).collect();
            says(STOREDEL, at, &keys, 1);
            says(STOREPUT, at, &[keys[7], "value"], 0);
            says(STOREDEL, at, &keys, 0);
            let left = says(STOREKEYS, at, &[], 0);
            assert_eq!(String::from_utf8(left).unwrap(), "");
        }
    }
}

/// The look is part of the call: of two that delete the same value, one has deleted it.
#[test]
fn must_tell_one_of_two_that_it_has_deleted() {
    let nodes = ring(3, &[]);
    for round in 0..30 {
        let key = format!("key {round}");
        says(STOREPUT, &nodes[0].location, &[&key, "value"], 0);
        let deletes = [1, 2].map(|node: usize| {
            let (at, key) = (nodes[node].location.clone(), key.clone());
            thread::spawn(move || feed(STOREDEL, &at, &[&key], b"").status.code())
        });
        let mut codes = deletes.map(|delete| delete.join().unwrap());
        codes.sort_unstable();
        assert_eq!(codes, [Some(0), Some(1)], "{key}");
    }
}

#[test]
fn must_list_the_keys_that_begin_so() {
    let nodes = ring(3, &[]);
    let at = &nodes[0].location;
    for key in ["b", "a", "ab", "a\nb", "", "gone"] {
        says(STOREPUT, at, &["--", key, "value"], 0);
    }
    says(STOREDEL, at, &["gone"], 0);
    assert_eq!(says(STOREKEYS, at, &["--sort"], 0), b"\na\na\nb\nab\nb\n");
    let at = &nodes[2].location;
    assert_eq!(
        says(STOREKEYS, at, &["-0", "--sort", "a"], 0),
        b"a\0a\nb\0ab\0"
    );
    assert_eq!(says(STOREKEYS, at, &["c"], 0), b"");
}

fn numbered(number: usize) -> Vec<u8> {
    format!("key {number}").into_bytes()
}

/// Tells a thread to end; if the test fails, too.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Nodes join, leave and are killed while the keys are listed again and again.
#[test]
fn must_list_each_key_once_while_nodes_come_and_go() {
    const KEYS: usize = 20_000;
    let options = ["--tick", "100"];
    let mut nodes = ring(3, &options);
    let first = nodes[0].location.clone();
    let client = Client::connect(std::slice::from_ref(&first)).unwrap();
    let keys: Vec<_> = (0..KEYS).map(numbered).collect();
    let puts: Vec<_> = keys
        .iter()
        .map(|key| Operation::Put(key, b"value"))
        .collect();
    client.insist(&puts, &mut |_, _| {}).unwrap();
    let (over, listed) = (
        AtomicBool::new(false),
        std::sync::atomic::AtomicUsize::new(0),
    );
    thread::scope(|scope| {
        let lists = scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                let mut found = Vec::new();
                let all = client.keys(b"key ", &mut |keys, _| {
                    found.extend(keys.into_iter().map(|key| key.key));
                    Ok::<(), thrifty_p2p::client::Error>(())
                });
                assert!(all.expect("keys are listed"));
                found.sort();
                let mut wanted = keys.clone();
                wanted.sort();
                assert_eq!(found.len(), KEYS);
                assert!(found == wanted);
                listed.fetch_add(1, Ordering::Relaxed);
            }
        });
        let over = Ends(&over);
        for _ in 0..3 {
            nodes.push(Node::store(
                first.address(),
                &[&options[..], &["-h", first.name()]].concat(),
            ));
            settle(&nodes.iter().collect::<Vec<_>>());
            nodes.remove(1).leave("INT");
            settle(&nodes.iter().collect::<Vec<_>>());
            nodes.push(Node::store(
                first.address(),
                &[&options[..], &["-h", first.name()]].concat(),
            ));
            settle(&nodes.iter().collect::<Vec<_>>());
            nodes.remove(1).kill();
            settle(&nodes.iter().collect::<Vec<_>>());
        }
        let lists_before = listed.load(Ordering::Relaxed);
        wait_until(LONG, "one list more", || {
            lists.is_finished() || listed.load(Ordering::Relaxed) > lists_before
        });
        drop(over);
    });
}

#[test]
fn must_load_what_was_dumped() {
    let nodes = ring(3, &[]);
    let at = &nodes[0].location;
    let all: Vec<u8> = (0..=255).collect();
    let network = network();
    let client = Client::connect(std::slice::from_ref(at)).unwrap();
    let keys: Vec<_> = (0..3000).map(numbered).collect();
    let great = vec![b'\\'; 3 << 20];
    let mut puts: Vec<_> = keys.iter().map(|key| Operation::Put(key, key)).collect();
    puts.extend([
        Operation::Put(&all, &all),
        Operation::Put(b"", b"empty"),
        Operation::Put(b"great", &great),
        Operation::Put(b"deleted", b"soon"),
        Operation::Delete(b"deleted"),
    ]);
    let mut answers = 0;
    client
        .insist(&puts, &mut |place, answer| {
            answers += 1;
            match puts[place] {
                Operation::Delete(_) => assert_eq!(answer, Answer::Deleted(true)),
                _ => assert_eq!(answer, Answer::Stored),
            }
        })
        .unwrap();
    assert_eq!(answers, puts.len());
    let dump = says(STOREDUMP, at, &[], 0);
    assert!(dump.starts_with(b"diststore dump 1\n") && dump.ends_with(b"\nend 3003\n"));
    assert_eq!(dump.iter().filter(|byte| **byte == b'\n').count(), 3005);
    // All are stopped; these are others.
    drop(nodes);
    let nodes = ring(2, &[]);
    let at = &nodes[0].location;
    let load = feed(STORELOAD, at, &[], &dump);
    assert!(load.status.success() && load.stdout.is_empty() && load.stderr.is_empty());
    for key in &keys {
        assert_eq!(&get(&network, at, key).unwrap(), key);
    }
    let at = &nodes[1].location;
    assert_eq!(get(&network, at, &all).unwrap(), all);
    assert_eq!(get(&network, at, b"").unwrap(), b"empty");
    assert!(get(&network, at, b"great").unwrap() == great);
    let again = says(STOREDUMP, at, &["--quiet"], 0);
    let lines = |dump: &[u8]| {
        let mut lines: Vec<_> = dump
            .split(|byte| *byte == b'\n')
            .map(<[u8]>::to_vec)
            .collect();
        lines.sort();
        lines
    };
    assert!(lines(&again) == lines(&dump));
}

/// Each key counts up meanwhile. What the dump has of it lies between the last number that was acknowledged before the
/// dump began, and the last one that had been put when it ended.
#[test]
fn must_dump_each_key_as_it_was_at_some_moment_during_the_dump() {
    const KEYS: usize = 2000;
    const WRITERS: usize = 4;
    let nodes = ring(3, &[]);
    let at = nodes[0].location.clone();
    let keys: Vec<_> = (0..KEYS).map(numbered).collect();
    let counts = || -> Vec<AtomicU64> { (0..KEYS).map(|_| AtomicU64::new(0)).collect() };
    let (begun, acknowledged) = (counts(), counts());
    let over = AtomicBool::new(false);
    let put_all = |client: &Client, mine: &[usize]| {
        let numbers = mine.iter().map(|key| {
            let number = begun[*key].fetch_add(1, Ordering::SeqCst) + 1;
            number.to_string().into_bytes()
        });
        let numbers: Vec<_> = numbers.collect();
        let puts = mine.iter().zip(&numbers);
        let puts: Vec<_> = puts
            .map(|(key, number)| Operation::Put(&keys[*key], number))
            .collect();
        client.many(&puts, &mut |place, answer| {
            assert_eq!(answer.expect("nobody goes"), Answer::Stored);
            acknowledged[mine[place]].fetch_add(1, Ordering::SeqCst);
        });
    };
    let read = |counts: &[AtomicU64]| -> Vec<u64> {
        let numbers = counts.iter().map(|count| count.load(Ordering::SeqCst));
        numbers.collect()
    };
    let mut passed = 0;
    thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (at, over, put_all) = (&at, &over, &put_all);
            scope.spawn(move || {
                let client = Client::connect(std::slice::from_ref(at)).unwrap();
                let mine: Vec<_> = (writer..KEYS).step_by(WRITERS).collect();
                while !over.load(Ordering::Relaxed) {
                    for some in mine.chunks(20) {
                        put_all(&client, some);
                    }
                }
            });
        }
        let over = Ends(&over);
        let all_put = || read(&acknowledged).iter().all(|number| *number > 0);
        wait_until(LONG, "all keys have been put", all_put);
        for _ in 0..5 {
            let least = read(&acknowledged);
            let dump = says(STOREDUMP, &at, &[], 0);
            let most = read(&begun);
            let dump = String::from_utf8(dump).unwrap();
            let mut seen = BTreeSet::new();
            for line in dump.lines().filter(|line| line.starts_with("key ")) {
                let (key, number) = line["key ".len()..].split_once('\t').unwrap();
                let (key, number): (usize, u64) = (key.parse().unwrap(), number.parse().unwrap());
                let range = least[key]..=most[key];
                assert!(range.contains(&number), "{key}: {number}, not {range:?}");
                passed += usize::from(number > least[key]);
                assert!(seen.insert(key), "twice: {key}");
            }
            assert_eq!(seen.len(), KEYS);
        }
        drop(over);
    });
    assert!(passed > 0, "nobody counted while keys were dumped");
}

#[test]
fn must_say_how_far_a_damaged_dump_was_put() {
    let nodes = ring(2, &[]);
    let at = &nodes[0].location;
    let load = |input: &str| complains(&feed(STORELOAD, at, &[], input.as_bytes()));
    let head = "diststore dump 1\na\tapple\nb\tbanana\n";
    let cut = load(head);
    assert!(
        cut.contains("standard input: line 4: the last line"),
        "{cut}"
    );
    assert!(cut.contains("2 keys have been put"), "{cut}");
    assert_eq!(says(STOREGET, at, &["b"], 0), b"banana\n");
    let wrong = load(&format!("{head}c cherry\nend 3\n"));
    assert!(
        wrong.contains("line 4: not KEY, tab, VALUE; 2 keys"),
        "{wrong}"
    );
    let count = load(&format!("{head}end 3\n"));
    assert!(count.contains("line 4: 2 keys are above"), "{count}");
    let other = load("a,apple\n");
    assert!(
        other.contains("line 1: ") && other.contains("0 keys"),
        "{other}"
    );
    let great = format!("diststore dump 1\na\t{}\nend 1\n", "v".repeat(33 << 20));
    let great = load(&great);
    assert!(great.contains("33554432"), "{great}");
}

/// A dump is loaded while a node is killed, another one or the one that was asked: nothing of it is lost.
#[test]
fn must_load_all_though_a_node_is_killed() {
    const KEYS: usize = 30_000;
    let mut dump = String::from("diststore dump 1\n");
    for number in 0..KEYS {
        dump += &format!("key {number}\tvalue {number}\n");
    }
    dump += &format!("end {KEYS}\n");
    for asked in [0, 2] {
        let mut nodes = ring(3, &["--tick", "100"]);
        let at = nodes[asked].location.clone();
        let killed = nodes.pop().unwrap();
        thread::scope(|scope| {
            let load = scope.spawn(|| feed(STORELOAD, &at, &[], dump.as_bytes()));
            let network = network();
            wait_until(LONG, "it has begun", || {
                !get(&network, &nodes[1].location, b"key 0")
                    .unwrap()
                    .is_empty()
            });
            killed.kill();
            let load = load.join().unwrap();
            assert!(load.status.success() && load.stderr.is_empty(), "{load:?}");
        });
        settle(&nodes.iter().collect::<Vec<_>>());
        let listed = says(STOREKEYS, &nodes[0].location, &[], 0);
        assert_eq!(listed.iter().filter(|byte| **byte == b'\n').count(), KEYS);
    }
}

/// All that put have failed while more is read.
#[test]
fn must_end_where_there_is_no_room_for_a_dump() {
    let nodes = ring(1, &["--replicas", "1", "--memory", "2m"]);
    let mut dump = String::from("diststore dump 1\n");
    for number in 0..30_000 {
        dump += &format!("key {number}\t{}\n", "v".repeat(1000));
    }
    dump += "end 30000\n";
    let said = complains(&feed(STORELOAD, &nodes[0].location, &[], dump.as_bytes()));
    assert!(
        said.contains(" has no room for ") && said.contains(" keys have been put"),
        "{said}"
    );
}

#[test]
fn must_ask_the_first_peer_that_answers() {
    let nodes = ring(1, &["--replicas", "1"]);
    let at = &nodes[0].location;
    let nobody = own_address();
    let list = format!("{nobody}:9900,{at},{nobody}");
    let put = run(STOREPUT, &["-h", &list, "a", "apple"], LONG);
    assert!(put.status.success() && put.stderr.is_empty(), "{put:?}");
    let get = |variable: &str, arguments: &[&str]| {
        let mut command = Command::new(STOREGET);
        let command = command.env("THRIFTY_PEERS", variable).args(arguments);
        command.output().unwrap()
    };
    assert_eq!(get(&list, &["a"]).stdout, b"apple\n");
    // An option beats the environment.
    let refused = complains(&get(&list, &["-h", &nobody, "a"]));
    assert!(refused.contains("9900: connection refused"), "{refused}");
    let both = complains(&get(&format!("{nobody}:1,{nobody}:2"), &["a"]));
    assert!(
        both.contains(":1: connection refused: ") && both.contains(":2: "),
        "{both}"
    );
    let wrong = complains(&get("a:b", &["a"]));
    assert!(wrong.contains("THRIFTY_PEERS: not HOST:PORT"), "{wrong}");
    let wrong = complains(&get("\u{20ac}", &["a"]));
    assert!(wrong.contains("THRIFTY_PEERS: not a location"), "{wrong}");
}

#[test]
fn must_show_the_state_at_the_first_peer_that_answers() {
    let nodes = ring(2, &[]);
    let (at, address) = (&nodes[1].location, nodes[1].location.address());
    let nobody = own_address();
    let list = format!("{nobody}:9900,{at}");
    let status = |variable: &str, arguments: &[&str]| {
        let mut command = Command::new(LOCATION);
        let command = command.env("THRIFTY_PEERS", variable);
        command.arg("--status").args(arguments).output().unwrap()
    };
    let shown = [
        status("", &["-h", &list]),
        status(&list, &[]),
        // Options beat the environment.
        status(&nobody, &["-a", address]),
        status(&nobody, &["-a", address, "-p", "9901"]),
        status(&list, &["--accept-loss"]),
    ];
    for shown in shown {
        assert!(shown.status.success(), "{shown:?}");
        let out = String::from_utf8(shown.stdout).unwrap();
        let named = |node: &Node| out.contains(&**node.location.name());
        assert!(nodes.iter().all(named), "{out}");
    }
    let both = complains(&status(&format!("{nobody}:1,{nobody}:2"), &[]));
    assert!(
        both.contains(":1: connection refused; ") && both.contains(":2: "),
        "{both}"
    );
}
