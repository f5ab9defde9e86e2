//! What the verifier and the JIT make of the loaded programs, and the budget kept of it.
//!
//! Shared by the test that compares and by `cargo xtask bench`, which prints and blesses.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd},
    path::Path,
};

use aya::programs::{ProgramError, ProgramInfo};
use sg_common::abi::{
    PROGRAM_CT_CONTROL, PROGRAM_TC_EGRESS, PROGRAM_TC_INGRESS, PROGRAM_XDP_INGRESS, PROGRAMS_LATER,
};
use sg_userspace::{bpf::open_pinned, programs::ProgramsError, session::Session};

/// Size of one loaded program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Footprint {
    /// Instructions that the verifier looked at, by all paths; it gives up at a million.
    pub(crate) instructions: u32,
    /// Bytes of machine code, all functions together.
    pub(crate) jited: u32,
    /// Bytes of BPF stack of the deepest chain of calls; the kernel allows 512.
    pub(crate) stack: u32,
}

/// By program name.
pub(crate) type Footprints = BTreeMap<&'static str, Footprint>;

/// Why a program cannot be measured.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FootprintError {
    /// It cannot be loaded.
    #[error(transparent)]
    Programs(#[from] ProgramsError),
    /// It cannot be opened or examined.
    #[error("cannot examine a program")]
    Program(#[from] ProgramError),
    /// The kernel does not show its instructions.
    #[error("cannot read a program's instructions")]
    Instructions(#[from] io::Error),
}

/// Loads all programs of a session and measures them.
pub(crate) fn measure(session: &Session) -> Result<Footprints, FootprintError> {
    // Number of a namespace that the programs are loaded for; any will do.
    let number = 3;
    let programs = session.programs(number);
    programs.xdp_ingress()?;
    programs.tc_ingress()?;
    programs.tc_egress()?;
    let hooks = [PROGRAM_XDP_INGRESS, PROGRAM_TC_INGRESS, PROGRAM_TC_EGRESS];
    let directory = session.pins.programs(number);
    let control = [(PROGRAM_CT_CONTROL, session.pins.control())];
    let all = hooks.iter().chain(PROGRAMS_LATER.iter().flatten());
    let pins = all.map(|name| (*name, directory.join(name))).chain(control);
    pins.map(|(name, pin)| Ok((name, examine(&pin)?))).collect()
}

fn examine(pin: &Path) -> Result<Footprint, FootprintError> {
    let info = ProgramInfo::from_pin(pin)?;
    let program = open_pinned(pin)?.ok_or(io::Error::from(io::ErrorKind::NotFound))?;
    let length = info.size_translated().unwrap_or_default() as usize;
    let instructions = translated(program.as_fd(), length)?;
    Ok(Footprint {
        instructions: info.verified_instruction_count().unwrap_or_default(),
        jited: info.size_jitted(),
        stack: deepest(&functions(&instructions), 0),
    })
}

/// One instruction, as in `struct bpf_insn` of `include/uapi/linux/bpf.h`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
struct Instruction {
    code: u8,
    /// Destination in the lower half, source in the upper.
    registers: u8,
    offset: i16,
    immediate: i32,
}

impl Instruction {
    fn destination(self) -> u8 {
        self.registers & 15
    }

    fn source(self) -> u8 {
        self.registers >> 4
    }
}

/// `struct bpf_prog_info` up to the member that is wanted.
#[repr(C)]
#[derive(Default)]
struct Info {
    kind: u32,
    id: u32,
    tag: [u8; 8],
    jited_length: u32,
    translated_length: u32,
    jited: u64,
    translated: u64,
}

#[repr(C)]
struct Attribute {
    fd: u32,
    length: u32,
    info: u64,
}

/// `BPF_OBJ_GET_INFO_BY_FD`.
const INFO_BY_FD: libc::c_long = 15;

/// The program as the verifier left it, of `length` bytes.
fn translated(program: BorrowedFd<'_>, length: usize) -> io::Result<Vec<Instruction>> {
    let mut instructions = vec![Instruction::default(); length / size_of::<Instruction>()];
    let mut info = Info {
        translated_length: length as u32,
        translated: instructions.as_mut_ptr() as u64,
        ..Info::default()
    };
    let mut attribute = Attribute {
        fd: program.as_raw_fd() as u32,
        length: size_of::<Info>() as u32,
        info: std::ptr::from_mut(&mut info) as u64,
    };
    // SAFETY: `info` is as long as said, and there is room for as many bytes of instructions as said.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            INFO_BY_FD,
            std::ptr::from_mut(&mut attribute),
            size_of::<Attribute>(),
        )
    };
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(instructions)
}

