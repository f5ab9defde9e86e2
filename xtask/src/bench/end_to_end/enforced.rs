//! The enforcer, used as anybody would: a definition, `sgctl apply`, `sgctl stats`.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use sg_userspace::control::Control;
use sg_userspace::pin::Pins;
use sg_userspace::session;
use sg_userspace::state::State;

use crate::demo::enforcer::Enforcer;

/// What has become of the packets of an interface so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) established: u64,
    pub(super) new: u64,
    pub(super) no_rule: u64,
    /// All that came in, whatever became of it.
    pub(super) ingress: u64,
    /// Tracked flows made so far.
    pub(super) created: u64,
    /// Tracked flows at this moment.
    pub(super) tracked: u64,
}

impl Counts {
    /// What was added to `earlier`.
    pub(super) fn since(&self, earlier: &Self) -> Self {
        Self {
            established: self.established - earlier.established,
            new: self.new - earlier.new,
            no_rule: self.no_rule - earlier.no_rule,
            ingress: self.ingress - earlier.ingress,
            created: self.created - earlier.created,
            tracked: self.tracked,
        }
    }

    fn of(statistics: &Value) -> Result<Self> {
        let figure = |name: &str| {
            let value = statistics[name].as_u64();
            value.with_context(|| format!("`sgctl stats` tells no {name}"))
        };
        Ok(Self {
            established: figure("ingress_passed_established_packets")?,
            new: figure("ingress_passed_new_packets")?,
            no_rule: figure("ingress_dropped_no_rule_packets")?,
            ingress: figure("ingress_passed_packets")? + figure("ingress_dropped_packets")?,
            created: figure("conntrack_created")?,
            tracked: figure("conntrack_tracked")?,
        })
    }
}

/// Puts a definition in force.
///
/// # Errors
/// If sgctl refuses.
pub(super) fn apply(enforcer: &Enforcer, definition: &str) -> Result<()> {
    let file = Path::new(enforcer.places.files).join("bench.toml");
    fs::write(&file, definition).with_context(|| format!("write {}", file.display()))?;
    enforcer
        .printed(&["apply", &file.to_string_lossy()])
        .map(drop)
}

/// The hook by which ingress of an interface is judged.
///
/// # Errors
/// If sgctl does not tell.
pub(super) fn hook(enforcer: &Enforcer, interface: &str) -> Result<String> {
    let status = enforcer.json(&["status", "--json"])?;
    let all = status["interfaces"].as_array();
    let one = all.and_then(|all| all.iter().find(|one| one["name"] == interface));
    let hook = one.and_then(|one| one["hook"].as_str());
    Ok(hook
        .context("`sgctl status` does not tell the hook")?
        .to_owned())
}

/// The counters of an interface.
///
/// # Errors
/// If sgctl does not tell them.
pub(super) fn counts(enforcer: &Enforcer, interface: &str) -> Result<Counts> {
    let answer = enforcer.json(&["stats", "--json", interface])?;
    let one = answer["interfaces"].as_array().and_then(|all| all.first());
    let Some(one) = one.filter(|one| one["name"] == interface) else {
        bail!("`sgctl stats` does not tell of {interface}");
    };
    Counts::of(&one["statistics"])
}

/// Ends all flows of an interface.
///
/// # Errors
/// If there is no such interface, or the kernel refuses.
pub(super) fn flush(enforcer: &Enforcer, interface: &str) -> Result<()> {
    let context = enforcer.context();
    let state = State::read(&context.state_dir)?.context("nothing is enforced")?;
    let one = state.interfaces.iter().find(|one| one.name == interface);
    let id = one
        .with_context(|| format!("{interface} is not enforced"))?
        .id;
    let pins = Pins::new(&context.bpffs);
    let runtime = session::fixed(&pins)?.context("nothing is enforced")?;
    Control::open(&pins.control())?.flush(id, runtime.buckets)?;
    Ok(())
}
