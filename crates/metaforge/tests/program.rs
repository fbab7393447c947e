//! The program as a user meets it: a small run from end to end, and clear errors for everything that comes from outside.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

fn metaforge(args: &[&str]) -> Output {
    let program = env!("CARGO_BIN_EXE_metaforge");
    Command::new(program).args(args).env_remove("METAFORGE_DATA").output().expect("the program starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// It fails, without a panic, and says all of `words` in one message.
fn fails(args: &[&str], words: &[&str]) {
    let out = metaforge(args);
    let err = text(&out.stderr);
    assert!(!out.status.success(), "{args:?} succeeded");
    assert!(!err.contains("panicked"), "{args:?}: {err}");
    for word in words {
        assert!(err.contains(word), "{args:?} does not say `{word}`: {err}");
    }
}

fn succeeds(args: &[&str]) -> String {
    let out = metaforge(args);
    assert!(out.status.success(), "{args:?}: {}", text(&out.stderr));
    text(&out.stdout)
}

/// A few steps of a recipe with a small network.
fn train(recipe: &str, folder: &Path, more: &[&str]) {
    let out = folder.to_str().unwrap();
    let small = ["train", recipe, "--out", out, "--set", "steps=3", "--set", "log_every=1"];
    succeeds(&[&small, more].concat());
}

const SMALL: [&str; 6] = ["--set", "model.channels=8", "--set", "eval.tasks=5", "--set", "task.train_queries=2"];

#[test]
fn a_learner_is_trained_and_measured() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    train("glyphs-maml-5w1s", &run, &[&SMALL[..], &["--set", "task.meta_batch=2"]].concat());
    for file in ["config.toml", "metrics.jsonl", "weights.safetensors", "summary.json", "report.html"] {
        assert!(run.join(file).is_file(), "{file}");
    }
    let json = succeeds(&["eval", run.to_str().unwrap(), "--json", "--tasks", "7"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let accuracy = json["accuracy"].as_f64().unwrap();
    assert!((0.0..=1.0).contains(&accuracy) && json["ci95"].as_f64().unwrap() >= 0.0 && json["tasks"] == 7, "{json}");
    fails(&["generate", run.to_str().unwrap()], &["nothing to generate"]);
}

#[test]
fn a_generator_is_trained_and_draws() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let small = ["model.channels=4", "model.latent=8", "eval.tasks=2", "eval.images=2", "eval.embedding_steps=1"];
    let set: Vec<&str> = small.iter().flat_map(|s| ["--set", s]).collect();
    train("glyphs-fewshot-gan", &run, &[&set[..], &["--set", "inner.steps=1", "--set", "inner.eval_steps=1"]].concat());
    let picture = dir.path().join("new.png");
    succeeds(&["generate", run.to_str().unwrap(), "--n", "2", "--out", picture.to_str().unwrap()]);
    assert!(fs::read(&picture).unwrap().starts_with(b"\x89PNG"));
    let json: serde_json::Value = serde_json::from_str(&succeeds(&["eval", run.to_str().unwrap(), "--json"])).unwrap();
    assert!(json["top1"].is_number() && json["top1_control"].is_number(), "{json}");
}

#[test]
fn one_and_two_threads_give_the_same_weights() {
    let dir = tempfile::tempdir().unwrap();
    for recipe in ["glyphs-proto-5w1s", "glyphs-maml-5w1s"] {
        let weights = |threads: &str| {
            let run = dir.path().join(format!("{recipe}-{threads}"));
            train(recipe, &run, &[&SMALL[..], &["--threads", threads, "--set", "task.train_ways=5"]].concat());
            fs::read(run.join("weights.safetensors")).unwrap()
        };
        assert!(weights("1") == weights("2"), "{recipe}");
    }
}

/// Starts a long run, waits until its log has a line, and ends it by a signal; gives its exit code and what it said.
#[cfg(unix)]
fn ended_by(signal: &str, folder: &Path) -> (Option<i32>, String) {
    let log = folder.join("metrics.jsonl");
    let lines = || fs::read_to_string(&log).unwrap_or_default().lines().count();
    let before = lines();
    let child = Command::new(env!("CARGO_BIN_EXE_metaforge"))
        .args(["train", "sinusoid-maml", "--set", "log_every=10", "--set", "checkpoint_every=10", "--out"])
        .arg(folder)
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("the program starts");
    let began = std::time::Instant::now();
    while lines() <= before && began.elapsed().as_secs() < 60 {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let sent = Command::new("kill").args([signal, &child.id().to_string()]).status().expect("there is a `kill`");
    assert!(sent.success());
    let out = child.wait_with_output().unwrap();
    (out.status.code(), text(&out.stderr))
}

#[test]
#[cfg(unix)]
fn a_run_that_is_stopped_or_killed_goes_on_from_its_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let (code, said) = ended_by("-INT", &run);
    assert_eq!(code, Some(130), "{said}");
    assert!(said.contains("resume with: metaforge train") && said.contains("config.toml"), "{said}");
    let (code, said) = ended_by("-KILL", &run);
    assert!(code.is_none() && said.contains("resuming at step"), "{said}");
    let (code, said) = ended_by("-INT", &run);
    assert!(code == Some(130) && said.contains("resuming at step"), "{said}");
    let leftovers =
        fs::read_dir(&run).unwrap().filter(|e| e.as_ref().unwrap().path().extension().is_some_and(|x| x == "part"));
    assert_eq!(leftovers.count(), 0);
    succeeds(&["eval", run.to_str().unwrap(), "--tasks", "5"]);
}

#[test]
fn what_is_not_a_recipe_or_a_key_is_named() {
    fails(&["train", "glyphs-proto-5w1"], &["glyphs-proto-5w1", "did you mean `glyphs-proto-5w1s`"]);
    fails(&["train", "sinusoid-maml", "--set", "inner.ratte=1"], &["inner.ratte"]);
    fails(&["train", "sinusoid-maml", "--set", "steps=many"], &["steps"]);
    fails(&["train", "sinusoid-maml", "--set", "inner.lr=nan"], &["inner.lr"]);
    let dir = tempfile::tempdir().unwrap();
    let recipe = dir.path().join("own.toml");
    fs::write(&recipe, succeeds(&["recipes", "sinusoid-maml"]) + "\n[extra]\nkey = 1\n").unwrap();
    fails(&["train", recipe.to_str().unwrap()], &["own.toml", "extra"]);
}

#[test]
fn missing_and_damaged_files_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let path = |name: &str| root.join(name).to_str().unwrap().to_owned();
    let out = path("run");
    fails(&["eval", &path("nowhere")], &["nowhere"]);
    fails(&["train", "mnist-seed-gan", "--out", &out], &["--data", "METAFORGE_DATA"]);
    fails(&["train", "mnist-seed-gan", "--out", &out, "--data", &path("nowhere")], &["nowhere"]);

    // A truncated idx file.
    fs::create_dir(root.join("mnist")).unwrap();
    let mut idx = vec![0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 28, 0, 0, 0, 28];
    idx.extend([0; 100]);
    fs::write(root.join("mnist/train-images-idx3-ubyte"), &idx).unwrap();
    fails(&["train", "mnist-seed-gan", "--out", &out, "--data", &path("")], &["train-images-idx3-ubyte"]);

    // A PNG that is text.
    for class in ["a", "b"] {
        fs::create_dir_all(root.join("classes").join(class)).unwrap();
        fs::write(root.join("classes").join(class).join("1.png"), "not a picture").unwrap();
    }
    let set = ["--set", "data.source=folder", "--data"];
    fails(&[&["train", "glyphs-proto-5w1s", "--out", &out][..], &set, &[&path("classes")]].concat(), &["1.png"]);
    assert!(!root.join("run").exists(), "a failed start leaves nothing behind");

    // A truncated checkpoint, and a configuration that is none.
    let run = root.join("small");
    train("sinusoid-maml", &run, &["--set", "eval.tasks=5"]);
    let state = run.join("state.safetensors");
    let whole = fs::read(&state).unwrap();
    fs::write(&state, &whole[..whole.len() / 2]).unwrap();
    fails(&["eval", run.to_str().unwrap()], &["state.safetensors"]);
    fs::write(&state, &whole).unwrap();
    succeeds(&["eval", run.to_str().unwrap()]);
    fs::write(run.join("config.toml"), "steps = = 3").unwrap();
    fails(&["eval", run.to_str().unwrap()], &["config.toml"]);
}
