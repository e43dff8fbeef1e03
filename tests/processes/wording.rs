//! What the programs print is English, and has no blanks at the ends of its lines.

use std::collections::BTreeSet;

use crate::running::{
    LOCATION, LONG, Node, PROGRAMS, SECONDS, STOREGET, STOREPRIMER, STOREPUT, STORESERVER,
    own_address, run, settle,
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

/// The words of a text that begin with two dashes.
fn options(text: &str) -> BTreeSet<&str> {
    let part_of_word = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let words = text.split(|c| !part_of_word(c));
    let named = |word: &str| word.strip_prefix("--")?.chars().next();
    let is_option = |word: &&str| named(word).is_some_and(char::is_alphabetic);
    words.filter(is_option).collect()
}

#[test]
fn must_have_the_programs_and_options_that_readme_lists() {
    let readme = include_str!("../../README.md");
    let (_, section) = readme.split_once("\n## Programs\n").unwrap();
    let (programs, rest) = section.split_once("\n| option |").unwrap();
    let (listed, _) = rest.split_once("\n\n").unwrap();
    let help = |program| String::from_utf8(run(program, &["--help"], SECONDS).stdout).unwrap();
    for program in [STORESERVER, LOCATION] {
        let help = help(program);
        let (usage, described) = help.split_once("\nOptions:\n").unwrap();
        let first_columns = listed.lines().filter_map(|row| row.split('|').nth(1));
        let first_columns = first_columns.collect::<Vec<_>>().join("\n");
        // Their first word of a line; what is said of one may name another.
        let heads = described
            .lines()
            .filter(|line| line.trim_start().starts_with('-'));
        let heads = heads.map(|line| line.trim().split("  ").next().unwrap());
        let heads = heads.collect::<Vec<_>>().join("\n");
        assert_eq!(options(&heads), options(&first_columns), "{program}");
        assert!(programs.contains(&usage.lines().next().unwrap()["Usage: ".len()..]));
    }
    for program in PROGRAMS {
        let name = program.rsplit('/').next().unwrap();
        assert!(programs.contains(&format!("\n| `{name} ")), "{name}");
    }
    assert_eq!(programs.matches("\n| `").count(), PROGRAMS.len());
}

#[test]
fn must_count_one_as_one() {
    let mut node = Node::store(&own_address(), &["--replicas", "1"]);
    settle(&[&node]);
    let at = &**node.location.name();
    let put = run(STOREPUT, &["-h", at, "a", "apple"], SECONDS);
    assert!(put.status.success());
    let status = run(LOCATION, &["--status", "-h", at], SECONDS);
    assert!(status.status.success(), "{status:?}");
    let errors = |program, arguments: &[&str]| {
        let output = run(program, arguments, SECONDS);
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(errors(STOREPRIMER, &["a"]).contains(" 1 argument found"));
    assert!(errors(STOREGET, &["a", "b"]).contains(" 2 arguments found"));
    let other = own_address();
    let refused = errors(STORESERVER, &["-a", &other, "-h", at]);
    assert!(refused.contains(" 1 copy of each key, not 2"), "{refused}");
    node.process.signal("INT");
    node.process.wait(LONG);
    let left = node.process.errors();
    assert!(left.contains(" 1 key "), "{left}");
}
