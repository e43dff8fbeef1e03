//! What the documentation names is there: files, tests, programs, code. And so is what simulated tests say of how to
//! replay them, and what the patches in `tests/mutants` say of the tests that catch them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use thrifty_p2p::{diststore, locator};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files below a folder whose names end so.
fn files(folder: &str, end: &str) -> Vec<PathBuf> {
    let (mut found, mut open) = (Vec::new(), vec![root().join(folder)]);
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.to_string_lossy().ends_with(end) {
                found.push(path);
            }
        }
    }
    found
}

/// Each word in a text that people read, with the file that it is in: README.md, the guide, and the
/// docs of the sources and scripts.
fn words() -> BTreeSet<(String, String)> {
    let prose = files("src/guide", ".md").into_iter();
    let prose = prose.chain([root().join("README.md"), root().join("CHANGELOG.md")]);
    let prose = prose.map(|path| (fs::read_to_string(&path).unwrap(), path));
    let code = files("src", ".rs").into_iter().chain(files("tests", ".rs"));
    let code = code.chain(files("scripts", ""));
    let code = code.filter(|path| path.extension().is_none_or(|end| end == "rs"));
    let code = code.map(|path| {
        let text = fs::read_to_string(&path).unwrap();
        let comments = text.lines().map(str::trim_start);
        let comments = comments.filter(|line| line.starts_with("//") || line.starts_with("# "));
        (comments.collect::<Vec<_>>().join("\n"), path)
    });
    let mut words = BTreeSet::new();
    for (text, path) in prose.chain(code) {
        let part_of_word = |c: char| c.is_alphanumeric() || "_/.-".contains(c);
        for word in text.split(|c| !part_of_word(c)) {
            let word = word.trim_end_matches(['.', '-', '/']);
            let path = path.strip_prefix(root()).unwrap();
            words.insert((word.to_owned(), path.display().to_string()));
        }
    }
    words
}

#[test]
fn must_name_files_that_are_there() {
    let folders = [
        "src/",
        "tests/",
        "scripts/",
        "idl/",
        "examples/",
        "benches/",
    ];
    let mut count = 0;
    for (word, file) in words() {
        if folders.iter().any(|folder| word.starts_with(folder)) {
            count += 1;
            let there = root().join(&word).exists();
            assert!(there, "{file} names {word}, and there is no such file");
        }
    }
    assert!(count > 30, "{count} names of files found");
}

#[test]
fn must_name_tests_that_are_there() {
    let sources = files("tests", ".rs").into_iter().chain(files("src", ".rs"));
    let sources = sources.map(|path| fs::read_to_string(path).unwrap());
    let sources = sources.collect::<String>();
    let mut count = 0;
    for (word, file) in words() {
        let guide = file.starts_with("src/guide") && word.contains("_must_");
        if guide || word.starts_with("must_") || word.starts_with("regression_must_") {
            count += 1;
            let there = sources.contains(&format!("fn {word}("));
            assert!(there, "{file} names {word}, and there is no such test");
        }
    }
    assert!(count > 10, "{count} names of tests found");
}

/// README.md and the pages of the guide.
fn pages() -> Vec<(String, String)> {
    let pages = files("src/guide", ".md").into_iter();
    let pages = pages.chain([root().join("README.md")]);
    let pages = pages.map(|path| {
        let name = path.strip_prefix(root()).unwrap().display().to_string();
        (name, fs::read_to_string(path).unwrap())
    });
    pages.collect()
}

/// What `--test`, `--example` and `--bin` name in a command, beside options of ours that are called alike.
#[test]
fn must_name_programs_that_are_there() {
    let kinds = [("--test ", "tests"), ("--example ", "examples")];
    let mut count = 0;
    for (page, text) in pages() {
        for (option, folder) in kinds.into_iter().chain([("--bin ", "src/bin")]) {
            for rest in text.split(option).skip(1) {
                let part_of_name = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
                let name = rest.split(|c| !part_of_name(c)).next().unwrap();
                let mut files = [format!("{name}.rs"), format!("{name}/main.rs")].into_iter();
                let exists = files.any(|file| root().join(folder).join(file).exists());
                assert!(exists, "{page} names {option}{name}");
                count += 1;
            }
        }
    }
    assert!(count > 15, "{count} of them found");
}

/// What stands between back-ticks in a page, without its blocks of code.
fn quoted(page: &str) -> Vec<&str> {
    let prose = page.split("```").step_by(2);
    prose
        .flat_map(|prose| prose.split('`').skip(1).step_by(2))
        .collect()
}

