//! Listing and summarising tracked flows.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr};
use std::process::Stdio;

use anyhow::{Context as _, Result, bail};
use sg_userspace::control::{Control, Flow, Inserted};
use sg_userspace::pin::Pins;
use sg_userspace::state::State;

use super::super::Options;
use super::super::report::{Figure, Findings};
use super::at_most;
use super::definition;
use super::enforcer::{Enforcer, NEAR};

pub(super) const NAME: &str = "tracked flows read";

/// Tracked flows.
const FLOWS: u32 = 1_000_000;

pub(super) fn measure(options: &Options, findings: &mut Findings) -> Result<()> {
    let enforcer = Enforcer::new(options)?;
    let text = format!(
        "[conntrack]\nallowance = {}\n{}{}",
        1 << 20,
        definition::one_group(10),
        Enforcer::interface(&enforcer.near, "db", "\"g\"")
    );
    let file = enforcer.write("flows.toml", &text)?;
    enforcer.run(&["apply", &file], Stdio::null())?;
    fill(&enforcer)?;

    let commands: [(&str, &[&str], Option<f64>); 3] = [
        ("list", &["ct", "list"], Some(1.0)),
        ("list as JSON", &["ct", "list", "--json"], None),
        ("summarise", &["ct", "summary"], Some(0.2)),
    ];
    let mut seconds = vec![Vec::new(); commands.len()];
    let mut memory = seconds.clone();
    let shown = enforcer.write("shown", "")?;
    for _ in 0..options.rounds {
        for (place, (_, arguments, _)) in commands.iter().enumerate() {
            let output = File::create(&shown).context("make a file")?;
            let cost = enforcer.run(arguments, output.into())?;
            seconds[place].push(cost.seconds);
            memory[place].push(cost.memory);
        }
    }
    for (place, (name, _, goal)) in commands.into_iter().enumerate() {
        let what = format!("{name} 1 M flows");
        let rounds = seconds[place].clone();
        let peak = memory[place].clone();
        findings.figures.extend([
            Figure::new(NAME, &what, "s", rounds.clone()),
            Figure::new(NAME, &format!("{what}, peak memory"), "MiB", peak),
        ]);
        if let Some(goal) = goal {
            let goal = at_most(&what, "s", goal, rounds, "to a file".into());
            findings.goals.push(goal);
        }
    }
    Ok(())
}

/// Tracks flows, as adopting connections does.
fn fill(enforcer: &Enforcer) -> Result<()> {
    let state = State::read(&enforcer.context.state_dir)?.context("nothing is in force")?;
    let id = state.interfaces.first().context("no interface")?.id;
    let control = Control::open(&Pins::new(&enforcer.context.bpffs).control())?;
    let local: IpAddr = NEAR.parse()?;
    for number in 0..FLOWS {
        let flow = Flow {
            protocol: if number % 4 == 0 { 17 } else { 6 },
            local,
            remote: IpAddr::V4(Ipv4Addr::from(0x0b00_0000 + number / 16)),
            local_port: 8000 + (number % 3) as u16,
            remote_port: 40_000 + (number % 16) as u16,
        };
        if control.insert(id, &flow, false)? == Inserted::Full {
            bail!("there is no room for flow {number}");
        }
    }
    Ok(())
}
