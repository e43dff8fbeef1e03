//! Figures: what a file of measurements has, and how it is written for people.
//!
//! A figure is a line `row TAB setting TAB series TAB metric TAB value`. The row is the measurement, the setting how it
//! was made, the series what was measured: [`OURS`], a yardstick, or something of ours to compare with. Several lines
//! that differ in the value alone are rounds, and their median counts.

use crate::Outcome;
use std::collections::BTreeMap;

/// The series that is measured against the others.
pub const OURS: &str = "storeserver";

/// One thing measured: series to median.
pub type Medians = BTreeMap<String, f64>;

/// Row, setting and metric with its medians.
pub struct Figure {
    pub row: String,
    pub setting: String,
    pub metric: String,
    pub medians: Medians,
}

/// The figures of a file, in its order.
pub fn read(text: &str) -> Outcome<Vec<Figure>> {
    let mut order: Vec<[&str; 3]> = Vec::new();
    let mut rounds: BTreeMap<[&str; 3], BTreeMap<&str, Vec<f64>>> = BTreeMap::new();
    for line in text.lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        let [row, setting, series, metric, value] = fields[..] else {
            return Err(format!("not a figure: {line}").into());
        };
        let figure = [row, setting, metric];
        if !rounds.contains_key(&figure) {
            order.push(figure);
        }
        let value = value.parse().map_err(|_| format!("not a figure: {line}"))?;
        rounds
            .entry(figure)
            .or_default()
            .entry(series)
            .or_default()
            .push(value);
    }
    let figures = order.into_iter().map(|figure| Figure {
        row: figure[0].to_owned(),
        setting: figure[1].to_owned(),
        metric: figure[2].to_owned(),
        medians: rounds
            .remove(&figure)
            .unwrap_or_default()
            .into_iter()
            .map(|(series, values)| (series.to_owned(), median(values)))
            .collect(),
    });
    Ok(figures.collect())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 {
        values[middle]
    } else {
        (values[middle - 1] + values[middle]) / 2.0
    }
}

/// The series of some figures, ours first.
pub fn series<'a>(figures: impl Iterator<Item = &'a Figure>) -> Vec<String> {
    let mut names: Vec<String> = figures
        .flat_map(|figure| figure.medians.keys().cloned())
        .collect();
    names.sort_by_key(|name| (name != OURS, name.clone()));
    names.dedup();
    names
}

/// Thousands apart, three digits or more of what counts.
pub fn number(value: f64) -> String {
    if value.abs() < 100.0 {
        return format!("{value:.2}");
    }
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 && !text.ends_with('-') {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        assert_eq!(number(1_234_567.4), "1,234,567");
        assert_eq!(number(-1234.0), "-1,234");
        assert_eq!(number(0.951), "0.95");
    }
}
