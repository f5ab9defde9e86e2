//! What is enforced where, and what stands in the way.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sg_common::{
    abi::{PROGRAM_TC_EGRESS, PROGRAM_TC_INGRESS, PROGRAM_XDP_INGRESS},
    layout::{self, TIMEOUT_DEFAULTS, interface_flags},
};

use crate::{
    adopt::Adopted,
    apply::{ahead, is_there},
    attach::{self, AttachError, EGRESS, INGRESS},
    confirm::{self, Pending},
    history::History,
    link::{Link, LinkError},
    model::{IcmpErrors, InterfaceSettings, OnRevoke, Orientation, Track},
    netns::Netns,
    programs::{self, ProgramsError},
    session::Context,
    shape::Object,
    state::{Attached, HookInForce},
    table::TableError,
    view::{View, ViewError},
};

/// What is enforced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Generation in force; 0 if nothing is enforced.
    pub generation: u32,
    /// Tracked flows that fit.
    pub allowance: u32,
    /// Packets and bytes are kept per flow.
    pub accounting: bool,
    /// Directory of the pins.
    pub pins: String,
    /// Attached interfaces.
    pub interfaces: Vec<InterfaceStatus>,
    /// The generation that is taken back unless it is confirmed.
    #[serde(default)]
    pub pending: Option<Pending>,
    /// Generations that were taken back because nobody confirmed them, or because somebody asked for it.
    #[serde(default)]
    pub taken_back: u64,
    /// What is wrong or worth knowing about the whole.
    pub warnings: Vec<String>,
}

/// One attached interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceStatus {
    /// Name in the definition.
    pub name: String,
    /// Device.
    pub device: String,
    /// Path of its network namespace; `None`: the one sgctl ran in.
    pub netns: Option<String>,
    /// Index of the device in its namespace.
    pub ifindex: u32,
    /// Our id.
    pub id: u32,
    /// Which side it is.
    pub orientation: Orientation,
    /// Ingress hook in force.
    pub hook: HookInForce,
    /// Why this hook.
    pub why: String,
    /// What became of the flows that there were when it was attached; `None`: nobody looked.
    #[serde(default)]
    pub adopted: Option<Adopted>,
    /// How programs at TC are attached.
    pub tc: TcAttachment,
    /// Its groups.
    pub groups: Vec<String>,
    /// Whether the workload's end of every packet must be one of its addresses.
    pub source_dest_check: SourceDestCheck,
    /// What becomes of tracked flows whose rule goes.
    pub on_revoke: OnRevoke,
    /// Ethertypes that pass beside ARP, IPv4 and IPv6, ascending.
    pub ethertypes: Vec<u16>,
    /// How its packets and flows are judged beyond its rules.
    #[serde(flatten)]
    pub settings: Settings,
    /// The definition in force names it no longer; it keeps its last policy.
    pub orphan: bool,
    /// Both links sit on the device and run our programs.
    pub enforced: bool,
    /// Its device is there: if it is not enforced, somebody has removed links. A device that nothing tells apart from
    /// another one under its index counts as there.
    #[serde(default)]
    pub present: bool,
    /// What is wrong or worth knowing.
    pub warnings: Vec<String>,
}

/// Settings of an interface as the maps hold them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// When flows are tracked.
    pub track: Track,
    /// A rule may open a flow with a segment other than SYN.
    pub tcp_loose: bool,
    /// When ICMP errors pass.
    pub icmp_errors: IcmpErrors,
    /// DHCP of a client passes.
    pub dhcp: bool,
    /// MLD passes.
    pub mld: bool,
    /// ICMPv6 redirects pass towards the workload.
    pub nd_redirect: bool,
    /// Cap of tracked flows: the host's allowance if the definition names none.
    pub allowance: u32,
    /// Tracked flows that no other interface can take.
    pub reserve: u32,
    /// Idle lives in seconds, by name.
    pub timeouts: BTreeMap<String, u32>,
}

impl Settings {
    /// Those of an interface's record; `hz` is jiffies per second.
    fn of(record: &layout::Interface, hz: u32) -> Self {
        let has = |flag| record.flags & flag != 0;
        let names = TIMEOUT_DEFAULTS.map(|(name, _)| name.to_owned());
        let seconds = record.timeouts.map(|jiffies| jiffies / hz.max(1));
        Self {
            track: if has(interface_flags::TRACK_ALWAYS) {
                Track::Always
            } else {
                Track::Auto
            },
            tcp_loose: has(interface_flags::TCP_LOOSE),
            icmp_errors: if has(interface_flags::ICMP_STRICT) {
                IcmpErrors::Strict
            } else {
                IcmpErrors::Related
            },
            dhcp: has(interface_flags::DHCP),
            mld: has(interface_flags::MLD),
            nd_redirect: has(interface_flags::ND_REDIRECT),
            allowance: record.allowance,
            reserve: record.reserve,
            timeouts: names.into_iter().zip(seconds).collect(),
        }
    }
}

