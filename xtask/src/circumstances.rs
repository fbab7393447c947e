//! When and where figures were measured, in one line.

use crate::run;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// Date, commit, machine, threads (where one number holds for all figures) and compiler: a figure says where it comes from.
pub(crate) fn circumstances(threads: Option<usize>) -> Result<String, String> {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|e| e.to_string())?.as_secs();
    let commit = run::read(&mut run::command("git", &["describe", "--always", "--dirty"]))?;
    let rustc = run::read(&mut run::command("rustc", &["--version"]))?;
    let cpu = std::fs::read_to_string(Path::new("/proc/cpuinfo")).unwrap_or_default();
    let cpu = cpu
        .lines()
        .find_map(|l| l.strip_prefix("model name"))
        .map_or("unknown processor", |l| l.trim_start_matches([' ', '\t', ':']));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = threads.map_or(String::new(), |n| format!(", {n} threads"));
    Ok(format!("{}, commit {}, {cpu}, {cores} cores{threads}, {}.", date(seconds), commit.trim(), rustc.trim()))
}

/// Year-month-day of a Unix time, after Howard Hinnant's `civil_from_days`.
fn date(seconds: u64) -> String {
    let z = (seconds / 86_400) as i64 + 719_468;
    let era = z / 146_097;
    let doe = z % 146_097;
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let (day, month) = (doy - (153 * mp + 2) / 5 + 1, if mp < 10 { mp + 3 } else { mp - 9 });
    format!("{}-{month:02}-{day:02}", yoe + era * 400 + i64::from(month <= 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        for (seconds, text) in [(0, "1970-01-01"), (951_782_400, "2000-02-29"), (1_735_689_599, "2024-12-31")] {
            assert_eq!(date(seconds), text);
        }
    }
}
