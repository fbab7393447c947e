//! The `metaforge` program.
#![forbid(unsafe_code)]

mod cli;
mod commands;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match commands::run(cli::Cli::parse()) {
        Ok(code) => code,
        Err(e) => {
            // Not `eprintln!`, which panics when nobody listens any more.
            let _ = writeln!(std::io::stderr(), "metaforge: {e}");
            ExitCode::FAILURE
        }
    }
}
