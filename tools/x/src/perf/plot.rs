//! A picture of ratios: a row for each, a dot for each pair, a bar at the median, on a logarithmic scale.
//!
//! Invariant: what is drawn is what `raw.csv` has; nothing is smoothed or left out.

use std::fmt::Write;

/// One row.
pub struct Row {
    /// What it is.
    pub label: String,
    /// Of the pairs, sorted.
    pub ratios: Vec<f64>,
    pub median: f64,
    /// What the median must reach or stay below, if anything.
    pub goal: Option<f64>,
}

const WIDTH: f64 = 960.0;
const LABELS: f64 = 430.0;
const NUMBERS: f64 = 60.0;
const ROW: f64 = 24.0;
const TOP: f64 = 56.0;
/// Where the scale may have a line.
const TICKS: [f64; 15] = [0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 20.0, 50.0, 100.0];

/// The picture, as SVG.
pub fn svg(title: &str, rows: &[Row]) -> String {
    let all = || {
        rows.iter().flat_map(|row| row.ratios.iter().copied().chain(row.goal)).filter(|ratio| *ratio > 0.0)
    };
    let (least, most) = (all().fold(0.7, f64::min) / 1.1, all().fold(1.5, f64::max) * 1.1);
    let across = |ratio: f64| {
        let part = (ratio / least).ln() / (most / least).ln();
        LABELS + part * (WIDTH - LABELS - NUMBERS)
    };
    let height = TOP + ROW * rows.len() as f64 + 12.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"{WIDTH}\" height=\"{height}\" fill=\"white\"/>\n\
         <text x=\"12\" y=\"20\" font-size=\"14\" font-weight=\"bold\">{}</text>\n",
        escaped(title)
    );
    for tick in TICKS.into_iter().filter(|tick| (least..=most).contains(tick)) {
        let (x, bottom) = (across(tick), height - 8.0);
        let (colour, width) = if tick == 1.0 { ("#333", 1.5) } else { ("#ddd", 1.0) };
        _ = writeln!(
            svg,
            "<line x1=\"{x:.1}\" y1=\"{TOP}\" x2=\"{x:.1}\" y2=\"{bottom}\" stroke=\"{colour}\" \
             stroke-width=\"{width}\"/><text x=\"{x:.1}\" y=\"48\" text-anchor=\"middle\" fill=\"#555\">{tick}</text>"
        );
    }
    for (number, row) in rows.iter().enumerate() {
        let y = TOP + ROW * (number as f64 + 0.5);
        _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LABELS - 10.0,
            y + 4.0,
            escaped(&row.label)
        );
        if let Some(goal) = row.goal {
            let x = across(goal);
            _ = writeln!(
                svg,
                "<path d=\"M{x:.1} {:.1} l-5 -6 h10 z\" fill=\"#c60\"><title>goal {goal}</title></path>",
                y - 3.0
            );
        }
        for ratio in &row.ratios {
            _ = writeln!(
                svg,
                "<circle cx=\"{:.1}\" cy=\"{y}\" r=\"4\" fill=\"#27c\" fill-opacity=\"0.45\"/>",
                across(*ratio)
            );
        }
        let x = across(row.median);
        _ = writeln!(
            svg,
            "<line x1=\"{x:.1}\" y1=\"{:.1}\" x2=\"{x:.1}\" y2=\"{:.1}\" stroke=\"#024\" stroke-width=\"2.5\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\">{:.2}</text>",
            y - 8.0,
            y + 8.0,
            WIDTH - NUMBERS + 12.0,
            y + 4.0,
            row.median
        );
    }
    svg.push_str("</svg>\n");
    svg
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pair_has_a_dot_and_the_median_its_number() {
        let row = Row { label: "a < b".into(), ratios: vec![0.5, 2.0, 40.0], median: 2.0, goal: Some(1.5) };
        let picture = svg("T & U", &[row]);
        assert_eq!(picture.matches("<circle").count(), 3);
        for part in ["T &amp; U", "a &lt; b", ">2.00<", "goal 1.5", ">20<"] {
            assert!(picture.contains(part), "{part}: {picture}");
        }
    }
}
