//! Debian's archive without installing anything: an apt of our own under target/, which the user may run, and
//! whose package lists and cache have nothing to do with those of the machine.

use std::cmp::Ordering;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process;

/// Where kernels, an emulator and what else a guest needs come from.
const SUITES: [(&str, &str); 3] = [
    ("http://deb.debian.org/debian", "bookworm"),
    ("http://deb.debian.org/debian", "bookworm-backports"),
    ("http://deb.debian.org/debian-security", "bookworm-security"),
];

/// Signs Debian's archive; of the package `debian-archive-keyring`.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A package's name and version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) version: String,
}

/// An apt of our own.
pub(crate) struct Archive {
    directory: PathBuf,
}

impl Archive {
    /// Makes it if it is not there, and fetches its package lists.
    ///
    /// # Errors
    /// If there is no apt, or the archive cannot be reached.
    pub(crate) fn open(directory: &Path) -> Result<Self> {
        if process::find("apt-get").is_none() || !Path::new(KEYRING).exists() {
            bail!("kernels come from Debian's archive: it takes apt and debian-archive-keyring");
        }
        let archive = Self {
            directory: directory.to_owned(),
        };
        archive.configure()?;
        process::run(archive.apt("apt-get").args(["--quiet", "update"]))
            .context("fetch Debian's package lists")?;
        Ok(archive)
    }

    fn configure(&self) -> Result<()> {
        let root = &self.directory;
        let shown = root.display();
        for part in ["etc/parts", "state/lists/partial", "cache/archives/partial"] {
            let path = root.join(part);
            fs::create_dir_all(&path).with_context(|| format!("make {}", path.display()))?;
        }
        let sources: String = SUITES
            .iter()
            .map(|(archive, suite)| format!("deb [signed-by={KEYRING}] {archive} {suite} main\n"))
            .collect();
        let settings = format!(
            "Dir::Etc \"{shown}/etc\";\n\
             Dir::Etc::sourcelist \"{shown}/etc/sources.list\";\n\
             Dir::Etc::sourceparts \"-\";\n\
             Dir::Etc::parts \"{shown}/etc/parts\";\n\
             Dir::State \"{shown}/state\";\n\
             Dir::State::status \"{shown}/state/status\";\n\
             Dir::Cache \"{shown}/cache\";\n\
             APT::Default-Release \"bookworm-backports\";\n\
             APT::Install-Recommends \"false\";\n\
             APT::Sandbox::User \"\";\n\
             Acquire::Languages \"none\";\n"
        );
        // Nothing is installed as far as this apt knows but what it says so itself: dependencies are all fetched.
        for (file, text) in [
            ("etc/sources.list", sources.as_str()),
            ("etc/apt.conf", &settings),
            ("state/status", ""),
        ] {
            let path = root.join(file);
            fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        }
        Ok(())
    }

    fn apt(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env("APT_CONFIG", self.directory.join("etc/apt.conf"))
            .env("LC_ALL", "C");
        command
    }

    /// The newest cloud kernel of a series such as `6.1`.
    ///
    /// # Errors
    /// If the archive has none.
    pub(crate) fn kernel(&self, series: &str) -> Result<Package> {
        let names = process::output(self.apt("apt-cache").args(["pkgnames", "linux-image-"]))
            .context("ask apt for kernels")?;
        let names: Vec<&str> = names
            .lines()
            .filter(|name| is_of_series(name, series))
            .collect();
        let mut newest: Option<Package> = None;
        for name in names {
            let found = self.package(name)?;
            let newer =
                |other: &Package| later(&found.version, &other.version) == Ordering::Greater;
            if newest.as_ref().is_none_or(newer) {
                newest = Some(found);
            }
        }
        newest.with_context(|| {
            format!("Debian 12 and its backports have no cloud kernel of the series {series}")
        })
    }

    /// The version of a package that would be taken.
    ///
    /// # Errors
    /// If the archive has none.
    pub(crate) fn package(&self, name: &str) -> Result<Package> {
        let policy = process::output(self.apt("apt-cache").args(["policy", name]));
        let version = policy.as_deref().and_then(candidate);
        Ok(Package {
            name: name.to_owned(),
            version: version
                .with_context(|| format!("Debian's archive has no package {name}"))?
                .to_owned(),
        })
    }

