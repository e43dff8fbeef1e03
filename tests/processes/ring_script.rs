//! `scripts/ring`, in a folder of its own, where no other nodes are known.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::{fs, process};

use crate::running::{LOCATION, LONG, Process, STORESERVER, own_address};

/// Ends the nodes and removes the folder when it is dropped.
struct Ring {
    folder: PathBuf,
}

impl Ring {
    fn new(name: &str) -> Self {
        let name = format!("ring-{}-{name}", process::id());
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(folder.join("scripts")).unwrap();
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/ring");
        fs::copy(script, folder.join("scripts/ring")).unwrap();
        Ring { folder }
    }

    fn run(&self, script: &Path, arguments: &[&str]) -> Output {
        let own = self.folder.join("bin");
        let built = Path::new(STORESERVER).parent().unwrap();
        let programs = if own.exists() { &*own } else { built };
        let mut command = Command::new(script);
        command.current_dir("/").args(arguments);
        command.env("THRIFTY_BIN", programs);
        let mut process = Process::start(&mut command);
        Output {
            status: process.wait(2 * LONG),
            stdout: process.out().into(),
            stderr: process.errors().into(),
        }
    }

    fn ring(&self, arguments: &[&str]) -> Output {
        self.run(&self.folder.join("scripts/ring"), arguments)
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        self.ring(&["down"]);
        // What is left lies below target/.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

#[test]
fn must_fail_when_a_node_does_not_come_in() {
    let ring = Ring::new("fails");
    let address = own_address();
    let up = ring.ring(&["up", "2", "-a", &address]);
    assert!(up.status.success(), "{up:?}");
    // It serves, finds the others, and is not let in.
    let up = ring.ring(&["up", "1", "-a", &address, "--replicas", "3"]);
    let errors = String::from_utf8(up.stderr).unwrap();
    assert_eq!(up.status.code(), Some(2), "{errors}");
    assert!(errors.starts_with("ring: "), "{errors}");
    assert!(errors.contains("2 copies of each key, not 3"), "{errors}");
    let status = ring.ring(&["status"]);
    assert!(status.status.success(), "the others are well: {status:?}");
}

#[test]
fn must_fail_when_a_node_is_not_full_in_time() {
    let ring = Ring::new("waits");
    let bin = ring.folder.join("bin");
    fs::create_dir(&bin).unwrap();
    symlink(LOCATION, bin.join("location")).unwrap();
    let storeserver = bin.join("storeserver");
    // It serves nobody, and ends when it is removed.
    let script = "#!/bin/sh
        echo 'Starting the server at 127.0.0.1:1...'
        echo 'the last line'
        while [ -e \"$0\" ]; do sleep 0.1; done\n";
    fs::write(&storeserver, script).unwrap();
    fs::set_permissions(&storeserver, fs::Permissions::from_mode(0o755)).unwrap();
    let up = ring.ring(&["up", "1"]);
    fs::remove_file(storeserver).unwrap();
    let errors = String::from_utf8(up.stderr).unwrap();
    assert_eq!(up.status.code(), Some(2), "{errors}");
    assert!(errors.contains("127.0.0.1:1 isn't full"), "{errors}");
    assert!(errors.contains("the last line"), "{errors}");
}

#[test]
fn must_work_through_a_symlink() {
    let ring = Ring::new("symlink");
    let link = ring.folder.join("link");
    symlink("scripts/ring", &link).unwrap();
    let address = own_address();
    let up = ring.run(&link, &["up", "1", "-a", &address]);
    assert!(up.status.success(), "{up:?}");
    let status = ring.ring(&["status"]);
    let out = String::from_utf8(status.stdout).unwrap();
    assert!(out.contains(&format!("\n{address}:9900  full ")), "{out}");
}

#[test]
fn must_refuse_what_it_does_not_take() {
    let ring = Ring::new("refuses");
    for arguments in [
        &["status", "now"][..],
        &["down", "1"],
        &["up"],
        &["up", "0"],
        &["up", "1", "2"],
        &["again"],
    ] {
        let output = ring.ring(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(!output.stderr.is_empty(), "{arguments:?}");
        assert!(output.stdout.is_empty(), "{arguments:?}: {output:?}");
    }
}
