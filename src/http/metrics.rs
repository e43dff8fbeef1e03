//! What a node counts, in the text format of Prometheus, version 0.0.4.
//!
//! Of this node alone: nobody else is asked. Names and units as Prometheus' "Metric and label naming" wants them. All
//! labels are words of ours, so that nothing has to be escaped.

use std::fmt::{Display, Write};
use std::fs;

use crate::locator::Status;
use crate::membership::{State, View};
use crate::server::{TIMES, Traffic};

/// The states that a member may be in.
const STATES: [(State, &str); 5] = [
    (State::Joining, "joining"),
    (State::Returning, "returning"),
    (State::Full, "full"),
    (State::Leaving, "leaving"),
    (State::Original, "original"),
];

struct Text(String);

impl Text {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.line(format_args!("# HELP {name} {help}"));
        self.line(format_args!("# TYPE {name} {kind}"));
    }

    fn line(&mut self, line: impl Display) {
        // Writing to a string doesn't fail.
        let _ = writeln!(self.0, "{line}");
    }

    /// A family of one number.
    fn one(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.family(name, kind, help);
        self.line(format_args!("{name} {value}"));
    }
}

/// The whole text. `state` is what the node knows of itself, and `view` is the members that it knows.
pub fn metrics(state: &Status, view: &View, traffic: &Traffic) -> String {
    let mut text = Text(String::new());
    let name = "thrifty_build_info";
    text.family(name, "gauge", "The version of the program.");
    let version = env!("CARGO_PKG_VERSION");
    text.line(format_args!("{name}{{version=\"{version}\"}} 1"));
    count(&mut text, traffic);
    let gauges = [
        ("connections", traffic.connections(), "Open connections."),
        (
            "keys",
            state.keys(),
            "Keys that lie here, deleted ones not counted.",
        ),
        (
            "deleted_keys",
            state.deleted.unwrap_or(0),
            "Deleted keys that are not forgotten yet.",
        ),
        (
            "elsewhere_keys",
            state.unconfirmed,
            "Keys that lie here, deleted ones too, and should lie elsewhere.",
        ),
        ("items_bytes", state.taken, "What keys and values take."),
        (
            "items_limit_bytes",
            state.memory,
            "What keys and values may take.",
        ),
        (
            "items_lacking_bytes",
            state.lacking,
            "What was wanted beyond the limit last; 0: there is room for it now.",
        ),
        (
            "safe",
            usize::from(state.is_safe()),
            "1: as far as this node knows, each key that lies here is with all its replicas; 0: not, or not known.",
        ),
        (
            "replicas_missing",
            state.replicas.saturating_sub(state.full) as usize,
            "So many full members more are needed for all copies of a key.",
        ),
        (
            "lost_members",
            state.missing.len(),
            "Members that were lost together: keys may be missing.",
        ),
    ];
    for (name, value, help) in gauges {
        text.one(&format!("thrifty_{name}"), "gauge", help, value);
    }
    let name = "thrifty_members";
    text.family(name, "gauge", "Members of the network, this node included.");
    for (state, label) in STATES {
        let members = view.members().iter();
        let count = members.filter(|member| member.state == state).count();
        text.line(format_args!("{name}{{state=\"{label}\"}} {count}"));
    }
    process(&mut text, state);
    text.0
}

fn count(text: &mut Text, traffic: &Traffic) {
    let name = "thrifty_requests_total";
    text.family(name, "counter", "Requests by method and outcome.");
    for (method, outcomes) in traffic.requests() {
        for (outcome, count) in ["answer", "exception"].iter().zip(outcomes) {
            text.line(format_args!(
                "{name}{{method=\"{method}\",outcome=\"{outcome}\"}} {count}"
            ));
        }
    }
    let name = "thrifty_request_duration_seconds";
    let help = "From when a request has come until its answer is ready; those that come together take as long as all.";
    text.family(name, "histogram", help);
    let seconds = |nanos: u64| nanos as f64 / 1e9;
    let ends = TIMES.map(|end| seconds(end).to_string());
    let ends = ends.iter().map(String::as_str).chain(["+Inf"]);
    let mut sum = 0;
    for (end, count) in ends.zip(traffic.times()) {
        sum += count;
        text.line(format_args!("{name}_bucket{{le=\"{end}\"}} {sum}"));
    }
    text.line(format_args!("{name}_sum {}", seconds(traffic.nanos())));
    text.line(format_args!("{name}_count {sum}"));
    let [read, written] = traffic.bytes();
    let (name, help) = (
        "thrifty_received_bytes_total",
        "Bytes that were read from connections.",
    );
    text.one(name, "counter", help, read);
    let (name, help) = (
        "thrifty_sent_bytes_total",
        "Bytes that were written to connections.",
    );
    text.one(name, "counter", help, written);
}

/// What the system says of the process, where it says so.
fn process(text: &mut Text, state: &Status) {
    if let Some(since) = state.since {
        let (name, help) = (
            "process_start_time_seconds",
            "When the node was started, since 1970.",
        );
        text.one(name, "gauge", help, since as f64 / 1e6);
    }
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let number = |name: &str| -> Option<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse().ok()
    };
    if let Some(kilobytes) = number("VmRSS:") {
        let (name, help) = (
            "process_resident_memory_bytes",
            "Memory that the process takes.",
        );
        text.one(name, "gauge", help, kilobytes << 10);
    }
    if let Some(threads) = number("Threads:") {
        text.one(
            "process_threads",
            "gauge",
            "Threads of the process.",
            threads,
        );
    }
}
