//! Debian's packages: what there is, and installing it.

use std::process::{Command, Stdio};

use anyhow::{Result, bail};

use crate::process;

/// True if packages can be installed here by apt.
pub(crate) fn is_here() -> bool {
    process::find("apt-get").is_some() && process::find("dpkg-query").is_some()
}

/// True if the package is installed.
pub(crate) fn is_installed(package: &str) -> bool {
    let mut query = Command::new("dpkg-query");
    query.args(["--show", "--showformat=${db:Status-Status}", package]);
    process::output(&mut query).is_some_and(|status| status.trim() == "installed")
}

/// True if apt's package lists offer the package; false, too, if there are no lists.
pub(crate) fn is_offered(package: &str) -> bool {
    let mut policy = Command::new("apt-cache");
    policy.args(["policy", package]).env("LC_ALL", "C");
    process::output(&mut policy).is_some_and(|policy| has_candidate(&policy))
}

fn has_candidate(policy: &str) -> bool {
    policy
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Candidate: "))
        .any(|candidate| candidate != "(none)")
}

/// Fetches apt's package lists if there are none, as in container images that leave them out.
///
/// # Errors
/// If we are neither root nor have sudo, or if apt fails.
pub(crate) fn ensure_lists() -> Result<()> {
    let policy = process::output(Command::new("apt-cache").arg("policy").env("LC_ALL", "C"));
    if policy.is_some_and(|policy| names_an_archive(&policy)) {
        Ok(())
    } else {
        update()
    }
}

/// Without lists only dpkg's own file of installed packages is named, as `release a=now`.
fn names_an_archive(policy: &str) -> bool {
    policy
        .lines()
        .filter_map(|line| line.trim().strip_prefix("release "))
        .any(|release| release != "a=now")
}

/// Installs the packages without recommended ones, after saying so. Nothing that is installed is
/// removed for them.
///
/// # Errors
/// If we are neither root nor have sudo, or if apt fails.
pub(crate) fn install(packages: &[&str], purpose: &str) -> Result<()> {
    ensure_lists()?;
    let unknown = || -> Vec<&str> {
        let all = packages.iter().copied();
        all.filter(|package| !is_offered(package)).collect()
    };
    if !unknown().is_empty() {
        // Lists that came with a machine's image may be older than the package.
        update()?;
    }
    let unknown = unknown();
    if !unknown.is_empty() {
        bail!(
            "apt offers no package {} (for {purpose})",
            unknown.join(", ")
        );
    }
    println!(
        "installing Debian packages for {purpose}: {}",
        packages.join(" ")
    );
    if apt(
        &["install", "--no-install-recommends", "--no-remove"],
        packages,
    )
    .is_ok()
    {
        return Ok(());
    }
    // Lists that are older than the archive name files that are gone.
    update()?;
    apt(
        &["install", "--no-install-recommends", "--no-remove"],
        packages,
    )
}

fn update() -> Result<()> {
    println!("fetching apt's package lists");
    apt(&["update"], &[])
}

fn apt(arguments: &[&str], packages: &[&str]) -> Result<()> {
    let mut command = process::privileged("env")?;
    command
        .args([
            "DEBIAN_FRONTEND=noninteractive",
            "apt-get",
            "--yes",
            "--quiet",
        ])
        .args(["-o", "DPkg::Lock::Timeout=300", "-o", "Dpkg::Use-Pty=0"])
        .args(arguments)
        .args(packages);
    println!("+ {}", process::shown(&command));
    process::run(command.stdin(Stdio::inherit()))
}

#[cfg(test)]
mod tests {
    use super::{has_candidate, names_an_archive};

    #[test]
    fn a_package_is_offered_if_it_has_a_candidate() {
        let policy = "bpftool:\n  Installed: (none)\n  Candidate: 7.1.0\n  Version table:\n";
        assert!(has_candidate(policy));
        assert!(!has_candidate(
            "rustup:\n  Installed: (none)\n  Candidate: (none)\n"
        ));
        assert!(!has_candidate(""));
    }

    #[test]
    fn the_file_of_installed_packages_is_no_archive() {
        let none =
            "Package files:\n 100 /var/lib/dpkg/status\n     release a=now\nPinned packages:\n";
        assert!(!names_an_archive(none));
        let some = format!(
            "{none} 500 http://mirror.example/debian bookworm/main\n     release v=12.9,o=Debian\n"
        );
        assert!(names_an_archive(&some));
    }
}
