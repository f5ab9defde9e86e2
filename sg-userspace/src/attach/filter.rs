//! TC without links, below Linux 6.6: a clsact qdisc and a cls_bpf filter in direct action for each direction.
//!
//! The kernel keeps a filter until somebody removes it, or its device moves to another namespace or goes; no
//! pin holds it. What stands in the place of a link's pin is the filter's program, which says that there should
//! be such a filter, and which; the filter itself is looked for on the device. Ours is the first of the first
//! priority, and is told apart by its handle.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _},
    path::{Path, PathBuf},
};

use aya::programs::SchedClassifier;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::{
    RouteNetlinkMessage,
    tc::{TcAttribute, TcBpfFlags, TcFilterBpfOption, TcHandle, TcHeader, TcMessage, TcOption},
};
use netlink_sys::protocols::NETLINK_ROUTE;

use super::{AttachError, direction, error::link_failed, refused};
use crate::{
    bpf::{self, LinkDetails, TcxHook},
    link::Link,
    netlink::{self, NetlinkError, Scope},
    netns::{Netns, NetnsError, NetnsIdentity},
    pin::Pins,
};

/// Where the device of an interface is. Links are found by their pins alone, filters only there.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// Its namespace; `None`: that of the calling thread.
    netns: Option<&'a NetnsIdentity>,
    ifindex: u32,
}

impl<'a> Place<'a> {
    /// A device of the calling thread's namespace.
    pub fn here(ifindex: u32) -> Self {
        Self {
            netns: None,
            ifindex,
        }
    }

    /// A device of another namespace.
    pub fn within(netns: &'a NetnsIdentity, ifindex: u32) -> Self {
        Self {
            netns: Some(netns),
            ifindex,
        }
    }

    /// The device's index.
    pub(super) fn ifindex(self) -> u32 {
        self.ifindex
    }

