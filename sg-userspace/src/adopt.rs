//! Existing flows become tracked when an interface is first attached, so that attaching cuts none.
//!
//! What exists is seen in three places: sockets of the interface's namespace (`own`), sockets of the workload's, at the
//! other end of the pair (`host`), and netfilter's own table, in either. Each is looked at before the interface is
//! attached, when no packet has been judged, and again after it, for what was opened in between. What began after it
//! was attached is not among that: without an answer nothing is taken then, and what is denied gets none.
//!
//! The second look at netfilter's table, which may be long, serves all interfaces that were attached since the look
//! before; it comes after a while at the latest ([`ROUND`]).

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use sg_common::{abi::CT_UNASSURED_PERCENT, layout::known};

use crate::{
    compile::{CompileError, Compiled, CompiledInterface},
    control::{Control, ControlError, Flow, Inserted},
    flows::Side,
    model::Orientation,
    netlink::NetlinkError,
    netns::{Netns, NetnsError, NetnsIdentity},
    nf_conntrack,
    peers::Peers,
    plan::lookup::Lookup,
    programs::ProgramsError,
    resolve::Resolved,
    session::Session,
    status::chain,
    target::Target,
};

mod candidate;
mod report;
mod sight;

use candidate::Candidate;
pub use report::Adopted;
use sight::{Routes, Sight};

/// Which existing flows become tracked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Adopt {
    /// All that are seen.
    #[default]
    All,
    /// Those that a rule lets begin.
    Policy,
    /// None.
    None,
}

/// Where a flow was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// Sockets of the interface's namespace.
    Sockets,
    /// Sockets at the other end of the device.
    WorkloadSockets,
    /// Netfilter's table.
    NfConntrack,
}

/// Why flows were not adopted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdoptError {
    /// The namespace cannot be entered.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// Sockets cannot be listed.
    #[error("cannot list the sockets to adopt (`--no-adopt` attaches without)")]
    Sockets(#[from] NetlinkError),
    /// The command that makes entries as they are told cannot be loaded.
    #[error(transparent)]
    Programs(#[from] ProgramsError),
    /// The rules cannot be asked.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// A flow cannot be inserted.
    #[error(transparent)]
    Control(#[from] ControlError),
}

/// How long an interface waits for the second look at netfilter's table while others are attached.
const ROUND: Duration = Duration::from_millis(100);

/// The policy that has just come into force.
#[derive(Clone, Copy, Debug)]
pub struct InForce<'a> {
    /// By rules, without interfaces, which the state has.
    pub resolved: &'a Resolved,
    /// As it was written.
    pub compiled: &'a Compiled,
    /// Its generation.
    pub generation: u32,
}

/// Adopts the flows of the interfaces that one change attaches.
pub struct Adoption<'a> {
    adopt: Adopt,
    policy: InForce<'a>,
    peers: Peers,
    /// By namespace.
    routes: Vec<(NetnsIdentity, Arc<Mutex<Routes>>)>,
    /// Read in this round.
    tables: Vec<(NetnsIdentity, Arc<Table>)>,
    lookup: Option<Lookup>,
    /// RESTORE.
    restore: Option<Control>,
    waiting: Vec<Waiting<'a>>,
    since: Instant,
}

/// Netfilter's table of a namespace.
type Table = Result<Option<Vec<nf_conntrack::Tracked>>, String>;

/// An interface whose flows are being adopted.
struct Waiting<'a> {
    interface: u32,
    target: &'a Target,
    record: &'a CompiledInterface,
    sight: Sight,
    tried: HashSet<(Flow, bool)>,
    unassured: u64,
    adopted: Adopted,
}

/// Before or after the links of an interface are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    Before,
    After,
}

impl<'a> Adoption<'a> {
    /// Prepares to adopt flows.
    pub fn new(adopt: Adopt, policy: InForce<'a>) -> Self {
        Self {
            adopt,
            policy,
            peers: Peers::default(),
            routes: Vec::new(),
            tables: Vec::new(),
            lookup: None,
            restore: None,
            waiting: Vec::new(),
            since: Instant::now(),
        }
    }

    /// Adopts what exists on an interface that is about to be attached.
    ///
    /// # Errors
    /// See [`AdoptError`].
    pub fn before(
        &mut self,
        session: &Session,
        target: &'a Target,
        interface: u32,
    ) -> Result<(), AdoptError> {
        let Some(record) = self.policy.compiled.interface(&target.name) else {
            return Ok(());
        };
        if self.adopt == Adopt::None {
            return Ok(());
        }
        if !target.link.up {
            // Nothing has passed it yet: what exists is somebody else's, or was cut.
            return Ok(());
        }
        if self.waiting.is_empty() {
            self.since = Instant::now();
        }
        let resolved = session.state.resolved.get(&target.name);
        let routes = self.routes(&target.netns);
        let sight = Sight::of(target, resolved, &mut self.peers, routes);
        let mut adopted = Adopted::default();
        if let Some(why) = &sight.hidden {
            adopted.hide_workload(why);
        }
        if sight.is_bare() {
            adopted.miss("the workload's sockets: its device has no address yet, and the definition lists no `addresses`".to_owned());
        }
        let mut waiting = Waiting {
            interface,
            target,
            record,
            adopted,
            sight,
            tried: HashSet::new(),
            unassured: 0,
        };
        let mut found = self.look(&mut waiting)?;
        if self.restore.is_none() && !found.iter().all(Candidate::is_plain) {
            // That takes a while.
            let (ebpf, name) = session.programs(0).transient_restore()?;
            self.restore = Some(Control::of(ebpf, name));
            self.tables.clear();
            found = self.look(&mut waiting)?;
        }
        self.take(session, &mut waiting, found, When::Before)?;
        self.waiting.push(waiting);
        Ok(())
    }

