//! The figures as a bar chart in SVG: a group of bars for each row, each bar the ratio
//! to the server that ours is compared with. Never measures anything.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::report::{Measured, Report};

/// Sizes in pixels.
const WIDTH: f64 = 840.0;
const TOP: f64 = 64.0;
const BAR: f64 = 14.0;
const BAR_STEP: f64 = 18.0;
const GROUP_GAP: f64 = 14.0;
const BOTTOM: f64 = 64.0;

/// Where bars begin, and how long the longest one is.
const LEFT: f64 = 280.0;
const LONGEST: f64 = 380.0;

/// A bar.
#[derive(Debug, PartialEq)]
struct Bar {
    /// Whose it is.
    label: String,
    /// How many times as much as the other server.
    ratio: f64,
    /// What it took, in words.
    value: String,
    color: &'static str,
}

/// The bars of a row.
#[derive(Debug, PartialEq)]
struct Group {
    title: String,
    /// What the other server took, in words.
    base: String,
    bars: Vec<Bar>,
}

const OURS: &str = "#1f6feb";
const OURS_LOOPED: &str = "#79b0ff";
const OTHERS: &str = "#8b949e";

/// Writes the chart of a report to a file.
///
/// # Errors
/// When it can't be written.
pub(super) fn write(report: &Report, path: &Path) -> Result<()> {
    fs::write(path, svg(report)).with_context(|| format!("failed to write {}", path.display()))
}

/// Returns the chart of a report.
fn svg(report: &Report) -> String {
    let against = report.against;
    let groups = groups(report);
    let bars = groups.iter().flat_map(|group| &group.bars);
    let most = bars.map(|bar| bar.ratio).fold(1.0, f64::max);
    let height = TOP + groups.iter().map(group_height).sum::<f64>() + BOTTOM;
    let one = LEFT + LONGEST / most;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"sans-serif\" font-size=\"12\" fill=\"#24292f\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>\n"
    );
    let title = format!("Divided by {against}: shorter is better");
    text.push_str(&words(
        16.0,
        24.0,
        "font-size=\"16\" font-weight=\"bold\"",
        &title,
    ));
    let (line_top, line_end) = (TOP - 12.0, height - BOTTOM);
    text.push_str(&format!(
        "<line x1=\"{one:.1}\" y1=\"{line_top}\" x2=\"{one:.1}\" y2=\"{line_end}\" stroke=\"#cf222e\"/>\n"
    ));
    let label = format!("{against} = 1");
    text.push_str(&words(
        one,
        line_top - 5.0,
        "text-anchor=\"middle\" fill=\"#cf222e\"",
        &label,
    ));
    let mut y = TOP;
    for group in &groups {
        text.push_str(&drawn(group, y, LONGEST / most));
        y += group_height(group);
    }
    let machine = &report.machine;
    let notes = [
        format!("{}, {}", machine.hardware(), machine.interpreters()),
        format!("medians; loop: without pauses; {}", machine.date),
    ];
    for note in notes {
        y += 20.0;
        text.push_str(&words(16.0, y, "font-size=\"11\" fill=\"#57606a\"", &note));
    }
    text.push_str("</svg>\n");
    text
}

/// Returns the groups: a row each, of what was measured of servers as a whole too.
fn groups(report: &Report) -> Vec<Group> {
    let against = report.against;
    let rows = report.rows.iter();
    let mut groups: Vec<Group> = rows.filter_map(|row| group_of_row(row, against)).collect();
    for one in &report.whole {
        if groups.last().is_none_or(|group| group.title != one.name) {
            groups.push(Group {
                title: one.name.to_owned(),
                base: String::new(),
                bars: Vec::new(),
            });
        }
        let bar = Bar {
            label: one.what.clone(),
            ratio: one.ratio,
            value: format!("{:.1}, {against} {:.1}", one.ours, one.other),
            color: OURS,
        };
        if let Some(group) = groups.last_mut() {
            group.bars.push(bar);
        }
    }
    groups
}

