//! The bpf(2) calls that aya does not offer: batches, link details, the tcx chain.
//!
//! Layouts of the attribute structs are those of `union bpf_attr` in `include/uapi/linux/bpf.h`.
//! The map calls trust the caller about key and value sizes; [`crate::table`] is what checks them.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

const MAP_CREATE: libc::c_long = 0;
const MAP_LOOKUP_ELEM: libc::c_long = 1;
const MAP_UPDATE_ELEM: libc::c_long = 2;
const MAP_DELETE_ELEM: libc::c_long = 3;
const OBJ_GET: libc::c_long = 7;
const OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const PROG_QUERY: libc::c_long = 16;
const MAP_LOOKUP_BATCH: libc::c_long = 24;
const MAP_UPDATE_BATCH: libc::c_long = 26;
const LINK_DETACH: libc::c_long = 34;
/// `BPF_MAP_TYPE_ARRAY` and `BPF_MAP_TYPE_ARRAY_OF_MAPS` of `enum bpf_map_type`.
const ARRAY: u32 = 2;
const ARRAY_OF_MAPS: u32 = 12;
/// `BPF_LINK_TYPE_XDP` of `enum bpf_link_type`.
const LINK_TYPE_XDP: u32 = 6;

/// `BPF_TCX_INGRESS` and `BPF_TCX_EGRESS` of `enum bpf_attach_type` (Linux 6.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum TcxHook {
    /// Packets that arrive at the device.
    Ingress = 46,
    /// Packets that leave through the device.
    Egress = 47,
}

/// What the kernel says about a link of type XDP or tcx, or about a TC filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkDetails {
    /// Kernel id of the link.
    pub id: u32,
    /// Kernel id of the program it runs.
    pub program_id: u32,
    /// The device it is attached to, in that device's namespace; 0 once the device is gone.
    pub ifindex: u32,
    /// Whether it is an XDP link; else it is a tcx link, or a filter.
    pub xdp: bool,
    /// Whether it is no link, but a TC filter; then it has no id.
    pub filter: bool,
}

#[repr(C)]
#[derive(Default)]
struct Create {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
    inner_map_fd: u32,
}

