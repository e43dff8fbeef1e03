//! Pictures of the figures, as SVG: bars that compare the series, curves over the number of nodes.

use crate::figures::{Figure, number, series};
use std::fmt::Write;

/// A picture with bars of the requests a second of a row.
struct Bars {
    row: &'static str,
    title: &'static str,
    /// What its settings begin with, and which of them it shows; none: all.
    within: &'static str,
    settings: &'static [&'static str],
}

const BARS: &[Bars] = &[
    Bars {
        row: "ring",
        title: "Requests per second, a ring of three with two copies; each load on a scale of its own",
        within: "3 nodes, 2 copies, ",
        settings: &[
            "100 % gets, 16×16",
            "0 % gets, 16×16",
            "100 % gets, 16×1",
            "0 % gets, 16×1",
        ],
    },
    Bars {
        row: "get-put",
        title: "Requests per second, one outstanding on each connection",
        within: "",
        settings: &[],
    },
    Bars {
        row: "pipelined",
        title: "Requests per second, 16 outstanding on each connection",
        within: "",
        settings: &[],
    },
    Bars {
        row: "connect",
        title: "Requests per second, a new connection for each",
        within: "",
        settings: &[],
    },
];

/// Rows whose settings are `N nodes`: each metric becomes a curve over N.
const CURVES: &[&str] = &["join", "sim"];

const COLOURS: &[&str] = &[
    "#d1495b", "#8d99ae", "#edae49", "#66a182", "#2e4057", "#7d5ba6",
];
const WIDTH: f64 = 760.0;
const BAR: f64 = 14.0;
const PANEL: f64 = 220.0;

/// File name (without ending) and content of each picture that there are figures for.
pub fn all(figures: &[Figure]) -> Vec<(&'static str, String)> {
    let of = |row: &str| {
        figures
            .iter()
            .filter(|figure| figure.row == row)
            .collect::<Vec<_>>()
    };
    let mut pictures = Vec::new();
    for picture in BARS {
        let mut chosen = of(picture.row);
        chosen
            .retain(|figure| figure.metric == "requests_per_s" && picture.label(figure).is_some());
        if !chosen.is_empty() {
            pictures.push((picture.row, picture.draw(&chosen)));
        }
    }
    for row in CURVES {
        let chosen = of(row);
        if !chosen.is_empty() {
            pictures.push((*row, curves(&chosen)));
        }
    }
    pictures
}

impl Bars {
    /// What stands beside the bars of that setting, if it is shown.
    fn label<'a>(&self, figure: &'a Figure) -> Option<&'a str> {
        let setting = figure.setting.strip_prefix(self.within)?;
        (self.settings.is_empty() || self.settings.contains(&setting)).then_some(setting)
    }

    /// A group of bars for each figure, a bar for each series. All on one scale, but those of chosen settings.
    fn draw(&self, figures: &[&Figure]) -> String {
        const LEFT: f64 = 210.0;
        let series = series(figures.iter().copied());
        let scale = |figures: &[&Figure]| {
            let values = figures.iter().flat_map(|figure| figure.medians.values());
            (WIDTH - LEFT - 90.0) / values.copied().fold(1.0, f64::max)
        };
        let all = scale(figures);
        let mut body = text(10.0, 24.0, "start", self.title);
        body += &legend(&series, 44.0);
        let mut y = 62.0;
        for figure in figures {
            let scale = if self.settings.is_empty() {
                all
            } else {
                scale(&[figure])
            };
            body += &text(
                LEFT - 8.0,
                y + BAR * series.len() as f64 / 2.0 + 4.0,
                "end",
                self.label(figure).unwrap_or_default(),
            );
            for (at, name) in series.iter().enumerate() {
                if let Some(&value) = figure.medians.get(name) {
                    let (width, height, colour) =
                        (value * scale, BAR - 2.0, COLOURS[at % COLOURS.len()]);
                    writeln!(body, r#"<rect x="{LEFT}" y="{y:.1}" width="{width:.1}" height="{height}" fill="{colour}"/>"#)
                        .expect("BUG: a String takes all");
                    body += &text(LEFT + width + 4.0, y + 10.0, "start", &number(value));
                }
                y += BAR;
            }
            y += 10.0;
        }
        picture(y + 4.0, &body)
    }
}

/// A panel for each metric, a line for each series.
fn curves(figures: &[&Figure]) -> String {
    const LEFT: f64 = 10.0;
    let series = series(figures.iter().copied());
    let nodes = |figure: &Figure| {
        let first = figure.setting.split(' ').next();
        first
            .and_then(|count| count.parse::<f64>().ok())
            .unwrap_or(0.0)
    };
    let right = figures
        .iter()
        .map(|figure| nodes(figure))
        .fold(1.0, f64::max);
    let x = |figure: &Figure| LEFT + nodes(figure) / right * (WIDTH - LEFT - 60.0);
    let mut metrics: Vec<&str> = Vec::new();
    for figure in figures {
        if !metrics.contains(&figure.metric.as_str()) {
            metrics.push(&figure.metric);
        }
    }
    let mut body = legend(&series, 20.0);
    let mut top = 40.0;
    for metric in &metrics {
        let panel = || figures.iter().filter(|figure| figure.metric == *metric);
        let highest = panel()
            .flat_map(|figure| figure.medians.values().copied())
            .fold(f64::MIN_POSITIVE, f64::max);
        let (axis_top, bottom) = (top + 24.0, top + PANEL - 50.0);
        let y = |value: f64| bottom - value / highest * (PANEL - 90.0);
        body += &text(
            10.0,
            top + 14.0,
            "start",
            &format!("{metric}, over the number of nodes"),
        );
        writeln!(
            body,
            r##"<path d="M{LEFT} {axis_top:.1} V{bottom:.1} H{WIDTH}" fill="none" stroke="#888"/>"##
        )
        .expect("BUG: a String takes all");
        for figure in panel() {
            body += &text(
                x(figure),
                bottom + 16.0,
                "middle",
                &number(nodes(figure)).replace(".00", ""),
            );
        }
        for (at, name) in series.iter().enumerate() {
            let colour = COLOURS[at % COLOURS.len()];
            let mut line = String::new();
            for figure in panel() {
                if let Some(&value) = figure.medians.get(name) {
                    line += &format!("{:.1},{:.1} ", x(figure), y(value));
                    body += &text(x(figure), y(value) - 6.0, "middle", &number(value));
                }
            }
            writeln!(
                body,
                r#"<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>"#
            )
            .expect("BUG: a String takes all");
        }
        top += PANEL;
    }
    picture(top, &body)
}

fn legend(series: &[String], y: f64) -> String {
    let mut body = String::new();
    for (at, name) in series.iter().enumerate() {
        let (x, top, colour) = (
            10.0 + 110.0 * at as f64,
            y - 10.0,
            COLOURS[at % COLOURS.len()],
        );
        body += &format!(
            "<rect x=\"{x}\" y=\"{top}\" width=\"12\" height=\"12\" fill=\"{colour}\"/>\n"
        );
        body += &text(x + 18.0, y, "start", name);
    }
    body
}

fn text(x: f64, y: f64, anchor: &str, content: &str) -> String {
    let content = content.replace('&', "&amp;").replace('<', "&lt;");
    format!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{content}</text>\n")
}

fn picture(height: f64, body: &str) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height:.0}\" font-family=\"sans-serif\" \
         font-size=\"12\" fill=\"#222\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n{body}</svg>\n"
    )
}