/// A function: bytes of stack, and the functions it calls by place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Function {
    stack: u32,
    calls: Vec<usize>,
}

/// `BPF_JMP | BPF_CALL`, and its source register for a call within the program.
const CALL: (u8, u8) = (0x85, 1);
/// `BPF_LD | BPF_IMM | BPF_DW`, and its source register for the address of a function.
const LOAD_FUNCTION: (u8, u8) = (0x18, 4);
/// `BPF_ALU64 | BPF_MOV | BPF_X` and `BPF_ALU64 | BPF_ADD | BPF_K`.
const MOVE: u8 = 0xbf;
const ADD: u8 = 0x07;
/// The register that points at the end of the stack.
const FRAME: u8 = 10;

/// Splits a program into its functions, the first of which is the program itself. Targets of calls
/// stand in the offset of a call (`jit_subprogs` of `kernel/bpf/verifier.c`).
fn functions(program: &[Instruction]) -> Vec<Function> {
    let target = |place: usize, one: &Instruction| {
        let away = match (one.code, one.source()) {
            CALL => i32::from(one.offset),
            LOAD_FUNCTION => one.immediate,
            _ => return None,
        };
        usize::try_from(place as i64 + i64::from(away) + 1).ok()
    };
    let mut starts: Vec<usize> = program
        .iter()
        .enumerate()
        .filter_map(|(place, one)| target(place, one))
        .chain([0])
        .collect();
    starts.sort_unstable();
    starts.dedup();

    let ends = starts.iter().skip(1).copied().chain([program.len()]);
    let bodies = starts.iter().copied().zip(ends);
    bodies
        .map(|(start, end)| {
            let body = &program[start.min(end)..end];
            let calls = body.iter().enumerate().filter_map(|(place, one)| {
                let target = target(start + place, one)?;
                starts.binary_search(&target).ok()
            });
            Function {
                stack: stack(body),
                calls: calls.collect(),
            }
        })
        .collect()
}

/// How far below the frame's end a function reaches: by accesses through the frame register, and by
/// addresses that are made of it.
fn stack(body: &[Instruction]) -> u32 {
    let mut depth = 0;
    for (place, one) in body.iter().enumerate() {
        let lowest = match one.code & 7 {
            // BPF_LDX; BPF_ST and BPF_STX.
            1 if one.source() == FRAME => i32::from(one.offset),
            2 | 3 if one.destination() == FRAME => i32::from(one.offset),
            _ if one.code == MOVE && one.source() == FRAME => {
                let added = body
                    .get(place + 1)
                    .filter(|next| next.code == ADD && next.destination() == one.destination());
                added.map_or(0, |added| added.immediate)
            }
            _ => 0,
        };
        depth = depth.max(lowest.min(0).unsigned_abs());
    }
    depth
}

/// Stack of a function and of the deepest chain below it, each rounded as the kernel rounds it for
/// a JIT (`round_up_stack_depth` of `kernel/bpf/verifier.c`). BPF has no recursion.
fn deepest(functions: &[Function], first: usize) -> u32 {
    let Some(function) = functions.get(first) else {
        return 0;
    };
    let below = function.calls.iter().map(|call| deepest(functions, *call));
    function.stack.next_multiple_of(16) + below.max().unwrap_or(0)
}

/// Which budget holds: objects with log code are larger.
pub(crate) fn flavour(object: &[u8]) -> &'static str {
    let logs = b"AYA_LOGS";
    if object.windows(logs.len()).any(|window| window == logs) {
        "debug"
    } else {
        "release"
    }
}

/// Budgets by flavour and program, as the file has them.
pub(crate) type Budget = BTreeMap<String, BTreeMap<String, BTreeMap<String, u32>>>;

