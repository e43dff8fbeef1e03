//! The loopback interface: what the kernel says it has carried.
//!
//! The counters are those of the network namespace, so `scripts/bench` runs in one of its own.

use crate::Outcome;
use std::thread;
use std::time::{Duration, Instant};

/// Pause between two looks at the counters in [`watch`].
const LOOK_EVERY: Duration = Duration::from_millis(1);
/// So many bytes are a bulk.
const BULK_BYTES: u64 = 1 << 20;
/// Fewer bytes than these, in all that time, are what nodes say to each other anyway.
const NEWS_BYTES: u64 = 64 << 10;
/// How long [`watch`] goes on at most.
const WATCH_MAX: Duration = Duration::from_secs(60);
/// The shares of the bytes between which [`watch`] measures the time: both ends are left out, where stray packets lie.
const FROM_SHARE: f64 = 0.01;
const TO_SHARE: f64 = 0.99;

/// `yardstick carried`: bytes and packets since the namespace exists, headers included.
pub fn carried() -> Outcome {
    let (bytes, packets) = counters()?;
    println!("bytes\t{bytes}");
    println!("packets\t{packets}");
    Ok(())
}

/// `yardstick watch SECONDS`: waits for a bulk of bytes, until it is over for so long, and prints how long it took.
pub fn watch(arguments: &[String]) -> Outcome {
    let [seconds] = arguments else {
        return Err("usage: yardstick watch SECONDS".into());
    };
    let quiet = Duration::from_secs_f64(seconds.parse()?);
    let begin = Instant::now();
    let (first, _) = counters()?;
    let mut looks = vec![(Duration::ZERO, 0)];
    let mut loud = (Duration::ZERO, 0); // the last look that had much news
    while loud.1 < BULK_BYTES || begin.elapsed() - loud.0 < quiet {
        thread::sleep(LOOK_EVERY);
        let look = (begin.elapsed(), counters()?.0 - first);
        if look.1 - loud.1 >= NEWS_BYTES {
            loud = look;
        }
        if look.0 > WATCH_MAX {
            return Err(format!("{} bytes after {WATCH_MAX:?}, and no end", look.1).into());
        }
        looks.push(look);
    }
    let total = looks.last().map_or(0, |look| look.1);
    let reached = |share: f64| {
        let look = looks
            .iter()
            .find(|look| look.1 as f64 >= total as f64 * share);
        look.map_or(0.0, |look| look.0.as_secs_f64())
    };
    println!("carried_bytes\t{total}");
    println!(
        "bulk_s\t{:.4}",
        (reached(TO_SHARE) - reached(FROM_SHARE)) / (TO_SHARE - FROM_SHARE)
    );
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