    /// Runs a task there; `None` if the namespace is gone, and with it what was in it.
    fn run<T: Send>(self, task: impl FnOnce() -> T + Send) -> Result<Option<T>, AttachError> {
        let Some(identity) = self.netns else {
            return Ok(Some(task()));
        };
        match Netns::reopen(identity) {
            Ok(netns) => Ok(Some(netns.run(task)?)),
            Err(NetnsError::Replaced { .. }) => Ok(None),
            Err(NetnsError::Open { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// The priority that is looked at first.
const FIRST: u16 = 1;

/// Ours have this in the upper half of their handle: "SG".
const HANDLE: u16 = 0x5347;

/// `ETH_P_ALL` in network byte order, as the lower half of `tcm_info`.
const ALL_PROTOCOLS: u16 = 0x0003_u16.to_be();

/// A filter of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Filter {
    handle: TcHandle,
    /// Kernel id of the program; 0 for a filter of another kind.
    program_id: u32,
}

/// Whether the kernel has no tcx, by asking it about a device.
pub(super) fn is_needed(ifindex: u32) -> bool {
    bpf::tcx_programs(ifindex, TcxHook::Ingress)
        .is_err_and(|error| error.raw_os_error() == Some(libc::EINVAL))
}

/// The handle of filters of the enforcer that has this pin, whatever the version in its path
/// (`BPFFS/VERSION/links/PIN`): there may be several enforcers.
fn handle(pin: &Path) -> TcHandle {
    let directory = pin.ancestors().nth(3).unwrap_or(pin).as_os_str();
    let directory = directory.as_encoded_bytes();
    // FNV-1a.
    let hash = directory.iter().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    });
    TcHandle {
        major: HANDLE,
        minor: (hash ^ hash >> 16) as u16,
    }
}

/// The direction that a pin is of, by its name.
fn hook(pin: &Path) -> TcxHook {
    let name = pin.file_name().unwrap_or_default().to_string_lossy();
    if name.ends_with("egress") {
        TcxHook::Egress
    } else {
        TcxHook::Ingress
    }
}

/// Says that the qdisc of an interface is ours to remove.
fn made(pin: &Path) -> PathBuf {
    let name = pin.file_name().unwrap_or_default().to_string_lossy();
    let id = name.split_once('-').map_or(&*name, |(id, _)| id);
    pin.with_file_name(format!("{id}{}", Pins::CLSACT))
}

/// Puts a filter in the first place of a direction, or another program into the one that is there, and pins the
/// program.
pub(super) fn attach(
    program: &mut SchedClassifier,
    link: &Link,
    direction: TcxHook,
    pin: &Path,
) -> Result<(), AttachError> {
    // Before the filter is there: one that nobody knows of would stay.
    Pins::remove(pin)?;
    let pinned = |program: &mut SchedClassifier, pin: &Path| {
        program
            .pin(pin)
            .map_err(|source| link_failed("pin", pin, source))
    };
    pinned(program, pin)?;
    let failed = |error| failed(direction, link, error);
    let mut attempt = || -> Result<(), AttachError> {
        if make_clsact(link.ifindex).map_err(failed)? && !made(pin).exists() {
            pinned(program, &made(pin))?;
        }
        let fd = program
            .fd()
            .map_err(|source| link_failed("open", pin, source))?;
        put(link.ifindex, direction, handle(pin), fd.as_fd().as_raw_fd()).map_err(failed)?;
        if first(link, direction)? != Some(handle(pin)) {
            return Err(AttachError::NotFirst {
                direction: super::direction(direction),
                device: link.name.clone(),
            });
        }
        Ok(())
    };
    attempt().inspect_err(|_| {
        let _ = detach(pin, Place::here(link.ifindex));
    })
}

/// Replaces the program of a filter, in place, and its pin; where somebody has removed the filter, only the pin.
pub(super) fn update(
    program: &mut SchedClassifier,
    pin: &Path,
    place: Place<'_>,
) -> Result<(), AttachError> {
    let fd = program
        .fd()
        .map_err(|source| link_failed("open", pin, source))?;
    let fd = fd.as_fd().as_raw_fd();
    if details(pin, 0, place)?.ifindex != 0 {
        let done = place.run(|| put(place.ifindex, hook(pin), handle(pin), fd))?;
        done.unwrap_or(Ok(()))
            .map_err(|source| link_failed("replace filter of", pin, source))?;
    }
    Pins::remove(pin)?;
    program
        .pin(pin)
        .map_err(|source| link_failed("pin", pin, source))
}

/// The same, with a pin elsewhere in place of the one that there is, and the mark beside it that the qdisc is ours.
pub(super) fn take_over(
    program: &mut SchedClassifier,
    pin: &Path,
    new: &Path,
    place: Place<'_>,
) -> Result<(), AttachError> {
    if made(pin).exists() {
        let mark = made(pin);
        std::fs::rename(&mark, made(new)).map_err(|source| link_failed("rename", &mark, source))?;
    }
    update(program, new, place)?;
    Ok(Pins::remove(pin)?)
}

/// The filter of a pinned program, as if it were a link; `ifindex` is 0 if there is none.
pub(super) fn details(
    pin: &Path,
    program_id: u32,
    place: Place<'_>,
) -> Result<LinkDetails, AttachError> {
    let chain = place.run(|| chain(place.ifindex, hook(pin)))?;
    let chain = chain.unwrap_or(Ok(Vec::new()));
    let chain = chain.map_err(|source| link_failed("find filter of", pin, source))?;
    let found = chain.iter().find(|one| one.handle == handle(pin));
    Ok(LinkDetails {
        id: 0,
        program_id: found.map_or(program_id, |found| found.program_id),
        ifindex: if found.is_some() { place.ifindex } else { 0 },
        xdp: false,
        filter: true,
    })
}

/// Removes the filter of a pinned program, then the pin; and the qdisc, if it was made for our filters, this was
/// the last of them, and nobody else has put any there.
pub(super) fn detach(pin: &Path, place: Place<'_>) -> Result<(), AttachError> {
    let removed = place.run(|| -> Result<bool, NetlinkError> {
        let ifindex = place.ifindex;
        remove(ifindex, hook(pin), handle(pin))?;
        let mut others = 0;
        for direction in [TcxHook::Ingress, TcxHook::Egress] {
            let chain = chain(ifindex, direction)?;
            if chain.iter().any(|one| one.handle == handle(pin)) {
                return Ok(false);
            }
            others += chain.len();
        }
        if others == 0 && made(pin).exists() {
            remove_clsact(ifindex)?;
        }
        Ok(true)
    })?;
    let last = removed.unwrap_or(Ok(true));
    let last = last.map_err(|source| link_failed("remove filter of", pin, source))?;
    Pins::remove(pin)?;
    if last {
        Pins::remove(&made(pin))?;
    }
    Ok(())
}

/// Programs of filters that are asked before ours, in the calling thread's namespace; 0 stands for a filter of
/// another kind. `None` if ours, by its program, is not there.
pub(super) fn ahead_of(
    ours: u32,
    link: &Link,
    direction: TcxHook,
) -> Result<Option<Vec<u32>>, AttachError> {
    let chain = chain(link.ifindex, direction).map_err(|error| failed(direction, link, error))?;
    let place = chain.iter().position(|one| one.program_id == ours);
    Ok(place.map(|place| chain[..place].iter().map(|one| one.program_id).collect()))
}

fn first(link: &Link, direction: TcxHook) -> Result<Option<TcHandle>, AttachError> {
    let chain = chain(link.ifindex, direction).map_err(|error| failed(direction, link, error))?;
    Ok(chain.first().map(|one| one.handle))
}

fn failed(hook: TcxHook, link: &Link, error: NetlinkError) -> AttachError {
    match error {
        NetlinkError::Refused(answer) => refused(direction(hook), link, "tc", answer),
        source => AttachError::Filter {
            direction: direction(hook),
            device: link.name.clone(),
            source,
        },
    }
}

/// A message about a device's qdisc or one of its filters.
fn message(ifindex: u32, parent: TcHandle, handle: TcHandle, info: u32, kind: &str) -> TcMessage {
    let mut message = TcMessage::default();
    message.header = TcHeader {
        index: ifindex as i32,
        handle,
        parent,
        info,
        ..TcHeader::default()
    };
    message.attributes.push(TcAttribute::Kind(kind.to_owned()));
    message
}

fn parent(direction: TcxHook) -> TcHandle {
    TcHandle {
        major: TcHandle::CLSACT.major,
        minor: match direction {
            TcxHook::Ingress => TcHandle::MIN_INGRESS,
            TcxHook::Egress => TcHandle::MIN_EGRESS,
        },
    }
}

/// Makes the qdisc; `false` if there is one.
fn make_clsact(ifindex: u32) -> Result<bool, NetlinkError> {
    let handle = TcHandle {
        major: TcHandle::CLSACT.major,
        minor: 0,
    };
    let wish = message(ifindex, TcHandle::CLSACT, handle, 0, "clsact");
    let wish = RouteNetlinkMessage::NewQueueDiscipline(wish);
    match netlink::change(NETLINK_ROUTE, wish, NLM_F_CREATE | NLM_F_EXCL) {
        Ok(()) => Ok(true),
        Err(NetlinkError::Refused(error)) if error.raw_os_error() == Some(libc::EEXIST) => {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

fn remove_clsact(ifindex: u32) -> Result<(), NetlinkError> {
    let wish = message(ifindex, TcHandle::CLSACT, TcHandle::UNSPEC, 0, "clsact");
    gone_is_fine(netlink::change(
        NETLINK_ROUTE,
        RouteNetlinkMessage::DelQueueDiscipline(wish),
        0,
    ))
}

/// `tcm_info` of the first priority.
fn info() -> u32 {
    u32::from(FIRST) << 16 | u32::from(ALL_PROTOCOLS)
}

/// Makes the filter at the head of its priority, or replaces its program at once.
fn put(
    ifindex: u32,
    direction: TcxHook,
    handle: TcHandle,
    program: i32,
) -> Result<(), NetlinkError> {
    let mut wish = message(ifindex, parent(direction), handle, info(), "bpf");
    let options = [
        TcFilterBpfOption::ProgFd(program as u32),
        TcFilterBpfOption::ProgName(format!("sgctl_{}", super::direction(direction))),
        TcFilterBpfOption::Flags(TcBpfFlags::DirectAction),
    ];
    let options = options.into_iter().map(TcOption::Bpf).collect();
    wish.attributes.push(TcAttribute::Options(options));
    netlink::change(
        NETLINK_ROUTE,
        RouteNetlinkMessage::NewTrafficFilter(wish),
        NLM_F_CREATE,
    )
}

fn remove(ifindex: u32, direction: TcxHook, handle: TcHandle) -> Result<(), NetlinkError> {
    let wish = message(ifindex, parent(direction), handle, info(), "bpf");
    gone_is_fine(netlink::change(
        NETLINK_ROUTE,
        RouteNetlinkMessage::DelTrafficFilter(wish),
        0,
    ))
}

/// What is to go may be gone, and so may be what it is in: the qdisc (`EINVAL`) or the device.
fn gone_is_fine(done: Result<(), NetlinkError>) -> Result<(), NetlinkError> {
    match done {
        Err(NetlinkError::Refused(error))
            if matches!(
                error.raw_os_error(),
                Some(libc::ENOENT | libc::EINVAL | libc::ENODEV)
            ) =>
        {
            Ok(())
        }
        done => done,
    }
}

/// The filters of a direction, in the order in which they are asked.
fn chain(ifindex: u32, direction: TcxHook) -> Result<Vec<Filter>, NetlinkError> {
    let mut query = TcMessage::with_index(ifindex as i32);
    query.header.parent = parent(direction);
    let query = RouteNetlinkMessage::GetTrafficFilter(query);
    let answers = match netlink::request(NETLINK_ROUTE, query, Scope::All) {
        Err(NetlinkError::Refused(error))
            if matches!(error.raw_os_error(), Some(libc::ENODEV | libc::EINVAL)) =>
        {
            return Ok(Vec::new());
        }
        answers => answers?,
    };
    let filters = answers.iter().filter_map(|answer| match answer {
        RouteNetlinkMessage::NewTrafficFilter(filter) => Some(filter),
        _ => None,
    });
    // A priority is told of by itself, too, with handle 0.
    let filters = filters.filter(|filter| filter.header.handle != TcHandle::UNSPEC);
    Ok(filters.map(read).collect())
}

fn read(message: &TcMessage) -> Filter {
    let options = message
        .attributes
        .iter()
        .filter_map(|attribute| match attribute {
            TcAttribute::Options(options) => Some(options),
            _ => None,
        });
    let id = options.flatten().find_map(|option| match option {
        TcOption::Bpf(TcFilterBpfOption::ProgId(id)) => Some(*id),
        _ => None,
    });
    Filter {
        handle: message.header.handle,
        program_id: id.unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_tell_direction_and_handle() {
        let pin = |name: &str| Path::new("/sys/fs/bpf/sgctl/v3/links").join(name);
        assert_eq!(hook(&pin("7-egress")), TcxHook::Egress);
        assert_eq!(hook(&pin("7-ingress")), TcxHook::Ingress);
        assert_eq!(hook(&pin("7-ingress-new")), TcxHook::Ingress);
        assert_eq!(made(&pin("7-ingress")), pin("7-clsact"));
        let one = handle(&pin("7-ingress"));
        assert_eq!(one.major, HANDLE);
        assert_eq!(one, handle(&pin("8-egress")));
        let other = handle(Path::new("/sys/fs/bpf/other/v3/links/7-ingress"));
        assert_ne!(one, other);
        let later = handle(Path::new("/sys/fs/bpf/sgctl/v4-before/links/7-ingress"));
        assert_eq!(one, later);
    }
}
