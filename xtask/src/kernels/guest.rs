//! A guest: what its root file system holds, and its run in an emulator.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::cpio::{Archive, Kind};
use super::modules::Module;
use crate::process;

/// Its memory in MiB: tables of the default allowance for two families, several times, and the file system.
const MEMORY: u32 = 3072;

/// What the emulator is asked to be. TCG, never KVM: that `/dev/kvm` can be opened does not mean that it can run
/// Debian's kernels.
const MACHINE: &[&str] = &[
    "-machine",
    "pc",
    "-accel",
    "tcg,thread=multi",
    "-cpu",
    "max",
    "-smp",
    "2",
    "-nodefaults",
    "-no-user-config",
    "-display",
    "none",
    "-no-reboot",
];

/// What the kernel is told. On a busy machine the timer's interrupts come late: a kernel that checks them would panic,
/// those that watch for processors that hang would print between the lines of tests, and a counter of cycles
/// that is measured against them runs many times too fast, and all of a test's limits with it.
const SETTINGS: &str = "console=ttyS0 panic=-1 clocksource=hpet tsc=nowatchdog no_timer_check \
    nowatchdog rcupdate.rcu_cpu_stall_suppress=1 mitigations=off quiet loglevel=3";

/// Where the guest says its results. What tests print goes to the other channel, and can forge none.
const RESULTS: &str = "/dev/ttyS1";

/// The files of a guest, by absolute path.
pub(crate) struct Files(BTreeMap<PathBuf, (Kind, Vec<u8>)>);

impl Files {
    /// Busybox, its commands, and the empty directories that a system needs.
    ///
    /// # Errors
    /// If busybox cannot be read.
    pub(crate) fn new(busybox: &Path) -> Result<Self> {
        let mut files = Self(BTreeMap::new());
        for directory in ["/dev", "/proc", "/root", "/run", "/sys", "/tmp", "/var/tmp"] {
            files.directory(Path::new(directory));
        }
        files.copy_to(busybox, Path::new("/bin/busybox"))?;
        for command in COMMANDS {
            let path = Path::new("/bin").join(command);
            files.0.insert(path, (Kind::Symlink, b"busybox".to_vec()));
        }
        Ok(files)
    }

    fn directory(&mut self, path: &Path) {
        for ancestor in path.ancestors().filter(|path| path.parent().is_some()) {
            let empty = (Kind::Directory, Vec::new());
            self.0.entry(ancestor.to_owned()).or_insert(empty);
        }
    }

    /// A file with these contents.
    pub(crate) fn add(&mut self, path: &Path, data: Vec<u8>) {
        if let Some(parent) = path.parent() {
            self.directory(parent);
        }
        self.0.insert(path.to_owned(), (Kind::File, data));
    }

    /// A file of this machine, elsewhere.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(crate) fn copy_to(&mut self, file: &Path, path: &Path) -> Result<()> {
        let data = fs::read(file).with_context(|| format!("read {}", file.display()))?;
        self.add(path, data);
        Ok(())
    }

    /// Everything below a directory of this machine, at the same place.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(crate) fn copy_all(&mut self, directory: &Path) -> Result<()> {
        let entries = fs::read_dir(directory);
        for entry in entries.with_context(|| format!("read {}", directory.display()))? {
            let path = entry
                .with_context(|| format!("read {}", directory.display()))?
                .path();
            if path.is_dir() {
                self.copy_all(&path)?;
            } else {
                self.copy_to(&path, &path)?;
            }
        }
        Ok(())
    }

    /// A program of this machine and the libraries that it loads, all at the same places.
    ///
    /// # Errors
    /// If they cannot be read.
    pub(crate) fn program(&mut self, program: &Path) -> Result<()> {
        self.copy_to(program, program)?;
        // Fails for a program without libraries.
        let libraries = process::output(Command::new("ldd").arg(program)).unwrap_or_default();
        for library in libraries.lines().filter_map(library) {
            self.copy_to(library, library)?;
        }
        Ok(())
    }

    /// Modules, and the order to load them in.
    pub(crate) fn modules(&mut self, modules: Vec<Module>) {
        let mut order = String::new();
        for Module { name, code } in modules {
            let _ = writeln!(order, "{name}");
            self.add(Path::new(&format!("/modules/{name}.ko")), code);
        }
        self.add(Path::new("/modules/order"), order.into_bytes());
    }

    /// The archive that the kernel unpacks.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn write(&self, to: &Path) -> Result<()> {
        let written = || -> std::io::Result<()> {
            let mut archive = Archive::new(BufWriter::new(File::create(to)?));
            // In order, so that directories come before what is in them.
            for (path, (kind, data)) in &self.0 {
                let path = path.to_string_lossy();
                archive.add(path.trim_start_matches('/'), *kind, data)?;
            }
            archive.end()?;
            Ok(())
        };
        written().with_context(|| format!("write {}", to.display()))
    }
}

