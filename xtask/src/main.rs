//! Developer commands, one file each: `cargo xtask` lists them.
#![forbid(unsafe_code)]

mod args;
mod bench;
mod ci;
mod circumstances;
mod gradcheck;
mod reproduce;
mod run;
mod rust;
mod tidy;

use std::process::ExitCode;

/// What a command gives: nothing, or the sentence that says why it stopped.
type Outcome = Result<(), String>;

/// One developer command.
struct Command {
    name: &'static str,
    usage: &'static str,
    about: &'static str,
    run: fn(&[String]) -> Outcome,
}

/// Every command, in the order of the help. `tidy` holds the README to these names.
const COMMANDS: &[Command] = &[
    Command {
        name: "ci",
        usage: "",
        about: "everything that a change must pass: format, tidy, clippy, tests, a short run of the program",
        run: ci::run,
    },
    Command { name: "tidy", usage: "", about: "the invariants of docs/ARCHITECTURE.md, as code", run: tidy::run },
    Command {
        name: "gradcheck",
        usage: "[FILTER]",
        about: "every gradient rule against finite differences, in release mode, with its output",
        run: gradcheck::run,
    },
    Command {
        name: "bench",
        usage: "[--filter NAME] [--threads N] [--json FILE] [--peers] | --profile [..] | --roofline [..] | --kernels [..]",
        about: "whole workloads timed or profiled, beside other libraries, or the kernels: docs/BENCHMARKS.md",
        run: bench::run,
    },
    Command {
        name: "reproduce",
        usage: "[RECIPE...] [--data DIR] [--out DIR] [--threads N] [--seed N] [--set KEY=VALUE]...",
        about: "trains the headline recipes and prints the table of docs/RESULTS.md",
        run: reproduce::run,
    },
];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let Some(name) = args.first().filter(|a| !["help", "-h", "--help"].contains(&a.as_str())) else {
        print!("{}", help());
        return ExitCode::SUCCESS;
    };
    let Some(command) = COMMANDS.iter().find(|c| c.name == name) else {
        eprint!("no command `{name}`\n\n{}", help());
        return ExitCode::from(2);
    };
    if args[1..].iter().any(|a| a == "-h" || a == "--help") {
        println!("cargo xtask {} {}\n    {}", command.name, command.usage, command.about);
        return ExitCode::SUCCESS;
    }
    match (command.run)(&args[1..]) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{name}: {why}");
            ExitCode::FAILURE
        }
    }
}

/// The list of commands.
fn help() -> String {
    let mut text = String::from("Usage: cargo xtask COMMAND\n\n");
    for c in COMMANDS {
        text += &format!("  {}\n      {}\n", format!("{} {}", c.name, c.usage).trim_end(), c.about);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_names_every_command() {
        for c in COMMANDS {
            assert!(help().contains(&format!("\n  {}", c.name)), "{}", c.name);
        }
    }
}
