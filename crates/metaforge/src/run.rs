//! A run folder: `config.toml`, `metrics.jsonl`, TensorBoard's events, checkpoints, weights, samples, `summary.json` and
//! `report.html`.
//!
//! Whatever moment the process is killed at, the folder can be resumed: whole files are written beside their place and
//! renamed, and the log and the events are cut back to the step of the checkpoint.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use metaforge_autodiff::{DType, Tensor};
use metaforge_nn::{Params, file};
use serde::{Deserialize, Serialize};

use crate::chart::Plot;
use crate::error::{Error, Result};
use crate::events::Events;
use crate::experiment::Figure;
use crate::metrics::{self, Line, Window};
use crate::picture::Picture;
use crate::store::{UNFINISHED, write_whole};

/// The effective recipe.
pub const CONFIG: &str = "config.toml";
/// The log, one JSON object a line.
pub const METRICS: &str = "metrics.jsonl";
/// The log once more, for TensorBoard, which knows its files by the middle of the name.
pub const EVENTS: &str = "events.out.tfevents.metaforge";
/// The weights alone, for other programs.
pub const WEIGHTS: &str = "weights.safetensors";
/// The checkpoint: the whole state of training and where it was.
pub const STATE: &str = "state.safetensors";
/// The folder of pictures.
pub const SAMPLES: &str = "samples";
/// What the finished run gave.
pub const SUMMARY: &str = "summary.json";
/// The page to look at.
pub const REPORT: &str = "report.html";

/// Digits of the step in a picture's name, at least.
const STEP_DIGITS: usize = 6;
/// Runs that a message names at most.
const NAMED: usize = 6;

/// Where training was at a checkpoint.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Position {
    /// Steps taken.
    pub step: u64,
    /// Training time in seconds, over all sittings.
    pub seconds: f64,
    /// Figures since the last line of the log.
    pub window: Window,
}

/// What a finished run gave; the content of `summary.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Version of the program.
    pub version: String,
    /// Steps taken.
    pub steps: u64,
    /// Numbers in the weights.
    pub parameters: usize,
    /// Training time in seconds, over all sittings.
    pub train_seconds: f64,
    /// Time of the evaluation in seconds.
    pub eval_seconds: f64,
    /// How the figures were measured.
    pub protocol: String,
    /// What was measured, the headline first.
    pub figures: Vec<Figure>,
    /// Curves for the report.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub plots: Vec<Plot>,
}

/// A run folder opened for training; no other process can open it at the same time.
#[derive(Debug)]
pub struct Run {
    folder: PathBuf,
    log: File,
    events: Events,
    at_checkpoint: u64,
}

/// Where a folder stands when it is opened for training.
#[derive(Debug)]
pub enum Start {
    /// From the first step, in a new folder or in the place of the run that was there.
    Fresh(Run),
    /// From the first step, though the folder holds the beginning of this run: it ended before its first checkpoint.
    Again(Run),
    /// From a checkpoint with this state.
    Resumed(Run, Position, Params),
    /// Nothing to do: the folder holds the finished run of this very configuration.
    Finished,
}

impl Run {
    /// Opens `folder` to train by `config`, the text of a TOML file.
    ///
    /// A folder that is not there, or empty, is a new run, and so is one whose run of another configuration never came to a checkpoint; one that holds a
    /// run of the same configuration goes on where that one is, or begins again where that has no checkpoint. With `force`, whatever run is there is removed
    /// first (the files of a run, nothing else).
    ///
    /// # Errors
    /// If the folder holds a run of another configuration or something that is no run, if another process trains in it,
    /// or if it cannot be read or written.
    pub fn open(folder: &Path, config: &str, force: bool) -> Result<Start> {
        let refuse = |what: String| Error::Folder { folder: folder.into(), what };
        fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
        let config_path = folder.join(CONFIG);
        // Other programs too keep a file of that name.
        let is_run = [METRICS, STATE, WEIGHTS, SUMMARY].iter().any(|name| folder.join(name).exists());
        let held = match fs::read_to_string(&config_path) {
            _ if !is_run => None,
            Ok(text) => Some(text),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
            Err(e) if e.kind() == std::io::ErrorKind::InvalidData => Some(String::from("not text")),
            Err(e) => return Err(Error::io("read", &config_path)(e)),
        };
        if held.is_none() && !entries(folder)?.is_empty() {
            return Err(refuse("is not empty and holds no run; name another folder with --out".into()));
        }
        let differs = match &held {
            Some(held) if !force => difference(&config_path, held, config)?,
            _ => None,
        };
        // A run that ended before its first checkpoint, perhaps because of its configuration, makes room for another: nothing is lost with it.
        let makes_room = || match &differs {
            Some(difference) if !is_bare(folder)? => Err(refuse(format!(
                "holds a run of another configuration ({difference}); name another folder with --out, or replace that run with --force"
            ))),
            _ => Ok(()),
        };
        makes_room()?;

        let log_path = folder.join(METRICS);
        let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&log_path);
        let mut log = open.map_err(Error::io("write", &log_path))?;
        match locked(&log) {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(refuse("another process is training in this folder".into())),
            Err(TryLockError::Error(e)) => return Err(Error::io("lock", &log_path)(e)),
        }
        // Once more: the process that held the lock may have saved something.
        makes_room()?;
        let again = held.is_some() && !force && differs.is_none();
        if again && folder.join(SUMMARY).exists() {
            return Ok(Start::Finished);
        }
        if held.is_some() && !again {
            clear(folder, &mut log)?;
        }
        write_whole(&config_path, config.as_bytes())?;
        sweep(folder)?;
        fs::create_dir_all(folder.join(SAMPLES)).map_err(Error::io("create", &folder.join(SAMPLES)))?;

