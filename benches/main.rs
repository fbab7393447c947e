//! Times whole workloads as a user runs them, alone or beside other libraries: `cargo xtask bench`.
#![forbid(unsafe_code)]

mod games;
mod learners;
#[path = "../crates/kernels/benches/roofline/limits.rs"]
mod limits;
mod measure;
mod norm;
mod nothings;
mod peers;
mod profile;
mod roofline;
mod workloads;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use limits::{Numbers, noise};
use measure::{PeerRow, Row, Timer};
use peers::Peer;
use workloads::{WORKLOADS, Workload};

/// How long a workload is timed when it runs alone.
const ALONE: Duration = Duration::from_secs(5);

/// Ours and the peers take turns, so that a machine that grows slower does so for all.
const ROUNDS: usize = 3;

/// How long each side of a round runs.
const TURN: Duration = Duration::from_secs(2);

/// What is asked on the command line.
#[derive(Debug, Parser)]
#[command(bin_name = "cargo xtask bench", about = "Times whole workloads; docs/BENCHMARKS.md says what they are.")]
struct Options {
    /// Only workloads with this in their name.
    #[arg(long, value_name = "NAME", default_value = "")]
    filter: String,
    /// Threads of the pool; with 1 everything runs on one. Default: one a core.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
    /// Writes the results as JSON, too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Lets other libraries do the same work in turns with ours.
    #[arg(long)]
    peers: bool,
    /// The convolutions against what the processor can do, instead of workloads.
    #[arg(long, conflicts_with_all = ["filter", "json", "peers", "profile"])]
    roofline: bool,
    /// Where the time goes, by primitive, on one thread and on all, instead of timing whole steps.
    #[arg(long, conflicts_with_all = ["json", "peers"])]
    profile: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let threads = options.threads.map_or(0, usize::from);
    let done = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .map_err(|e| e.to_string())
        .and_then(|pool| pool.install(|| run(&options)));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("bench: {why}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), String> {
    if options.roofline {
        roofline::print();
        return Ok(());
    }
    let chosen: Vec<&Workload> = WORKLOADS.iter().filter(|w| w.name.contains(&options.filter)).collect();
    if chosen.is_empty() {
        let names = WORKLOADS.map(|w| w.name).join(", ");
        return Err(format!("no workload has `{}` in its name; there are {names}", options.filter));
    }
    if options.profile {
        return chosen.iter().try_for_each(|w| profile::print(w.name, (w.start)().as_mut(), Duration::from_secs(1)));
    }
    println!("{}", heading());
    let mut rows = Vec::new();
    for workload in chosen {
        let row = measure(workload, options.peers).map_err(|e| format!("{}: {e}", workload.name))?;
        println!("{}", line(&row));
        row.peers.iter().for_each(|peer| println!("{}", peer_line(peer)));
        rows.push(row);
        if let Some(path) = &options.json {
            // After each, so that a run that is broken off leaves what it has.
            write(path, &rows)?;
        }
    }
    Ok(())
}

/// Times a workload, in turns with its peers if they are asked.
fn measure(workload: &Workload, with_peers: bool) -> Result<Row, String> {
    let threads = rayon::current_num_threads();
    let mut peers = if with_peers { start_peers(workload, threads) } else { Vec::new() };
    measure::forget_peak();
    let mut timer = Timer::warm(workload)?;
    if peers.is_empty() {
        timer.run(ALONE)?;
    } else {
        for _ in 0..ROUNDS {
            timer.run(TURN)?;
            for peer in &mut peers {
                peer.run(TURN.as_secs_f64()).map_err(|e| format!("{}: {e}", peer.name))?;
            }
        }
    }
    let mut row = timer.row(workload.name, threads);
    row.peak_mb = measure::peak_mb();
    row.peers = peers.iter().map(|p| PeerRow::new(&p.name, &p.times, row.median_ms)).collect();
    Ok(row)
}

/// The peers that can run here; those that cannot are named with the reason.
fn start_peers(workload: &Workload, threads: usize) -> Vec<Peer> {
    let mut ready = Vec::new();
    for script in workload.peers {
        match Peer::start(script, workload.name, threads) {
            Ok(peer) => ready.push(peer),
            Err(why) => println!("{}: {script} is skipped: {why}", workload.name),
        }
    }
    ready
}

fn write(path: &Path, rows: &[Row]) -> Result<(), String> {
    let text = serde_json::to_string_pretty(rows).map_err(|e| e.to_string())?;
    std::fs::write(path, text + "\n").map_err(|e| format!("{}: {e}", path.display()))
}

fn heading() -> String {
    let [name, threads, median, min, samples, rate, peak] =
        ["workload", "threads", "median ms", "min ms", "samples", "GFLOP/s", "peak MB"];
    format!("{name:<25} {threads:>7} {median:>11} {min:>11} {samples:>8} {rate:>9} {peak:>8}")
}

fn line(row: &Row) -> String {
    let Row { name, threads, median_ms, min_ms, samples, gflops, peak_mb, .. } = row;
    let peak = peak_mb.map_or("-".into(), |mb| format!("{mb:.0}"));
    let [median, min] = [figure(*median_ms), figure(*min_ms)];
    format!("{name:<25} {threads:>7} {median:>11} {min:>11} {samples:>8} {gflops:>9.1} {peak:>8}")
}

fn peer_line(peer: &PeerRow) -> String {
    let PeerRow { peer, median_ms, min_ms, samples, ratio } = peer;
    let [median, min] = [figure(*median_ms), figure(*min_ms)];
    format!("  {peer:<31} {median:>11} {min:>11} {samples:>8}   {ratio:.2} x ours")
}

/// Four digits that say something, whatever the size: the shortest step takes less than a microsecond, the longest a second.
fn figure(ms: f64) -> String {
    let before = ms.log10().floor() as i32 + 1;
    format!("{ms:.0$}", (4 - before).clamp(0, 9) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(text: &str) -> Result<Options, String> {
        Options::try_parse_from(std::iter::once("bench").chain(text.split_whitespace())).map_err(|e| e.to_string())
    }

    #[test]
    fn options_are_read() {
        Options::command().debug_assert();
        let options = parse("--filter maml --threads 1 --json out.json --peers").unwrap();
        assert_eq!((options.filter.as_str(), options.threads, options.peers), ("maml", Some(1), true));
        assert_eq!(options.json.as_deref(), Some(Path::new("out.json")));
        assert!(parse("--roofline --threads 2").unwrap().roofline);
    }

    #[test]
    fn what_cannot_be_read_is_said() {
        assert!(parse("--thread 1").unwrap_err().contains("--thread"));
        assert!(parse("--threads 0").unwrap_err().contains("--threads"));
        assert!(parse("maml").unwrap_err().contains("maml"));
        assert!(parse("--roofline --peers").unwrap_err().contains("--peers"));
    }

    #[test]
    fn a_filter_that_fits_nothing_names_what_there_is() {
        let why = run(&parse("--filter llama").unwrap()).unwrap_err();
        assert!(why.contains("llama") && why.contains("proto/60w5s5q"), "{why}");
    }

    #[test]
    fn figures_have_four_digits() {
        for (ms, text) in [(0.000171234, "0.0001712"), (0.31224, "0.3122"), (49.5012, "49.50"), (1234.5678, "1235")] {
            assert_eq!(figure(ms), text);
        }
    }

    #[test]
    fn columns_stand_under_their_headings() {
        let row = Row {
            name: "fomaml-omniglot-5w1s/T8".into(),
            threads: 2,
            median_ms: 123.45678,
            min_ms: 1.0,
            samples: 7,
            gflops: 12.34,
            peak_mb: None,
            peers: Vec::new(),
        };
        assert_eq!(line(&row).len(), heading().len());
        assert!(peer_line(&PeerRow::new("torch 2.9", &[3.0], 1.5)).ends_with("2.00 x ours"));
    }
}
