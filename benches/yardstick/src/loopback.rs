//! The loopback interface: what the kernel says it has carried.
//!
//! The counters are those of the network namespace, so `scripts/bench` runs in one of its own.

use crate::Outcome;

/// `yardstick carried`: bytes and packets since the namespace exists, headers included.
pub fn carried() -> Outcome {
    let (bytes, packets) = counters()?;
    println!("bytes\t{bytes}");
    println!("packets\t{packets}");
    Ok(())
}

/// Received bytes and packets of `lo`; what it sends it receives.
fn counters() -> Outcome<(u64, u64)> {
    let table = std::fs::read_to_string("/proc/net/dev")?;
    let line = table
        .lines()
        .find_map(|line| line.trim_start().strip_prefix("lo:"))
        .ok_or("/proc/net/dev lists no lo")?;
    let mut numbers = line.split_whitespace().map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(bytes)), Some(Ok(packets))) => Ok((bytes, packets)),
        _ => Err("/proc/net/dev: not understood".into()),
    }
}