    /// All flows of an interface that are seen.
    fn look(&mut self, waiting: &mut Waiting<'_>) -> Result<Vec<Candidate>, AdoptError> {
        let mut found = self.tracked(waiting)?;
        found.extend(sockets(waiting)?);
        Ok(found)
    }

    /// Adopts what was opened meanwhile on the interface that has just been attached, as far as there are sockets.
    ///
    /// # Errors
    /// See [`AdoptError`].
    pub fn after(&mut self, session: &Session) -> Result<(), AdoptError> {
        let Some(mut waiting) = self.waiting.pop() else {
            return Ok(());
        };
        let found = sockets(&mut waiting)?;
        let taken = self.take(session, &mut waiting, found, When::After);
        self.waiting.push(waiting);
        taken
    }

    /// Whether it is time for [`Self::settle`].
    pub fn is_due(&self) -> bool {
        !self.waiting.is_empty() && self.since.elapsed() > ROUND
    }

    /// Adopts what netfilter has seen meanwhile on the interfaces that were attached. Hands over what came of each.
    ///
    /// # Errors
    /// With the name of the interface: see [`AdoptError`].
    pub fn settle(
        &mut self,
        session: &Session,
        mut done: impl FnMut(u32, Adopted),
    ) -> Result<(), Box<(String, AdoptError)>> {
        self.tables.clear();
        for mut waiting in std::mem::take(&mut self.waiting) {
            let settled = self
                .tracked(&mut waiting)
                .and_then(|found| self.take(session, &mut waiting, found, When::After));
            settled.map_err(|error| Box::new((waiting.target.name.clone(), error)))?;
            done(waiting.interface, waiting.adopted);
        }
        Ok(())
    }

    /// Flows of an interface that netfilter tracks.
    fn tracked(&mut self, waiting: &mut Waiting<'_>) -> Result<Vec<Candidate>, AdoptError> {
        let mut found = Vec::new();
        let Waiting {
            target,
            sight,
            adopted,
            ..
        } = waiting;
        match &*self.table(&target.netns)? {
            Ok(Some(table)) => {
                let netns = &target.netns;
                found.extend(netns.run(|| sight.tracked_here(table))?);
            }
            Ok(None) if target.orientation == Orientation::Own => adopted.miss(
                "peers of unconnected UDP sockets, and what is neither TCP nor UDP: nf_conntrack tracks nothing here".to_owned(),
            ),
            Ok(None) => adopted.miss("what this host forwards: nf_conntrack tracks nothing here".to_owned()),
            Err(why) => adopted.miss(format!("what netfilter tracks: {why}")),
        }
        let behind = sight.behind.as_ref().map(|behind| &behind.netns);
        if let Some(there) = behind
            && !there.identity().is(target.netns.identity())
            && let Ok(Some(table)) = &*self.table(there)?
        {
            found.extend(sight.tracked_behind(table));
        }
        Ok(found)
    }

    /// What has been asked about routes of a namespace.
    fn routes(&mut self, netns: &Netns) -> Arc<Mutex<Routes>> {
        let identity = netns.identity();
        if let Some((_, routes)) = self.routes.iter().find(|(known, _)| known.is(identity)) {
            return Arc::clone(routes);
        }
        let routes = Arc::default();
        self.routes.push((identity.clone(), Arc::clone(&routes)));
        routes
    }

    /// Netfilter's table of a namespace, read once a round.
    fn table(&mut self, netns: &Netns) -> Result<Arc<Table>, NetnsError> {
        let known = self
            .tables
            .iter()
            .find(|(identity, _)| identity.is(netns.identity()));
        if let Some((_, table)) = known {
            return Ok(Arc::clone(table));
        }
        let table = netns.run(|| nf_conntrack::read().map_err(|error| chain(&error)))?;
        let table = Arc::new(table);
        self.tables
            .push((netns.identity().clone(), Arc::clone(&table)));
        Ok(table)
    }

