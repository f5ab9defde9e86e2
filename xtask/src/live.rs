//! `cargo xtask run -- --interface NAME --file FILE`: the agent on an interface of this machine.

use std::collections::BTreeMap;
use std::env;
use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::net::IpAddr;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use sg_common::verdict::Direction;
use sg_userspace::definition::{self, render};
use sg_userspace::model::{Model, protocol};
use sg_userspace::resolve::{Resolved, resolve};
use sg_userspace::target;

use crate::{Answer, process};

/// Runs the agent on an interface of this machine until Ctrl-C; enforcement stays after it.
#[derive(clap::Parser)]
#[command(name = "cargo xtask run --")]
pub(crate) struct Arguments {
    /// Interface, by its name in the definition or by its device.
    #[arg(long, value_name = "NAME")]
    interface: String,
    /// Definition file, the whole definition of this host; several may be given.
    #[arg(long, required = true, value_name = "FILE")]
    file: Vec<PathBuf>,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
    /// Passed on to sgctl: namespace of interfaces that name none.
    #[arg(long, value_name = "NAME|PATH")]
    netns: Option<String>,
    /// Passed on to sgctl: directory of its state.
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// Passed on to sgctl: directory of its pins.
    #[arg(long, value_name = "DIR")]
    bpffs: Option<PathBuf>,
}

/// Warns, asks, and becomes the agent.
///
/// # Errors
/// If the definition does not serve, the answer cannot be had, or the agent cannot be started.
pub(crate) fn run(arguments: &Arguments, sgctl: &Path) -> Result<Answer> {
    let checked = definition::load(&arguments.file)?;
    eprint!("{}", render(&checked.diagnostics));
    let model = checked
        .model
        .context("the definition has errors; nothing was changed")?;
    let name = find(&model, &arguments.interface)?;
    announce(&model, name);
    // Addresses as far as they can be seen from here; they decide who is a member of a group.
    let current = target::find(&model, arguments.netns.as_deref())
        .map(|targets| target::addresses(&targets))
        .unwrap_or_else(|_| BTreeMap::new());
    let resolved = resolve(&model, &current);
    warn(&resolved, name, session(env::var("SSH_CONNECTION").ok()));
    if !arguments.yes && !ask()? {
        println!("nothing was changed");
        return Ok(Answer::No);
    }

    let mut command = process::privileged(&sgctl.to_string_lossy())?;
    if let Some(netns) = &arguments.netns {
        command.arg("--netns").arg(netns);
    }
    if let Some(directory) = &arguments.state_dir {
        command.arg("--state-dir").arg(directory);
    }
    if let Some(directory) = &arguments.bpffs {
        command.arg("--bpffs").arg(directory);
    }
    command.arg("run").args(&arguments.file);
    let shown = process::shown(&command);
    println!("{shown}");
    Err(command.exec()).with_context(|| format!("start `{shown}`"))
}

/// The interface of the definition that is meant: by name, else the only one of this device.
fn find<'a>(model: &'a Model, wanted: &str) -> Result<&'a str> {
    if let Some((name, _)) = model.interfaces.get_key_value(wanted) {
        return Ok(name);
    }
    let mut by_device = model
        .interfaces
        .iter()
        .filter(|(_, interface)| interface.settings.device == wanted);
    match (by_device.next(), by_device.next()) {
        (Some((name, _)), None) => Ok(name),
        (Some(_), Some(_)) => {
            bail!("the definition has several interfaces of device {wanted}: name one of them")
        }
        (None, _) => {
            let names: Vec<&str> = model.interfaces.keys().map(String::as_str).collect();
            bail!(
                "the definition has no interface called {wanted}, and none with that device; it \
                 has: {}. `[interfaces.{wanted}]` with `groups = […]` adds it",
                if names.is_empty() {
                    "none".to_owned()
                } else {
                    names.join(", ")
                }
            )
        }
    }
}

fn announce(model: &Model, name: &str) {
    for (other, interface) in &model.interfaces {
        let settings = &interface.settings;
        let place = settings.netns.as_deref().unwrap_or("this namespace");
        let also = if other == name { "" } else { " as well" };
        println!(
            "enforces on {other}{also}: device {} in {place}, groups [{}]",
            settings.device,
            interface.groups.join(", ")
        );
    }
}

/// The session this is typed in: its peer, and the port here (ssh(1), `SSH_CONNECTION`).
fn session(variable: Option<String>) -> Option<(IpAddr, u16)> {
    let variable = variable?;
    let mut words = variable.split(' ');
    let peer = words.next()?.parse().ok()?;
    let port = words.nth(2)?.parse().ok()?;
    Some((peer, port))
}

/// Says what could lock its user out.
fn warn(resolved: &Resolved, name: &str, session: Option<(IpAddr, u16)>) {
    println!("\nwarning: what no rule allows is dropped from now on, and stays so after Ctrl-C.");
    println!("Connections that are open go on; whether new ones come in is for the rules.");
    if let Some((peer, port)) = session {
        let rule = resolved.evaluate(name, Direction::Ingress, protocol::TCP, peer, port);
        match rule {
            Some(id) => {
                println!("This session from {peer} to port {port} could be opened anew ({id}).")
            }
            None => println!(
                "THIS SESSION from {peer} to port {port} COULD NOT be opened anew through {name}: no rule allows it."
            ),
        }
    } else {
        let rules = resolved.rules_of(name, Direction::Ingress).filter(|rule| {
            [false, true]
                .into_iter()
                .any(|ipv6| rule.traffic.matches(ipv6, protocol::TCP, SSH))
        });
        if rules.count() == 0 {
            println!("No rule lets anybody in to port {SSH} (SSH) of {name}.");
        }
    }
    println!("`sgctl detach --all` ends enforcement.\n");
}

/// Port of SSH (RFC 4250 §4.1.1).
const SSH: u16 = 22;

fn ask() -> Result<bool> {
    let mut input = io::stdin().lock();
    if !input.is_terminal() {
        bail!("standard input is no terminal to ask on: --yes says yes");
    }
    print!("enforce it? [y/N] ");
    io::stdout().flush().context("ask")?;
    let mut answer = String::new();
    input.read_line(&mut answer).context("read the answer")?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

#[cfg(test)]
mod tests {
    use sg_userspace::definition::{Source, check};

    use super::*;

    #[test]
    fn a_session_is_read_from_the_variable_of_ssh() {
        let peer = "2001:db8::1".parse().unwrap();
        let variable = "2001:db8::1 50000 2001:db8::2 2222".to_owned();
        assert_eq!(session(Some(variable)), Some((peer, 2222)));
        assert_eq!(session(Some("10.0.0.1 50000".to_owned())), None);
        assert_eq!(session(None), None);
    }

    #[test]
    fn an_interface_is_found_by_name_or_by_its_device_alone() {
        let text = "groups.a = { ingress = [], egress = [] }\n\
                    [interfaces.first]\ndevice = \"eth0\"\nnetns = \"x\"\ngroups = [\"a\"]\n\
                    [interfaces.second]\ndevice = \"eth0\"\nnetns = \"y\"\ngroups = [\"a\"]\n\
                    [interfaces.third]\ndevice = \"eth1\"\ngroups = [\"a\"]\n";
        let model = check(&[Source::new("test.toml", text.into())])
            .model
            .unwrap();
        assert_eq!(find(&model, "first").unwrap(), "first");
        assert_eq!(find(&model, "eth1").unwrap(), "third");
        assert!(find(&model, "eth0").is_err());
        assert!(
            find(&model, "eth2")
                .unwrap_err()
                .to_string()
                .contains("third")
        );
    }
}
