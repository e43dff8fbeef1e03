//! A report as a document of JSON, as README.md tells its fields.

use super::{Account, Report, Value};
use crate::locator::Status;

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
        let number = |number: fn(&Status) -> usize| or_null(status.map(number));
        let missing = status.map(|status| {
            let names = status.missing.iter().map(ToString::to_string);
            list(&names.collect::<Vec<_>>())
        });
        let others = [
            ("replicas", number(|status| status.replicas as usize)),
            ("members", number(|status| status.members as usize)),
            ("settled", or_null(status.map(|status| status.settled))),
            ("not_handed_over", number(|status| status.unconfirmed)),
            ("lacking", number(|status| status.lacking)),
            ("lost_together", or_null(missing)),
        ];
        let shown = self.columns().map(|(name, value)| (name, value.to_json()));
        let fields = shown.into_iter().chain(others);
        let fields = fields.map(|(name, value)| format!("\"{name}\": {value}"));
        format!("{{{}}}", fields.collect::<Vec<_>>().join(", "))
    }
}

impl Value {
    fn to_json(&self) -> String {
        match self {
            Value::Text(text) => or_null(text.as_deref().map(quote)),
            Value::Number(number) => or_null(*number),
            Value::Share(share) => format!("{share:.4}"),
        }
    }
}

fn or_null(value: Option<impl ToString>) -> String {
    value.map_or("null".to_owned(), |value| value.to_string())
}

fn list(texts: &[String]) -> String {
    let texts: Vec<_> = texts.iter().map(|text| quote(text)).collect();
    format!("[{}]", texts.join(", "))
}

/// A string of JSON: RFC 8259, section 7. No text of a report has control characters, which would have to be escaped.
fn quote(text: &str) -> String {
    let escaped = text.replace('\\', "\\\\").replace('"', "\\\"");
    format!("\"{escaped}\"")
}
