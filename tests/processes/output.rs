//! Output that is lost is trouble: what a program prints is what it was run for.

use std::process::{Command, Output, Stdio};

use crate::running::{
    LOCATION, LONG, Node, PROGRAMS, STOREDUMP, STOREGET, STOREKEYS, STOREPRIMER, STOREPUT,
    STORESERVER, STORETEST, own_address, run, settle,
};

/// The program as a shell runs it, with its stdout elsewhere.
fn shell(redirection: &str, program: &str, arguments: &[&str]) -> Output {
    let script = format!("exec \"$@\" {redirection}");
    let all = [&["-c", &script, "sh", program], arguments].concat();
    run("sh", &all, LONG)
}

fn loses_its_output(redirection: &str, program: &str, arguments: &[&str], cause: &str) {
    let output = shell(redirection, program, arguments);
    let errors = String::from_utf8(output.stderr).expect("text");
    let what = format!("{program} {arguments:?} {redirection}: {errors}");
    assert_eq!(output.status.code(), Some(2), "{what}");
    let name = program.rsplit('/').next().unwrap();
    let line = format!("{name}: standard output: {cause}");
    assert!(
        errors.starts_with(&line) && errors.lines().count() == 1,
        "{what}"
    );
}

#[test]
fn must_say_that_its_output_was_lost() {
    let node = Node::store(&own_address(), &[]);
    settle(&[&node]);
    let at = &**node.location.name();
    for (redirection, cause) in [(">/dev/full", "No space left"), (">&-", "closed")] {
        for program in PROGRAMS {
            for option in ["--help", "--version"] {
                loses_its_output(redirection, program, &[option], cause);
            }
        }
        // A missing key has its line, too.
        loses_its_output(redirection, STOREGET, &["-h", at, "A"], cause);
        loses_its_output(redirection, STORETEST, &["-h", at], cause);
        for program in [LOCATION, STORESERVER] {
            loses_its_output(redirection, program, &["--status", "-h", at], cause);
        }
        // They print nothing, and lose nothing.
        let printed = shell(redirection, STOREPRIMER, &["-h", at]);
        assert!(printed.status.success() && printed.stderr.is_empty());
        loses_its_output(redirection, STOREGET, &["-h", at, "A"], cause);
        for program in [STORETEST, STOREKEYS, STOREDUMP] {
            loses_its_output(redirection, program, &["-h", at], cause);
        }
        let put = shell(redirection, STOREPUT, &["-h", at, "A", ""]);
        assert!(put.status.success() && put.stderr.is_empty());
    }
}

/// Python's `DEVNULL`, and what daemons do: a null device that is open for reading, too.
#[test]
fn must_take_any_null_device_for_an_open_output() {
    let node = Node::store(&own_address(), &["--replicas", "1"]);
    settle(&[&node]);
    let at = &**node.location.name();
    for redirection in [">/dev/null", "1<>/dev/null"] {
        let output = shell(redirection, LOCATION, &["--status", "-h", at]);
        assert!(output.status.success() && output.stderr.is_empty());
    }
}

#[test]
fn must_keep_quiet_when_nobody_reads_any_more() {
    let node = Node::store(&own_address(), &["--replicas", "1"]);
    settle(&[&node]);
    let at = &**node.location.name();
    let at: &[&str] = &["-h", at];
    for (program, arguments, code) in [
        (STOREPRIMER, at, 0),
        (STORETEST, at, 0),
        (STOREGET, &[at, &["A"]].concat(), 0),
        (STOREGET, &[at, &["missing"]].concat(), 1),
        (STOREKEYS, at, 0),
        (STOREKEYS, &[at, &["--sort"]].concat(), 0),
        (STOREDUMP, at, 0),
        (LOCATION, &[at, &["--status"]].concat(), 0),
        (STOREGET, &["--help"], 0),
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = Command::new(program);
        let mut child = command
            .args(arguments)
            .stdout(writer)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(command); // It holds the end of the pipe that is written to.
        let status = child.wait().unwrap();
        let errors = std::io::read_to_string(child.stderr.take().unwrap()).unwrap();
        let outcome = (status.code(), &*errors);
        assert_eq!(outcome, (Some(code), ""), "{program} {arguments:?}");
    }
}
