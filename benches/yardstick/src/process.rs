//! How long a program takes, from start to exit.

use crate::Outcome;
use crate::latency::Histogram;
use std::process::{Command, Stdio};
use std::time::Instant;

/// `yardstick time RUNS PROGRAM [ARGUMENT...]`: runs it one after the other, its output thrown away. A run that does not
/// exit with 0 ends it all.
pub fn run(arguments: &[String]) -> Outcome {
    let [runs, program, arguments @ ..] = arguments else {
        return Err("usage: yardstick time RUNS PROGRAM [ARGUMENT...]".into());
    };
    let mut latencies = Histogram::new();
    for _ in 0..runs.parse()? {
        let begin = Instant::now();
        let status = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status()?;
        latencies.record(begin.elapsed());
        if !status.success() {
            return Err(format!("{program}: {status}").into());
        }
    }
    println!("p50_us\t{:.1}", latencies.quantile(0.5) as f64 / 1000.0);
    println!("p99_us\t{:.1}", latencies.quantile(0.99) as f64 / 1000.0);
    Ok(())
}
