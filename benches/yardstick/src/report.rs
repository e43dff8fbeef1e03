//! Figures to a table: medians of the rounds, compared with what the project wants to reach.

use crate::figures::{Figure, Medians, OURS, number, read, series};
use crate::{Outcome, plot};
use std::fmt::Write;

/// How our figure has to stand to that of another series, in the same row, setting and metric.
enum Rule {
    /// At least so many times that of the series.
    AtLeast(f64, &'static str),
    /// At most so many times that of the series.
    AtMost(f64, &'static str),
    /// At least this.
    Floor(f64),
    /// At most this.
    Limit(f64),
    /// At most so much above that of the series.
    Above(f64, &'static str),
    /// At most so many loopback round trips (the echo's figure) above that of the series.
    RoundTrips(f64, &'static str),
}

/// Row, metric, rule: where the project wants to get. "On a par" is read as 0.95.
const TARGETS: &[(&str, &str, Rule)] = &[
    ("single", "requests_per_s", Rule::AtLeast(0.97, "echo")),
    ("get-put", "requests_per_s", Rule::AtLeast(0.95, "echo")),
    ("pipelined", "requests_per_s", Rule::AtLeast(0.65, "echo")),
    ("pipelined", "requests_per_s", Rule::AtLeast(2.0, "redis")),
    ("pipelined", "requests_per_s", Rule::AtLeast(3.0, "thrift")),
    ("pipelined", "p99/p50", Rule::Limit(5.0)),
    ("connect", "requests_per_s", Rule::AtLeast(1.0, "thrift")),
    ("connect", "requests_per_s", Rule::AtLeast(0.95, "redis")),
    ("replicas", "p50_us", Rule::RoundTrips(2.0, "plain")),
    ("relay", "p50_us", Rule::RoundTrips(1.0, "direct")),
    ("cli", "p50_us", Rule::AtMost(0.5, "redis")),
    ("ring", "requests_per_s", Rule::AtLeast(0.85, "relay")),
    ("ring", "p99/p50", Rule::Limit(4.0)),
    ("look-up", "lookup_ns", Rule::Above(60.0, "md5")),
    ("look-up", "change_us", Rule::Limit(200.0)),
    ("memory", "bytes_per_key", Rule::AtMost(1.0, "redis")),
    ("idle", "bytes_per_connection", Rule::Limit(16384.0)),
    ("handover", "items_per_s", Rule::Floor(1e6)),
    ("handover", "bytes_per_s", Rule::Floor(300e6)),
    ("handover", "p99_us", Rule::AtMost(5.0, "quiet")),
];

/// `yardstick report FIGURES DIRECTORY`: reads the figures, prints the tables (Markdown) and draws the plots there.
pub fn run(arguments: &[String]) -> Outcome {
    let [path, directory] = arguments else {
        return Err("usage: yardstick report FIGURES.tsv DIRECTORY".into());
    };
    let figures = read(&std::fs::read_to_string(path)?)?;
    print!("{}{}", judged(&figures), listed(&figures));
    for (name, picture) in plot::all(&figures) {
        let file = format!("{name}.svg");
        std::fs::write(format!("{directory}/{file}"), picture)?;
        println!("\n![{name}]({file})");
    }
    Ok(())
}

/// The table of targets: one line for each target and setting that there are figures for.
fn judged(figures: &[Figure]) -> String {
    let mut table = String::from(
        "| what | ours | against | ratio | target | reached |\n|---|---|---|---|---|---|\n",
    );
    for (row, metric, rule) in TARGETS {
        for figure in figures
            .iter()
            .filter(|f| f.row == *row && f.metric == *metric)
        {
            if let Some([ours, against, ratio, target, reached]) = rule.judge(&figure.medians) {
                let what = format!("{row}: {}, {metric}", figure.setting);
                writeln!(
                    table,
                    "| {what} | {ours} | {against} | {ratio} | {target} | {reached} |"
                )
                .expect("BUG: a String takes all");
            }
        }
    }
    table
}

impl Rule {
    /// Our figure, the other, how they stand, how they should, whether they do; nothing where a figure is missing. A
    /// figure of 0 decides nothing: something kept that server from working at all.
    fn judge(&self, medians: &Medians) -> Option<[String; 5]> {
        let of = |series: &str| medians.get(series).copied();
        let ours = of(OURS)?;
        let against = |series: &str, value: f64| format!("{series} {}", number(value));
        let (against, ratio, target, reached) = match *self {
            Rule::AtLeast(factor, series) => {
                let other = of(series)?;
                let ratio = ours / other;
                (
                    against(series, other),
                    format!("{ratio:.2}"),
                    format!("≥ {factor:.2}"),
                    ratio >= factor,
                )
            }
            Rule::AtMost(factor, series) => {
                let other = of(series)?;
                let ratio = ours / other;
                (
                    against(series, other),
                    format!("{ratio:.2}"),
                    format!("≤ {factor:.2}"),
                    ratio <= factor,
                )
            }
            Rule::Floor(least) => (
                "".into(),
                "".into(),
                format!("≥ {}", number(least)),
                ours >= least,
            ),
            Rule::Limit(limit) => (
                "".into(),
                "".into(),
                format!("≤ {}", number(limit)),
                ours <= limit,
            ),
            Rule::Above(limit, series) => {
                let other = of(series)?;
                let above = ours - other;
                (
                    against(series, other),
                    format!("+{above:.0}"),
                    format!("≤ +{limit:.0}"),
                    above <= limit,
                )
            }
            Rule::RoundTrips(limit, series) => {
                let (other, round_trip) = (of(series)?, of("echo")?);
                let trips = (ours - other) / round_trip;
                let against = format!(
                    "{}, {}",
                    against(series, other),
                    against("echo", round_trip)
                );
                (
                    against,
                    format!("+{trips:.1} round trips"),
                    format!("≤ +{limit:.0}"),
                    trips <= limit,
                )
            }
        };
        let measured = medians.values().all(|value| *value != 0.0);
        let reached = match (measured, reached) {
            (false, _) => "**unmeasured**",
            (true, true) => "yes",
            (true, false) => "**no**",
        };
        Some([number(ours), against, ratio, target, reached.into()])
    }
}

/// All figures: a table for each row, a column for each series.
fn listed(figures: &[Figure]) -> String {
    let mut tables = String::new();
    let mut rows: Vec<&str> = figures.iter().map(|figure| figure.row.as_str()).collect();
    rows.dedup();
    for row in rows {
        let figures = || figures.iter().filter(|figure| figure.row == row);
        let series = series(figures());
        let columns: String = series.iter().map(|name| format!(" {name} |")).collect();
        let rule = "---|".repeat(series.len());
        tables.push_str(&format!(
            "\n## {row}\n\n| setting | metric |{columns}\n|---|---|{rule}\n"
        ));
        for figure in figures() {
            let cell = |name: &String| {
                figure
                    .medians
                    .get(name)
                    .map_or(String::new(), |value| number(*value))
            };
            let cells: String = series
                .iter()
                .map(|name| format!(" {} |", cell(name)))
                .collect();
            tables.push_str(&format!(
                "| {} | {} |{cells}\n",
                figure.setting, figure.metric
            ));
        }
    }
    tables
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_of_the_rounds_is_judged() {
        let text = "connect\t16\tstoreserver\trequests_per_s\t90\n\
                    connect\t16\tstoreserver\trequests_per_s\t300\n\
                    connect\t16\tstoreserver\trequests_per_s\t100\n\
                    connect\t16\tthrift\trequests_per_s\t200\n";
        let figures = read(text).expect("figures");
        assert_eq!(figures.len(), 1);
        assert!(judged(&figures).ends_with(
            "| connect: 16, requests_per_s | 100 | thrift 200 | 0.50 | ≥ 1.00 | **no** |\n"
        ));
    }

    #[test]
    fn round_trips_are_counted_in_echoes() {
        let medians = |ours| {
            [(OURS, ours), ("plain", 30.0), ("echo", 20.0)]
                .map(|(series, value)| (series.to_owned(), value))
                .into()
        };
        let rule = Rule::RoundTrips(2.0, "plain");
        assert_eq!(rule.judge(&medians(70.0)).expect("all there")[4], "yes");
        assert_eq!(rule.judge(&medians(71.0)).expect("all there")[4], "**no**");
    }

    #[test]
    fn nothing_is_decided_by_a_zero() {
        let figures = read(
            "connect\t16\tstoreserver\trequests_per_s\t90\nconnect\t16\tredis\trequests_per_s\t0\n",
        );
        assert!(judged(&figures.expect("figures")).ends_with("| **unmeasured** |\n"));
    }
}