/// What exceeds its budget, in words.
pub(crate) fn exceeding(found: &Footprints, flavour: &str, budget: &Budget) -> Vec<String> {
    let mut over = Vec::new();
    for (program, footprint) in found {
        for (what, value) in footprint.figures() {
            let allowed = budget
                .get(flavour)
                .and_then(|programs| programs.get(*program))
                .and_then(|figures| figures.get(what));
            match allowed {
                Some(allowed) if value <= *allowed => {}
                Some(allowed) => over.push(format!("{program}: {value} {what}, {allowed} allowed")),
                None => over.push(format!("{program}: no budget of {what} ({flavour})")),
            }
        }
    }
    over
}

/// Puts what was found into a budget, with room for what other kernels and CPUs make of it.
pub(crate) fn bless(found: &Footprints, flavour: &str, budget: &mut Budget) {
    let programs = budget.entry(flavour.to_owned()).or_default();
    programs.clear();
    for (program, footprint) in found {
        let figures = footprint.figures().map(|(what, value)| {
            let room = if what == "stack" { 0 } else { value / 20 };
            (
                what.to_owned(),
                (value + room).next_multiple_of(if room == 0 { 1 } else { 100 }),
            )
        });
        programs.insert((*program).to_owned(), BTreeMap::from(figures));
    }
}

/// The budget's file.
pub(crate) fn text(budget: &Budget) -> String {
    let mut text = String::from(
        "# What a program may cost at most: instructions that the verifier looks at, bytes of machine code\n\
         # (x86-64) and bytes of stack, with and without log code. `cargo xtask bench --bless-budget`\n\
         # measures it anew, on Linux 6.18 or later, and leaves a twentieth of room.\n",
    );
    for (flavour, programs) in budget {
        for (program, figures) in programs {
            let _ = write!(text, "\n[{flavour}.{program}]\n");
            for (what, value) in figures {
                let _ = writeln!(text, "{what} = {value}");
            }
        }
    }
    text
}

impl Footprint {
    /// Names and values.
    pub(crate) fn figures(self) -> [(&'static str, u32); 3] {
        [
            ("instructions", self.instructions),
            ("jited", self.jited),
            ("stack", self.stack),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instruction(
        code: u8,
        destination: u8,
        source: u8,
        offset: i16,
        immediate: i32,
    ) -> Instruction {
        Instruction {
            code,
            registers: destination | source << 4,
            offset,
            immediate,
        }
    }

    #[test]
    fn the_deepest_chain_of_calls_counts() {
        let exit = instruction(0x95, 0, 0, 0, 0);
        let program = [
            // *(u64 *)(r10 - 24) = r1; call 4; call 7; exit
            instruction(0x7b, 10, 1, -24, 0),
            instruction(0x85, 0, 1, 2, 0),
            instruction(0x85, 0, 1, 4, 6),
            exit,
            // r2 = r10; r2 += -40; exit
            instruction(0xbf, 2, 10, 0, 0),
            instruction(0x07, 2, 0, 0, -40),
            exit,
            // r1 = *(u32 *)(r10 - 4); exit
            instruction(0x61, 1, 10, -4, 0),
            exit,
        ];
        let found = functions(&program);
        let stacks: Vec<u32> = found.iter().map(|one| one.stack).collect();
        assert_eq!(stacks, [24, 40, 4]);
        assert_eq!(found[0].calls, [1, 2]);
        assert_eq!(deepest(&found, 0), 32 + 48);
    }

    #[test]
    fn more_than_the_budget_is_noticed() {
        let footprint = Footprint {
            instructions: 1000,
            jited: 2000,
            stack: 100,
        };
        let found = Footprints::from([("one", footprint)]);
        let mut budget = Budget::new();
        assert_eq!(exceeding(&found, "release", &budget).len(), 3);
        bless(&found, "release", &mut budget);
        assert!(exceeding(&found, "release", &budget).is_empty());
        let read: Budget = toml::from_str(&text(&budget)).unwrap();
        assert_eq!(read, budget);
        let grown = Footprint {
            stack: 101,
            instructions: 1200,
            ..footprint
        };
        assert_eq!(
            exceeding(&Footprints::from([("one", grown)]), "release", &budget).len(),
            2
        );
    }
}
