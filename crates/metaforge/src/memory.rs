//! Whether the machine has the memory that a recipe asks for; told before training instead of ending in the middle of it.

use crate::error::{Error, Result};

/// Refuses what needs more `bytes` than the machine has free, with advice. Where the system does not say how much that is, everything fits.
///
/// # Errors
/// If it does not fit.
pub fn fits(bytes: usize, advice: &str) -> Result<()> {
    match available() {
        Some(free) if bytes > free => {
            let gigabytes = |bytes: usize| bytes as f64 / 1e9;
            Err(Error::Refused(format!(
                "this recipe takes about {:.1} GB of memory, and the machine has {:.1} GB free; {advice}",
                gigabytes(bytes),
                gigabytes(free)
            )))
        }
        _ => Ok(()),
    }
}

/// Bytes that a new program can have without swapping.
fn available() -> Option<usize> {
    of_meminfo(&std::fs::read_to_string("/proc/meminfo").ok()?)
}

fn of_meminfo(text: &str) -> Option<usize> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<usize>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_large_is_refused_with_both_numbers() {
        assert_eq!(of_meminfo("MemTotal: 9 kB\nMemAvailable:    2000 kB\n"), Some(2_048_000));
        assert_eq!(of_meminfo("MemTotal: 9 kB\n"), None);
        fits(1 << 20, "").unwrap();
        if available().is_some() {
            let e = fits(usize::MAX, "do less").unwrap_err().to_string();
            assert!(e.contains("GB of memory") && e.ends_with("do less"), "{e}");
        }
    }
}
