//! `cargo xtask test --mutants`: the tests are tested by faults put in on purpose.
//!
//! Each fault of `mutants.toml` is written into a copy of the tree, one at a time, and some test must fail.
//! A fault that no test notices, or that fits the code no longer, fails the run.

use std::{
    fs,
    os::unix::{fs::symlink, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process_group};
use serde::Deserialize;

use crate::{Answer, process, workspace};

/// A deliberate fault.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fault {
    name: String,
    file: PathBuf,
    find: String,
    replace: String,
    /// Only the loaded object shows it.
    #[serde(default)]
    kernel: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    fault: Vec<Fault>,
}

/// How long one command may take: a fault may well be a loop that does not end.
const PATIENCE: Duration = Duration::from_secs(400);

/// The tests that meet a fault first: random packets through oracle and pipeline.
const ORACLE: &[&str] = &["-p", "sg-userspace", "--test", "oracle"];

/// What became of a fault.
enum Fate {
    /// By these tests.
    Caught(&'static str),
    Survived,
    /// Why nothing was learnt.
    Void(String),
}

/// Tries every fault whose name contains one of `names`, or every one.
pub(crate) fn run(names: &[String]) -> Result<Answer> {
    let list: List = toml::from_str(include_str!("../mutants.toml")).context("mutants.toml")?;
    let chosen = |fault: &&Fault| names.is_empty() || names.iter().any(|n| fault.name.contains(n));
    let faults: Vec<&Fault> = list.fault.iter().filter(chosen).collect();
    ensure!(!faults.is_empty(), "no fault has such a name");
    let tree = Tree::copy()?;
    println!("the tests without a fault");
    let clean = tree.tests(faults.iter().any(|fault| fault.kernel))?;
    if let Some(failed) = clean {
        bail!("{failed} fails without any fault");
    }
    let (mut survivors, mut void) = (0, 0);
    for (number, fault) in faults.iter().enumerate() {
        let start = Instant::now();
        let fate = tree.try_fault(fault)?;
        let seconds = start.elapsed().as_secs();
        let place = format!("{:>3}/{}", number + 1, faults.len());
        match fate {
            Fate::Caught(by) => println!("{place} caught   {seconds:>4} s  {} ({by})", fault.name),
            Fate::Survived => {
                survivors += 1;
                println!("{place} SURVIVED {seconds:>4} s  {}", fault.name);
            }
            Fate::Void(why) => {
                void += 1;
                println!("{place} VOID     {seconds:>4} s  {}: {why}", fault.name);
            }
        }
    }
    let caught = faults.len() - survivors - void;
    println!(
        "{caught} of {} faults caught, {survivors} survived, {void} void",
        faults.len()
    );
    Ok(if caught == faults.len() {
        Answer::Yes
    } else {
        Answer::No
    })
}

/// A copy of the repository's files with a build directory of its own.
struct Tree {
    root: PathBuf,
}

impl Tree {
    fn copy() -> Result<Self> {
        let root = workspace::root().join("target/mutants");
        let sources = root.join("tree");
        if sources.exists() {
            fs::remove_dir_all(&sources).context("remove the last copy of the tree")?;
        }
        let mut list = Command::new("git");
        list.current_dir(workspace::root()).args([
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ]);
        let files = process::output(&mut list).context("`git ls-files` failed")?;
        for file in files.split_terminator('\0') {
            let (from, to) = (workspace::root().join(file), sources.join(file));
            if from.is_file() {
                let folder = to.parent().context("a file in a folder")?;
                fs::create_dir_all(folder)?;
                fs::copy(&from, &to).with_context(|| format!("copy {file}"))?;
            }
        }
        // Tools are built once, and the object of the sound tree is there already.
        fs::create_dir_all(sources.join("target"))?;
        symlink(
            workspace::root().join("target/tools"),
            sources.join("target/tools"),
        )?;
        let object = workspace::root().join("target/ebpf");
        if object.is_dir() {
            fs::create_dir_all(sources.join("target/ebpf"))?;
            for file in fs::read_dir(object)? {
                let file = file?;
                fs::copy(
                    file.path(),
                    sources.join("target/ebpf").join(file.file_name()),
                )?;
            }
        }
        Ok(Self { root })
    }

