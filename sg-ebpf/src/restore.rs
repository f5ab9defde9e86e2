//! Commands that take over what another layout's maps hold: flows, and what was counted.

use aya_ebpf::programs::TcContext;
use sg_common::{
    atomic::opaque,
    family::{Flow, V4, V6},
    layout::{CtCommand, CtLocal, CtRecord, ct_op},
    table::{self, Inserted},
    tables::Tables,
    wire::ETHERNET,
};

use crate::{
    control::CommandFamily,
    maps,
    tables::{Kernel, add_count, context},
};

/// Runs the command behind the Ethernet header and answers as [`ct_op`] says.
#[inline(always)]
pub fn run(ctx: &TcContext) -> u32 {
    let (start, end) = (ctx.data(), ctx.data_end());
    const COMMAND: usize = ETHERNET + size_of::<CtCommand>();
    if start + COMMAND > end {
        return ct_op::INVALID;
    }
    let command = (start + ETHERNET) as *const CtCommand;
    // SAFETY: the command lies in the packet, checked above.
    let (op, family) = unsafe { ((*command).op, (*command).family) };
    if op == ct_op::ADD {
        return add(command);
    }
    if op != ct_op::RESTORE || start + COMMAND + size_of::<CtRecord>() > end {
        return ct_op::INVALID;
    }
    let record = (start + COMMAND) as *const CtRecord;
    let ipv6 = match family {
        4 => false,
        6 => true,
        _ => return ct_op::INVALID,
    };
    let mut hash = 0;
    let answer = if ipv6 {
        restore::<V6>(command, record, &mut hash)
    } else {
        restore::<V4>(command, record, &mut hash)
    };
    if answer == ct_op::FULL {
        Kernel.reclaim_beside(ipv6, hash);
    } else if answer == ct_op::OK || answer == ct_op::EXISTS {
        // A call of its own: together they would not fit the stack.
        if ipv6 {
            gain::<V6>(command, record, answer);
        } else {
            gain::<V4>(command, record, answer);
        }
    }
    answer
}

/// The flow that a command is about.
///
/// # Safety
/// The command must lie in the packet.
#[inline(always)]
unsafe fn subject<F: CommandFamily>(command: *const CtCommand) -> Flow<F::Address> {
    // SAFETY: the caller's promise.
    unsafe {
        let (local_port, remote_port) = ((*command).local_port, (*command).remote_port);
        Flow {
            owner: (*command).interface << 8 | ((*command).protocol & 0xff),
            ports: u32::from(local_port) << 16 | u32::from(remote_port),
            local: F::read(&raw const (*command).local),
            remote: F::read(&raw const (*command).remote),
        }
    }
}

/// The first half of RESTORE.
#[inline(never)]
fn restore<F: CommandFamily>(
    command: *const CtCommand,
    record: *const CtRecord,
    found: &mut u64,
) -> u32 {
    let Some(mut context) = context() else {
        return ct_op::INVALID;
    };
    // SAFETY: the command lies in the packet, checked by `run`.
    let (flow, last) = unsafe { (subject::<F>(command), (*command).argument & 2 != 0) };
    let Some(limits) = Kernel.interface(context.bank(), flow.owner >> 8) else {
        return ct_op::INVALID;
    };
    let hash = F::hash(&flow, &context.runtime.seed);
    *found = hash;
    // SAFETY: as below.
    unsafe { table::as_it_was(&mut context, record) };
    // SAFETY: the record lies in the packet, checked by `run`.
    match unsafe { table::restore::<Kernel, F>(&context, limits, hash, &flow, record, last) } {
        Inserted::Made => ct_op::OK,
        Inserted::Exists => ct_op::EXISTS,
        Inserted::Full => ct_op::FULL,
    }
}

/// The second half of RESTORE.
#[inline(never)]
fn gain<F: CommandFamily>(command: *const CtCommand, record: *const CtRecord, answer: u32) -> u32 {
    if let Some(context) = context() {
        // SAFETY: the command lies in the packet, checked by `run`.
        let flow = unsafe { subject::<F>(command) };
        let hash = F::hash(&flow, &context.runtime.seed);
        // SAFETY: the record lies in the packet, checked by `run`.
        unsafe { table::gain::<Kernel, F>(&context, hash, &flow, record, answer == ct_op::EXISTS) };
    }
    0
}

/// ADD.
#[inline(always)]
fn add(command: *const CtCommand) -> u32 {
    // SAFETY: the command lies in the packet, checked by the caller.
    let (interface, argument, number, first, second) = unsafe {
        (
            (*command).interface,
            (*command).argument,
            (*command).count,
            (&raw const (*command).local).cast::<u64>().read_unaligned(),
            (&raw const (*command).remote)
                .cast::<u64>()
                .read_unaligned(),
        )
    };
    let Some(host) = maps::CT_HOST.get_ptr_mut(0) else {
        return ct_op::INVALID;
    };
    // SAFETY: a valid record; one writer at a time sends commands.
    unsafe {
        if u64::from(number) <= (*host).added {
            return ct_op::OK;
        }
        (*host).added = number.into();
    }
    if argument & ct_op::EVENT == 0 {
        add_count(
            interface,
            (argument >> 16).into(),
            (argument & 0xffff).into(),
            first,
            second,
        );
        return ct_op::OK;
    }
    let Some(local) = maps::CT_LOCAL.get_ptr_mut(interface) else {
        return ct_op::INVALID;
    };
    const WORDS: u64 = size_of::<CtLocal>() as u64 / 8;
    let word = opaque((argument & !ct_op::EVENT).into());
    if word >= WORDS {
        return ct_op::INVALID;
    }
    // SAFETY: a word of a valid value of this CPU.
    unsafe {
        let event = local.cast::<u64>().add(word as usize);
        *event = (*event).wrapping_add(first);
    }
    ct_op::OK
}
