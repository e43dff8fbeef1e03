//! The page: how the network is, its ring as a drawing, and its members. It needs nothing from elsewhere, and runs
//! nothing.

use std::f64::consts::TAU;
use std::fmt::Write;

use crate::location::Location;
use crate::report::{COLUMNS, Report};
use crate::ring::Ring;

/// With more members the ring isn't drawn: it would be a blur, and take long.
const DRAWN_MAX: usize = 64;

const RADIUS: f64 = 100.0;

/// The page of the node `me`.
pub fn page(report: &Report, me: &Location) -> String {
    let me = escape(&me.to_string());
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
         <meta http-equiv=\"refresh\" content=\"5\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n\
         <title>{me}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<h1>{me}</h1>\n"
    );
    match report.is_safe() {
        true => page += "<p class=\"safe\">Every key is safe.</p>\n",
        false => page += "<p class=\"unsafe\">Not every key is safe now:</p>\n",
    }
    for (class, lines) in [("why", &report.why), ("notes", &report.notes)] {
        let items = lines
            .iter()
            .map(|line| format!("<li>{}</li>\n", escape(line)));
        let items: String = items.collect();
        if !items.is_empty() {
            page += &format!("<ul class=\"{class}\">\n{items}</ul>\n");
        }
    }
    page += &drawing(report);
    page += &table(report);
    page += "<p><a href=\"/status.json\">status.json</a> <a href=\"/metrics\">metrics</a></p>\n</body>\n</html>\n";
    page
}

const STYLE: &str = "body{font:16px sans-serif;margin:2em auto;max-width:70em;padding:0 1em;color:#222;background:#fff}\
    .safe{color:#060}.unsafe{color:#a00}svg.ring{width:20em;max-width:100%;display:block;margin-bottom:1em}\
    table{border-collapse:collapse;font-size:.8em;white-space:nowrap}\
    td,th{padding:.3em .4em;text-align:right;border-bottom:1px solid #ddd}\
    td:first-child,th:first-child,td:nth-child(2),th:nth-child(2){text-align:left}div{overflow-x:auto}";

/// Another colour for each of so many members.
fn colour(place: usize, count: usize) -> String {
    format!(
        "hsl({:.0},65%,50%)",
        360.0 * place as f64 / count.max(1) as f64
    )
}

/// The ring, clockwise from the top: whose keys lie where.
fn drawing(report: &Report) -> String {
    let members = &report.members;
    if members.len() > DRAWN_MAX {
        return format!("<p>The ring is drawn for up to {DRAWN_MAX} members.</p>\n");
    }
    let ring = Ring::new(members.iter().map(|member| member.location.name().clone()));
    let mut paths = vec![String::new(); ring.names().len()];
    for (from, to, owner) in ring.arcs() {
        // An arc that ends where it begins would not be drawn.
        let to = to.min(from + (1 << 32) - (1 << 20));
        let turn = |hash: u64| hash as f64 / (1_u64 << 32) as f64;
        let at = |hash: u64| {
            let (sin, cos) = (turn(hash) * TAU).sin_cos();
            format!("{:.1} {:.1}", RADIUS * sin, -RADIUS * cos)
        };
        let large = u8::from(turn(to - from) > 0.5);
        let (from, to) = (at(from), at(to));
        // Writing to a string doesn't fail.
        let _ = write!(paths[owner], "M{from}A{RADIUS} {RADIUS} 0 {large} 1 {to}");
    }
    let mut drawing =
        String::from("<svg class=\"ring\" viewBox=\"-120 -120 240 240\" role=\"img\">\n");
    for (place, member) in members.iter().enumerate() {
        let (name, state) = (member.location.to_string(), member.state());
        let path = ring
            .position(member.location.name())
            .map_or("", |place| &paths[place]);
        let colour = colour(place, members.len());
        let opacity = if state == "full" { "1" } else { "0.4" };
        drawing += &format!(
            "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-opacity=\"{opacity}\" stroke-width=\"24\">\
             <title>{}, {state}, {:.1}%</title></path>\n",
            escape(&name),
            100.0 * member.share,
        );
    }
    let count = members.len();
    drawing +=
        &format!("<text text-anchor=\"middle\" dy=\"8\" font-size=\"24\">{count}</text>\n</svg>\n");
    drawing
}

fn table(report: &Report) -> String {
    let heads = COLUMNS.map(|name| format!("<th>{name}</th>")).concat();
    let mut table = format!("<div><table>\n<tr>{heads}</tr>\n");
    let count = report.members.len();
    for (place, member) in report.members.iter().enumerate() {
        let mut mark = String::new();
        if count <= DRAWN_MAX {
            let fill = colour(place, count);
            mark = format!(
                "<svg width=\"12\" height=\"12\"><rect width=\"12\" height=\"12\" fill=\"{fill}\"/></svg> "
            );
        }
        let cells = member.cells().map(|cell| escape(&cell)).join("</td><td>");
        table += &format!("<tr><td>{mark}{cells}</td></tr>\n");
    }
    table + "</table></div>\n"
}

/// Text for HTML, between tags or quotes.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
        .replace('\'', "&#39;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::CallError;

    #[test]
    fn must_escape_whatever_others_are_called() {
        let evil = Location::new("<script>alert('a')</script>&\"", 1).unwrap();
        let report = Report::new([(evil.clone(), Err(CallError::Silent))]);
        let page = page(&report, &evil);
        assert!(
            !page.contains("<script") && !page.contains("alert('"),
            "{page}"
        );
        let name = "&lt;script&gt;alert(&#39;a&#39;)&lt;/script&gt;&amp;&quot;:1";
        assert!(page.matches(name).count() >= 4, "{page}");
    }

    #[test]
    fn must_not_draw_a_ring_of_very_many() {
        let members = |count: u16| {
            let names = (1..=count).map(|port| Location::new("a", port).unwrap());
            Report::new(names.map(|name| (name, Err(CallError::Silent))))
        };
        assert_eq!(drawing(&members(64)).matches("<path").count(), 64);
        assert!(!drawing(&members(65)).contains("<path"));
        assert!(table(&members(1000)).len() < 300_000);
        let one = drawing(&members(1));
        assert!(
            one.contains("d=\"M0.0 -100.0A100 100 0 1 1 -0.2 -100.0\""),
            "{one}"
        );
    }
}
