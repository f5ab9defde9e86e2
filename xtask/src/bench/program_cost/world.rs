//! An enforcer of the benchmark's own: maps, programs and a policy in force, attached to nothing.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result, bail};
use aya::programs::{ProgramFd, SchedClassifier, Xdp};
use sg_common::layout::Counters;
use sg_common::verdict::{Direction, OUTCOMES, Verdict};
use sg_userspace::bank;
use sg_userspace::control::{Control, Flow, Inserted};
use sg_userspace::definition::{self, Source};
use sg_userspace::model::Conntrack;
use sg_userspace::session::{Context, Session};
use sg_userspace::shape::Object;
use sg_userspace::state::Lock;
use sg_userspace::{compile, detach, index, resolve};

use super::Hook;

/// Number of the namespace that programs are loaded for; any will do.
const NAMESPACE: u32 = 3;
/// ifindex of the first device of the benchmark's namespace.
pub(crate) const FIRST_DEVICE: u32 = 10;
/// Devices of the benchmark's namespace.
pub(crate) const DEVICES: u32 = 8;
/// ifindex of interfaces that have no device.
const NO_DEVICE: u32 = 1000;

/// Maps and programs under one definition.
#[derive(Debug)]
pub(crate) struct World {
    session: Session,
    control: Control,
    ids: BTreeMap<String, u32>,
    _place: Place,
}

/// Where an enforcer keeps its things until it is dropped.
#[derive(Debug)]
pub(crate) struct Place(pub(crate) Context);

impl Place {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("sgbench-{}-{number}", std::process::id());
        Self(Context {
            bpffs: PathBuf::from("/sys/fs/bpf").join(&name),
            state_dir: PathBuf::from("/run").join(&name),
            netns: None,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = detach::all(&self.0);
        let _ = fs::remove_dir_all(&self.0.bpffs);
        let _ = fs::remove_dir_all(&self.0.state_dir);
    }
}

impl World {
    /// Puts a definition in force. The interfaces named in `measured` get the devices, in that order.
    pub(crate) fn new(object: &'static [u8], definition: &str, measured: &[&str]) -> Result<Self> {
        let checked = definition::check(&[Source::new("bench.toml", definition.into())]);
        let Some(model) = checked.model else {
            bail!("{}", definition::render(&checked.diagnostics));
        };
        let compiled = compile::compile(&resolve::resolve(&model, &BTreeMap::new()))?;
        let place = Place::new();
        let lock = Lock::take(&place.0.state_dir)?;
        let conntrack = Conntrack {
            allowance: compiled.allowance,
            accounting: compiled.accounting,
        };
        let mut session = Session::create_from(Object::parse(object)?, &place.0, &lock, conntrack)?;
        let control = session.control()?;
        let mut ids = BTreeMap::new();
        for (number, one) in compiled.interfaces.iter().enumerate() {
            let id = number as u32 + 1;
            let device = measured.iter().position(|name| *name == one.name);
            let ifindex = device.map_or(NO_DEVICE + id, |device| FIRST_DEVICE + device as u32);
            index::insert(&session.tables.interface_index, NAMESPACE, ifindex, id)?;
            ids.insert(one.name.clone(), id);
        }
        session.set_limits(&compiled);
        let now = control.now()?;
        bank::put_in_force(
            &session.tables,
            &session.object,
            &compiled,
            &mut session.runtime,
            now,
            |name| ids.get(name).copied(),
        )?;
        if compiled.bypasses() {
            session.review()?;
        }
        drop(lock);
        Ok(Self {
            session,
            control,
            ids,
            _place: place,
        })
    }

    /// Id of an interface.
    pub(crate) fn id(&self, interface: &str) -> Result<u32> {
        let id = self.ids.get(interface).copied();
        id.with_context(|| format!("there is no interface {interface}"))
    }

    /// The program of a hook, loaded if it is not yet.
    pub(crate) fn program(&self, hook: Hook) -> Result<ProgramFd> {
        let programs = self.session.programs(NAMESPACE);
        let xdp = |program: Xdp| -> Result<_> { Ok(program.fd()?.try_clone()?) };
        let tc = |program: SchedClassifier| -> Result<_> { Ok(program.fd()?.try_clone()?) };
        match hook {
            Hook::Xdp => xdp(programs.xdp_ingress()?),
            Hook::TcIngress => tc(programs.tc_ingress()?),
            Hook::TcEgress => tc(programs.tc_egress()?),
        }
    }

    /// Tracks an established flow that its remote side opened.
    pub(crate) fn establish(
        &self,
        id: u32,
        protocol: u8,
        local: (IpAddr, u16),
        remote: (IpAddr, u16),
    ) -> Result<()> {
        let flow = Flow {
            protocol,
            local: local.0,
            remote: remote.0,
            local_port: local.1,
            remote_port: remote.1,
        };
        match self.control.insert(id, &flow, false)? {
            Inserted::Added | Inserted::Known => Ok(()),
            Inserted::Full | Inserted::Impossible => bail!("no entry can be made for {flow:?}"),
        }
    }

    /// Ends all flows of an interface.
    pub(crate) fn flush(&self, id: u32) -> Result<u64> {
        Ok(self.control.flush(id, self.session.runtime.buckets)?)
    }

    /// Counters of an interface, all CPUs together.
    pub(crate) fn counters(&self, id: u32) -> Result<Counters> {
        let mut sum = Counters::ZERO;
        for one in self.session.tables.counters.get_per_cpu(&id)? {
            for (to, from) in sum.counts.iter_mut().zip(one.counts) {
                for (to, from) in to.iter_mut().zip(from) {
                    to.packets += from.packets;
                    to.bytes += from.bytes;
                }
            }
        }
        Ok(sum)
    }
}

/// Sees to it that all of `packets` packets met `verdict` and nothing else happened.
pub(crate) fn check(
    before: &Counters,
    after: &Counters,
    direction: Direction,
    verdict: Verdict,
    packets: u64,
) -> Result<()> {
    let mut found = Vec::new();
    for one in Direction::ALL {
        for outcome in 0..OUTCOMES {
            let count = |counters: &Counters| counters.counts[one as usize][outcome].packets;
            let moved = count(after).wrapping_sub(count(before));
            if moved != 0 {
                found.push((
                    one,
                    Verdict::all().find(|verdict| verdict.outcome() == outcome),
                    moved,
                ));
            }
        }
    }
    if found == [(direction, Some(verdict), packets)] {
        return Ok(());
    }
    bail!(
        "{packets} packets should be {verdict:?} at {direction:?}, but these were counted: {found:?}"
    )
}

#[cfg(test)]
mod tests {
    use sg_common::verdict::{DropReason, PassKind};

    use super::*;

    #[test]
    fn a_packet_that_was_counted_otherwise_is_noticed() {
        let established = Verdict::Pass(PassKind::Established);
        let mut after = Counters::ZERO;
        let judge = |after: &Counters| {
            check(&Counters::ZERO, after, Direction::Ingress, established, 10).is_ok()
        };
        assert!(!judge(&after));
        after.counts[0][established.outcome()].packets = 10;
        assert!(judge(&after));
        after.counts[0][Verdict::Drop(DropReason::NoRule).outcome()].packets = 1;
        assert!(!judge(&after));
    }
}
