//! The client programs: keys and values are bytes, what they print, how they end.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::process::Output;

use thrifty_p2p::location::Location;

use crate::running::{
    LONG, Node, STOREGET, STOREPRIMER, STOREPUT, STORETEST, get, network, own_address, owner, put,
    run, settle,
};

fn program(program: &str, at: &Location, arguments: &[&[u8]]) -> Output {
    let mut all = vec![OsStr::new("-h"), OsStr::new(&**at.name())];
    all.extend(arguments.iter().copied().map(OsStr::from_bytes));
    run(program, &all, LONG)
}

fn prints(output: &Output, code: i32, out: &[u8]) {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), &*errors), (Some(code), ""));
    assert_eq!(output.stdout, out);
}

#[test]
fn must_take_keys_and_values_as_bytes() {
    let address = own_address();
    let nodes = [Node::store(&address, &[]), Node::store(&address, &[])];
    settle(&nodes.each_ref());
    let [one, other] = nodes.each_ref().map(|node| &node.location);
    let cases: &[(&[u8], &[u8])] = &[
        (b"a", b"apple"),
        (b"\xff\xfe\x80", b"\xc3\x28\x01\xff"),
        ("schl\u{fc}ssel".as_bytes(), "\u{1f34f}".as_bytes()),
        (b"two words", b" spaces \n and lines\n"),
        (b"", b"the empty key"),
        (b"dashes", b"-v"),
        (b"more dashes", b"--help"),
    ];
    for (key, value) in cases {
        prints(&program(STOREPUT, one, &[key, value]), 0, b"");
        prints(
            &program(STOREGET, other, &[key]),
            0,
            &[*value, b"\n"].concat(),
        );
    }
    // A key that begins with a dash comes behind two.
    prints(&program(STOREPUT, one, &[b"--", b"-p", b"-h"]), 0, b"");
    prints(&program(STOREGET, other, &[b"--", b"-p"]), 0, b"-h\n");
    // What arguments can't be.
    let all: Vec<u8> = (0..=255).collect();
    let network = network();
    put(&network, one, &all, &all).unwrap();
    assert_eq!(get(&network, other, &all).unwrap(), all);
    let big = vec![b'x'; 8 << 20];
    put(&network, one, b"big", &big).unwrap();
    assert!(get(&network, other, b"big").unwrap() == big);
}

#[test]
fn must_print_an_empty_line_for_a_missing_key() {
    let node = Node::store(&own_address(), &[]);
    settle(&[&node]);
    let at = &node.location;
    prints(&program(STOREGET, at, &[b"nothing"]), 1, b"\n");
    // The empty value is none.
    prints(&program(STOREPUT, at, &[b"key", b"value"]), 0, b"");
    prints(&program(STOREPUT, at, &[b"key", b""]), 0, b"");
    prints(&program(STOREGET, at, &[b"key"]), 1, b"\n");
    prints(&program(STOREPUT, at, &[b"key", b"again"]), 0, b"");
    prints(&program(STOREGET, at, &[b"key"]), 0, b"again\n");
}

#[test]
fn must_prime_and_read_back() {
    let address = own_address();
    let nodes = [(); 3].map(|()| Node::store(&address, &[]));
    settle(&nodes.each_ref());
    let [one, other, _] = nodes.each_ref().map(|node| &node.location);
    let test = program(STORETEST, one, &[]);
    assert_eq!(test.status.code(), Some(1));
    let out = String::from_utf8(test.stdout).unwrap();
    assert_eq!(out.lines().count(), 26);
    let expected = owner(&network(), one, b"A");
    assert_eq!(
        out.lines().next(),
        Some(&*format!("None received from expected {expected}"))
    );
    prints(&program(STOREPRIMER, one, &[]), 0, b"");
    let test = program(STORETEST, other, &[]);
    let out = String::from_utf8(test.stdout.clone()).unwrap();
    prints(&test, 0, out.as_bytes());
    let letters = out.lines().map(|line| line.as_bytes()[0]);
    assert!(letters.eq(b'A'..=b'Z'), "{out}");
    assert!(out.starts_with("Alpha\nBravo\n") && out.ends_with("\nYankee\nZulu\n"));
    // As the original spells it.
    let recorded = include_str!("../data/wire.jsonl");
    let asked = recorded.lines().filter_map(|line| {
        let vector: serde_json::Value = serde_json::from_str(line).unwrap();
        let id = vector["id"].as_str()?.starts_with("req.get.nato#");
        id.then(|| {
            let fields = &vector["decoded"]["fields"];
            fields[0]["value"].as_str().unwrap().to_owned()
        })
    });
    let asked: Vec<_> = asked.collect();
    assert!(!asked.is_empty(), "no such vector");
    for name in asked {
        assert!(out.lines().any(|line| line == name), "{name}: {out}");
    }
}
