//! Ctrl-C: the first asks training to stop after its step, the second ends the process where it is.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Error, Result};

static STOP: AtomicBool = AtomicBool::new(false);

/// Watches for Ctrl-C (and for a polite request to terminate) and returns the flag that it sets.
///
/// # Errors
/// If the system gives no way to watch.
pub fn watch() -> Result<&'static AtomicBool> {
    let heard = || {
        if STOP.swap(true, Ordering::Relaxed) {
            // The run folder can be resumed whatever the moment.
            std::process::exit(130);
        }
        let _ = writeln!(std::io::stderr(), "\nmetaforge: finishing this step and saving; Ctrl-C again ends at once");
    };
    match ctrlc::set_handler(heard) {
        Ok(()) | Err(ctrlc::Error::MultipleHandlers) => Ok(&STOP),
        Err(e) => Err(Error::Refused(format!("cannot watch for Ctrl-C: {e}"))),
    }
}