    /// Makes entries for flows that have none.
    fn take(
        &mut self,
        session: &Session,
        waiting: &mut Waiting<'_>,
        mut found: Vec<Candidate>,
        when: When,
    ) -> Result<(), AdoptError> {
        let openers = sight::openers(&found);
        found.sort_by_key(Candidate::rank);
        let control = session.control()?;
        let clock = (control.now()? as u32, session.runtime.hz);
        for mut one in found {
            if when == When::After && !one.answered {
                continue;
            }
            if let Some(opener) = openers.get(&one.flow)
                && one.source != Source::NfConntrack
            {
                one.opener = Some(*opener);
            }
            if !waiting.tried.insert(one.key()) || !one.is_possible() {
                continue;
            }
            let Some(opener) = self.judge(session, waiting, &one)? else {
                continue;
            };
            let plain = match when {
                When::Before => one.is_plain(),
                // It has just begun; and packets may have made it an entry.
                When::After => one.assured,
            };
            let bounded = !one.assured || one.word;
            let inserted = if bounded && !waiting.has_room_for_unassured() {
                Inserted::Full
            } else if plain {
                control.insert(waiting.interface, &one.flow, opener == Side::Local)?
            } else {
                let (generation, record) = (self.policy.generation, waiting.record);
                let timeouts = &record.timeouts;
                let mut entry =
                    one.restored(waiting.interface, opener, generation, clock, timeouts);
                if when == When::After {
                    // Handshakes and answers that came meanwhile have made better entries.
                    entry.record.known |= known::ONLY_NEW;
                }
                self.restore(session)?.restore(&entry)?
            };
            match inserted {
                Inserted::Added => {
                    waiting.adopted.add(one.source);
                    waiting.unassured += u64::from(bounded);
                }
                Inserted::Known | Inserted::Impossible => {}
                Inserted::Full => waiting.adopted.refused += 1,
            }
        }
        Ok(())
    }

    /// Who opened the flow, as far as rules can tell where nobody else can; `None` if it is to have no entry.
    fn judge(
        &mut self,
        session: &Session,
        waiting: &mut Waiting<'_>,
        one: &Candidate,
    ) -> Result<Option<Side>, AdoptError> {
        let (record, flow) = (waiting.record, &one.flow);
        let untracked = self.policy.compiled.untracked(
            record,
            flow.remote.is_ipv6(),
            flow.protocol,
            flow.local_port,
            flow.remote_port,
        );
        if untracked != 0 {
            waiting.adopted.untracked += 1;
            return Ok(None);
        }
        // What nobody has answered to who began it elsewhere has nothing to lose.
        let knock = !one.answered && one.opener == Some(Side::Remote);
        let policy = self.adopt == Adopt::Policy || knock;
        if let Some(opener) = one.opener
            && !policy
        {
            return Ok(Some(opener));
        }
        if self.lookup.is_none() {
            let whole = Resolved {
                interfaces: session.state.resolved.clone(),
                ..self.policy.resolved.clone()
            };
            self.lookup = Some(Lookup::new(&whole)?);
        }
        let lookup = self.lookup.as_ref().expect("it was made above");
        let asked = lookup.interface(&waiting.target.name);
        let mut sides = match &one.opener {
            Some(opener) => vec![*opener],
            None => vec![Side::Local, Side::Remote],
        }
        .into_iter();
        let allowed = sides.find(|opener| {
            let (direction, port) = one.asks(*opener);
            asked.is_some_and(|asked| {
                lookup.allows(asked, direction, flow.remote, flow.protocol, port)
            })
        });
        if allowed.is_none() && policy {
            waiting.adopted.not_allowed += 1;
            return Ok(None);
        }
        Ok(Some(allowed.unwrap_or(Side::Local)))
    }

    /// The command that makes an entry as it is told, loaded when it is first needed: few need it.
    fn restore(&mut self, session: &Session) -> Result<&Control, AdoptError> {
        if self.restore.is_none() {
            let (ebpf, name) = session.programs(0).transient_restore()?;
            self.restore = Some(Control::of(ebpf, name));
        }
        Ok(self.restore.as_ref().expect("it was loaded above"))
    }
}

impl Waiting<'_> {
    /// Whether as many may still be adopted that only one side is known to want, or that only the workload speaks of,
    /// which may say what it likes: no more of the interface's allowance
    /// than new ones could take.
    fn has_room_for_unassured(&self) -> bool {
        let share = u64::from(self.record.allowance) * u64::from(CT_UNASSURED_PERCENT) / 100;
        self.unassured < share.max(1)
    }
}

/// Flows of an interface that there are sockets for.
fn sockets(waiting: &mut Waiting<'_>) -> Result<Vec<Candidate>, AdoptError> {
    let (target, sight) = (waiting.target, &waiting.sight);
    let timeouts = &waiting.record.timeouts;
    match target.orientation {
        Orientation::Own => Ok(target.netns.run(|| sight.sockets_here(timeouts))??),
        Orientation::Host => match sight.sockets_behind(timeouts) {
            Ok(found) => Ok(found),
            Err(why) => {
                waiting.adopted.hide_workload(&why);
                Ok(Vec::new())
            }
        },
    }
}
