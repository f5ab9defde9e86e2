//! An enforcer of the benchmark's own on a veth pair between two namespaces of its own.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use sg_userspace::detach;
use sg_userspace::netns::Netns;
use sg_userspace::session::Context;

use super::super::Options;

/// Address of the device on the near side, which is enforced.
pub(super) const NEAR: &str = "10.77.0.1";
/// Address of the device on the far side.
pub(super) const FAR: &str = "10.77.0.2";

/// Two namespaces, a veth pair called eth0 on both sides, and where an enforcer keeps its things.
pub(super) struct Enforcer {
    /// The namespace that is enforced.
    pub(super) near: String,
    /// The one that talks to it.
    pub(super) far: String,
    pub(super) context: Context,
    sgctl: PathBuf,
    files: PathBuf,
}

/// What a command took.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cost {
    pub(super) seconds: f64,
    /// Largest resident set in MiB; at least what this program had when it started the command.
    pub(super) memory: f64,
}

impl Enforcer {
    pub(super) fn new(options: &Options) -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("sgbench-{}-cp{number}", std::process::id());
        let made = Self {
            near: format!("{name}-near"),
            far: format!("{name}-far"),
            context: Context {
                bpffs: Path::new("/sys/fs/bpf").join(&name),
                state_dir: Path::new("/run").join(&name),
                netns: None,
            },
            sgctl: options.sgctl.clone(),
            files: std::env::temp_dir().join(&name),
        };
        fs::create_dir(&made.files).with_context(|| format!("make {}", made.files.display()))?;
        let (near, far) = (&made.near, &made.far);
        ip(&format!("netns add {near}"))?;
        ip(&format!("netns add {far}"))?;
        ip(&format!(
            "link add eth0 netns {near} type veth peer name eth0 netns {far}"
        ))?;
        for (namespace, address) in [(near, NEAR), (far, FAR)] {
            made.ip(namespace, &format!("addr add {address}/24 dev eth0"))?;
            made.ip(namespace, "link set eth0 up")?;
            made.ip(namespace, "link set lo up")?;
        }
        Ok(made)
    }

    /// An interface table for a side's device.
    pub(super) fn interface(namespace: &str, name: &str, groups: &str) -> String {
        format!(
            "[interfaces.{name}]\ndevice = \"eth0\"\nnetns = \"{namespace}\"\norientation = \"own\"\nhook = \"tc\"\ngroups = [{groups}]\n"
        )
    }

    /// Writes a definition; answers its path.
    pub(super) fn write(&self, name: &str, text: &str) -> Result<String> {
        let path = self.files.join(name);
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        Ok(path.to_string_lossy().into_owned())
    }

    /// Runs sgctl; what it prints on standard output goes to `output`, and what on standard error is shown
    /// if it fails.
    pub(super) fn run(&self, arguments: &[&str], output: Stdio) -> Result<Cost> {
        let complaints = self.files.join("complaints");
        let mut command = self.command(arguments);
        command
            .stdout(output)
            .stderr(fs::File::create(&complaints).context("make a file")?);
        let start = Instant::now();
        let child = command.spawn().context("start sgctl")?;
        let (succeeded, memory) = wait(child)?;
        let seconds = start.elapsed().as_secs_f64();
        if !succeeded {
            let said = fs::read_to_string(&complaints).unwrap_or_default();
            let last: Vec<&str> = said.lines().rev().take(3).collect();
            bail!("sgctl {} failed: {}", arguments.join(" "), last.join("; "));
        }
        Ok(Cost { seconds, memory })
    }

    /// sgctl with these arguments, not yet started.
    pub(super) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.sgctl);
        command
            .arg("--bpffs")
            .arg(&self.context.bpffs)
            .arg("--state-dir")
            .arg(&self.context.state_dir)
            .args(arguments)
            .stdin(Stdio::null());
        command
    }

    /// Runs `task` in a namespace.
    pub(super) fn inside<T: Send>(
        &self,
        namespace: &str,
        task: impl FnOnce() -> T + Send,
    ) -> Result<T> {
        Ok(Netns::open(Some(namespace))?.run(task)?)
    }

    /// Runs `ip` in a namespace.
    pub(super) fn ip(&self, namespace: &str, arguments: &str) -> Result<()> {
        self.inside(namespace, || ip(arguments))?
    }

    /// An `ip` in a namespace that waits for lines, so that a line takes no start of a process.
    pub(super) fn waiting_ip(&self, namespace: &str) -> Result<WaitingIp> {
        let child = self.inside(namespace, || {
            Command::new("ip")
                .args(["-batch", "-"])
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .spawn()
        })?;
        Ok(WaitingIp(child.context("start `ip`")?))
    }
}

impl Drop for Enforcer {
    fn drop(&mut self) {
        let _ = detach::all(&self.context);
        let _ = fs::remove_dir_all(&self.context.bpffs);
        let _ = fs::remove_dir_all(&self.context.state_dir);
        let _ = fs::remove_dir_all(&self.files);
        for namespace in [&self.near, &self.far] {
            let _ = ip(&format!("netns delete {namespace}"));
        }
    }
}

/// An `ip` that waits for commands.
pub(super) struct WaitingIp(Child);

impl WaitingIp {
    pub(super) fn tell(&mut self, line: &str) -> io::Result<()> {
        let input = self.0.stdin.as_mut().expect("it was given one");
        input.write_all(line.as_bytes())?;
        input.write_all(b"\n")
    }
}

impl Drop for WaitingIp {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// How often a child's memory is looked at.
const LOOK: Duration = Duration::from_micros(500);

/// Waits for a child; answers whether it succeeded and its largest resident set in MiB, as it was half a
/// millisecond before it ended. (wait4(2) would answer that of the process it was forked from, if larger.)
fn wait(mut child: Child) -> Result<(bool, f64)> {
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0.0;
    loop {
        let largest = fs::read_to_string(&status).ok().and_then(|text| {
            let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
            line.trim().strip_suffix(" kB")?.trim().parse::<f64>().ok()
        });
        if let Some(kibibytes) = largest {
            peak = kibibytes / 1024.0;
        }
        if let Some(status) = child.try_wait().context("wait for sgctl")? {
            return Ok((status.success(), peak));
        }
        thread::sleep(LOOK);
    }
}

fn ip(arguments: &str) -> Result<()> {
    let output = Command::new("ip")
        .args(arguments.split_whitespace())
        .output()
        .context("start `ip`")?;
    if !output.status.success() {
        bail!(
            "ip {arguments}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}
