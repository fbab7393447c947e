//! The page to look at: one self-contained HTML file made from what stands in a run folder.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::chart::{COLORS, Mark, Plot, Series, escape, figure};
use crate::error::{Error, Result};
use crate::metrics::{self, Line};
use crate::progress::duration;
use crate::run::{self, Summary};
use crate::store::write_whole;

/// Points of a curve; more cannot be told apart on a page.
const POINTS: usize = 400;
/// Figures that stand large above the table.
const CARDS: usize = 4;
/// Pictures of earlier steps beside the last.
const EARLIER: usize = 4;

/// Writes `report.html` of one run into its folder and returns its path.
///
/// # Errors
/// If a file of the run cannot be read or the page cannot be written.
pub fn of_run(folder: &Path) -> Result<PathBuf> {
    let section = Section::read(folder)?;
    let head = format!("<h1>{}</h1>\n<p class=\"lead\">{}</p>\n", escape(&section.name), escape(&section.about));
    write(folder, &section.name, &(head + &section.body()))
}

/// Writes `report.html` of several runs, a section each under its title, into `folder` and returns its path.
///
/// # Errors
/// If a file of a run cannot be read or the page cannot be written.
pub fn of_runs(folder: &Path, title: &str, lead: &str, runs: &[(&str, PathBuf)]) -> Result<PathBuf> {
    let mut body = format!("<h1>{}</h1>\n<p class=\"lead\">{}</p>\n", escape(title), escape(lead));
    for (title, run) in runs {
        let section = Section::read(run)?;
        let _ =
            write!(body, "<section>\n<h2>{}</h2>\n<p class=\"about\">{}</p>\n", escape(title), escape(&section.about));
        body += &section.body();
        body += "</section>\n";
    }
    write(folder, title, &body)
}

fn write(folder: &Path, title: &str, body: &str) -> Result<PathBuf> {
    let page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>{} · metaforge</title>\n<style>\n{}</style>\n</head>\n<body>\n<main>\n{body}\
         <footer>metaforge {}</footer>\n</main>\n</body>\n</html>\n",
        escape(title),
        include_str!("report.css"),
        env!("CARGO_PKG_VERSION"),
    );
    let path = folder.join(run::REPORT);
    write_whole(&path, page.as_bytes())?;
    Ok(path)
}

/// What a run folder says.
struct Section {
    name: String,
    about: String,
    config: String,
    log: Vec<Line>,
    summary: Option<Summary>,
    /// By name, the PNG files by step.
    pictures: BTreeMap<String, BTreeMap<u64, PathBuf>>,
}

impl Section {
    fn read(folder: &Path) -> Result<Section> {
        let config = run::read_config(folder)?;
        let table: toml::Table = config.parse().unwrap_or_default();
        let text = |key: &str| table.get(key).and_then(|v| v.as_str()).unwrap_or_default().to_owned();
        Ok(Section {
            name: text("name"),
            about: text("about"),
            log: metrics::read(&folder.join(run::METRICS), u64::MAX)?,
            summary: run::read_summary(folder)?,
            pictures: pictures(&folder.join(run::SAMPLES))?,
            config,
        })
    }

    fn body(&self) -> String {
        let mut html = String::new();
        if let Some(summary) = &self.summary {
            html += &figures(summary);
        }
        for (name, steps) in &self.pictures {
            html += &gallery(name, steps);
        }
        html += "<div class=\"charts\">\n";
        for plot in self.summary.iter().flat_map(|s| &s.plots).chain(&curves(&self.log)) {
            html += &figure(plot);
        }
        html += "</div>\n";
        let _ = writeln!(
            html,
            "<details><summary>Effective configuration</summary><pre>{}</pre></details>",
            escape(&self.config)
        );
        html
    }
}

fn figures(summary: &Summary) -> String {
    let mut html = String::from("<div class=\"cards\">\n");
    for f in summary.figures.iter().take(CARDS) {
        let (value, note) = (escape(&f.shown()), escape(&f.note));
        let _ = writeln!(
            html,
            "<div class=\"card\"><div class=\"value\">{value}</div><div>{}</div><div class=\"note\">{note}</div></div>",
            escape(&f.label)
        );
    }
    html += "</div>\n";
    if summary.figures.len() > CARDS {
        html += "<table>\n<tr><th>figure</th><th class=\"number\">value</th><th>to compare</th></tr>\n";
        for f in &summary.figures {
            let row = [&f.label, &f.shown(), &f.note].map(|cell| escape(cell));
            let _ =
                writeln!(html, "<tr><td>{}</td><td class=\"number\">{}</td><td>{}</td></tr>", row[0], row[1], row[2]);
        }
        html += "</table>\n";
    }
    let _ = writeln!(
        html,
        "<p class=\"protocol\">{} {} steps in {}, evaluated in {}; {} parameters.</p>",
        escape(&summary.protocol),
        summary.steps,
        duration(summary.train_seconds),
        duration(summary.eval_seconds),
        thousands(summary.parameters),
    );
    html
}

fn thousands(n: usize) -> String {
    let digits = n.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().filter_map(|group| std::str::from_utf8(group).ok()).collect();
    groups.join(",")
}

