//! `cargo xtask fuzz`: coverage-guided fuzzing by cargo-fuzz, with the compiler that is here.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use anyhow::{Context, Result, bail};

use crate::{Answer, debian, process, workspace};

/// The cargo-fuzz that is installed if there is none.
const VERSION: &str = "0.13.2";

/// Inputs a committed corpus may have, and bytes they may have together.
const MAX_INPUTS: usize = 200;
const MAX_BYTES: u64 = 200 << 10;

#[derive(clap::Args)]
#[command(after_help = listed_targets())]
pub(crate) struct Arguments {
    /// The target to fuzz; all of them, one after the other, if none is named.
    target: Option<String>,
    /// How long each target is fuzzed.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Afterwards, replace the committed corpus by few inputs that reach as much as it and all that
    /// was found.
    #[arg(long)]
    minimize: bool,
}

/// Carries out `cargo xtask fuzz`.
pub(crate) fn run(arguments: &Arguments) -> Result<Answer> {
    let targets = targets()?;
    let chosen = match &arguments.target {
        None => targets,
        Some(named) if targets.contains(named) => vec![named.clone()],
        Some(named) => bail!(
            "there is no fuzz target `{named}`, but {}",
            targets.join(", ")
        ),
    };
    compiler()?;
    let tool = tool()?;
    let mut failed = Vec::new();
    for target in chosen {
        let places = Places::of(&target)?;
        if !fuzz(&tool, &target, &places, arguments)? {
            failed.push(target);
        } else if arguments.minimize {
            minimize(&tool, &target, &places)?;
        }
    }
    if failed.is_empty() {
        return Ok(Answer::Yes);
    }
    println!(
        "failed: {}; the inputs are in {}. Keep one in {}, where the tests replay it.",
        failed.join(", "),
        workspace::shown(&workspace::fuzz_directory().join("artifacts")),
        workspace::shown(&crate_directory().join("regressions")),
    );
    Ok(Answer::No)
}

fn crate_directory() -> PathBuf {
    workspace::root().join("sg-userspace/fuzz")
}

/// The names of all targets.
fn targets() -> Result<Vec<String>> {
    let directory = crate_directory().join("fuzz_targets");
    let context = || format!("list {}", directory.display());
    let mut names = Vec::new();
    for entry in directory.read_dir().with_context(context)? {
        let path = entry.with_context(context)?.path();
        names.extend(path.file_stem().map(|name| name.to_string_lossy().into()));
    }
    names.sort();
    Ok(names)
}

fn listed_targets() -> String {
    targets().map_or_else(
        |error| format!("Targets: {error:#}"),
        |names| format!("Targets: {}", names.join(", ")),
    )
}

/// libFuzzer is C++ and is compiled here.
fn compiler() -> Result<()> {
    if ["c++", "g++", "clang++"]
        .into_iter()
        .any(|name| process::find(name).is_some())
    {
        return Ok(());
    }
    if !debian::is_here() {
        bail!("libFuzzer takes a C++ compiler, and there is no apt to install one by");
    }
    debian::install(&["g++"], "libFuzzer")
}

/// cargo-fuzz: the one on `PATH`, or one built into `target/tools`.
fn tool() -> Result<PathBuf> {
    let root = workspace::tools_directory().join(format!("cargo-fuzz-{VERSION}"));
    let built = root.join("bin/cargo-fuzz");
    if let Some(installed) = process::find("cargo-fuzz") {
        return Ok(installed);
    }
    if !built.is_file() {
        let build = workspace::tools_directory().join("build");
        println!(
            "building cargo-fuzz {VERSION} in {}",
            workspace::shown(&root)
        );
        let mut install = process::foreign_cargo(&workspace::cargo(), &workspace::root());
        install
            .args(["install", "cargo-fuzz", "--version", VERSION, "--locked"])
            .arg("--root")
            .arg(&root)
            .arg("--target-dir")
            .arg(&build);
        process::run(&mut install)?;
        fs::remove_dir_all(&build).with_context(|| format!("remove {}", build.display()))?;
    }
    Ok(built)
}

/// Directories of inputs of a target.
struct Places {
    /// Committed: minimised, and kept by hand. libFuzzer reads them only.
    committed: PathBuf,
    regressions: PathBuf,
    /// What was found on this machine.
    found: PathBuf,
    artifacts: PathBuf,
}

