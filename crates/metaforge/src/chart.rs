//! Line charts as inline SVG, drawn by hand; colours come from the page's style, so they follow its light and dark.

use std::fmt::Write;

use serde::{Deserialize, Serialize};

/// Series colours that the style knows, `.c0` and on.
pub const COLORS: usize = 6;

const SIZE: [f64; 2] = [640.0, 280.0];
const LEFT: f64 = 62.0;
const RIGHT: f64 = 26.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 46.0;

/// Curves over a common axis.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Plot {
    /// What the chart shows.
    pub title: String,
    /// What the horizontal axis counts.
    pub x: String,
    /// What the vertical axis measures; may be empty.
    pub y: String,
    /// Whether the vertical axis is logarithmic (all values must then be above 0).
    #[serde(default)]
    pub log_y: bool,
    /// The curves.
    pub series: Vec<Series>,
}

/// One curve.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// Its name in the legend; a series without one is not listed.
    pub name: String,
    /// Which of the [`COLORS`] it has.
    pub color: usize,
    /// How it is drawn.
    pub mark: Mark,
    /// `[x, y]`, all finite.
    pub points: Vec<[f64; 2]>,
}

/// How a series is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mark {
    /// A strong line.
    Line,
    /// A thin, light line: raw values behind their smoothed ones. Single outliers may leave the frame.
    Faint,
    /// A dashed line: the truth, say.
    Dashed,
    /// Separate dots.
    Dots,
}

/// The chart as a HTML `figure`.
pub fn figure(plot: &Plot) -> String {
    let mut html = format!("<figure class=\"chart\"><figcaption><b>{}</b>", escape(&plot.title));
    for series in plot.series.iter().filter(|s| !s.name.is_empty()) {
        let mark = if series.mark == Mark::Dashed { "◌" } else { "●" };
        let _ = write!(
            html,
            " <span class=\"key\"><i class=\"k{}\">{mark}</i>{}</span>",
            series.color % COLORS,
            escape(&series.name)
        );
    }
    html + "</figcaption>" + &svg(plot) + "</figure>\n"
}

/// The chart as SVG.
fn svg(plot: &Plot) -> String {
    let scale = |v: f64| if plot.log_y { v.max(f64::MIN_POSITIVE).log10() } else { v };
    let (x, y) = (range_x(plot), range_y(plot, scale));
    let at_x = |v: f64| LEFT + (v - x[0]) / (x[1] - x[0]) * (SIZE[0] - LEFT - RIGHT);
    let at_y = |v: f64| SIZE[1] - BOTTOM - (scale(v) - y[0]) / (y[1] - y[0]) * (SIZE[1] - TOP - BOTTOM);
    let [w, h] = SIZE;
    let mut s = format!("<svg viewBox=\"0 0 {w} {h}\" role=\"img\" aria-label=\"{}\">", escape(&plot.title));
    // Nested, because a nested svg cuts off what leaves its frame without needing an id of its own.
    for (value, label) in ticks_y(y, plot.log_y) {
        let at = at_y(value);
        let _ = write!(s, "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>", w - RIGHT);
        let _ = write!(s, "<text class=\"end\" x=\"{:.1}\" y=\"{:.1}\">{label}</text>", LEFT - 8.0, at + 5.0);
    }
    for (value, label) in ticks(x, 7) {
        let _ = write!(s, "<text class=\"mid\" x=\"{:.1}\" y=\"{:.1}\">{label}</text>", at_x(value), h - BOTTOM + 20.0);
    }
    let base = h - BOTTOM;
    let _ = write!(s, "<line class=\"axis\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{base}\" y2=\"{base}\"/>", w - RIGHT);
    let _ = write!(
        s,
        "<text class=\"mid\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
        (LEFT + w - RIGHT) / 2.0,
        h - 5.0,
        escape(&plot.x)
    );
    if !plot.y.is_empty() {
        let middle = (TOP + base) / 2.0;
        let _ = write!(
            s,
            "<text class=\"mid\" transform=\"translate(13 {middle:.1}) rotate(-90)\">{}</text>",
            escape(&plot.y)
        );
    }
    let (inner_w, inner_h) = (w - LEFT - RIGHT, base - TOP + 1.0);
    let _ = write!(
        s,
        "<svg x=\"{LEFT}\" y=\"{TOP}\" width=\"{inner_w}\" height=\"{inner_h}\" viewBox=\"{LEFT} {TOP} {inner_w} {inner_h}\">"
    );
    for series in &plot.series {
        let color = series.color % COLORS;
        if series.mark == Mark::Dots {
            for &[px, py] in &series.points {
                let _ = write!(s, "<circle class=\"k{color}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"4\"/>", at_x(px), at_y(py));
            }
        } else {
            let mark = format!("{:?}", series.mark).to_lowercase();
            let _ = write!(s, "<polyline class=\"c{color} {mark}\" points=\"");
            for &[px, py] in &series.points {
                let _ = write!(s, "{:.1},{:.1} ", at_x(px), at_y(py));
            }
            s += "\"/>";
        }
    }
    s + "</svg></svg>"
}

