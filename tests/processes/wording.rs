//! What the programs print is English, and has no blanks at the ends of its lines.

use std::collections::BTreeSet;

use crate::running::{
    LOCATION, LONG, Node, PROGRAMS, SECONDS, STOREGET, STOREPRIMER, STOREPUT, STORESERVER,
    own_address, run, settle,
};

#[test]
fn must_have_short_lines_without_blanks_at_the_ends_in_help() {
    for program in PROGRAMS {
        for line in help(program).lines() {
            assert_eq!(line, line.trim_end(), "{program}");
            assert!(line.len() <= 80, "{program}: {line}");
        }
    }
}

fn help(program: &str) -> String {
    let help = run(program, &["--help"], SECONDS);
    assert!(help.status.success());
    String::from_utf8(help.stdout).unwrap()
}

/// The parts of a program's help: the first line, the next one, what is said then, options, examples, exit codes.
fn parts(help: &str) -> [&str; 6] {
    let (first, rest) = help.split_once("\n\n").unwrap();
    let (usage, rest) = rest.split_once("\n\n").unwrap();
    let (about, rest) = rest.split_once("\n\nOptions:\n").unwrap();
    let (options, rest) = rest.split_once("\n\nExamples:\n").unwrap();
    let (examples, codes) = rest.split_once("\n\nExit codes:\n").unwrap();
    [first, usage, about, options, examples, codes]
}

#[test]
fn must_say_what_a_program_is_for_and_show_its_use() {
    for program in PROGRAMS {
        let name = program.rsplit('/').next().unwrap();
        let help = help(program);
        let [first, usage, _, _, examples, codes] = parts(&help);
        let purpose = first.strip_prefix(&format!("{name}: ")).expect(first);
        let is_letter = |c: char| c.is_ascii_lowercase();
        assert!(purpose.starts_with(is_letter) && !purpose.ends_with('.'));
        assert!(usage.starts_with(&format!("Usage: {name} [OPTIONS]")));
        let shows = |line: &&str| line.starts_with("    ") && line.contains(name);
        assert_eq!(examples.lines().filter(shows).count(), 2, "{examples}");
        assert_eq!(examples.lines().count(), 2, "{examples}");
        let codes = codes.lines().map(|line| line.split_at(7).0);
        let codes = codes.collect::<String>();
        let some = ["    0      2  ", "    0      1      2  "];
        assert!(some.contains(&&*codes), "{name}: {codes}");
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
    for program in [STORESERVER, LOCATION] {
        let help = help(program);
        let [.., described, _, _] = parts(&help);
        let first_columns = listed.lines().filter_map(|row| row.split('|').nth(1));
        let first_columns = first_columns.collect::<Vec<_>>().join("\n");
        // Their first word of a line; what is said of one may name another.
        let heads = described
            .lines()
            .filter(|line| line.trim_start().starts_with('-'));
        let heads = heads.map(|line| line.trim().split("  ").next().unwrap());
        let heads = heads.collect::<Vec<_>>().join("\n");
        assert_eq!(options(&heads), options(&first_columns), "{program}");
    }
    let programs = programs.replace('`', "");
    for program in PROGRAMS {
        let help = help(program);
        let [first, usage, ..] = parts(&help);
        let (_, purpose) = first.split_once(": ").unwrap();
        let row = format!("\n| {} | {purpose}", &usage["Usage: ".len()..]);
        assert!(programs.contains(&row), "README.md has no row {row}");
    }
    // One more has the heads of the columns.
    assert_eq!(programs.matches("\n| ").count(), 1 + PROGRAMS.len());
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