/// How programs at TC are attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TcAttachment {
    /// By tcx links, which are pinned.
    Tcx,
    /// By filters of a clsact qdisc: the kernel has no tcx. They are lost when the device changes its namespace,
    /// or somebody removes them.
    Filter,
}

/// Whether source and destination are checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SourceDestCheck {
    /// They are.
    On,
    /// They are not.
    Off,
    /// They would be, but the workload's addresses are not known.
    AddressesUnknown,
}

impl Status {
    /// Whether something is enforced, and everything that should be is.
    pub fn is_enforced(&self) -> bool {
        !self.interfaces.is_empty() && self.interfaces.iter().all(|one| one.enforced)
    }
}

/// Reads what is enforced. Nothing enforced is an answer, not an error.
///
/// # Errors
/// See [`ViewError`].
pub fn read(context: &Context) -> Result<Status, ViewError> {
    let view = match View::open(context) {
        Ok(view) => view,
        Err(ViewError::Nothing) => return nothing(context),
        Err(error) => return Err(error),
    };
    let mut warnings = Vec::new();
    if let Ok(object) = Object::embedded() {
        let other = view
            .state
            .namespaces
            .iter()
            .any(|one| one.object != object.digest);
        if other {
            warnings.push(
                "programs of another build are in force; `sgctl apply` replaces them".to_owned(),
            );
        }
    }
    let generation = view.tables.generation()?;
    let confirmation = confirm::read(&view.tables)?;
    // Added to what is kept when the state follows.
    let changing = view.state.changing.as_ref();
    let follows = changing.is_some_and(|one| confirmation.took_back(one.generation));
    let history = History::read(&context.state_dir)?;
    let counted = history.has_counted(view.tables.runtime.id(), confirmation.generation());
    if follows {
        warnings.push(format!(
            "generation {} was taken back {} s ago because nobody confirmed it; what was in force before it is in force again",
            confirmation.generation(),
            confirmation.seconds_since()
        ));
    } else if generation != view.state.generation {
        warnings.push(format!(
            "generation {generation} is in force, but the last one applied was {}: an apply was cut short, or the maps were changed by somebody else; apply again",
            view.state.generation
        ));
    }
    Ok(Status {
        generation,
        allowance: view.runtime.allowance,
        accounting: view.runtime.accounting != 0,
        pins: view.pins.root().display().to_string(),
        pending: confirmation.pending(),
        taken_back: history.taken_back + u64::from(follows && !counted),
        interfaces: view
            .state
            .interfaces
            .iter()
            .map(|one| interface(&view, one))
            .collect::<Result<_, _>>()?,
        warnings,
    })
}

fn nothing(context: &Context) -> Result<Status, ViewError> {
    Ok(Status {
        generation: 0,
        allowance: 0,
        accounting: false,
        pins: context.bpffs.display().to_string(),
        pending: None,
        taken_back: History::read(&context.state_dir)?.taken_back,
        interfaces: Vec::new(),
        warnings: Vec::new(),
    })
}