        let checkpoint = if folder.join(STATE).exists() { Some(read_checkpoint(folder)?) } else { None };
        let step = checkpoint.as_ref().map_or(0, |(position, _)| position.step);
        let kept: String = metrics::read(&log_path, step)?.iter().map(text_of).collect();
        log.set_len(0).and_then(|()| log.seek(SeekFrom::Start(0))).map_err(Error::io("write", &log_path))?;
        log.write_all(kept.as_bytes()).map_err(Error::io("write", &log_path))?;
        let events = folder.join(EVENTS);
        let events = Events::open(&events, step).map_err(Error::io("write", &events))?;
        let run = Run { folder: folder.into(), log, events, at_checkpoint: step };
        Ok(match checkpoint {
            None if again => Start::Again(run),
            None => Start::Fresh(run),
            Some((position, state)) => Start::Resumed(run, position, state),
        })
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Appends a line to the log, and the same to the events.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn log(&mut self, line: &Line) -> Result<()> {
        self.log.write_all(text_of(line).as_bytes()).map_err(Error::io("write", &self.folder.join(METRICS)))?;
        // A clock before 1970 is no reason to stop.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
        let values = line.values.iter().map(|(name, value)| (name.as_str(), *value));
        self.events.write(line.step, now, values).map_err(Error::io("write", &self.folder.join(EVENTS)))
    }

    /// Saves the state of training, and the weights for those who want nothing else.
    ///
    /// # Errors
    /// If it cannot be written; the checkpoint before then stays.
    pub fn checkpoint(&mut self, position: &Position, state: &Params, weights: &Params) -> Result<()> {
        // The weights first: a kill between the two then leaves weights that are newer than the checkpoint, and resuming
        // overtakes them; the other way round, a finished run could keep old ones.
        file::save(self.folder.join(WEIGHTS), weights)?;
        // One file holds the state and where it is of, so that no kill can part them.
        let mut all = state.prefixed(OF_EXPERIMENT);
        all.extend(position.tensors().prefixed(OF_POSITION));
        file::save(self.folder.join(STATE), &all)?;
        self.at_checkpoint = position.step;
        Ok(())
    }

    /// Where one can go back to, in words.
    pub fn last_checkpoint(&self) -> String {
        match self.at_checkpoint {
            0 => "the beginning".into(),
            step => format!("at step {step} in {}", self.folder.display()),
        }
    }

    /// Saves a picture of step `step`.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn sample(&self, name: &str, step: u64, picture: &Picture) -> Result<()> {
        picture.save(&self.folder.join(SAMPLES).join(format!("{name}-{step:0STEP_DIGITS$}.png")))
    }

    /// Marks the run as finished.
    ///
    /// # Errors
    /// If the summary cannot be written.
    pub fn finish(self, summary: &Summary) -> Result<()> {
        let text = serde_json::to_string_pretty(summary).expect("figures are finite");
        write_whole(&self.folder.join(SUMMARY), text.as_bytes())
    }
}

const OF_EXPERIMENT: &str = "experiment";
const OF_POSITION: &str = "run";
const WINDOW: &str = "window";

