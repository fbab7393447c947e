//! The training loop and the run folder, held to their promise on a small experiment that really learns: whatever the
//! moment of a stop, a failure or a kill, the resumed run ends in the same bits.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use metaforge::autodiff::Tensor;
use metaforge::error::{Error, Result};
use metaforge::experiment::{Evaluation, Experiment, Figure, Unit, Watch};
use metaforge::metrics::Metrics;
use metaforge::nn::Params;
use metaforge::picture::{Layout, Picture};
use metaforge::run;
use metaforge::train::{Job, Outcome, Schedule, train};

const STEPS: u64 = 60;
const SIZE: usize = 8;

/// Gradient descent with momentum on a quadratic whose target is seen through noise.
struct Quadratic {
    x: Vec<f32>,
    velocity: Vec<f32>,
    rate: f32,
    fail_at: Option<u64>,
    stop_at: Option<(u64, &'static AtomicBool)>,
    pause: Duration,
}

impl Quadratic {
    fn new() -> Quadratic {
        Quadratic {
            x: vec![0.0; SIZE],
            velocity: vec![0.0; SIZE],
            rate: 0.05,
            fail_at: None,
            stop_at: None,
            pause: Duration::ZERO,
        }
    }
}

/// Noise that depends on the step and the place alone.
fn noise(step: u64, place: usize) -> f32 {
    let mut z = (step << 8 | place as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (z >> 40) as f32 / (1u64 << 24) as f32 - 0.5
}

impl Experiment for Quadratic {
    fn step(&mut self, n: u64) -> Result<Metrics> {
        std::thread::sleep(self.pause);
        if self.fail_at == Some(n) {
            return Err(Error::Refused("the disk caught fire".into()));
        }
        if let Some((at, stop)) = self.stop_at {
            stop.store(at == n, Ordering::Relaxed);
        }
        let mut loss = 0.0;
        for (i, (x, v)) in self.x.iter_mut().zip(&mut self.velocity).enumerate() {
            let gap = *x - i as f32 - noise(n, i);
            loss += f64::from(gap * gap);
            *v = 0.9 * *v - self.rate * gap;
            *x += *v;
        }
        Ok(Metrics::new()
            .with("loss", loss)
            .with("size/first", self.x[0].into())
            .with("size/last", self.x[SIZE - 1].into()))
    }

    fn samples(&self) -> Result<Vec<(String, Picture)>> {
        let image = Tensor::new([1, 1, SIZE, 1], self.x.iter().map(|x| x / SIZE as f32).collect());
        Ok(vec![("x".into(), Picture::grid(&image, Layout::columns(1)))])
    }

    fn state(&self) -> Params {
        let pair = [("x", &self.x), ("velocity", &self.velocity)];
        pair.map(|(name, v)| (name.to_owned(), Tensor::new([SIZE], v.clone()))).into_iter().collect()
    }

    fn restore(&mut self, state: &Params) -> Result<()> {
        let get = |name: &str| state.get(name).map(|t| t.f32s().to_vec());
        let gone = || Error::Refused("x or velocity is missing".into());
        (self.x, self.velocity) = (get("x").ok_or_else(gone)?, get("velocity").ok_or_else(gone)?);
        Ok(())
    }

    fn weights(&self) -> Params {
        [("x".to_owned(), Tensor::new([SIZE], self.x.clone()))].into_iter().collect()
    }

    fn restore_weights(&mut self, weights: &Params) -> Result<()> {
        self.x = weights.get("x").ok_or_else(|| Error::Refused("x is missing".into()))?.f32s().to_vec();
        Ok(())
    }

    fn evaluate(&self, _: Watch<'_>) -> Result<Evaluation> {
        let error = self.x.iter().enumerate().map(|(i, x)| f64::from((x - i as f32).abs())).fold(0.0, f64::max);
        Ok(Evaluation {
            protocol: "The largest error.".into(),
            figures: vec![Figure::new("error", "error", error, Unit::Number)],
            ..Default::default()
        })
    }
}

const CONFIG: &str = "name = \"quadratic\"\nabout = \"a test\"\n\n[optimizer]\nlr = 0.05\n";
static NEVER: AtomicBool = AtomicBool::new(false);

fn job(folder: &Path) -> Job<'_> {
    let schedule = Schedule { steps: STEPS, log_every: 7, sample_every: 20, checkpoint_every: 10 };
    Job { label: "test", folder, config: CONFIG, schedule, force: false, quiet: true, stop: &NEVER }
}

fn run_with(job: &Job<'_>, change: impl FnOnce(&mut Quadratic)) -> Result<Outcome> {
    train(job, || {
        let mut experiment = Quadratic::new();
        change(&mut experiment);
        Ok(Box::new(experiment))
    })
}

/// Lines of the log, events, weights, samples by name, figures.
type Trace = (Vec<(u64, String)>, Vec<Vec<u8>>, Vec<u8>, Vec<(PathBuf, Vec<u8>)>, String);

/// The events for TensorBoard without their times, which are the first nine bytes of each: a length, its check, the event, its check.
fn events(folder: &Path) -> Vec<Vec<u8>> {
    let file = fs::read(folder.join(run::EVENTS)).unwrap();
    let (mut rest, mut events) = (&file[..], Vec::new());
    while !rest.is_empty() {
        let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
        events.push(rest[12 + 9..12 + length].to_vec());
        rest = &rest[12 + length + 4..];
    }
    events
}

/// All that must be the same between two runs: everything but the clock.
fn result(folder: &Path) -> Trace {
    let lines = metaforge::metrics::read(&folder.join(run::METRICS), u64::MAX).unwrap();
    let lines = lines.into_iter().map(|line| (line.step, format!("{:?}", line.values))).collect();
    let mut samples: Vec<_> = fs::read_dir(folder.join(run::SAMPLES)).unwrap().map(|e| e.unwrap().path()).collect();
    samples.sort();
    let samples = samples.into_iter().map(|p| (p.file_name().unwrap().into(), fs::read(&p).unwrap())).collect();
    let summary = run::read_summary(folder).unwrap().unwrap();
    (lines, events(folder), fs::read(folder.join(run::WEIGHTS)).unwrap(), samples, format!("{:?}", summary.figures))
}

fn uninterrupted() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("whole");
    assert!(matches!(run_with(&job(&folder), |_| {}).unwrap(), Outcome::Finished(_)));
    (dir, folder)
}