pub(crate) fn interface(view: &View, one: &Attached) -> Result<InterfaceStatus, TableError> {
    let namespace = view.state.namespace(one.namespace);
    let resolved = view.state.resolved.get(&one.name);
    let mut warnings = Vec::new();
    let mut present = true;
    let mut enforced = match links(view, one) {
        Ok((wrong, there)) => {
            present = there;
            warnings = wrong;
            warnings.is_empty()
        }
        Err(error) => {
            warnings.push(chain(&error));
            false
        }
    };
    if enforced && let Some(namespace) = namespace {
        match Netns::reopen(&namespace.identity) {
            Ok(netns) => match netns.run(|| chains(view, one)) {
                Ok(Ok(found)) => warnings.extend(found),
                Ok(Err(error)) => {
                    enforced &=
                        !matches!(error, StatusError::Attach(AttachError::Elsewhere { .. }));
                    warnings.push(chain(&error));
                }
                Err(error) => warnings.push(chain(&error)),
            },
            Err(error) => warnings.push(format!(
                "{}; it is enforced there, but its chain cannot be examined",
                chain(&error)
            )),
        }
    }
    let settings = resolved.map(|interface| &interface.settings);
    let record = view.record(one.id)?;
    let flags = record.flags;
    if flags & interface_flags::UNCONFIRMED != 0 {
        enforced = false;
        warnings.push(
            "everything passes: its first policy was not confirmed in time; apply again, or detach"
                .to_owned(),
        );
    }
    Ok(InterfaceStatus {
        name: one.name.clone(),
        device: one.device.clone(),
        netns: namespace
            .and_then(|namespace| namespace.identity.path.as_ref())
            .map(|path| path.display().to_string()),
        ifindex: one.ifindex,
        id: one.id,
        orientation: one.orientation,
        hook: one.hook,
        why: one.why.clone(),
        adopted: one.adopted.clone(),
        tc: match attach::is_filter(&view.pins.link(one.id, EGRESS)) {
            Ok(true) => TcAttachment::Filter,
            Ok(false) | Err(_) => TcAttachment::Tcx,
        },
        groups: resolved.map_or_else(Vec::new, |interface| {
            interface
                .groups
                .iter()
                .map(|group| group.name.clone())
                .collect()
        }),
        source_dest_check: if flags & interface_flags::SOURCE_DEST_CHECK != 0 {
            SourceDestCheck::On
        } else if flags & interface_flags::ADDRESSES_KNOWN == 0
            && settings.is_some_and(InterfaceSettings::checks_addresses)
        {
            SourceDestCheck::AddressesUnknown
        } else {
            SourceDestCheck::Off
        },
        on_revoke: if flags & interface_flags::REEVALUATE != 0 {
            OnRevoke::Reevaluate
        } else {
            OnRevoke::Keep
        },
        ethertypes: settings.map_or_else(Vec::new, |settings| settings.ethertypes.clone()),
        settings: Settings::of(&record, view.runtime.hz),
        orphan: resolved.is_some_and(|interface| interface.orphan),
        enforced,
        present,
        warnings,
    })
}

/// What is wrong with an interface's links, and whether its device is there.
fn links(view: &View, one: &Attached) -> Result<(Vec<String>, bool), StatusError> {
    let directory = view.pins.programs(one.namespace);
    let ingress = match one.hook {
        HookInForce::Tc => PROGRAM_TC_INGRESS,
        HookInForce::Xdp | HookInForce::XdpGeneric => PROGRAM_XDP_INGRESS,
    };
    let place = view.state.place(one);
    let place = place.unwrap_or(attach::Place::here(one.ifindex));
    let mut wrong = Vec::new();
    let mut lives = false;
    for (direction, program) in [(INGRESS, ingress), (EGRESS, PROGRAM_TC_EGRESS)] {
        let program = programs::id(&directory, program)?;
        let found = attach::details(&view.pins.link(one.id, direction), place)?;
        lives |= found.is_some_and(|found| found.ifindex != 0);
        let what = match found {
            None => "is not attached: its pin is gone",
            Some(found) if found.ifindex == 0 && found.filter => {
                "is not attached: its TC filter is gone"
            }
            Some(found) if found.ifindex == 0 => "is not attached: somebody has detached it",
            Some(found) if found.ifindex != one.ifindex => "is attached to another device",
            Some(found) if found.program_id != program => {
                "runs another program than the one pinned"
            }
            Some(_) => continue,
        };
        wrong.push(format!("{direction} {what}; apply again"));
    }
    if wrong.is_empty() || lives {
        return Ok((wrong, true));
    }
    match is_there(&view.state, one) {
        Some(true) => {}
        Some(false) => {
            let gone = format!("its device {} is gone, and its links with it", one.device);
            return Ok((vec![gone], false));
        }
        None => wrong.push(format!(
            "there is a device {}, but nothing tells whether it is still the same",
            one.device
        )),
    }
    Ok((wrong, true))
}

/// Who stands before us; runs in the interface's namespace.
fn chains(view: &View, one: &Attached) -> Result<Vec<String>, StatusError> {
    let link = Link::read(&one.device)?;
    if link.ifindex != one.ifindex {
        return Ok(vec![format!(
            "the device is called otherwise now: {} is another one",
            one.device
        )]);
    }
    let directory = view.pins.programs(one.namespace);
    let mut warnings = link.cautions(one.hook);
    for (name, hook) in attach::tc_programs(one.hook) {
        let ours = programs::id(&directory, name)?;
        let found = attach::ahead_of(ours, &link, hook)?;
        warnings.extend(ahead(&link.name, hook, &found));
    }
    Ok(warnings)
}

#[derive(Debug, thiserror::Error)]
enum StatusError {
    #[error(transparent)]
    Programs(#[from] ProgramsError),
    #[error(transparent)]
    Attach(#[from] AttachError),
    #[error(transparent)]
    Link(#[from] LinkError),
}

/// An error with its causes on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