impl Position {
    fn tensors(&self) -> Params {
        let mut own = Params::new();
        own.push("step", Tensor::from_f64([], vec![self.step as f64]));
        own.push("seconds", Tensor::from_f64([], vec![self.seconds]));
        let sums = self.window.iter().map(|(name, sums)| (name.to_owned(), Tensor::from_f64([2], sums.to_vec())));
        own.extend(sums.collect::<Params>().prefixed(WINDOW));
        own
    }

    fn from_tensors(saved: &Params) -> Option<Position> {
        let floats = |tensor: &Tensor| (tensor.dtype() == DType::F64).then(|| tensor.f64s().to_vec());
        let one = |name: &str| floats(saved.get(name)?)?.first().copied();
        let sums = saved.split_prefix(WINDOW);
        let sums = sums.iter().map(|(name, t)| Some((name.to_owned(), floats(t)?.try_into().ok()?)));
        Some(Position { step: one("step")? as u64, seconds: one("seconds")?, window: sums.collect::<Option<_>>()? })
    }
}

/// Locks the log for this process. One that is being started by another holds what that one has just let go, for a moment: so it is tried again for a while.
fn locked(log: &File) -> std::result::Result<(), TryLockError> {
    for _ in 0..20 {
        match log.try_lock() {
            Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(10)),
            done => return done,
        }
    }
    log.try_lock()
}

fn text_of(line: &Line) -> String {
    serde_json::to_string(line).expect("a line has finite numbers and text keys") + "\n"
}

/// What is in a folder, but for what a kill in the first moments of a run leaves: that is as good as nothing.
fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(Error::io("read", folder))? {
        let path = entry.map_err(Error::io("read", folder))?.path();
        let is_begun = path.extension().is_some_and(|end| end == UNFINISHED)
            || path.file_name().is_some_and(|name| name == METRICS);
        if !is_begun {
            found.push(path);
        }
    }
    Ok(found)
}

/// Whether a folder holds a run that never came to a checkpoint, and nothing else.
fn is_bare(folder: &Path) -> Result<bool> {
    let (found, own) = (entries(folder)?, [CONFIG, EVENTS, SAMPLES].map(|name| folder.join(name)));
    Ok(found.contains(&own[1]) && found.iter().all(|path| own.contains(path)))
}

/// The name and the step of a picture that is named as [`Run::sample`] does.
pub(crate) fn picture(path: &Path) -> Option<(&str, u64)> {
    let (name, step) = path.file_name()?.to_str()?.strip_suffix(".png")?.rsplit_once('-')?;
    Some((name, step.parse().ok().filter(|_| step.len() >= STEP_DIGITS)?))
}

/// Removes the files of a run; those that the run did not make stay.
fn clear(folder: &Path, log: &mut File) -> Result<()> {
    let samples = folder.join(SAMPLES);
    if samples.is_dir() {
        for entry in fs::read_dir(&samples).map_err(Error::io("read", &samples))? {
            let path = entry.map_err(Error::io("read", &samples))?.path();
            if picture(&path).is_some() {
                fs::remove_file(&path).map_err(Error::io("remove", &path))?;
            }
        }
    }
    // The configuration goes last: as long as it is there, the folder is known for a run.
    for name in [SUMMARY, STATE, WEIGHTS, EVENTS, REPORT, CONFIG] {
        let path = folder.join(name);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(Error::io("remove", &path)(e)),
            _ => {}
        }
    }
    log.set_len(0).map_err(Error::io("write", &folder.join(METRICS)))
}

/// Removes what kills left of files that were being written.
fn sweep(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder).map_err(Error::io("read", folder))? {
        let path = entry.map_err(Error::io("read", folder))?.path();
        if path.extension().is_some_and(|end| end == UNFINISHED) {
            fs::remove_file(&path).map_err(Error::io("remove", &path))?;
        }
    }
    Ok(())
}

/// The key in which two configurations differ, in words: the recipe's name or kind if they are of two recipes, else the
/// first of the others. What the recipe says of itself comes last.
fn difference(path: &Path, held: &str, wanted: &str) -> Result<Option<String>> {
    let parse = |text: &str| text.parse::<toml::Table>();
    let held = parse(held).map_err(|e| Error::Damaged {
        path: path.into(),
        what: format!(
            "{}; replace the run with --force or name another folder with --out",
            crate::recipe::one_line(e.message())
        ),
    })?;
    let wanted = parse(wanted).expect("an effective configuration is TOML");
    let only = |keep: &dyn Fn(&str) -> bool| {
        let part = |table: &toml::Table| table.clone().into_iter().filter(|(key, _)| keep(key)).collect();
        differing(&part(&held), &part(&wanted), "")
    };
    Ok(only(&|key| key == "name")
        .or_else(|| only(&|key| key == "kind"))
        .or_else(|| only(&|key| key != "about"))
        .or_else(|| only(&|_| true)))
}