#[test]
fn a_run_learns_and_leaves_what_it_promises() {
    let (_dir, folder) = uninterrupted();
    for name in [run::CONFIG, run::METRICS, run::EVENTS, run::WEIGHTS, run::STATE, run::SUMMARY] {
        assert!(folder.join(name).is_file(), "{name}");
    }
    let (lines, events, _, samples, _) = result(&folder);
    assert_eq!(lines.iter().map(|(step, _)| *step).collect::<Vec<_>>(), [7, 14, 21, 28, 35, 42, 49, 56, 60]);
    assert_eq!(events.len(), 1 + lines.len(), "the events begin with the version of their format");
    assert_eq!(
        samples.iter().map(|(p, _)| p.to_str().unwrap()).collect::<Vec<_>>(),
        ["x-000020.png", "x-000040.png", "x-000060.png"]
    );
    let summary = run::read_summary(&folder).unwrap().unwrap();
    assert_eq!((summary.steps, summary.parameters), (STEPS, SIZE));
    assert!(
        summary.figures[0].value < 1.5,
        "the noise is at most a half and the target up to 7: {:?}",
        summary.figures
    );
}

#[test]
fn a_stop_at_any_step_resumes_to_the_same_bits() {
    static STOP: AtomicBool = AtomicBool::new(false);
    let (dir, whole) = uninterrupted();
    for at in [1, 9, 10, 33, STEPS - 1] {
        let folder = dir.path().join(format!("stopped-{at}"));
        let stopped = run_with(&Job { stop: &STOP, ..job(&folder) }, |q| q.stop_at = Some((at, &STOP))).unwrap();
        assert_eq!(stopped, Outcome::Stopped(at));
        assert!(matches!(run_with(&job(&folder), |_| {}).unwrap(), Outcome::Finished(_)));
        assert_eq!(result(&folder), result(&whole), "stopped at {at}");
    }
}

#[test]
fn a_failure_between_checkpoints_resumes_from_the_last_one() {
    let (dir, whole) = uninterrupted();
    for at in [1, 5, 25, 58] {
        let folder = dir.path().join(format!("failed-{at}"));
        assert!(run_with(&job(&folder), |q| q.fail_at = Some(at)).is_err());
        // What a kill in the middle of a line leaves.
        let log = folder.join(run::METRICS);
        fs::write(&log, fs::read_to_string(&log).unwrap() + "{\"step\":99,\"sec").unwrap();
        run_with(&job(&folder), |_| {}).unwrap();
        assert_eq!(result(&folder), result(&whole), "failed at {at}");
    }
}

/// Not a test of its own: the process that the next test kills.
#[test]
fn victim() {
    if let Ok(folder) = std::env::var("METAFORGE_TEST_VICTIM") {
        let _ = run_with(&job(Path::new(&folder)), |q| q.pause = Duration::from_millis(4));
    }
}

#[test]
fn a_killed_process_leaves_a_folder_that_resumes_to_the_same_bits() {
    let (dir, whole) = uninterrupted();
    let folder = dir.path().join("killed");
    for round in 0..4 {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["victim", "--exact"])
            .env("METAFORGE_TEST_VICTIM", &folder)
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let before = fs::read(folder.join(run::STATE)).unwrap_or_default();
        let began = Instant::now();
        // The first time before, the other times somewhere after a checkpoint.
        while (round > 0 || !folder.join(run::CONFIG).exists())
            && fs::read(folder.join(run::STATE)).unwrap_or_default() == before
            && began.elapsed() < Duration::from_secs(20)
        {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_millis(5 * round));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert!(!folder.join(run::SUMMARY).exists(), "it was killed before its end");
    assert!(folder.join(run::STATE).exists());
    run_with(&job(&folder), |_| {}).unwrap();
    assert_eq!(result(&folder), result(&whole));
}

