//! Generates the Rust code for `store.thrift` with the Thrift compiler (Debian: thrift-compiler, 0.17 as the crate).

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=store.thrift");
    let out = std::env::var("OUT_DIR").expect("cargo sets OUT_DIR");
    let status = Command::new("thrift")
        .args(["--gen", "rs", "-out", &out, "store.thrift"])
        .status()
        .expect("the Thrift compiler `thrift` is installed");
    assert!(status.success(), "thrift --gen rs failed");

    // The file is included into a module, where attributes for a whole file are not allowed.
    let path = format!("{out}/store.rs");
    let code = std::fs::read_to_string(&path).expect("the compiler wrote it");
    let lines = code.lines().filter(|line| !line.starts_with("#!["));
    let code: String = lines.flat_map(|line| [line, "\n"]).collect();
    std::fs::write(&path, code).expect("it can be written again");
}
