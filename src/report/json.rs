//! A report as a document of JSON, as README.md tells its fields.

use std::fmt::Write;

use super::{Account, Report};
use crate::words::utc;

impl Report {
    /// The document: a line for each member. A number or text that a member doesn't tell is null.
    pub fn to_json(&self) -> String {
        let members: Vec<_> = self.members.iter().map(Account::to_json).collect();
        format!(
            "{{\n \"safe\": {},\n \"why\": {},\n \"notes\": {},\n \"members\": [\n  {}\n ]\n}}",
            self.is_safe(),
            list(&self.why),
            list(&self.notes),
            members.join(",\n  "),
        )
    }
}

impl Account {
    fn to_json(&self) -> String {
        let status = self.status.as_ref().ok();
        let number = |number: Option<usize>| number.map_or("null".to_owned(), |n| n.to_string());
        let text = |text: Option<String>| text.map_or("null".to_owned(), |text| quote(&text));
        let missing = status.map(|status| {
            let names = status.missing.iter().map(ToString::to_string);
            list(&names.collect::<Vec<_>>())
        });
        let fields = [
            ("name", quote(&self.location.to_string())),
            ("state", quote(&self.state())),
            ("keys", number(status.map(|status| status.keys()))),
            ("deleted", number(status.and_then(|status| status.deleted))),
            ("bytes", number(status.map(|status| status.taken))),
            ("memory", number(status.map(|status| status.memory))),
            (
                "connections",
                number(status.and_then(|status| status.connections)),
            ),
            (
                "requests_per_second",
                number(status.and_then(|status| status.rate)),
            ),
            ("share", format!("{:.4}", self.share)),
            ("version", text(self.version())),
            (
                "since",
                text(status.and_then(|status| status.since).map(utc)),
            ),
            (
                "replicas",
                number(status.map(|status| status.replicas as usize)),
            ),
            (
                "members",
                number(status.map(|status| status.members as usize)),
            ),
            (
                "settled",
                status.map_or("null".to_owned(), |status| status.settled.to_string()),
            ),
            (
                "not_handed_over",
                number(status.map(|status| status.unconfirmed)),
            ),
            ("lacking", number(status.map(|status| status.lacking))),
            ("lost_together", missing.unwrap_or("null".to_owned())),
        ];
        let fields = fields.map(|(name, value)| format!("\"{name}\": {value}"));
        format!("{{{}}}", fields.join(", "))
    }
}

fn list(texts: &[String]) -> String {
    let texts: Vec<_> = texts.iter().map(|text| quote(text)).collect();
    format!("[{}]", texts.join(", "))
}

/// A string of JSON: RFC 8259, section 7.
fn quote(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            // Writing to a string doesn't fail.
            c if c.is_control() => drop(write!(quoted, "\\u{:04x}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}
