//! What the programs print is English, and has no blanks at the ends of its lines.

use crate::running::{
    LOCATION, LONG, Node, PROGRAMS, SECONDS, STOREGET, STOREPUT, STORESERVER, own_address, run,
    settle,
};

#[test]
fn must_have_no_blanks_at_the_ends_of_help() {
    for program in PROGRAMS {
        let help = run(program, &["--help"], SECONDS);
        assert!(help.status.success());
        let out = String::from_utf8(help.stdout).unwrap();
        for line in out.lines() {
            assert_eq!(line, line.trim_end(), "{program}");
        }
    }
}

#[test]
fn must_count_one_as_one() {
    let mut node = Node::store(&own_address(), &["--replicas", "1"]);
    settle(&[&node]);
    let at = &**node.location.name();
    let put = run(STOREPUT, &["-h", at, "a", "apple"], SECONDS);
    assert!(put.status.success());
    let status = run(LOCATION, &["--status", "-h", at], SECONDS);
    let line = format!("{} full, 1 member, 1 key\n", node.location);
    assert_eq!(String::from_utf8_lossy(&status.stdout), line);
    let errors = |program, arguments: &[&str]| {
        let output = run(program, arguments, SECONDS);
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(errors(STOREPUT, &["a"]).contains(" 1 argument found"));
    assert!(errors(STOREGET, &["a", "b"]).contains(" 2 arguments found"));
    let other = own_address();
    let refused = errors(STORESERVER, &["-a", &other, "-h", at]);
    assert!(refused.contains(" 1 copy of each key, not 2"), "{refused}");
    node.process.signal("INT");
    node.process.wait(LONG);
    let left = node.process.errors();
    assert!(left.contains(" 1 key "), "{left}");
}