/// The file that a line of ldd's names: `libc.so.6 => /lib/libc.so.6 (0x…)` or `/lib64/ld.so (0x…)`.
fn library(line: &str) -> Option<&Path> {
    let path = line.rsplit_once(" (0x")?.0.trim();
    let path = path.rsplit_once(" => ").map_or(path, |(_, path)| path);
    path.starts_with('/').then(|| Path::new(path))
}

/// Commands of busybox that the guest's own script, `ip` or a test calls.
const COMMANDS: &[&str] = &[
    "cat", "dmesg", "echo", "false", "insmod", "ls", "mkdir", "mkfifo", "mount", "poweroff", "sh",
    "sleep", "sync", "true", "umount", "uname",
];

/// A test program, as the guest runs it.
pub(crate) struct Suite {
    /// As cargo shows it: `tests/control/main.rs`.
    pub(crate) source: String,
    pub(crate) program: PathBuf,
}

/// The guest's first process: it makes a system, runs the test programs one after the other, and says for each
/// what it came to, and at the end that this was all.
pub(crate) fn init(suites: &[Suite], arguments: &[String], settings: &[(&str, String)]) -> String {
    let mut script = String::from(
        "#!/bin/sh\n\
         mount -t proc proc /proc\n\
         mount -t sysfs sysfs /sys\n\
         mount -t devtmpfs devtmpfs /dev\n\
         mount -t tmpfs run /run\n\
         mount -t bpf bpf /sys/fs/bpf\n\
         mount -t cgroup2 cgroup /sys/fs/cgroup\n\
         mount -t debugfs debugfs /sys/kernel/debug\n\
         mount -t tracefs tracefs /sys/kernel/tracing\n\
         for module in $(cat /modules/order); do insmod /modules/$module.ko; done\n\
         /bin/busybox ifconfig lo 127.0.0.1 up\n\
         ulimit -n 65536\n\
         export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root\n",
    );
    for (name, value) in settings {
        let _ = writeln!(script, "export {name}={}", quoted(value));
    }
    let _ = writeln!(script, "echo release=$(uname -r) >{RESULTS}");
    let arguments: String = arguments
        .iter()
        .map(|word| format!(" {}", quoted(word)))
        .collect();
    for Suite { source, program } in suites {
        let program = program.display().to_string();
        // As cargo announces a test program, for the summary.
        let _ = writeln!(
            script,
            "echo {}",
            quoted(&format!("     Running {source} ({program})"))
        );
        let _ = writeln!(script, "{}{arguments}", quoted(&program));
        let _ = writeln!(script, "echo code=$? >{RESULTS}");
    }
    let _ = writeln!(script, "echo end >{RESULTS}\nsync\npoweroff -f");
    script
}

fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// What came of a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// What it printed.
    pub(crate) output: String,
    /// What `uname -r` said there.
    pub(crate) release: Option<String>,
    /// Whether all test programs ended with 0.
    pub(crate) success: bool,
    /// What kept it from the end, if anything did.
    pub(crate) broken: Option<String>,
    pub(crate) took: Duration,
}

