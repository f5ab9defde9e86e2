//! System calls of an unmodified process, watched one by one, of which one fails.
//!
//! A filter hands calls to a supervisor (seccomp(2), SECCOMP_RET_USER_NOTIF, since Linux 5.0), which lets them go on
//! (SECCOMP_USER_NOTIF_FLAG_CONTINUE, since 5.5) or answers in the kernel's place.

use std::{
    io::{self, IoSliceMut},
    os::{
        fd::{AsFd as _, AsRawFd as _, OwnedFd, RawFd},
        unix::{net::UnixStream, process::CommandExt as _},
    },
    process::{Command, Stdio},
};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use crate::common::netns::Answer;

/// Which calls are watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Calls {
    /// bpf(2).
    Bpf,
    /// Those that make, write, keep, rename and remove files and directories.
    Files,
}

impl Calls {
    /// Numbers of the calls.
    fn numbers(self) -> Vec<u32> {
        let numbers: &[libc::c_long] = match self {
            Calls::Bpf => &[libc::SYS_bpf],
            Calls::Files => &[
                libc::SYS_openat,
                libc::SYS_write,
                libc::SYS_fsync,
                libc::SYS_ftruncate,
                libc::SYS_renameat,
                libc::SYS_renameat2,
                libc::SYS_unlinkat,
                libc::SYS_mkdirat,
                libc::SYS_flock,
                #[cfg(target_arch = "x86_64")]
                libc::SYS_rename,
                #[cfg(target_arch = "x86_64")]
                libc::SYS_unlink,
                #[cfg(target_arch = "x86_64")]
                libc::SYS_rmdir,
                #[cfg(target_arch = "x86_64")]
                libc::SYS_mkdir,
            ],
        };
        numbers.iter().map(|number| *number as u32).collect()
    }

    /// Whether a call is one of those meant: not what is said, nor what is only read.
    fn means(self, call: &libc::seccomp_data) -> bool {
        match i64::from(call.nr) {
            libc::SYS_write => call.args[0] > 2,
            libc::SYS_openat => {
                let writes = libc::O_WRONLY | libc::O_RDWR | libc::O_CREAT;
                call.args[2] as i32 & writes != 0
            }
            _ => true,
        }
    }
}

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It is not carried out and answers with this number of `errno(3)`.
    Error(i32),
    /// The process is killed before it.
    Kill,
}

/// What became of a process.
#[derive(Debug)]
pub(crate) struct Watched {
    pub(crate) answer: Answer,
    /// Calls that were watched.
    pub(crate) calls: usize,
    /// The one that was made to fail, by number and first argument.
    pub(crate) failed: Option<(i32, u64)>,
}

/// Runs a command whose call number `at`, from 0, meets a fault.
pub(crate) fn run(mut command: Command, calls: Calls, fault: Option<(usize, Fault)>) -> Watched {
    let (here, there) = UnixStream::pair().unwrap();
    let (program, socket) = (filter(&calls.numbers()), there.as_raw_fd());
    // SAFETY: between fork and exec it only makes system calls, on memory that is there already.
    unsafe {
        command.pre_exec(move || hand_over(&program, socket));
    }
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    drop(there);
    let listener = receive(&here);
    let (mut seen, mut failed) = (0, None);
    while let Some(notification) = next(&listener) {
        let call = notification.data;
        let mut error = 0;
        if calls.means(&call) {
            match fault {
                Some((at, fault)) if at == seen => {
                    failed = Some((call.nr, call.args[0]));
                    match fault {
                        Fault::Error(number) => error = -number,
                        Fault::Kill => {
                            let pid = rustix::process::Pid::from_child(&child);
                            rustix::process::kill_process(pid, rustix::process::Signal::KILL)
                                .unwrap();
                        }
                    }
                }
                _ => {}
            }
            seen += 1;
        }
        answer(&listener, notification.id, error);
    }
    Watched {
        answer: Answer::from(child.wait_with_output().unwrap()),
        calls: seen,
        failed,
    }
}

