//! The program as a user meets it: a small run from end to end, and clear errors for everything that comes from outside.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use metaforge::autodiff::Tensor;
use metaforge::picture::{Layout, Picture};

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

fn json(args: &[&str]) -> serde_json::Value {
    serde_json::from_str(&succeeds(args)).unwrap()
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
    let json = json(&["eval", run.to_str().unwrap(), "--json", "--tasks", "7"]);
    let accuracy = json["accuracy"].as_f64().unwrap();
    assert!((0.0..=1.0).contains(&accuracy) && json["ci95"].as_f64().unwrap() >= 0.0 && json["tasks"] == 7, "{json}");
    assert!(json["accuracy"].to_string().len() <= "0.123456".len(), "the noise of f32 is not a figure: {json}");
    fails(&["eval", run.to_str().unwrap(), "--tasks", "1"], &["--tasks is 1; it is at least 2"]);
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
    let first = fs::read(&picture).unwrap();
    assert!(first.starts_with(b"\x89PNG"));
    for (seed, same) in [("0", true), ("1", false)] {
        succeeds(&["generate", run.to_str().unwrap(), "--n", "2", "--seed", seed, "--out", picture.to_str().unwrap()]);
        assert_eq!(fs::read(&picture).unwrap() == first, same, "seed {seed}");
    }
    let json = json(&["eval", run.to_str().unwrap(), "--json"]);
    assert!(json["top1"].is_number() && json["top1_control"].is_number() && json["tasks"] == 2, "{json}");
    fails(&["eval", run.to_str().unwrap(), "--tasks", "100000000"], &["--tasks is 100000000; it is at most 1000000"]);
    fails(&["eval", run.to_str().unwrap(), "--tasks", "1000000"], &["--tasks is 1000000; it is at most 2000"]);

    let jpeg = dir.path().join("new.jpg");
    fails(&["generate", run.to_str().unwrap(), "--out", jpeg.to_str().unwrap()], &["new.jpg", "PNG", "ends in .png"]);
    assert!(!jpeg.exists());
}

/// A data folder of two classes with a few images each.
fn two_classes(root: &Path) {
    for (class, name) in ["bars", "dots"].into_iter().enumerate() {
        fs::create_dir_all(root.join(name)).unwrap();
        for i in 0..70 {
            let pixels: Vec<f32> =
                (0..28 * 28).map(|p| f32::from((p / 28 + i) % 4 == 0 && (class == 0 || p % 4 == 0))).collect();
            let image = Tensor::new([1, 28, 28, 1], pixels);
            let layout = Layout { columns: 1, scale: 1, gap: 0 };
            Picture::grid(&image, layout).save(&root.join(name).join(format!("{i}.png"))).unwrap();
        }
    }
}

#[test]
fn a_gan_is_measured_by_its_distance_first_and_counts_images() {
    let dir = tempfile::tempdir().unwrap();
    let (run, data) = (dir.path().join("run"), dir.path().join("data"));
    two_classes(&data);
    let [run_name, data] = [run.to_str().unwrap(), data.to_str().unwrap()];
    let small = ["data.source=folder", "game.batch=4", "eval.images=200", "eval.classifier_epochs=1", "steps=1"];
    let set: Vec<&str> = small.iter().flat_map(|s| ["--set", s]).collect();
    succeeds(&[&["train", "digits-seed-gan", "--out", run_name, "--data", data][..], &set].concat());
    let summary: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(run.join("summary.json")).unwrap()).unwrap();
    let figures = summary["figures"].as_array().unwrap();
    let names: Vec<_> = figures.iter().map(|f| f["name"].as_str().unwrap()).collect();
    assert_eq!(names[..2], ["fcd", "read_rate"]);
    assert!(figures[1]["note"].as_str().unwrap().contains("noise"), "{figures:?}");
    let kernel = figures.iter().find(|f| f["name"] == "kcd").unwrap();
    assert_eq!(kernel["note"], "of all 140 images at once");

    let json = json(&["eval", run_name, "--data", data, "--json"]);
    assert!(json["images"] == 140 && json.get("tasks").is_none() && json["fcd"].is_number(), "{json}");
    let shares = json["share_bars"].as_f64().unwrap() + json["share_dots"].as_f64().unwrap();
    assert!((shares - 1.0).abs() < 1e-5, "{json}");
    fails(
        &["eval", run_name, "--data", data, "--tasks", "5"],
        &["--tasks (images, for this run) is 5; it is at least 200"],
    );
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
    // A request to end comes at once after it, as `timeout` sends two: another one, because two of a kind may become one.
    let both = format!("kill {signal} {0} && kill -TERM {0}", child.id());
    let sent = Command::new("sh").args(["-c", &both]).status().expect("there is a shell");
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
#[cfg(unix)]
fn a_run_that_ended_before_its_first_checkpoint_says_that_it_begins_again() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let small = ["train", "sinusoid-maml", "--out", run.to_str().unwrap(), "--set", "steps=3", "--set", "eval.tasks=5"];
    let told = || text(&metaforge(&small).stderr);
    assert!(!told().contains("begins again"));
    // What a kill before the first checkpoint leaves.
    for file in ["state.safetensors", "weights.safetensors", "summary.json", "report.html"] {
        fs::remove_file(run.join(file)).unwrap();
    }
    let told = told();
    assert!(told.contains("ended before its first checkpoint: it begins again"), "{told}");
    assert!(run.join("summary.json").exists());
}