fn differing(held: &toml::Table, wanted: &toml::Table, above: &str) -> Option<String> {
    let missing = held.keys().filter(|key| !wanted.contains_key(*key));
    wanted.keys().chain(missing).find_map(|key| match (held.get(key), wanted.get(key)) {
        (Some(toml::Value::Table(held)), Some(toml::Value::Table(wanted))) => {
            differing(held, wanted, &format!("{above}{key}."))
        }
        (held, wanted) if held == wanted => None,
        (held, wanted) => {
            let shown = |value: Option<&toml::Value>| value.map_or("not set".into(), toml::Value::to_string);
            Some(format!("{above}{key} is {} there and {} here", shown(held), shown(wanted)))
        }
    })
}

/// The last checkpoint of a run.
///
/// # Errors
/// If there is none yet or it is damaged.
pub fn read_checkpoint(folder: &Path) -> Result<(Position, Params)> {
    let path = folder.join(STATE);
    if !path.exists() {
        let what = "has no checkpoint yet; train it up to its first one".into();
        return Err(Error::Folder { folder: folder.into(), what });
    }
    let unusable = |what: String| Error::Damaged {
        path: path.clone(),
        what: format!("{what}; put a whole copy there, or train the run anew with --force"),
    };
    let all = file::read(&path).map_err(|e| match e {
        metaforge_nn::Error::Corrupt { what, .. } => unusable(what),
        other => other.into(),
    })?;
    let position = Position::from_tensors(&all.split_prefix(OF_POSITION));
    Ok((
        position.ok_or_else(|| unusable("it does not say where training was".into()))?,
        all.split_prefix(OF_EXPERIMENT),
    ))
}

/// The weights of a run, without the state of its training.
///
/// # Errors
/// If there are none yet or the file is damaged.
pub fn read_weights(folder: &Path) -> Result<Params> {
    let path = folder.join(WEIGHTS);
    file::read(&path).map_err(|e| match e {
        metaforge_nn::Error::Corrupt { what, .. } => {
            Error::Damaged { path, what: format!("{what}; put a whole copy there, or train the run anew with --force") }
        }
        other => other.into(),
    })
}

/// The text of a run's configuration.
///
/// # Errors
/// If `folder` is not there or holds no run.
pub fn read_config(folder: &Path) -> Result<String> {
    let refuse = |what: String| Err(Error::Folder { folder: folder.into(), what });
    if folder.is_file() {
        let above = folder.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
        return refuse(match above.join(CONFIG).exists() {
            true => format!("is a file; name the folder of its run, {}", above.display()),
            false => format!("is a file; name the folder of a run, which holds a {CONFIG}"),
        });
    }
    if !folder.is_dir() {
        return refuse("there is no such run folder".into());
    }
    let path = folder.join(CONFIG);
    if !path.exists() {
        return refuse(match &runs_in(folder)[..] {
            [] => format!("is not a run folder (it holds no {CONFIG})"),
            [run] => format!("holds a run and is none itself; name that: {}", run.display()),
            runs => {
                let shown: Vec<_> = runs.iter().take(NAMED).map(|run| run.display().to_string()).collect();
                let more = if runs.len() > NAMED { ", .." } else { "" };
                format!("holds {} runs and is none itself; name one of them: {}{more}", runs.len(), shown.join(", "))
            }
        });
    }
    fs::read_to_string(&path).map_err(|e| match e.kind() {
        std::io::ErrorKind::InvalidData => Error::Damaged { path: path.clone(), what: "it is not text".into() },
        _ => Error::io("read", &path)(e),
    })
}

/// The run folders in a folder, by name; none if it cannot be read.
fn runs_in(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut runs: Vec<_> = entries.map(|entry| entry.path()).filter(|path| path.join(CONFIG).is_file()).collect();
    runs.sort();
    runs
}

/// The summary of a finished run; `None` while it is not finished.
///
/// # Errors
/// If it cannot be read or is damaged.
pub fn read_summary(folder: &Path) -> Result<Option<Summary>> {
    let path = folder.join(SUMMARY);
    if !path.exists() {
        return Ok(None);
    }
    let text = fs::read_to_string(&path).map_err(Error::io("read", &path))?;
    serde_json::from_str(&text).map(Some).map_err(|e| Error::Damaged { path, what: e.to_string() })
}