/// A filter that hands these calls over and lets all others be.
fn filter(numbers: &[u32]) -> Vec<libc::sock_filter> {
    // Classic BPF (`include/uapi/linux/bpf_common.h`).
    let load = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    let equal = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    let give = (libc::BPF_RET | libc::BPF_K) as u16;
    let plain = |code, k| libc::sock_filter {
        code,
        jt: 0,
        jf: 0,
        k,
    };
    // `nr` is the first word of `seccomp_data`.
    let mut program = vec![plain(load, 0)];
    for (place, number) in numbers.iter().enumerate() {
        program.push(libc::sock_filter {
            code: equal,
            jt: (numbers.len() - place) as u8,
            jf: 0,
            k: *number,
        });
    }
    program.push(plain(give, libc::SECCOMP_RET_ALLOW));
    program.push(plain(give, libc::SECCOMP_RET_USER_NOTIF));
    program
}

/// Puts the filter in force on the calling process and sends its supervisor's end through a socket.
fn hand_over(program: &[libc::sock_filter], socket: RawFd) -> io::Result<()> {
    let filter = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: the filter lives until the call returns, which copies it.
    let listener = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
            &raw const filter,
        )
    };
    if listener < 0 {
        return Err(io::Error::last_os_error());
    }
    let mut byte = 0_u8;
    let mut part = libc::iovec {
        iov_base: (&raw mut byte).cast(),
        iov_len: 1,
    };
    // A header of 16 bytes and a descriptor of 4, aligned to 8 (`cmsg(3)`).
    let mut control = [0_u64; 3];
    control[0] = 20;
    control[1] = u64::from_ne_bytes(words(libc::SOL_SOCKET, libc::SCM_RIGHTS));
    control[2] = u64::from_ne_bytes(words(listener as i32, 0));
    // SAFETY: all zeroes is a value of this plain structure.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control) as _;
    // SAFETY: everything that the message points to lives until the call returns.
    if unsafe { libc::sendmsg(socket, &raw const message, 0) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

fn words(first: i32, second: i32) -> [u8; 8] {
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&first.to_ne_bytes());
    bytes[4..].copy_from_slice(&second.to_ne_bytes());
    bytes
}

fn receive(socket: &UnixStream) -> OwnedFd {
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let parts = &mut [IoSliceMut::new(&mut byte)];
    recvmsg(socket.as_fd(), parts, &mut control, RecvFlags::CMSG_CLOEXEC).unwrap();
    let mut descriptors = control.drain().flat_map(|message| match message {
        RecvAncillaryMessage::ScmRights(rights) => rights.collect(),
        _ => Vec::new(),
    });
    descriptors.next().expect("the filter is in force")
}

/// The next call; `None` when the process has ended.
fn next(listener: &OwnedFd) -> Option<libc::seccomp_notif> {
    loop {
        let mut ready = libc::pollfd {
            fd: listener.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one structure, and the count says so.
        if unsafe { libc::poll(&raw mut ready, 1, -1) } < 0 {
            continue;
        }
        if ready.revents & libc::POLLIN == 0 {
            return None;
        }
        // SAFETY: all zeroes is a value of this plain structure, and what the kernel asks for.
        let mut call: libc::seccomp_notif = unsafe { std::mem::zeroed() };
        // SAFETY: the request takes a pointer to this structure.
        let received = unsafe { libc::ioctl(listener.as_raw_fd(), NOTIF_RECV as _, &raw mut call) };
        // ENOENT: the thread was killed meanwhile.
        if received == 0 {
            return Some(call);
        }
    }
}

fn answer(listener: &OwnedFd, id: u64, error: i32) {
    let mut answer = libc::seccomp_notif_resp {
        id,
        val: 0,
        error,
        flags: 0,
    };
    if error == 0 {
        answer.flags = libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32;
    }
    // SAFETY: the request takes a pointer to this structure. It fails if the thread is gone.
    unsafe { libc::ioctl(listener.as_raw_fd(), NOTIF_SEND as _, &raw mut answer) };
}

/// `SECCOMP_IOCTL_NOTIF_RECV` and `…_SEND` of `include/uapi/linux/seccomp.h`: `_IOWR('!', 0 or 1, …)`.
const NOTIF_RECV: u64 = request(0, size_of::<libc::seccomp_notif>());
const NOTIF_SEND: u64 = request(1, size_of::<libc::seccomp_notif_resp>());

const fn request(number: u64, size: usize) -> u64 {
    3 << 30 | (size as u64) << 16 | (b'!' as u64) << 8 | number
}