#[test]
fn a_folder_is_free_for_another_run_until_there_is_a_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let small = ["train", "sinusoid-maml", "--out", run.to_str().unwrap(), "--set", "steps=3", "--set", "eval.tasks=5"];
    fails(&[&small[..], &["--set", "inner.lr=1e30"]].concat(), &["lower the learning rates"]);
    let files = |of: &Path| -> Vec<(PathBuf, Vec<u8>)> {
        let mut files: Vec<_> = fs::read_dir(of).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.retain(|path| path.is_file());
        files.sort();
        files.into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
    };
    // A page of one's own beside what is left of it, or weights alone, are worth keeping.
    for own in ["report.html", "weights.safetensors", "notes.txt"] {
        fs::write(run.join(own), "mine").unwrap();
        let before = files(&run);
        fails(&small, &["another configuration"]);
        assert_eq!(files(&run), before, "{own}");
        fs::remove_file(run.join(own)).unwrap();
    }
    succeeds(&small);
    fails(&[&small[..], &["--set", "inner.lr=0.02"]].concat(), &["another configuration"]);
    // What has a config.toml is not for that a run.
    for config in ["baseURL = \"..\"", "no TOML", "\u{0}"] {
        let site = dir.path().join("site");
        fs::create_dir_all(site.join("samples")).unwrap();
        fs::write(site.join("samples/a-000001.png"), "a").unwrap();
        fs::write(site.join("config.toml"), config).unwrap();
        fs::write(site.join("report.html"), "mine").unwrap();
        let before = (files(&site), files(&site.join("samples")));
        let out = ["train", "sinusoid-maml", "--out", site.to_str().unwrap()];
        fails(&out, &["site", "holds no run"]);
        fails(&[&out[..], &["--force"]].concat(), &["site", "holds no run"]);
        assert_eq!((files(&site), files(&site.join("samples"))), before);
    }
}

#[test]
fn weights_alone_do_to_evaluate_and_to_draw() {
    let dir = tempfile::tempdir().unwrap();
    let few = ["model.channels=4", "model.latent=8", "eval.tasks=2", "eval.images=2", "eval.embedding_steps=1"];
    let few: Vec<&str> = few.iter().flat_map(|s| ["--set", s]).collect();
    let wave = ["--set", "eval.tasks=5"];
    let cases: [(&str, &[&str], &str); 3] = [
        ("glyphs-proto-5w1s", &SMALL, "accuracy"),
        ("sinusoid-maml", &wave, "error"),
        ("glyphs-fewshot-gan", &few, "top1"),
    ];
    for (recipe, more, figure) in cases {
        let run = dir.path().join(recipe);
        let name = run.to_str().unwrap();
        let (state, weights) = (run.join("state.safetensors"), run.join("weights.safetensors"));
        train(recipe, &run, more);
        let whole = json(&["eval", name, "--json"]);
        fs::remove_file(&state).unwrap();
        assert_eq!(json(&["eval", name, "--json"]), whole, "{recipe}");
        assert!(whole[figure].is_number(), "{whole}");
        fs::remove_file(run.join("summary.json")).unwrap();
        assert!(succeeds(&["eval", name]).contains("By weights.safetensors alone"));
        if recipe == "glyphs-fewshot-gan" {
            succeeds(&["generate", name, "--n", "1"]);
        }

        let bytes = fs::read(&weights).unwrap();
        fs::write(&weights, &bytes[..bytes.len() / 2]).unwrap();
        fails(&["eval", name], &["weights.safetensors is damaged"]);
        fs::write(&weights, b"").unwrap();
        fails(&["eval", name], &["weights.safetensors is damaged"]);
    }
    // Weights of another model.
    let [run, other] = ["glyphs-proto-5w1s", "sinusoid-maml"].map(|name| dir.path().join(name));
    train("sinusoid-maml", &other, &[&wave[..], &["--force"]].concat());
    fs::copy(other.join("weights.safetensors"), run.join("weights.safetensors")).unwrap();
    fails(
        &["eval", run.to_str().unwrap()],
        &["weights.safetensors is damaged: it is not of the model in the run's config.toml"],
    );
    fs::remove_file(run.join("weights.safetensors")).unwrap();
    fails(&["eval", run.to_str().unwrap()], &["has no checkpoint yet"]);
}