    /// Fetches a package and unpacks it into a directory, unless that is done. With the packages that it
    /// depends on if `whole`, from the backports where they have it.
    ///
    /// # Errors
    /// If it cannot be fetched.
    pub(crate) fn unpack(&self, package: &Package, whole: bool, to: &Path) -> Result<()> {
        let done = to.join("unpacked");
        if fs::read_to_string(&done).is_ok_and(|text| text == package.version) {
            return Ok(());
        }
        println!("fetching {} {}", package.name, package.version);
        let _ = fs::remove_dir_all(to);
        let files = to.join("files");
        fs::create_dir_all(&files).with_context(|| format!("make {}", files.display()))?;
        let exact = format!("{}={}", package.name, package.version);
        let mut wanted = vec![exact.clone()];
        if whole {
            let simulated = process::output(self.apt("apt-get").args([
                "--simulate",
                "--quiet",
                "install",
                &exact,
            ]));
            let simulated = simulated.with_context(|| format!("resolve {exact}"))?;
            wanted = installed(&simulated);
        }
        let mut download = self.apt("apt-get");
        download.args(["--quiet", "download"]).args(&wanted);
        process::run(download.current_dir(&files)).with_context(|| format!("fetch {exact}"))?;
        for entry in fs::read_dir(&files).context("read what was fetched")? {
            let file = entry.context("read what was fetched")?.path();
            process::run(Command::new("dpkg-deb").arg("-x").arg(&file).arg(to))
                .with_context(|| format!("unpack {}", file.display()))?;
        }
        let _ = fs::remove_dir_all(&files);
        fs::write(&done, &package.version).with_context(|| format!("write {}", done.display()))
    }
}

/// Whether a package is a cloud kernel for this architecture of a series, and not a meta-package.
fn is_of_series(name: &str, series: &str) -> bool {
    let version = name
        .strip_prefix("linux-image-")
        .and_then(|rest| rest.strip_suffix("-cloud-amd64"));
    let Some(rest) = version.and_then(|version| version.strip_prefix(series)) else {
        return false;
    };
    // `6.1.0-56`, `6.12.117+deb12`; not `6.12` for the series 6.1, and not `6.12-cloud-amd64` alone.
    rest.strip_prefix('.')
        .is_some_and(|rest| rest.starts_with(|mark: char| mark.is_ascii_digit()))
}

fn candidate(policy: &str) -> Option<&str> {
    policy
        .lines()
        .find_map(|line| line.trim().strip_prefix("Candidate: "))
        .filter(|version| *version != "(none)")
}

/// What an installation would unpack, as `name=version`, by what `apt-get --simulate` says:
/// `Inst libslirp0 (4.7.0-1 Debian:12.5/stable [amd64])`.
fn installed(simulated: &str) -> Vec<String> {
    let lines = simulated.lines();
    let packages = lines.filter_map(|line| {
        let (name, rest) = line.strip_prefix("Inst ")?.split_once(" (")?;
        let (version, _) = rest.split_once(' ')?;
        Some(format!("{name}={version}"))
    });
    packages.collect()
}

/// Compares versions as dpkg does.
fn later(one: &str, other: &str) -> Ordering {
    let is = |relation| {
        let mut dpkg = Command::new("dpkg");
        dpkg.args(["--compare-versions", one, relation, other]);
        dpkg.status().is_ok_and(|status| status.success())
    };
    if is("gt") {
        Ordering::Greater
    } else if is("lt") {
        Ordering::Less
    } else {
        Ordering::Equal
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_is_told_from_another_that_begins_alike() {
        for (name, series, expected) in [
            ("linux-image-6.1.0-56-cloud-amd64", "6.1", true),
            ("linux-image-6.12.117+deb12-cloud-amd64", "6.12", true),
            ("linux-image-6.12.117+deb12-cloud-amd64", "6.1", false),
            ("linux-image-6.12-cloud-amd64", "6.12", false),
            ("linux-image-6.1.0-56-amd64", "6.1", false),
            ("linux-image-6.1.0-56-cloud-amd64-dbg", "6.1", false),
        ] {
            assert_eq!(is_of_series(name, series), expected, "{name} {series}");
        }
    }

    #[test]
    fn what_apt_would_install_is_read() {
        let said = "NOTE: This is only a simulation!\n\
            Inst libslirp0 (4.7.0-1 Debian:12.5/stable [amd64])\n\
            Inst qemu-system-x86 (1:10.0.2+ds-2 Debian Backports:/stable-backports [amd64]) []\n\
            Conf libslirp0 (4.7.0-1 Debian:12.5/stable [amd64])\n";
        assert_eq!(
            installed(said),
            ["libslirp0=4.7.0-1", "qemu-system-x86=1:10.0.2+ds-2"]
        );
    }

    #[test]
    fn versions_are_compared_as_dpkg_does() {
        if process::find("dpkg").is_some() {
            assert_eq!(later("6.12.117-1", "6.12.95-1~bpo12+1"), Ordering::Greater);
            assert_eq!(later("6.1.192-2", "6.1.192-2"), Ordering::Equal);
        }
    }
}
