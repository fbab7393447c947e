//! Other libraries doing the same work: a script of `benches/peers` as a child process, which is told when to run and answers with its times.
//!
//! The child warms up and says `{"ready": true, "peer": "torch 2.9"}`, or `{"missing": "torch"}` if it cannot; for every line `run SECONDS` it
//! repeats its step for so long and says `{"ms": [..]}`, the milliseconds of each. It ends with its input.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::Value;

/// A script that is ready to run.
pub struct Peer {
    /// What it calls itself.
    pub name: String,
    /// Milliseconds a step, of all its runs.
    pub times: Vec<f64>,
    child: Child,
    to: Option<ChildStdin>,
    from: BufReader<ChildStdout>,
}

impl Peer {
    /// Starts a script on a workload and waits until it is warm.
    ///
    /// # Errors
    /// If it cannot run here: no Python, a package that is not installed, or an end before it was ready.
    pub fn start(script: &str, workload: &str, threads: usize) -> Result<Peer, String> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers").join(script);
        let mut command = Command::new("python3");
        command.arg(&path).arg(workload).arg(threads.to_string());
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = child.map_err(|e| format!("python3 does not start: {e}"))?;
        let (Some(to), Some(from)) = (child.stdin.take(), child.stdout.take()) else {
            return Err("python3 has no pipes".into());
        };
        let mut peer = Peer { name: String::new(), times: Vec::new(), child, to: Some(to), from: BufReader::new(from) };
        peer.name = parse_ready(&peer.answer()?)?;
        Ok(peer)
    }

    /// Lets it run for so many seconds and keeps its times.
    ///
    /// # Errors
    /// If it has ended, or says something else.
    pub fn run(&mut self, seconds: f64) -> Result<(), String> {
        let to = self.to.as_mut().ok_or("its input is closed")?;
        writeln!(to, "run {seconds}").and_then(|()| to.flush()).map_err(|e| e.to_string())?;
        let line = self.answer()?;
        self.times.extend(parse_times(&line)?);
        Ok(())
    }

    fn answer(&mut self) -> Result<String, String> {
        let mut line = String::new();
        match self.from.read_line(&mut line) {
            Ok(0) => Err("it ended without an answer".into()),
            Ok(_) => Ok(line),
            Err(e) => Err(e.to_string()),
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // The end of its input ends it.
        self.to = None;
        _ = self.child.wait();
    }
}

/// The name in a child's first line.
fn parse_ready(line: &str) -> Result<String, String> {
    let value: Value = serde_json::from_str(line).map_err(|_| format!("it says `{}`", line.trim()))?;
    if let Some(package) = value["missing"].as_str() {
        return Err(format!("{package} is not installed; see benches/peers/requirements.txt"));
    }
    match (value["ready"].as_bool(), value["peer"].as_str()) {
        (Some(true), Some(name)) => Ok(name.into()),
        _ => Err(format!("it is not ready: `{}`", line.trim())),
    }
}

/// The milliseconds in a child's answer: at least one, all above zero.
fn parse_times(line: &str) -> Result<Vec<f64>, String> {
    let value: Value = serde_json::from_str(line).map_err(|_| format!("it says `{}`", line.trim()))?;
    let times = value["ms"].as_array().and_then(|all| all.iter().map(Value::as_f64).collect::<Option<Vec<_>>>());
    match times {
        Some(times) if !times.is_empty() && times.iter().all(|&t| t > 0.0) => Ok(times),
        _ => Err(format!("it gives no times: `{}`", line.trim())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_ready_or_says_why_not() {
        assert_eq!(parse_ready("{\"ready\": true, \"peer\": \"torch 2.9\"}\n"), Ok("torch 2.9".into()));
        let missing = parse_ready("{\"missing\": \"jax\"}").unwrap_err();
        assert!(missing.contains("jax is not installed"), "{missing}");
        for line in ["", "Traceback", "{\"ready\": false, \"peer\": \"torch\"}", "{\"ready\": true}"] {
            assert!(parse_ready(line).is_err(), "{line}");
        }
    }

    #[test]
    fn times_are_numbers_above_zero() {
        assert_eq!(parse_times("{\"ms\": [1.5, 2]}\n"), Ok(vec![1.5, 2.0]));
        for line in ["", "1.5", "{\"ms\": []}", "{\"ms\": [1, \"2\"]}", "{\"ms\": [0]}", "{\"s\": [1]}"] {
            assert!(parse_times(line).is_err(), "{line}");
        }
    }
}