/// The names in a text that looks like code: `View::list`, `is_replica`, `lose()`. Others have none.
fn names_of_code(quoted: &str) -> Vec<&str> {
    let part_of_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let named = quoted.strip_suffix("()").unwrap_or(quoted);
    let whole = !named.is_empty() && named.chars().all(|c| part_of_word(c) || c == ':');
    let looks = named.len() < quoted.len() || named.contains("::") || named.contains('_');
    let names = named
        .split("::")
        .filter(|name| whole && looks && !name.is_empty());
    names.collect()
}

#[test]
fn must_name_code_that_is_there() {
    let sources = ["src", "tests", "scripts", "idl", "benches", "examples"];
    let sources = sources.iter().flat_map(|folder| files(folder, ""));
    let ends = ["rs", "py", "thrift", "js", "sh", ""];
    let is_code = |path: &PathBuf| {
        let end = path.extension().map_or("", |end| end.to_str().unwrap());
        ends.contains(&end)
    };
    let part_of_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut known = BTreeSet::new();
    for path in sources.filter(is_code) {
        known.extend(path.file_stem().map(|name| name.display().to_string()));
        let Ok(source) = fs::read_to_string(path) else {
            continue; // A program that was built.
        };
        let lines = source
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"));
        let names = lines.flat_map(|line| line.split(|c| !part_of_word(c)));
        known.extend(names.map(str::to_owned));
    }
    let mut count = 0;
    let pages = pages().into_iter();
    for (page, text) in pages.filter(|(page, _)| page.starts_with("src/guide")) {
        for quoted in quoted(&text) {
            for name in names_of_code(quoted) {
                // What ends so is the beginning of several names.
                let mut from = known.range(name.to_owned()..);
                let there = match name.ends_with('_') {
                    true => from.next().is_some_and(|known| known.starts_with(name)),
                    false => known.contains(name),
                };
                assert!(there, "{page} names `{quoted}`, and no source has {name:?}");
                count += 1;
            }
        }
    }
    assert!(count > 50, "{count} of them found");
}

/// Requests are counted by the methods that the IDL has, and no others.
#[test]
fn must_count_by_the_methods_of_the_idl() {
    let mut declared = BTreeSet::new();
    for path in files("idl", ".thrift") {
        let source = fs::read_to_string(path).unwrap();
        let services = source.split("\nservice ").skip(1);
        let bodies = services.map(|service| service.split("\n}").next().unwrap());
        let lines = bodies.flat_map(str::lines);
        let methods = lines.filter(|line| !line.trim_start().starts_with(['*', '/']));
        let names = methods.filter_map(|line| line.split('(').next()?.split(' ').next_back());
        let is_name = |name: &&str| name.chars().all(|c| c.is_alphabetic() || c == '_');
        let names = names.filter(|name| !name.is_empty()).filter(is_name);
        declared.extend(names.map(str::to_owned));
    }
    let counted = [diststore::METHODS, locator::METHODS].concat();
    let counted: BTreeSet<_> = counted.iter().map(|name| name.to_string()).collect();
    assert_eq!(counted, declared);
}

/// The names of all tests in a source, with what stands between a test's name and the end of the test.
fn tests_in(source: &str) -> Vec<(&str, &str)> {
    let tests = source.split("#[test]\n").skip(1).map(|rest| {
        let test = rest.split("\n}\n").next().unwrap();
        let test = test.split_once("fn ").expect("a test is a function").1;
        test.split_once('(').expect("a test is a function")
    });
    tests.collect()
}

/// The calls of functions that run schedules: the function, and the line of its first argument, from that one on.
fn runs(text: &str) -> Vec<(&str, &str)> {
    let names = [
        "direct(",
        "direct_seeds(",
        "run_many(",
        "run_worse(",
        "use_with_trouble(",
    ];
    let runs = names.iter().flat_map(|name| {
        let part_of_word = |c: char| c == '_' || c.is_alphanumeric();
        let found = text.match_indices(name).filter(move |(at, _)| {
            let before = &text[..*at];
            !before.ends_with("fn ") && !before.ends_with(part_of_word)
        });
        found.map(|(at, name)| {
            let behind = text[at + name.len()..].trim_start();
            (name, behind.lines().next().unwrap_or_default())
        })
    });
    runs.collect()
}

/// The core doesn't name these modules: each can be read and changed without it.
#[test]
fn must_have_leaves_that_the_core_does_not_name() {
    let mut count = 0;
    for part in ["src/membership", "src/locator", "src/diststore"] {
        for path in files(part, ".rs") {
            let source = fs::read_to_string(&path).unwrap();
            for leaf in ["cli", "client", "node", "http", "report", "log"] {
                let named = source.contains(&format!("crate::{leaf}"));
                // The tests of lies have a client that bears them.
                let inside = path.strip_prefix(root()).unwrap();
                let is_test = inside.to_string_lossy().contains("test");
                assert!(is_test || !named, "{} names {leaf}", path.display());
            }
            count += 1;
        }
    }
    assert!(count > 30, "{count} files");
}