#[test]
fn a_finished_run_is_left_alone_and_another_configuration_is_refused() {
    let (_dir, folder) = uninterrupted();
    let before = result(&folder);
    assert_eq!(run_with(&job(&folder), |q| q.fail_at = Some(1)).unwrap(), Outcome::WasFinished);
    let other = CONFIG.replace("0.05", "0.5");
    let e = run_with(&Job { config: &other, ..job(&folder) }, |_| {}).unwrap_err().to_string();
    assert!(
        e.contains("optimizer.lr is 0.05 there and 0.5 here") && e.contains("--out") && e.contains("--force"),
        "{e}"
    );
    let renamed = other.replace("quadratic", "cubic").replace("a test", "another");
    let e = run_with(&Job { config: &renamed, ..job(&folder) }, |_| {}).unwrap_err().to_string();
    assert!(e.contains("name is \"quadratic\" there and \"cubic\" here"), "{e}");
    let told = CONFIG.replace("a test", "another");
    let e = run_with(&Job { config: &told, ..job(&folder) }, |_| {}).unwrap_err().to_string();
    assert!(e.contains("about is"), "{e}");
    assert_eq!(result(&folder), before);
    assert!(matches!(
        run_with(&Job { config: &other, force: true, ..job(&folder) }, |_| {}).unwrap(),
        Outcome::Finished(_)
    ));
}

#[test]
fn replacing_a_run_spares_what_is_not_of_it() {
    let (_dir, folder) = uninterrupted();
    fs::write(folder.join("notes.txt"), "mine").unwrap();
    fs::write(folder.join(run::SAMPLES).join("mine.png"), "mine too").unwrap();
    run_with(&Job { force: true, ..job(&folder) }, |q| q.fail_at = Some(3)).unwrap_err();
    assert_eq!(fs::read_to_string(folder.join("notes.txt")).unwrap(), "mine");
    assert_eq!(fs::read_to_string(folder.join(run::SAMPLES).join("mine.png")).unwrap(), "mine too");
    assert!(!folder.join(run::SUMMARY).exists() && !folder.join(run::STATE).exists());
}

#[test]
fn a_figure_that_is_no_number_stops_training_by_name_and_keeps_the_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("diverging");
    let diverging = |q: &mut Quadratic| q.rate = 1e6;
    let e = run_with(
        &Job { schedule: Schedule { checkpoint_every: 1, ..job(&folder).schedule }, ..job(&folder) },
        diverging,
    )
    .unwrap_err();
    let Error::Diverged { step, ref name, value, .. } = e else { panic!("{e}") };
    assert!(step > 1 && !value.is_finite() && (name == "loss" || name.contains('x')), "{e}");
    assert!(e.to_string().contains(&format!("at step {}", step - 1)), "{e}");
    let weights = metaforge::nn::file::read(folder.join(run::WEIGHTS)).unwrap();
    assert!(weights.get("x").unwrap().is_finite());
}

#[test]
fn folders_that_cannot_serve_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |folder: &Path| run_with(&job(folder), |_| {}).unwrap_err().to_string();
    let file = dir.path().join("file");
    fs::write(&file, "text").unwrap();
    assert!(refused(&file).contains("file"));
    let e = refused(dir.path());
    assert!(e.contains("holds no run") && e.contains("--out"), "{e}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is added to it");
}

#[test]
fn damaged_files_of_a_run_are_named() {
    let damaged = |name: &str, bytes: &[u8]| {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("run");
        run_with(&job(&folder), |q| q.fail_at = Some(25)).unwrap_err();
        fs::write(folder.join(name), bytes).unwrap();
        run_with(&job(&folder), |_| {}).unwrap_err().to_string()
    };
    for (name, bytes) in [
        (run::STATE, &b"\x20\0\0\0\0\0\0\0{\"x\":"[..]),
        (run::STATE, &b"\x02\0\0\0\0\0\0\0{}"[..]),
        (run::CONFIG, b"name = "),
        (run::CONFIG, b"\xff\xfe\x00"),
        (run::METRICS, b"{}\n"),
    ] {
        let e = damaged(name, bytes);
        assert!(e.contains(name) && e.contains("damaged") && !e.contains('\n'), "{name}: {e}");
    }
}

#[test]
fn two_runs_cannot_train_in_one_folder() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("run");
    let _held = run::Run::open(&folder, CONFIG, false).unwrap();
    let e = run_with(&job(&folder), |_| {}).unwrap_err().to_string();
    assert!(e.contains("another process"), "{e}");
}

#[test]
fn the_report_is_one_file_that_shows_figures_curves_and_pictures() {
    let (_dir, folder) = uninterrupted();
    let page = fs::read_to_string(metaforge::report::of_run(&folder).unwrap()).unwrap();
    for wanted in [
        "<h1>quadratic</h1>",
        "a test",
        "The largest error.",
        "<polyline",
        "data:image/png;base64,",
        "lr = 0.05",
        "after step 60",
        "step 20",
    ] {
        assert!(page.contains(wanted), "{wanted}");
    }
    let outside = page.replace("http://www.w3.org", "");
    assert!(!outside.contains("http") && !page.contains("<script"), "it needs no other file and no script");
}
