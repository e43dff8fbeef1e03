//! What the documentation names is there: files, tests, programs.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

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

#[test]
fn must_name_test_programs_that_are_there() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let named: Vec<_> = readme.split("--test ").skip(1).collect();
    assert!(named.len() > 5);
    for rest in named {
        let name = rest.split([' ', '`']).next().unwrap();
        let mut files = [format!("{name}.rs"), format!("{name}/main.rs")].into_iter();
        let exists = files.any(|file| root().join("tests").join(file).exists());
        assert!(exists, "README.md names --test {name}");
    }
}