impl Places {
    fn of(target: &str) -> Result<Self> {
        let places = Self {
            committed: crate_directory().join("corpus").join(target),
            regressions: crate_directory().join("regressions").join(target),
            found: workspace::fuzz_directory().join("corpus").join(target),
            artifacts: workspace::fuzz_directory().join("artifacts").join(target),
        };
        for directory in [&places.committed, &places.found, &places.artifacts] {
            make(directory)?;
        }
        Ok(places)
    }

    /// Those to read inputs from, that to write them to in front.
    fn inputs(&self) -> impl Iterator<Item = &Path> {
        [&self.found, &self.committed, &self.regressions]
            .into_iter()
            .map(PathBuf::as_path)
            .filter(|directory| directory.is_dir())
    }
}

fn make(directory: &Path) -> Result<()> {
    fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))
}

/// Fuzzes a target; false if an input failed.
fn fuzz(tool: &Path, target: &str, places: &Places, arguments: &Arguments) -> Result<bool> {
    let mut artifacts = OsString::from("-artifact_prefix=");
    artifacts.push(places.artifacts.join(""));
    let mut command = libfuzzer(tool, target);
    command
        .args(places.inputs())
        .arg("--")
        .arg(artifacts)
        .arg(format!("-max_total_time={}", arguments.seconds))
        .args(["-timeout=10", "-rss_limit_mb=2048", "-print_final_stats=1"]);
    let dictionary = crate_directory().join(format!("{target}.dict"));
    if dictionary.is_file() {
        let mut dict = OsString::from("-dict=");
        dict.push(dictionary);
        command.arg(dict);
    }
    println!("+ {}", process::shown(&command));
    let status = command.status().context("start cargo-fuzz")?;
    Ok(status.success())
}

/// Replaces the committed corpus by the fewest inputs that reach as much as all that is known, or by
/// those of them that reach the most if they are too many.
/// How often something is reached does not count, or there would be thousands.
fn minimize(tool: &Path, target: &str, places: &Places) -> Result<()> {
    let merged = workspace::fuzz_directory().join("merged").join(target);
    if merged.exists() {
        fs::remove_dir_all(&merged).with_context(|| format!("remove {}", merged.display()))?;
    }
    make(&merged)?;
    let mut command = libfuzzer(tool, target);
    command.arg(&merged).args(places.inputs()).args([
        "--",
        "-set_cover_merge=1",
        "-use_counters=0",
        "-timeout=10",
    ]);
    println!("+ {}", process::shown(&command));
    process::run(&mut command)?;

    let mut inputs = contents(&merged)?;
    // Written in this order: each adds the most that those before it leave.
    inputs.sort_by_key(|input| input.written);
    let (mut kept, mut bytes) = (Vec::new(), 0);
    for input in &inputs {
        if kept.len() < MAX_INPUTS && bytes + input.len <= MAX_BYTES {
            bytes += input.len;
            kept.push(input);
        }
    }
    for Input { path, .. } in contents(&places.committed)? {
        fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
    }
    for input in &kept {
        let name = input.path.file_name().expect("a listed file has a name");
        let copy = places.committed.join(name);
        fs::copy(&input.path, &copy).with_context(|| format!("write {}", copy.display()))?;
    }
    println!(
        "{}: {} inputs of {}, {bytes} bytes",
        workspace::shown(&places.committed),
        kept.len(),
        inputs.len()
    );
    Ok(())
}

/// A file of a corpus.
struct Input {
    path: PathBuf,
    /// In bytes.
    len: u64,
    written: SystemTime,
}

fn contents(directory: &Path) -> Result<Vec<Input>> {
    let context = || format!("list {}", directory.display());
    let mut files = Vec::new();
    for entry in directory.read_dir().with_context(context)? {
        let entry = entry.with_context(context)?;
        let metadata = entry.metadata().with_context(context)?;
        files.push(Input {
            path: entry.path(),
            len: metadata.len(),
            written: metadata.modified().with_context(context)?,
        });
    }
    Ok(files)
}

/// `cargo fuzz run TARGET`, to which directories are yet to be added.
fn libfuzzer(tool: &Path, target: &str) -> Command {
    let mut command = Command::new(tool);
    process::without_package(&mut command);
    command
        .current_dir(crate_directory())
        // Coverage takes `-Z` options, which the stable compiler has but keeps from its users.
        .env("RUSTC_BOOTSTRAP", "1")
        .args(["run", "--fuzz-dir", ".", "--sanitizer", "none"])
        .arg("--target-dir")
        .arg(workspace::fuzz_directory())
        .arg(target);
    command
}