/// The interleavings that shaped the rules have the numbers 1 to 40. `world_18_and_19_...` is the test of two.
#[test]
fn must_have_a_world_for_each_interleaving() {
    let mut numbers = Vec::new();
    for path in files("tests", ".rs") {
        let source = fs::read_to_string(&path).unwrap();
        let worlds = source.split("\nfn world_").skip(1);
        numbers.extend(worlds.flat_map(|rest| {
            let words = rest.split('_').filter(|word| *word != "and");
            let numbers = words.map_while(|word| word.parse().ok());
            numbers.collect::<Vec<u32>>()
        }));
    }
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=40).collect::<Vec<_>>());
}

/// What a simulated test says of how to replay it when it fails: `cargo test --test` has to find that test by it, and no
/// other one but those whose names have its whole name in them.
#[test]
fn must_name_the_test_that_a_seed_is_of() {
    let mut count = 0;
    for path in files("tests", ".rs") {
        let program = path.file_stem().unwrap().to_str().unwrap();
        if path.parent() != Some(&root().join("tests")) || !program.starts_with("sim_") {
            continue;
        }
        let source = fs::read_to_string(&path).unwrap();
        let tests = tests_in(&source);
        let mut shared = source.clone();
        for (name, body) in &tests {
            shared = shared.replace(&format!("fn {name}({body}"), "");
        }
        // A program's own function for several tests puts the program in front of what it gets.
        for (_, run) in runs(&shared) {
            let puts_program = run.starts_with(&format!("&format!(\"{program} {{"));
            assert!(puts_program, "{program} names no test at {run}");
        }
        for (name, body) in &tests {
            for (function, run) in runs(body) {
                let said = match run.strip_prefix("name,") {
                    Some(_) => body.split_once("let name = ").expect("the name").1,
                    None => run,
                };
                let said = said
                    .strip_prefix('"')
                    .and_then(|said| said.split('"').next());
                let said =
                    said.unwrap_or_else(|| panic!("{program} {name} names no test at {run}"));
                let filter = match shared.contains(&format!("fn {function}")) {
                    true => Some(said),
                    false => said
                        .strip_prefix(program)
                        .and_then(|rest| rest.strip_prefix(' ')),
                };
                let filter = filter.unwrap_or_else(|| panic!("not {program}: {said}"));
                let found = tests.iter().filter(|(other, _)| other.contains(filter));
                assert!(
                    filter == *name || (name.starts_with(filter) && found.count() == 1),
                    "{said:?} doesn't name the test {program} {name} alone"
                );
                count += 1;
            }
        }
    }
    assert!(count > 100, "{count} of them found");
}

#[test]
fn must_name_a_test_that_catches_each_mutant() {
    let patches = files("tests/mutants", ".patch");
    assert!(patches.len() > 20);
    for path in patches {
        let patch = fs::read_to_string(&path).unwrap();
        let name = path.file_stem().unwrap().display();
        let second = patch.lines().nth(1).unwrap_or_default();
        let caught = second.strip_prefix("Caught by: ").unwrap_or_default();
        let (program, test) = caught.split_once(' ').unwrap_or_default();
        let source = root().join("tests").join(format!("{program}.rs"));
        let source = fs::read_to_string(source).unwrap_or_default();
        let there = tests_in(&source).iter().any(|(found, _)| *found == test);
        assert!(there, "{name}: no such test: {second:?}");
    }
}

/// What the compiler doesn't check is in one place.
#[test]
fn must_have_unsafe_code_in_one_module_only() {
    // In pieces, so that this file has none of them.
    let forms = [
        ["allow(", "unsafe_code"],
        ["unsafe", " {"],
        ["unsafe", " fn"],
        ["unsafe", " impl"],
        ["unsafe", " trait"],
        ["unsafe", " extern"],
        ["#[", "unsafe("],
    ]
    .map(|parts| parts.concat());
    let (mut inside, mut outside) = (0, Vec::new());
    for folder in ["src", "examples"] {
        for path in files(folder, ".rs") {
            let source = fs::read_to_string(&path).unwrap();
            let lines = source.lines().enumerate();
            let lines = lines.filter(|(_, line)| !line.trim_start().starts_with("//"));
            let found = lines.filter(|(_, line)| forms.iter().any(|form| line.contains(form)));
            for (number, line) in found {
                match path.starts_with(root().join("src/os")) {
                    true => inside += 1,
                    false => outside.push(format!("{}:{}: {line}", path.display(), number + 1)),
                }
            }
        }
    }
    assert!(outside.is_empty(), "{outside:#?}");
    assert!(inside > 5, "{inside} of them found");
}