    fn file(&self, file: &Path) -> PathBuf {
        self.root.join("tree").join(file)
    }

    fn try_fault(&self, fault: &Fault) -> Result<Fate> {
        if fault.kernel && !process::is_root() {
            return Ok(Fate::Void("needs root".into()));
        }
        let path = self.file(&fault.file);
        let Ok(sound) = fs::read_to_string(&path) else {
            return Ok(Fate::Void(format!("there is no {}", fault.file.display())));
        };
        let found = sound.matches(&fault.find).count();
        if found != 1 {
            let why = format!(
                "its passage stands {found} times in {}",
                fault.file.display()
            );
            return Ok(Fate::Void(why));
        }
        fs::write(&path, sound.replacen(&fault.find, &fault.replace, 1))?;
        let fate = self.judge(fault);
        fs::write(&path, sound)?;
        fate
    }

    fn judge(&self, fault: &Fault) -> Result<Fate> {
        if fault.kernel {
            if !self.object()? {
                return Ok(Fate::Void("it does not compile".into()));
            }
            let caught = self.kernel()?;
            return Ok(caught.map_or(Fate::Survived, Fate::Caught));
        }
        if !self
            .cargo(&[&["test", "--no-run"], ORACLE].concat())?
            .success()
        {
            return Ok(Fate::Void("it does not compile".into()));
        }
        let caught = self.host()?;
        Ok(caught.map_or(Fate::Survived, Fate::Caught))
    }

    /// All tests that a fault may meet; the first that fails.
    fn tests(&self, kernel: bool) -> Result<Option<&'static str>> {
        if let Some(failed) = self.host()? {
            return Ok(Some(failed));
        }
        if !kernel || !process::is_root() {
            return Ok(None);
        }
        ensure!(self.object()?, "the eBPF object cannot be built");
        self.kernel()
    }

    fn host(&self) -> Result<Option<&'static str>> {
        if !self.cargo(&[&["test"], ORACLE].concat())?.success() {
            return Ok(Some("the oracle"));
        }
        let common = ["test", "-p", "sg-common", "--features", "host"];
        if !self.cargo(&common)?.success() {
            return Ok(Some("sg-common"));
        }
        if !self
            .cargo(&["test", "-p", "sg-userspace", "--lib"])?
            .success()
        {
            return Ok(Some("sg-userspace"));
        }
        Ok(None)
    }

    fn object(&self) -> Result<bool> {
        let build = ["run", "--quiet", "-p", "xtask", "--", "build"];
        Ok(self.cargo(&build)?.success())
    }

    fn kernel(&self) -> Result<Option<&'static str>> {
        let table = [
            "test",
            "-p",
            "sg-userspace",
            "--test",
            "dataplane",
            "the_table",
        ];
        let failed = !self.cargo(&table)?.success();
        Ok(failed.then_some("the table of packets"))
    }

    /// Runs cargo in the copy, silently; what takes too long has failed.
    fn cargo(&self, arguments: &[&str]) -> Result<ExitStatus> {
        let mut command = process::cargo();
        command
            .current_dir(self.root.join("tree"))
            .env("CARGO_TARGET_DIR", self.root.join("build"))
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0);
        let mut child = command
            .spawn()
            .with_context(|| format!("start `{}`", process::shown(&command)))?;
        let start = Instant::now();
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(status);
            }
            if start.elapsed() > PATIENCE {
                let group = Pid::from_child(&child);
                kill_process_group(group, Signal::KILL)?;
                return Ok(child.wait()?);
            }
            thread::sleep(Duration::from_millis(50));
        }
    }
}