fn range_x(plot: &Plot) -> [f64; 2] {
    let xs = plot.series.iter().flat_map(|series| &series.points).map(|point| point[0]);
    widened(xs.fold([f64::INFINITY, f64::NEG_INFINITY], |[low, high], v| [low.min(v), high.max(v)]), 0.0)
}

/// All of the strong series, and of the faint ones what is left without the outermost fiftieth on either side.
fn range_y(plot: &Plot, scale: impl Fn(f64) -> f64) -> [f64; 2] {
    let mut range = [f64::INFINITY, f64::NEG_INFINITY];
    for series in &plot.series {
        let mut ys: Vec<f64> = series.points.iter().map(|point| scale(point[1])).collect();
        ys.sort_by(f64::total_cmp);
        let outside = if series.mark == Mark::Faint { ys.len() / 50 } else { 0 };
        if let (Some(low), Some(high)) = (ys.get(outside), ys.get(ys.len().wrapping_sub(1 + outside))) {
            range = [range[0].min(*low), range[1].max(*high)];
        }
    }
    widened(range, 0.05)
}

fn widened([low, high]: [f64; 2], part: f64) -> [f64; 2] {
    if low > high {
        return [0.0, 1.0];
    }
    let by = if high > low { (high - low) * part } else { low.abs().max(1.0) * 0.1 };
    [low - by, high + by]
}

/// About `wanted` round numbers within a range, with their labels.
fn ticks([low, high]: [f64; 2], wanted: usize) -> Vec<(f64, String)> {
    let rough = (high - low) / wanted as f64;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|m| m * power).into_iter().find(|step| *step >= rough).unwrap_or(rough);
    let digits = (-step.log10().floor()).clamp(0.0, 9.0) as usize;
    let (first, last) = ((low / step).ceil() as i64, (high / step).floor() as i64);
    (first..=last).map(|i| i as f64 * step).map(|v| (v, label(v, digits))).collect()
}

fn ticks_y(range: [f64; 2], log: bool) -> Vec<(f64, String)> {
    if !log {
        return ticks(range, 5);
    }
    let decades = (range[1] - range[0]).abs();
    let multiples: &[f64] = if decades > 3.0 { &[1.0] } else { &[1.0, 2.0, 5.0] };
    let exponents = range[0].floor() as i32..=range[1].ceil() as i32;
    let all = exponents.flat_map(|e| multiples.iter().map(move |m| (m * 10f64.powi(e), e)));
    all.filter(|(v, _)| (range[0]..=range[1]).contains(&v.log10()))
        .map(|(v, e)| (v, label(v, (-e).clamp(0, 9) as usize)))
        .collect()
}

fn label(value: f64, digits: usize) -> String {
    let size = value.abs();
    if size >= 1e6 || (digits > 5 && size > 0.0) {
        format!("{value:.0e}")
    } else if size >= 1e4 {
        format!("{}k", value / 1e3)
    } else {
        format!("{value:.digits$}").replace('-', "−")
    }
}

/// Text that HTML does not take for anything else.
pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_within() {
        let labels = |range, n| ticks(range, n).into_iter().map(|(_, label)| label).collect::<Vec<_>>();
        assert_eq!(labels([0.0, 1.0], 5), ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        assert_eq!(labels([-3.0, 3.0], 5), ["−2", "0", "2"]);
        assert_eq!(labels([100.0, 40_000.0], 5), ["10k", "20k", "30k", "40k"]);
        let log: Vec<_> = ticks_y([-2.1, 0.1], true).into_iter().map(|(_, label)| label).collect();
        assert_eq!(log, ["0.01", "0.02", "0.05", "0.1", "0.2", "0.5", "1"]);
    }

    #[test]
    fn a_chart_of_anything_has_only_finite_numbers() {
        for points in [vec![], vec![[1.0, 0.0]], vec![[0.0, 3.0], [1.0, 3.0]], vec![[0.0, 1e-300], [5.0, 1e300]]] {
            for log_y in [false, true] {
                let series = vec![Series { name: "a<b".into(), color: 0, mark: Mark::Line, points: points.clone() }];
                let html = figure(&Plot { title: "t & u".into(), x: "step".into(), y: "y".into(), log_y, series });
                assert!(!html.contains("NaN") && !html.contains("inf"), "{html}");
                assert!(html.contains("a&lt;b") && html.contains("t &amp; u"));
            }
        }
    }

    #[test]
    fn an_outlier_of_a_faint_series_does_not_flatten_the_rest() {
        let mut points: Vec<[f64; 2]> = (0..100).map(|i| [f64::from(i), 1.0 + f64::from(i % 2)]).collect();
        points[50][1] = 1e6;
        let plot = |mark| Plot {
            series: vec![Series { name: String::new(), color: 0, mark, points: points.clone() }],
            ..Plot::default()
        };
        assert!(range_y(&plot(Mark::Faint), |v| v)[1] < 3.0);
        assert!(range_y(&plot(Mark::Line), |v| v)[1] > 1e6);
    }
}