/// The charts of a log: figures named `chart/curve` share the chart.
fn curves(log: &[Line]) -> Vec<Plot> {
    let mut charts: BTreeMap<&str, BTreeMap<&str, Vec<[f64; 2]>>> = BTreeMap::new();
    for line in log {
        for (name, value) in &line.values {
            let (chart, curve) = name.split_once('/').unwrap_or((name, name));
            charts.entry(chart).or_default().entry(curve).or_default().push([line.step as f64, *value]);
        }
    }
    let plot = |(title, curves): (&str, BTreeMap<&str, Vec<[f64; 2]>>)| {
        let all = || curves.values().flatten().map(|point| point[1]);
        let (low, high) = (all().fold(f64::INFINITY, f64::min), all().fold(f64::NEG_INFINITY, f64::max));
        let alone = curves.len() == 1 && curves.contains_key(title);
        let series = curves.iter().enumerate().flat_map(|(i, (name, raw))| {
            let name = if alone { String::new() } else { name.replace('_', " ") };
            let (color, smooth) = (i % COLORS, thinned(&smoothed(raw)));
            let line = |name, mark, points| Series { name, color, mark, points };
            [line(String::new(), Mark::Faint, thinned(raw)), line(name, Mark::Line, smooth)]
        });
        Plot {
            title: title.replace('_', " "),
            x: "step".into(),
            y: String::new(),
            log_y: low > 0.0 && high > 100.0 * low,
            series: series.collect(),
        }
    };
    charts.into_iter().map(plot).collect()
}

/// The mean over a fortieth of the curve to either side, and over less towards its ends: it does not lag behind.
fn smoothed(points: &[[f64; 2]]) -> Vec<[f64; 2]> {
    let reach = points.len() / 40;
    let mean = |i: usize| {
        // A third of it stays even at the very ends, or these would be as rough as the raw curve.
        let reach = reach.min(i).min(points.len() - 1 - i).max(reach / 3);
        let near = &points[i.saturating_sub(reach)..(i + reach + 1).min(points.len())];
        [points[i][0], near.iter().map(|point| point[1]).sum::<f64>() / near.len() as f64]
    };
    (0..points.len()).map(mean).collect()
}

fn thinned(points: &[[f64; 2]]) -> Vec<[f64; 2]> {
    let every = points.len().div_ceil(POINTS).max(1);
    let mean =
        |group: &[[f64; 2]]| [0, 1].map(|axis| group.iter().map(|point| point[axis]).sum::<f64>() / group.len() as f64);
    points.chunks(every).map(mean).collect()
}

/// The pictures `NAME-STEP.png` of a folder.
fn pictures(folder: &Path) -> Result<BTreeMap<String, BTreeMap<u64, PathBuf>>> {
    let mut found: BTreeMap<String, BTreeMap<u64, PathBuf>> = BTreeMap::new();
    if !folder.is_dir() {
        return Ok(found);
    }
    for entry in fs::read_dir(folder).map_err(Error::io("read", folder))? {
        let path = entry.map_err(Error::io("read", folder))?.path();
        if let Some((name, step)) = run::picture(&path).map(|(name, step)| (name.to_owned(), step)) {
            found.entry(name).or_default().insert(step, path);
        }
    }
    Ok(found)
}

fn gallery(name: &str, steps: &BTreeMap<u64, PathBuf>) -> String {
    let Some((last, path)) = steps.last_key_value() else { return String::new() };
    let title = escape(&name.replace(['-', '_'], " "));
    let mut html = format!(
        "<figure class=\"picture\">{}<figcaption><b>{title}</b> after step {last}</figcaption></figure>\n",
        embedded(path, &title)
    );
    let earlier: Vec<_> = steps.iter().take(steps.len() - 1).collect();
    if !earlier.is_empty() {
        html += "<div class=\"strip\">\n";
        let shown = earlier.len().min(EARLIER);
        for i in 0..shown {
            let (step, path) = earlier[i * earlier.len() / shown];
            let _ = writeln!(html, "<figure>{}<figcaption>step {step}</figcaption></figure>", embedded(path, &title));
        }
        html += "</div>\n";
    }
    html
}

/// A picture within the page; one that cannot be read leaves its place empty rather than the page unwritten.
fn embedded(path: &Path, alt: &str) -> String {
    match fs::read(path) {
        Ok(bytes) => format!("<img alt=\"{alt}\" src=\"data:image/png;base64,{}\">", STANDARD.encode(bytes)),
        Err(e) => format!("<p class=\"note\">{}: {}</p>", escape(&path.display().to_string()), escape(&e.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smoothing_keeps_straight_lines_and_takes_noise_away() {
        let line: Vec<[f64; 2]> = (0..200).map(|i| [f64::from(i), 3.0 * f64::from(i)]).collect();
        for (smooth, raw) in smoothed(&line).iter().zip(&line).skip(1).take(198) {
            assert!((smooth[1] - raw[1]).abs() < 1e-9);
        }
        let flicker: Vec<[f64; 2]> = (0..200).map(|i| [f64::from(i), f64::from(i % 2)]).collect();
        assert!(smoothed(&flicker).iter().all(|[_, y]| (0.3..0.7).contains(y)));
        assert!(smoothed(&[]).is_empty());
        assert!(thinned(&line).len() <= POINTS);
        assert_eq!(thinned(&vec![[1.0, 2.0]; 10 * POINTS]), vec![[1.0, 2.0]; POINTS]);
    }

    #[test]
    fn figures_of_a_name_share_a_chart() {
        let values = ["loss/generator", "loss/critic", "accuracy"].map(|name| (name.to_owned(), 1.0));
        let line = Line { step: 1, seconds: 0.0, values: values.into() };
        let plots = curves(&[line]);
        let shape: Vec<_> = plots.iter().map(|p| (p.title.as_str(), p.series.len())).collect();
        assert_eq!(shape, [("accuracy", 2), ("loss", 4)]);
    }

    #[test]
    fn numbers_are_grouped() {
        assert_eq!([7, 1234, 1_234_567].map(thousands), ["7", "1,234", "1,234,567"]);
    }
}
