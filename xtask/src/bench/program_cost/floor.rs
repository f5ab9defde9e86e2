//! The benchmark's own object: the wrapper, and floors with the kernel's tables.

use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::{Context as _, Result, bail};
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, MapData, ProgramArray};
use aya::programs::{Program, ProgramFd, SchedClassifier, TestRun as _, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader, Pod};

use super::Hook;
use super::context::{Context as _, SkBuff, XdpMd};
use super::pattern::{Pattern, prefix4, prefix6};

// SAFETY: integers without padding between them, any bits of which are valid.
unsafe impl Pod for Pattern {}
const _: () = assert!(size_of::<Pattern>() == 64);

/// Writes packets of a pattern and jumps to what is measured.
pub(crate) struct Wrapper {
    pattern: Array<MapData, Pattern>,
    next_xdp: ProgramArray<MapData>,
    next_tc: ProgramArray<MapData>,
    ebpf: Ebpf,
}

impl Wrapper {
    /// Loads it.
    pub(crate) fn new(object: &[u8]) -> Result<Self> {
        let mut ebpf = EbpfLoader::new().load(object)?;
        for name in ["xdp_wrapper", "tc_wrapper"] {
            load(&mut ebpf, name)?;
        }
        let mut take = |name| {
            ebpf.take_map(name)
                .with_context(|| format!("no map {name}"))
        };
        Ok(Self {
            pattern: take("PATTERN")?.try_into()?,
            next_xdp: take("NEXT_XDP")?.try_into()?,
            next_tc: take("NEXT_TC")?.try_into()?,
            ebpf,
        })
    }

    /// What the wrapper jumps to from now on, and the packets it writes.
    pub(crate) fn set(&mut self, hook: Hook, pattern: &Pattern, program: &ProgramFd) -> Result<()> {
        self.pattern.set(0, pattern, 0)?;
        match hook {
            Hook::Xdp => self.next_xdp.set(0, program, 0)?,
            Hook::TcIngress | Hook::TcEgress => self.next_tc.set(0, program, 0)?,
        }
        Ok(())
    }

    /// Runs it `repeat` times; answers what the program under test said last.
    pub(crate) fn run(&self, hook: Hook, ifindex: u32, frame: &[u8], repeat: u32) -> Result<u32> {
        let skb = SkBuff::on(ifindex);
        let md = XdpMd::new(ifindex, frame.len() as u32);
        let mut options = TestRunOptions::new();
        options.data_in = Some(frame);
        options.repeat = repeat;
        let result = if hook == Hook::Xdp {
            options.ctx_in = Some(md.bytes());
            let wrapper: &Xdp = self.program("xdp_wrapper")?.try_into()?;
            wrapper.test_run(options)?
        } else {
            options.ctx_in = Some(skb.bytes());
            let wrapper: &SchedClassifier = self.program("tc_wrapper")?.try_into()?;
            wrapper.test_run(options)?
        };
        // XDP_ABORTED, and what the wrapper answers at TC.
        if result.return_value == if hook == Hook::Xdp { 0 } else { 99 } {
            bail!("the wrapper could not write the packet, or not jump to the program");
        }
        Ok(result.return_value)
    }

    fn program(&self, name: &str) -> Result<&Program> {
        self.ebpf
            .program(name)
            .with_context(|| format!("no program {name}"))
    }
}

fn load(ebpf: &mut Ebpf, name: &str) -> Result<ProgramFd> {
    let program = ebpf
        .program_mut(name)
        .with_context(|| format!("no program {name}"))?;
    Ok(match program {
        Program::Xdp(program) => {
            program.load()?;
            program.fd()?.try_clone()?
        }
        Program::SchedClassifier(program) => {
            program.load()?;
            program.fd()?.try_clone()?
        }
        _ => bail!("{name} is of another kind"),
    })
}

/// The kernel's tables in one size.
pub(crate) struct Floor {
    ebpf: Ebpf,
}

impl Floor {
    /// Tables of which the one called `map` has room for so many; the others have room for one.
    pub(crate) fn new(object: &[u8], map: &str, entries: u32) -> Result<Self> {
        let mut loader = EbpfLoader::new();
        loader.map_max_entries(map, entries);
        loader.override_global("ENTRIES", &entries, true);
        Ok(Self {
            ebpf: loader.load(object)?,
        })
    }

    /// One of its programs.
    pub(crate) fn program(&mut self, name: &str) -> Result<ProgramFd> {
        load(&mut self.ebpf, name)
    }

    /// Enters the prefixes of a pattern into the trie of a family.
    pub(crate) fn fill_trie(&mut self, ipv6: bool, prefixes: u32) -> Result<()> {
        let name = if ipv6 { "LPM6" } else { "LPM4" };
        let map = self.ebpf.map_mut(name).context("no trie")?;
        if ipv6 {
            let mut trie: LpmTrie<_, [u8; 16], u32> = map.try_into()?;
            for number in 0..prefixes {
                let (network, length) = prefix6(number);
                let address = Ipv6Addr::from(u128::from(network) << 64).octets();
                trie.insert(&Key::new(length, address), 1, 0)?;
            }
        } else {
            let mut trie: LpmTrie<_, [u8; 4], u32> = map.try_into()?;
            for number in 0..prefixes {
                let (network, length) = prefix4(number);
                trie.insert(&Key::new(length, Ipv4Addr::from(network).octets()), 1, 0)?;
            }
        }
        Ok(())
    }
}