/// Runs a kernel with a root file system until it ends or the time is over. What it prints is shown meanwhile.
///
/// # Errors
/// If the emulator cannot be started.
pub(crate) fn run(
    emulator: &Path,
    kernel: &Path,
    files: &Path,
    programs: usize,
    limit: Duration,
) -> Result<Outcome> {
    let results = files.with_extension("results");
    let _ = fs::remove_file(&results);
    // Ends the emulator with code 124 when the time is over.
    let mut command = Command::new("timeout");
    command
        .arg("--kill-after=10")
        .arg(limit.as_secs().to_string());
    command.args(loader(emulator)?);
    command.args(MACHINE).arg("-m").arg(MEMORY.to_string());
    for data in ["usr/share/qemu", "usr/share/seabios"] {
        command.arg("-L").arg(emulator.join(data));
    }
    command.args(["-serial", "stdio", "-serial"]);
    command.arg(format!("file:{}", results.display()));
    command.arg("-kernel").arg(kernel).arg("-initrd").arg(files);
    command.args(["-append", SETTINGS]);
    let start = Instant::now();
    let (status, output) = process::run_observed(command.stdin(Stdio::null()))?;
    let took = start.elapsed();
    // The terminal ends lines with carriage return and line feed.
    let output = output.replace('\r', "");
    let said = fs::read_to_string(&results).unwrap_or_default();
    let mut outcome = judge(&said, programs);
    if status.code() == Some(124) {
        outcome.broken = Some(format!(
            "it did not end within {} minutes",
            limit.as_secs() / 60
        ));
    } else if !status.success() {
        outcome.broken = Some(format!("the emulator failed: {status}"));
    }
    Ok(Outcome {
        output,
        took,
        ..outcome
    })
}

/// The emulator's program, started by the loader and with the libraries that were fetched with it.
fn loader(emulator: &Path) -> Result<Vec<PathBuf>> {
    let libraries =
        ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"].map(|path| emulator.join(path));
    let [first, _] = &libraries;
    let loader = first.join("ld-linux-x86-64.so.2");
    if !loader.exists() {
        bail!("there is no {}", loader.display());
    }
    let path = libraries.map(|path| path.display().to_string()).join(":");
    Ok(vec![
        loader,
        "--library-path".into(),
        path.into(),
        emulator.join("usr/bin/qemu-system-x86_64"),
    ])
}

/// Reads what the guest said about itself.
fn judge(said: &str, programs: usize) -> Outcome {
    let lines = || said.lines().map(str::trim);
    let release = lines().find_map(|line| line.strip_prefix("release="));
    let codes: Vec<&str> = lines()
        .filter_map(|line| line.strip_prefix("code="))
        .collect();
    let broken = match (release, lines().any(|line| line == "end")) {
        (None, _) => Some("it did not come up".to_owned()),
        (_, false) => Some("it ended before its tests did".to_owned()),
        (Some(_), true) => None,
    };
    Outcome {
        output: String::new(),
        release: release.map(str::to_owned),
        success: broken.is_none()
            && codes.len() == programs
            && codes.iter().all(|code| *code == "0"),
        broken,
        took: Duration::ZERO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_succeeds_only_if_every_program_and_the_end_were_heard_of() {
        let success = |said: &str, programs| judge(said, programs).success;
        assert!(success("release=6.1.0\r\ncode=0\r\ncode=0\r\nend\r\n", 2));
        assert!(!success("release=6.1.0\r\ncode=0\r\nend\r\n", 2));
        assert!(!success(
            "release=6.1.0\r\ncode=0\r\ncode=101\r\nend\r\n",
            2
        ));
        let panicked = judge("release=6.1.0\r\ncode=0\r\n", 1);
        assert!(!panicked.success && panicked.broken.is_some());
        assert_eq!(panicked.release.as_deref(), Some("6.1.0"));
        assert!(judge("", 0).broken.is_some());
    }

    #[test]
    fn libraries_are_read_from_what_ldd_says() {
        for (line, expected) in [
            ("\tlinux-vdso.so.1 (0x00007f)", None),
            (
                "\tlibc.so.6 => /lib/libc.so.6 (0x00007f)",
                Some("/lib/libc.so.6"),
            ),
            (
                "\t/lib64/ld-linux-x86-64.so.2 (0x00007f)",
                Some("/lib64/ld-linux-x86-64.so.2"),
            ),
            ("\tstatically linked", None),
        ] {
            assert_eq!(library(line), expected.map(Path::new), "{line}");
        }
    }

    #[test]
    fn words_reach_the_program_as_they_are() {
        assert_eq!(quoted("it's"), r"'it'\''s'");
        let suite = Suite {
            source: "tests/a.rs".to_owned(),
            program: "/t/a-01".into(),
        };
        let script = init(
            &[suite],
            &["a name".to_owned()],
            &[("SG_A", "1".to_owned())],
        );
        assert!(script.contains("export SG_A='1'\n"));
        assert!(script.contains("echo '     Running tests/a.rs (/t/a-01)'\n"));
        assert!(script.contains("'/t/a-01' 'a name'\necho code=$? >/dev/ttyS1\n"));
    }
}
