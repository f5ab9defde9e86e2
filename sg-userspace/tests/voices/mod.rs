//! The agreement of voices: oracle, pipeline on the host and loaded programs judge the same packets of
//! random cases, and whatever one of them says otherwise is a failure.

#![allow(dead_code, reason = "a test program uses what it needs of it")]

pub(crate) mod campaign;
pub(crate) mod core;
pub(crate) mod entry;
pub(crate) mod mirror;
pub(crate) mod recorded;
pub(crate) mod run;
pub(crate) mod shrink;
pub(crate) mod text;

use std::collections::BTreeMap;

use sg_common::{
    abi::MAX_NODES,
    host::Host,
    table::Occupancy,
    verdict::{Direction, Verdict},
};
use sg_oracle::{policy::Policy, random::Hook};
use sg_userspace::{
    compile::{self, Compiled},
    definition::{self, Source},
    model::Conntrack,
    resolve,
};

/// A voice, and what it said about a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) who: &'static str,
    pub(crate) direction: Direction,
    pub(crate) verdict: Verdict,
}

/// What the oracle is compared with: the pipeline on the host, alone or beside the loaded programs.
pub(crate) trait Enforcer {
    /// The pipeline on the host.
    fn host(&self) -> &Host;
    /// Jiffies, of which those in [`Enforcer::pass`] are a part; the host's clock is set to their low half.
    fn now(&mut self) -> u64;
    /// Forgets definition, flows and fragments.
    fn begin(&mut self);
    /// Puts a policy in force; interfaces keep their ids by name.
    fn change(&mut self, policy: &Policy);
    /// Ends what is tracked of an interface.
    fn end(&mut self, name: &str);
    /// The id of an interface; 0 if there never was one of that name.
    fn id(&self, name: &str) -> u32;
    /// Lets time pass.
    fn pass(&mut self, jiffies: u32);
    /// Asks all voices but the oracle, at the time of the last [`Enforcer::now`].
    ///
    /// # Errors
    /// A voice contradicts itself.
    fn judge(
        &mut self,
        hook: Hook,
        id: u32,
        frame: &[u8],
        packets: u32,
    ) -> Result<Vec<Said>, String>;
    /// Reclaims what is expired.
    fn sweep(&mut self);
    /// Whether all voices but the oracle have the same tables; sweeps.
    ///
    /// # Errors
    /// What differs.
    fn agree(&mut self) -> Result<(), String>;
}

/// Flows that the tables of ample cases are made for.
pub(crate) const AMPLE: Conntrack = Conntrack {
    allowance: 4096,
    accounting: true,
};

/// Flows that the tables of tight cases are made for: two buckets, so that every flow stands beside every
/// other of its family.
pub(crate) const TIGHT: Conntrack = Conntrack {
    allowance: 10,
    accounting: true,
};

/// The way of a definition to what the tables are filled with.
#[track_caller]
pub(crate) fn compiled(definition: &str) -> Compiled {
    let checked = definition::check(&[Source::new("test.toml", definition.into())]);
    let Some(model) = checked.model else {
        panic!("{:#?}\n{definition}", checked.diagnostics);
    };
    // Everything in trees, nothing, or whatever has room in a few nodes: by the definition itself, so that a
    // case is always the same.
    let nodes = match definition.len() % 4 {
        0 => 0,
        1 => 12,
        _ => MAX_NODES,
    };
    compile::compile_within(&resolve::resolve(&model, &BTreeMap::new()), nodes).unwrap()
}

/// The same of a policy, by its definition. That must allow a host more flows than a test wants to fill.
#[track_caller]
pub(crate) fn compiled_policy(policy: &Policy) -> Compiled {
    let mut definable = policy.clone();
    definable.allowance = policy.allowance.max(1024);
    let mut compiled = compiled(&sg_oracle::definition(&definable));
    compiled.allowance = policy.allowance;
    for one in &mut compiled.interfaces {
        one.allowance = one.allowance.min(policy.allowance);
    }
    compiled
}

/// Occupancy without what depends on which CPU judged what.
pub(crate) fn comparable(state: Occupancy) -> Occupancy {
    Occupancy { peak: 0, ..state }
}
