//! Ctrl-C: in training the first asks for a stop after the present step, one that comes later ends the process where it is. Outside of training, when all
//! that there is to save is saved, the first ends it.

use std::io::Write;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};

static STOP: AtomicBool = AtomicBool::new(false);
static IS_TRAINING: AtomicBool = AtomicBool::new(false);
static FIRST: OnceLock<Instant> = OnceLock::new();

/// Signals so close to each other are one wish: `timeout` and others send theirs to the process and to its group.
const ONE_WISH: Duration = Duration::from_millis(500);

/// Watches for Ctrl-C (and for a polite request to terminate) and returns the flag that it sets.
///
/// # Errors
/// If the system gives no way to watch.
pub fn watch() -> Result<&'static AtomicBool> {
    let heard = || {
        let say = |text: &str| {
            let _ = writeln!(std::io::stderr(), "\nmetaforge: {text}");
        };
        let first = *FIRST.get_or_init(Instant::now);
        if STOP.swap(true, Ordering::Relaxed) {
            if first.elapsed() < ONE_WISH {
                return;
            }
            // The run folder can be resumed whatever the moment.
            std::process::exit(130);
        }
        if !IS_TRAINING.load(Ordering::Relaxed) {
            say("stopped; what was trained is saved, and the same command goes on from there");
            std::process::exit(130);
        }
        say("finishing this step and saving; Ctrl-C again ends at once");
    };
    match ctrlc::set_handler(heard) {
        Ok(()) | Err(ctrlc::Error::MultipleHandlers) => Ok(&STOP),
        Err(e) => Err(Error::Refused(format!("cannot watch for Ctrl-C: {e}"))),
    }
}

/// Says whether steps are being taken that a stop would lose.
pub fn training(yes: bool) {
    IS_TRAINING.store(yes, Ordering::Relaxed);
}
