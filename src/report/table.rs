//! A report as a table, a line for each member.

use super::{Account, Report, Value};
use crate::words::with_commas;

/// What stands above the columns.
pub const COLUMNS: [&str; 11] = [
    "name",
    "state",
    "keys",
    "deleted",
    "bytes",
    "memory",
    "connections",
    "requests/s",
    "share",
    "version",
    "since",
];

/// Columns of text begin at one place, columns of numbers end at one.
fn is_text(column: usize) -> bool {
    matches!(column, 0 | 1 | 9 | 10)
}

impl Report {
    /// The table, then why not every key is safe, then what else is to be known: lines.
    pub fn to_lines(&self) -> Vec<String> {
        let head = COLUMNS.map(str::to_owned);
        let rows: Vec<_> = [head]
            .into_iter()
            .chain(self.members.iter().map(Account::cells))
            .collect();
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
        let widths: Vec<_> = (0..COLUMNS.len()).filter_map(width).collect();
        let line = |row: &[String; COLUMNS.len()]| {
            let cells = row.iter().zip(&widths).enumerate();
            let padded = cells.map(|(column, (cell, width))| match is_text(column) {
                true => format!("{cell:<width$}"),
                false => format!("{cell:>width$}"),
            });
            let padded: Vec<_> = padded.collect();
            padded.join("  ").trim_end().to_owned()
        };
        let lines = rows.iter().map(line);
        let why = self.why.iter().map(|cause| format!("not safe: {cause}"));
        let notes = self.notes.iter().map(|note| format!("note: {note}"));
        lines.chain(why).chain(notes).collect()
    }
}

impl Account {
    /// What stands in the columns; a dash for what it doesn't tell.
    pub fn cells(&self) -> [String; COLUMNS.len()] {
        self.columns().map(|(_, value)| value.to_cell())
    }
}

impl Value {
    fn to_cell(&self) -> String {
        let cell = match self {
            Value::Text(text) => text.clone(),
            Value::Number(number) => number.map(with_commas),
            Value::Share(share) => Some(format!("{:.1}%", 100.0 * share)),
        };
        cell.unwrap_or("-".to_owned())
    }
}