#[test]
fn what_is_no_run_folder_is_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let several = dir.path().join("several");
    for (recipe, name) in [("sinusoid-maml", "one"), ("sinusoid-maml", "two")] {
        train(recipe, &several.join(name), &["--set", "eval.tasks=5"]);
    }
    let path = |name: &str| several.join(name).to_str().unwrap().to_owned();
    for command in ["generate", "eval"] {
        fails(&[command, &path("")], &["holds 2 runs", "name one of them", &path("one"), &path("two")]);
        fails(&[command, dir.path().to_str().unwrap()], &["is not a run folder"]);
        fails(&[command, &path("one/weights.safetensors")], &["is a file; name the folder of its run", &path("one")]);
    }
    fails(&["eval", env!("CARGO_BIN_EXE_metaforge")], &["is a file; name the folder of a run"]);
    // The folder of another recipe's run is known by its recipe, not by what that says of itself.
    let train = ["train", "glyphs-maml-5w1s", "--out", &path("one")];
    fails(&train, &["name is \"sinusoid-maml\" there and \"glyphs-maml-5w1s\" here"]);
}

#[test]
fn numbers_below_their_range_are_told_so() {
    fails(&["train", "sinusoid-maml", "--seed", "-1"], &["'-1' for '--seed <N>'", "whole number of at least 0"]);
    fails(&["--seed", "-1"], &["'-1' for '--seed <N>'", "whole number of at least 0"]);
    fails(&["eval", "nowhere", "--tasks", "-1"], &["'-1' for '--tasks <N>'", "whole number of at least 0"]);
    fails(&["generate", "nowhere", "--n", "-1"], &["-1 is not in 1..=4096"]);
    fails(&["train", "sinusoid-maml", "--threads", "-1"], &["-1 is not in 1..=1024"]);
}

#[test]
fn what_is_not_a_recipe_or_a_key_is_named() {
    fails(&["train", "glyphs-proto-5w1"], &["glyphs-proto-5w1", "did you mean `glyphs-proto-5w1s`"]);
    fails(&["train", "sinusoid-maml", "--set", "inner.ratte=1"], &["inner.ratte"]);
    fails(&["train", "sinusoid-maml", "--set", "steps=many"], &["steps"]);
    fails(&["train", "sinusoid-maml", "--set", "inner.lr=nan"], &["inner.lr"]);
    fails(&["train", "sinusoid-maml", "--seed", "6", "--set", "seed=5"], &["the seed is given twice"]);
    fails(
        &["train", "glyphs-proto-5w1s", "--set", "model.channels=100000"],
        &["`model.channels` is 100000; it is at most 4096"],
    );
    fails(&["train", "glyphs-proto-5w1s", "--set", "task.train_ways=100000"], &["task.train_ways"]);
    fails(&["quickstart", "--set", "eval.tasks=10"], &["in the recipe of `gan`, digits-seed-gan", "`eval.tasks`"]);
    fails(&["quickstart", "--set", "classifer.steps=3"], &["no part `classifer`; did you mean `classifier`?"]);
    fails(
        &["quickstart", "--set", "game.loss=wasserstein"],
        &["in the recipe of `classifier`", "write classifier.KEY"],
    );
    let dir = tempfile::tempdir().unwrap();
    fails(&["train", dir.path().to_str().unwrap()], &["is a folder; a recipe is a TOML file"]);
    fs::write(dir.path().join("config.toml"), "").unwrap();
    fails(&["train", dir.path().to_str().unwrap()], &["is a run folder; its recipe is", "config.toml"]);
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
    for recipe in ["mnist-seed-gan", "sinusoid-maml"] {
        fails(&["train", recipe, "--out", &out, "--data", &path("nowhere")], &["nowhere"]);
    }

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