#[repr(C)]
#[derive(Default)]
struct Element {
    map_fd: u32,
    _pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
#[derive(Default)]
struct Batch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

#[repr(C)]
#[derive(Default)]
struct Object {
    pathname: u64,
    fd: u32,
    file_flags: u32,
}

#[repr(C)]
struct Info {
    fd: u32,
    len: u32,
    info: u64,
}

/// `struct bpf_link_info` up to the members that XDP and tcx use.
#[repr(C)]
#[derive(Default)]
struct LinkInfo {
    kind: u32,
    id: u32,
    program_id: u32,
    _pad: u32,
    ifindex: u32,
    attach_type: u32,
}

#[repr(C)]
#[derive(Default)]
struct Query {
    ifindex: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    program_ids: u64,
    count: u32,
    _pad: u32,
    program_attach_flags: u64,
    link_ids: u64,
    link_attach_flags: u64,
    revision: u64,
}

/// Reads one element into `value`; `false` if there is none.
///
/// # Safety
/// `key` and `value` must be at least the map's key and value size.
///
/// # Errors
/// What the kernel says, except `ENOENT`.
pub(crate) unsafe fn lookup(map: BorrowedFd<'_>, key: &[u8], value: &mut [u8]) -> io::Result<bool> {
    let mut attr = Element {
        map_fd: raw(map),
        key: key.as_ptr() as u64,
        value: value.as_mut_ptr() as u64,
        ..Element::default()
    };
    // SAFETY: both pointers are valid for the sizes the caller vouches for.
    match unsafe { bpf(MAP_LOOKUP_ELEM, &mut attr) } {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Writes one element.
///
/// # Safety
/// `key` and `value` must be at least the map's key and value size.
///
/// # Errors
/// What the kernel says.
pub(crate) unsafe fn update(map: BorrowedFd<'_>, key: &[u8], value: &[u8]) -> io::Result<()> {
    let mut attr = Element {
        map_fd: raw(map),
        key: key.as_ptr() as u64,
        value: value.as_ptr() as u64,
        ..Element::default()
    };
    // SAFETY: both pointers are valid for the sizes the caller vouches for; the kernel only reads.
    unsafe { bpf(MAP_UPDATE_ELEM, &mut attr) }
}

/// Removes one element; `false` if there is none.
///
/// # Safety
/// `key` must be at least the map's key size.
///
/// # Errors
/// What the kernel says, except `ENOENT`.
pub(crate) unsafe fn delete(map: BorrowedFd<'_>, key: &[u8]) -> io::Result<bool> {
    let mut attr = Element {
        map_fd: raw(map),
        key: key.as_ptr() as u64,
        ..Element::default()
    };
    // SAFETY: the key is valid for the size the caller vouches for; the kernel only reads.
    match unsafe { bpf(MAP_DELETE_ELEM, &mut attr) } {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Writes `count` elements, the last values winning; pays the RCU grace period of a map of maps
/// once for all of them.
///
/// # Safety
/// `keys` and `values` must hold `count` keys and values of the map's sizes.
///
/// # Errors
/// What the kernel says; elements before the failing one are written.
pub(crate) unsafe fn update_batch(
    map: BorrowedFd<'_>,
    keys: &[u8],
    values: &[u8],
    count: u32,
) -> io::Result<()> {
    let mut attr = Batch {
        keys: keys.as_ptr() as u64,
        values: values.as_ptr() as u64,
        count,
        map_fd: raw(map),
        ..Batch::default()
    };
    // SAFETY: both pointers are valid for what the caller vouches for; the kernel only reads.
    unsafe { bpf(MAP_UPDATE_BATCH, &mut attr) }
}

/// Reads up to `count` elements from where `cursor` stands and moves it on. Returns how many were
/// read and whether these were the last.
///
/// # Safety
/// `keys` and `values` must have room for `count` keys and values of the map's sizes, and the map
/// must be an array, whose cursor is one u32.
///
/// # Errors
/// What the kernel says, except `ENOENT`, which is the end.
pub(crate) unsafe fn lookup_batch(
    map: BorrowedFd<'_>,
    cursor: &mut Option<u32>,
    keys: &mut [u8],
    values: &mut [u8],
    count: u32,
) -> io::Result<(u32, bool)> {
    let start = *cursor;
    let mut next = 0_u32;
    let mut attr = Batch {
        in_batch: start
            .as_ref()
            .map_or(0, |start| std::ptr::from_ref(start) as u64),
        out_batch: std::ptr::from_mut(&mut next) as u64,
        keys: keys.as_mut_ptr() as u64,
        values: values.as_mut_ptr() as u64,
        count,
        map_fd: raw(map),
        ..Batch::default()
    };
    // SAFETY: keys and values as the caller vouches; both cursors live across the call.
    let last = match unsafe { bpf(MAP_LOOKUP_BATCH, &mut attr) } {
        Ok(()) => false,
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
        Err(error) => return Err(error),
    };
    *cursor = Some(next);
    Ok((attr.count, last))
}

/// Waits for an RCU grace period: until no program reads what it found in any map before this call.
///
/// That is what an update of a map of maps does before it returns (`maybe_wait_bpf_programs` of
/// `kernel/bpf/syscall.c`), so one is made for it. A map of maps that is in use could only be given what it
/// holds already, and to open that by its id takes `CAP_SYS_ADMIN`.
///
/// # Errors
/// What the kernel says.
pub(crate) fn wait_for_readers() -> io::Result<()> {
    let array = |map_type, inner_map_fd| Create {
        map_type,
        key_size: 4,
        value_size: 4,
        max_entries: 1,
        inner_map_fd,
        ..Create::default()
    };
    // SAFETY: the attribute holds no pointers.
    let inner = unsafe { bpf_fd(MAP_CREATE, &mut array(ARRAY, 0)) }?;
    let inner_fd = raw(inner.as_fd());
    // SAFETY: as above.
    let outer = unsafe { bpf_fd(MAP_CREATE, &mut array(ARRAY_OF_MAPS, inner_fd)) }?;
    // SAFETY: key and value have four bytes each, as the map was made.
    unsafe { update(outer.as_fd(), &[0; 4], &inner_fd.to_ne_bytes()) }
}

/// Opens a pinned object; `None` if nothing is pinned there.
///
/// # Errors
/// What the kernel says, except `ENOENT`.
pub fn open_pinned(path: &Path) -> io::Result<Option<OwnedFd>> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attr = Object {
        pathname: path.as_ptr() as u64,
        ..Object::default()
    };
    // SAFETY: the path is a C string that lives across the call.
    match unsafe { bpf_fd(OBJ_GET, &mut attr) } {
        Ok(fd) => Ok(Some(fd)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Kernel id of the program behind a file descriptor; `None` if it is another BPF object's.
///
/// # Errors
/// What the kernel says.
pub(crate) fn program_id(fd: BorrowedFd<'_>) -> io::Result<Option<u32>> {
    let kind = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))?;
    if !kind.as_os_str().as_bytes().ends_with(b"bpf-prog") {
        return Ok(None);
    }
    // `struct bpf_prog_info` begins with type and id, as `struct bpf_link_info` does.
    let mut info = LinkInfo::default();
    let mut attr = Info {
        fd: raw(fd),
        len: size_of::<LinkInfo>() as u32,
        info: std::ptr::from_mut(&mut info) as u64,
    };
    // SAFETY: `info` is as long as `len` says; the kernel writes no more than that.
    unsafe { bpf(OBJ_GET_INFO_BY_FD, &mut attr) }?;
    Ok(Some(info.id))
}

/// Reads what the kernel knows about an XDP or tcx link.
///
/// # Errors
/// What the kernel says.
pub fn link_details(link: BorrowedFd<'_>) -> io::Result<LinkDetails> {
    let mut info = LinkInfo::default();
    let mut attr = Info {
        fd: raw(link),
        len: size_of::<LinkInfo>() as u32,
        info: std::ptr::from_mut(&mut info) as u64,
    };
    // SAFETY: `info` is as long as `len` says; the kernel writes no more than that.
    unsafe { bpf(OBJ_GET_INFO_BY_FD, &mut attr) }?;
    Ok(LinkDetails {
        id: info.id,
        program_id: info.program_id,
        ifindex: info.ifindex,
        xdp: info.kind == LINK_TYPE_XDP,
        filter: false,
    })
}

/// Detaches a link at once. Dropping its last pin does it too, but only some time later.
///
/// # Errors
/// What the kernel says; a link whose device is gone is detached already.
pub fn detach_link(link: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = raw(link);
    // SAFETY: the attribute is one file descriptor.
    match unsafe { bpf(LINK_DETACH, &mut attr) } {
        Err(error) if error.raw_os_error() == Some(libc::ENOLINK) => Ok(()),
        other => other,
    }
}

/// Ids of the programs in a device's tcx chain, in the order they run. The device is looked up in
/// the calling thread's network namespace.
///
/// # Errors
/// What the kernel says; `EINVAL` below Linux 6.6.
pub fn tcx_programs(ifindex: u32, hook: TcxHook) -> io::Result<Vec<u32>> {
    tcx_chain(ifindex, hook).map(|(programs, _)| programs)
}

/// The same of the links that hold them; 0 where a program was attached without one.
///
/// # Errors
/// As for [`tcx_programs`].
pub fn tcx_links(ifindex: u32, hook: TcxHook) -> io::Result<Vec<u32>> {
    tcx_chain(ifindex, hook).map(|(_, links)| links)
}

fn tcx_chain(ifindex: u32, hook: TcxHook) -> io::Result<(Vec<u32>, Vec<u32>)> {
    // BPF_MPROG_MAX of kernel/bpf/mprog.c: no chain is longer.
    let (mut programs, mut links) = ([0_u32; 64], [0_u32; 64]);
    let mut attr = Query {
        ifindex,
        attach_type: hook as u32,
        program_ids: programs.as_mut_ptr() as u64,
        link_ids: links.as_mut_ptr() as u64,
        count: programs.len() as u32,
        ..Query::default()
    };
    // SAFETY: both have room for `count` ids.
    match unsafe { bpf(PROG_QUERY, &mut attr) } {
        Ok(()) => {
            let count = (attr.count as usize).min(programs.len());
            Ok((programs[..count].to_vec(), links[..count].to_vec()))
        }
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(Default::default()),
        Err(error) => Err(error),
    }
}

fn raw(fd: BorrowedFd<'_>) -> u32 {
    u32::try_from(fd.as_raw_fd()).expect("an open file descriptor is not negative")
}

/// # Safety
/// As for [`bpf_call`].
unsafe fn bpf<T>(command: libc::c_long, attr: &mut T) -> io::Result<()> {
    // SAFETY: the caller vouches for the pointers in `attr`.
    unsafe { bpf_call(command, attr) }.map(drop)
}

/// # Safety
/// As for [`bpf_call`], and `command` must be one that returns a file descriptor.
unsafe fn bpf_fd<T>(command: libc::c_long, attr: &mut T) -> io::Result<OwnedFd> {
    // SAFETY: the caller vouches for the pointers in `attr`.
    let fd = unsafe { bpf_call(command, attr) }?;
    let fd = i32::try_from(fd).expect("file descriptors fit an int");
    // SAFETY: the kernel has just made it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// # Safety
/// Every pointer in `attr` must be valid for what `command` does with it.
unsafe fn bpf_call<T>(command: libc::c_long, attr: &mut T) -> io::Result<libc::c_long> {
    let size = size_of::<T>() as libc::c_long;
    // SAFETY: `attr` is `size` bytes long; what it points to is the caller's business.
    let answer = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size) };
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(answer)
}
