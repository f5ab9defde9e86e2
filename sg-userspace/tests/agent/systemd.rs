//! The unit under a systemd of its own: started, ready, reloaded, killed, hung, stopped; enforcement stays throughout.
//!
//! systemd is process 1 of namespaces that the test makes, with the workload's network; the root is an overlay of
//! this machine's, all of whose changes are in memory.

use std::{
    fs,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use crate::{
    common::{
        netns::{Answer, answers, eventually_within, unique},
        pair::{NEAR, Pair},
        require::{require, skip},
    },
    service::UNIT,
};

/// How long anything may take that systemd does.
const SOON: Duration = Duration::from_secs(60);

const MANAGER: &str = "/lib/systemd/systemd";

/// Makes the root and becomes process 1: `$1` where, `$2` sgctl. What is made is gone with the mount namespace.
const BOOT: &str = r#"
set -e
root=$1/root
mount -t tmpfs tmpfs "$1"
mkdir "$1/upper" "$1/work" "$root"
cp -r "$1-etc" "$1/etc"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$root"
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t bpf bpf "$root/sys/fs/bpf" -o mode=0700
mount -t tmpfs tmpfs "$root/run" -o mode=0755
mount -t tmpfs tmpfs "$root/tmp" -o mode=1777
mount -t tmpfs tmpfs "$root/dev" -o mode=0755
for device in null zero full random urandom tty; do
    touch "$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
mkdir "$root/dev/pts" "$root/dev/shm" "$root/dev/mqueue" "$root/dev/hugepages"
ln -s pts/ptmx "$root/dev/ptmx"
mount -t devpts devpts "$root/dev/pts" -o newinstance,ptmxmode=0666
mkdir -p "$root/usr/local/sbin" "$root/etc/systemd/system"
touch "$root/usr/local/sbin/sgctl"
mount --bind "$2" "$root/usr/local/sbin/sgctl"
chmod -R go-w "$1/etc"
cp -r "$1/etc/." "$root/etc/"
cd "$root"
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin container=test \
    unshare --root="$root" /lib/systemd/systemd --system --unit=test.target --log-level=warning
"#;

/// A systemd and all that it has started.
struct Manager {
    /// unshare(1), whose only child is process 1.
    child: Child,
    pid: u32,
    directory: PathBuf,
    cgroup: PathBuf,
}

impl Manager {
    /// Boots it in the workload's network; `None` where that cannot be done.
    fn boot(pair: &Pair, definition: &str) -> Option<Self> {
        let name = unique("systemd");
        let cgroup = cgroups()?.join(&name);
        let directory = std::env::temp_dir().join(&name);
        let etc = directory.with_file_name(format!("{name}-etc"));
        let units = etc.join("systemd/system");
        fs::create_dir_all(&directory).unwrap();
        fs::create_dir_all(units.join("sgctl.service.d")).unwrap();
        fs::create_dir_all(etc.join("sgctl")).unwrap();
        fs::write(units.join("sgctl.service"), UNIT).unwrap();
        // A minute is long for a test.
        let quick = "[Service]\nWatchdogSec=6s\nStandardError=append:/run/said\n";
        fs::write(units.join("sgctl.service.d/quick.conf"), quick).unwrap();
        let target = "[Unit]\nDefaultDependencies=no\n";
        fs::write(units.join("test.target"), target).unwrap();
        fs::write(etc.join("sgctl/web.toml"), definition).unwrap();
        if fs::create_dir(&cgroup).is_err() {
            return None;
        }
        let procs = cgroup.join("cgroup.procs");
        let mut command = Command::new("sh");
        command
            .args(["-c", "echo $$ > \"$0\" && exec \"$@\""])
            .arg(procs)
            .args(["unshare", "--pid", "--fork", "--kill-child", "--mount"])
            .args(["--uts", "--ipc", "--cgroup", "sh", "-c", BOOT, "boot"])
            .arg(&directory)
            .arg(env!("CARGO_BIN_EXE_sgctl"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0);
        let child = pair.near.run(move || command.spawn()).unwrap();
        let mut manager = Self {
            child,
            pid: 0,
            directory,
            cgroup,
        };
        eventually_within(SOON, "process 1", || {
            let id = manager.child.id();
            let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children"));
            manager.pid = children
                .ok()
                .and_then(|text| text.trim().parse().ok())
                .unwrap_or(0);
            manager.pid != 0 || manager.has_ended()
        });
        let mut running = false;
        eventually_within(SOON, "systemd", || {
            let said = manager.systemctl(&["is-system-running"]).out;
            running = ["running", "degraded"].contains(&said.trim());
            running || manager.has_ended()
        });
        running.then_some(manager)
    }

    fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Answer {
        let mut command = Command::new("nsenter");
        command
            .args(["--target", &self.pid.to_string()])
            .args(["-m", "-p", "-u", "-i", "-n", "-C", "-r", "-w"])
            .args([
                "env",
                "-i",
                "PATH=/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin",
            ])
            .arg(program)
            .args(arguments);
        Answer::from(command.output().unwrap())
    }

    fn systemctl(&self, arguments: &[&str]) -> Answer {
        self.run("systemctl", arguments)
    }

    /// A property of the service.
    fn property(&self, name: &str) -> String {
        let said = self
            .systemctl(&["show", "--value", "-p", name, "sgctl"])
            .ok();
        said.out.trim().to_owned()
    }

    fn signal(&self, signal: &str) {
        let pid = self.property("MainPID");
        self.run("kill", &[signal, &pid]).ok();
    }

    /// Waits until it is ready again after so many restarts.
    #[track_caller]
    fn is_restarted(&self, times: &str) {
        eventually_within(SOON, "a restart", || {
            self.property("NRestarts") == times && self.property("ActiveState") == "active"
        });
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        // And with it process 1, and with that all others.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.directory);
        let mut etc = self.directory.clone().into_os_string();
        etc.push("-etc");
        let _ = fs::remove_dir_all(etc);
        for _ in 0..50 {
            if remove_groups(&self.cgroup) {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Removes a control group and those in it, unless somebody is still there.
fn remove_groups(group: &Path) -> bool {
    let below = fs::read_dir(group).into_iter().flatten().flatten();
    for entry in below {
        if entry.path().is_dir() {
            remove_groups(&entry.path());
        }
    }
    fs::remove_dir(group).is_ok()
}

/// Where control groups of version 2 are.
fn cgroups() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/mounts").ok()?;
    let mut mounts = mounts.lines().map(|line| line.split(' '));
    mounts.find_map(|mut fields| {
        let place = fields.nth(1)?;
        (fields.next() == Some("cgroup2")).then(|| place.into())
    })
}

fn definition(port: u16) -> String {
    format!(
        "[groups.g]\ningress = [{{ protocol = \"tcp\", ports = {port}, cidr = \"0.0.0.0/0\" }}]\negress = []\n\
         [interfaces.web]\ndevice = \"eth0\"\norientation = \"own\"\ngroups = [\"g\"]\n"
    )
}

#[test]
fn n3_m3_m14_the_unit_runs_under_systemd_and_enforcement_outlives_whatever_happens_to_it() {
    require!(Root, Object);
    if !Path::new(MANAGER).exists() {
        return skip("there is no systemd");
    }
    let pair = Pair::new();
    let _servers = [8080, 9090].map(|port| pair.near.serve(NEAR, port));
    let Some(manager) = Manager::boot(&pair, &definition(8080)) else {
        return skip("no systemd can be started here");
    };
    let started = manager.systemctl(&["start", "sgctl"]);
    let said = manager
        .run("sh", &["-c", "systemctl status sgctl; cat /run/said"])
        .out;
    assert_eq!(started.code, 0, "{started:?}: {said}");
    // Ready means in force.
    assert!(pair.far.connect_is_dropped(NEAR, 9090));
    let mut stream = pair.far.connect(NEAR, 8080).unwrap();
    assert!(answers(&mut stream));
    assert_eq!(
        manager.property("StatusText"),
        "generation 1 in force on 1 interface"
    );
    manager.run("sgctl", &["status"]).ok();

    let file = manager.run(
        "sh",
        &[
            "-c",
            &format!("echo '{}' > /etc/sgctl/web.toml", definition(9090)),
        ],
    );
    file.ok();
    manager.systemctl(&["reload", "sgctl"]).ok();
    eventually_within(SOON, "the new definition", || {
        pair.far.connect(NEAR, 9090).is_ok()
    });
    assert!(pair.far.connect_is_dropped(NEAR, 8080));

    manager.signal("-KILL");
    assert!(pair.far.connect_is_dropped(NEAR, 8080));
    manager.is_restarted("1");
    // One that hangs is ended by the watchdog.
    manager.signal("-STOP");
    manager.is_restarted("2");
    assert!(pair.far.connect_is_dropped(NEAR, 8080));
    assert!(
        answers(&mut stream),
        "a tracked flow lives through all of it"
    );

    manager.systemctl(&["stop", "sgctl"]).ok();
    assert_eq!(manager.property("ActiveState"), "inactive");
    manager.run("sgctl", &["status"]).ok();
    assert!(pair.far.connect_is_dropped(NEAR, 8080));
    assert!(answers(&mut stream));
}
