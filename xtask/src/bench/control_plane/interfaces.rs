//! Many interfaces on one host, each with a policy of its own: attached, changed and detached.

use std::fmt::Write as _;
use std::fs;
use std::process::Stdio;

use anyhow::Result;
use sg_common::abi::map::OF_A_SET;
use sg_userspace::pin::Pins;

use super::super::Options;
use super::super::report::{Figure, Findings};
use super::at_most;
use super::enforcer::Enforcer;

pub(super) const NAME: &str = "many interfaces";

/// Interfaces of the batch; one more comes and goes alone.
const MANY: u32 = 500;
/// Goal of one of a batch, in milliseconds.
const EACH: f64 = 20.0;
/// Goal of one alone.
const ALONE: f64 = 100.0;

pub(super) fn measure(options: &Options, findings: &mut Findings) -> Result<()> {
    let enforcer = Enforcer::new(options)?;
    let mut ip = enforcer.waiting_ip(&enforcer.near)?;
    for number in 0..=MANY {
        let far = &enforcer.far;
        ip.tell(&format!(
            "link add v{number} type veth peer name w{number} netns {far}"
        ))?;
        ip.tell(&format!("link set v{number} up"))?;
    }
    drop(ip);
    let write = |name: &str, count: u32, port: fn(u32) -> u32| {
        enforcer.write(name, &definition(&enforcer, count, port))
    };
    let first = write("first.toml", 1, |number| 1000 + number)?;
    let all = write("all.toml", MANY, |number| 1000 + number)?;
    let changed = write("changed.toml", MANY, |number| 2000 + number)?;
    let more = write("more.toml", MANY + 1, |number| 2000 + number)?;
    let other = |number| if number == 7 { 3000 } else { 2000 + number };
    let one = write("one.toml", MANY + 1, other)?;
    let milliseconds = |arguments: &[&str]| -> Result<f64> {
        Ok(enforcer.run(arguments, Stdio::null())?.seconds * 1e3)
    };
    // Programs are loaded once.
    milliseconds(&["apply", &first])?;
    // Of a batch: attach, change, detach; then of one alone.
    let mut rounds = vec![Vec::new(); 7];
    let (each, mut memory, mut pinned) = (f64::from(MANY - 1), Vec::new(), Vec::new());
    for _ in 0..options.rounds {
        let attached = enforcer.run(&["apply", &all], Stdio::null())?;
        rounds[0].push(attached.seconds * 1e3 / each);
        memory.push(attached.memory);
        rounds[1].push(milliseconds(&["apply", &changed])? / f64::from(MANY));
        rounds[3].push(milliseconds(&["apply", &more])?);
        rounds[4].push(milliseconds(&["apply", &more])?);
        rounds[5].push(milliseconds(&["apply", &one])?);
        pinned.push(programs(&enforcer)?);
        rounds[6].push(milliseconds(&["detach", &format!("i{MANY}")])?);
        rounds[2].push(milliseconds(&["apply", "--detach-missing", &first])? / each);
    }
    let names = [
        "attach 500, each",
        "change 500, each",
        "detach 500, each",
        "attach one to 500",
        "apply to 501 what is in force",
        "change one of 501",
        "detach one of 501",
    ];
    for (place, (name, rounds)) in names.into_iter().zip(rounds).enumerate() {
        findings
            .figures
            .push(Figure::new(NAME, name, "ms", rounds.clone()));
        let goal = if place < 3 { EACH } else { ALONE };
        findings
            .goals
            .push(at_most(name, "ms", goal, rounds, String::new()));
    }
    findings.figures.extend([
        Figure::new(NAME, "attach 500, peak memory", "MiB", memory),
        Figure::new(NAME, "programs for 501", "", pinned),
    ]);
    if options.full {
        // As it is where grace periods must not be expedited.
        let attach = milliseconds(&["--no-expedite", "apply", &all])? / each;
        let detach = ["--no-expedite", "apply", "--detach-missing", &first];
        let detach = milliseconds(&detach)? / each;
        findings.figures.extend([
            Figure::new(NAME, "attach 500, not expedited, each", "ms", vec![attach]),
            Figure::new(NAME, "detach 500, not expedited, each", "ms", vec![detach]),
        ]);
    }
    Ok(())
}

/// How many programs are pinned for the namespaces of interfaces.
fn programs(enforcer: &Enforcer) -> Result<f64> {
    let pins = Pins::new(&enforcer.context.bpffs);
    let mut count = 0;
    for set in pins.program_sets()? {
        let arrays = OF_A_SET.map(|name| set.join(name));
        if set != pins.programs(0) {
            let all = fs::read_dir(&set)?;
            let all = all.filter(|one| one.as_ref().is_ok_and(|one| !arrays.contains(&one.path())));
            count += all.count();
        }
    }
    Ok(count as f64)
}

fn definition(enforcer: &Enforcer, count: u32, port: fn(u32) -> u32) -> String {
    let mut text = String::new();
    for number in 0..count {
        let _ = writeln!(
            text,
            "[groups.g{number}]\negress = []\ningress = [{{ protocol = \"tcp\", ports = {}, cidr = \"10.{}.0.0/16\" }}]\n\
             [interfaces.i{number}]\ndevice = \"v{number}\"\nnetns = \"{}\"\norientation = \"host\"\nhook = \"tc\"\ngroups = [\"g{number}\"]",
            port(number),
            number % 250,
            enforcer.near
        );
    }
    text
}