/// Returns the bars of a row by the medians of its second server, of which it has one.
fn group_of_row(row: &Measured, against: &str) -> Option<Group> {
    let base = &row.servers.get(1)?.outcome;
    let mut bars = Vec::new();
    for (at, line) in row.servers.iter().enumerate() {
        if at == 1 {
            continue;
        }
        bars.push(Bar {
            label: line.server.to_owned(),
            ratio: line.outcome.paused.p50 / base.paused.p50,
            value: format!("{:.1} ms", line.outcome.paused.p50),
            color: if at == 0 { OURS } else { OTHERS },
        });
        if at == 0 {
            bars.push(Bar {
                label: format!("{}, loop", line.server),
                ratio: line.outcome.looped.p50 / base.looped.p50,
                value: format!("{:.1} ms", line.outcome.looped.p50),
                color: OURS_LOOPED,
            });
        }
    }
    // What is not a number has no length.
    bars.retain(|bar| bar.ratio.is_finite());
    Some(Group {
        title: row.name.to_owned(),
        base: format!(
            "{against}: {:.1} ms, loop {:.1} ms",
            base.paused.p50, base.looped.p50
        ),
        bars,
    })
}

fn group_height(group: &Group) -> f64 {
    // Title and base take two lines beside the bars.
    let least = if group.base.is_empty() { 1 } else { 2 };
    let lines = u32::try_from(group.bars.len().max(least)).unwrap_or(u32::MAX);
    f64::from(lines) * BAR_STEP + GROUP_GAP
}

/// Draws a group from `y` downwards; `unit` is the length of a bar with the ratio 1.
fn drawn(group: &Group, y: f64, unit: f64) -> String {
    let mut text = words(16.0, y + 11.0, "font-weight=\"bold\"", &group.title);
    if !group.base.is_empty() {
        let below = y + 11.0 + BAR_STEP;
        let look = "font-size=\"11\" fill=\"#57606a\"";
        text.push_str(&words(16.0, below, look, &group.base));
    }
    let mut y = y;
    for Bar {
        label,
        ratio,
        value,
        color,
    } in &group.bars
    {
        let (base, end) = (y + 11.0, LEFT + ratio * unit + 6.0);
        text.push_str(&words(LEFT - 6.0, base, "text-anchor=\"end\"", label));
        text.push_str(&format!(
            "<rect x=\"{LEFT}\" y=\"{y}\" width=\"{:.1}\" height=\"{BAR}\" fill=\"{color}\"/>\n",
            ratio * unit
        ));
        // With a white rim, for where the line at 1 goes through it.
        let rim = "paint-order=\"stroke\" stroke=\"#ffffff\" stroke-width=\"3\"";
        text.push_str(&words(end, base, rim, &format!("{ratio:.2} ({value})")));
        y += BAR_STEP;
    }
    text
}

/// Returns text at a place, with attributes of its own.
fn words(x: f64, y: f64, attributes: &str, text: &str) -> String {
    let text = text
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;");
    format!("<text x=\"{x:.1}\" y=\"{y:.1}\" {attributes}>{text}</text>\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::report::tests::report;

    #[test]
    fn bars_are_ratios_to_the_other_server() {
        let groups = groups(&report());
        let titles: Vec<&str> = groups.iter().map(|group| group.title.as_str()).collect();
        assert_eq!(titles, ["javascript", "pandas", "memory"]);
        let bars: Vec<(&str, f64)> = groups[0]
            .bars
            .iter()
            .map(|bar| (bar.label.as_str(), bar.ratio))
            .collect();
        let expected = [("ours", 1.25), ("ours, loop", 1.25), ("subprocess", 0.5)];
        assert_eq!(bars, expected);
        assert_eq!(groups[2].bars[0].ratio, 1.25);
    }

    #[test]
    fn what_was_not_measured_has_no_bar() {
        let mut report = report();
        report.rows[1].servers[0].outcome.paused.p50 = f64::NAN;
        let labels = |group: &Group| group.bars.iter().map(|bar| bar.label.clone()).collect();
        let labels: Vec<String> = labels(&groups(&report)[1]);
        assert_eq!(labels, ["ours, loop"]);
    }

    #[test]
    fn the_chart_is_svg_with_each_ratio() {
        let mut report = report();
        report.machine.processor = "<CPU> & more".to_owned();
        let text = svg(&report);
        assert!(text.starts_with("<svg xmlns=") && text.ends_with("</svg>\n"));
        for part in [
            ">1.25 (50.0 ms)<",
            ">0.50 (20.0 ms)<",
            ">1.25 (60.0, naive 48.0)<",
            ">3.00 (900.0 ms)<",
            ">naive = 1<",
            "&lt;CPU&gt; &amp;",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        // The longest bar is as long as there is room, and no more.
        assert!(text.contains("width=\"380.0\""), "{text}");
        let opened = text.matches("<text").count();
        assert_eq!(opened, text.matches("</text>").count());
    }
}
