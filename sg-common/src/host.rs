//! The pipeline's tables in ordinary memory: what tests and fuzzers run it on.
//!
//! Lookups are as naive as they can be; the conntrack table is the real one, shared between threads
//! as the kernel shares it between CPUs.

use std::{
    boxed::Box,
    cell::UnsafeCell,
    collections::{HashMap, HashSet},
    sync::{
        Mutex,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    vec::Vec,
};

use crate::{
    abi::stage,
    atomic,
    classify::{self, Allowing, Question},
    family::{V4, V6},
    layout::{
        Accounted4, Accounted6, AddressKey, Carried, CarriedKey, Class, Count, CtHost, CtInterface,
        CtLocal, FragmentKey, IdentityKey, Interface, Node, Range, Runtime, Slot4, Slot6, Spills,
        Tags, WAYS,
    },
    pipeline::{self, Arrival, Meeting, Outcome, Room, Scratch},
    table::{self, Context, FreeEntry, Occupancy, with_stash},
    tables::Tables,
    verdict::{Direction, OUTCOMES, Verdict},
    wire::Frame,
};

/// Memory that several threads write through raw pointers, as BPF programs write map values.
struct Shared<V>(Box<[UnsafeCell<V>]>);

// SAFETY: only reached through the pointers below, whose users follow the table's protocol.
unsafe impl<V> Sync for Shared<V> {}

impl<V: Copy> Shared<V> {
    fn new(value: V, len: u32) -> Self {
        Self((0..len).map(|_| UnsafeCell::new(value)).collect())
    }

    fn get(&self, index: u32) -> Option<*mut V> {
        self.0.get(index as usize).map(UnsafeCell::get)
    }
}

/// The policy content of one generation.
#[derive(Clone, Debug, Default)]
pub struct Bank {
    /// By interface id.
    pub interfaces: Vec<Interface>,
    /// By class.
    pub classes: Vec<Class>,
    /// By index.
    pub ranges: Vec<Range>,
    /// By index.
    pub nodes: Vec<Node>,
    /// By trie: (address as native word, prefix length, class).
    pub tries4: Vec<Vec<(u32, u32, u32)>>,
    /// By trie: (address as native words, prefix length, class).
    pub tries6: Vec<Vec<([u32; 4], u32, u32)>>,
    /// Identities of member addresses.
    pub members4: HashMap<u32, u32>,
    /// Identities of member addresses.
    pub members6: HashMap<[u32; 4], u32>,
    /// (scope, identity) → class.
    pub identities: HashMap<(u32, u32), u32>,
    /// Keys of `ADDRESSES`.
    pub addresses: HashSet<(u32, u32, [u8; 16])>,
}

/// All tables.
pub struct Host {
    /// Both banks; the generation in force names one.
    pub banks: [Bank; 2],
    /// What `RUNTIME` holds.
    pub runtime: Runtime,
    generation: AtomicU32,
    now: AtomicU64,
    /// Those of the current table, then of the draining one.
    tags: [[Shared<Tags>; 2]; 2],
    ct4: [Shared<Accounted4>; 2],
    ct6: [Shared<Accounted6>; 2],
    carried: Mutex<HashMap<(u32, u32), Carried>>,
    ct_interfaces: Shared<CtInterface>,
    ct_host: Shared<CtHost>,
    spills: Shared<Spills>,
    /// By CPU, by interface.
    ct_locals: Shared<CtLocal>,
    cursor: [AtomicU32; 2],
    fragments: Mutex<HashMap<Vec<u8>, u32>>,
    counters: Shared<Count>,
    hits: Mutex<HashMap<(u32, u32), u64>>,
}

/// Interfaces that a [`Host`] has room for.
pub const INTERFACES: u32 = 16;
/// Threads that may use one [`Host`] at the same time: each is a CPU.
pub const CPUS: u32 = 32;

/// CPUs that no thread is on.
static IDLE: Mutex<Vec<u32>> = Mutex::new(Vec::new());
/// CPUs that a thread has ever been on.
static KNOWN: AtomicU32 = AtomicU32::new(0);

/// A CPU as long as a thread is on it.
struct Cpu(u32);

impl Cpu {
    fn take() -> Self {
        let idle = IDLE.lock().expect("no holder panics").pop();
        let cpu = idle.unwrap_or_else(|| KNOWN.fetch_add(1, Ordering::Relaxed));
        assert!(cpu < CPUS, "more threads than CPUs");
        Self(cpu)
    }
}

impl Drop for Cpu {
    fn drop(&mut self) {
        IDLE.lock().expect("no holder panics").push(self.0);
    }
}

std::thread_local! {
    static CPU: Cpu = Cpu::take();
}

/// Slots of a table of so many buckets, those of the stash included.
fn slots(buckets: u32) -> u32 {
    with_stash(buckets) * WAYS as u32
}

/// The tags of both families' tables.
fn tags(buckets: [u32; 2]) -> [Shared<Tags>; 2] {
    buckets.map(|buckets| Shared::new(Tags::ZERO, with_stash(buckets)))
}

impl Host {
    /// Empty tables with conntrack sized by `runtime`.
    pub fn new(runtime: Runtime) -> Self {
        let [buckets4, buckets6] = runtime.buckets;
        let [old4, old6] = runtime.old_buckets;
        Self {
            banks: [Bank::default(), Bank::default()],
            runtime,
            generation: AtomicU32::new(0),
            now: AtomicU64::new(0),
            tags: [runtime.buckets, runtime.old_buckets].map(tags),
            ct4: [buckets4, old4].map(|len| Shared::new(Accounted4::ZERO, slots(len))),
            ct6: [buckets6, old6].map(|len| Shared::new(Accounted6::ZERO, slots(len))),
            carried: Mutex::new(HashMap::new()),
            ct_interfaces: Shared::new(CtInterface::ZERO, INTERFACES),
            ct_host: Shared::new(CtHost::ZERO, 1),
            spills: Shared::new(Spills::ZERO, 2),
            ct_locals: Shared::new(CtLocal::ZERO, CPUS * INTERFACES),
            cursor: [AtomicU32::new(0), AtomicU32::new(0)],
            fragments: Mutex::default(),
            counters: Shared::new(Count::ZERO, INTERFACES * 2 * OUTCOMES as u32),
            hits: Mutex::default(),
        }
    }

    /// Puts another generation in force.
    pub fn set_generation(&self, generation: u32) {
        self.generation.store(generation, Ordering::SeqCst);
    }

    /// Sets the clock, in jiffies.
    pub fn set_now(&self, now: u64) {
        self.now.store(now, Ordering::SeqCst);
    }

    /// Judges a frame as the hooks do.
    pub fn judge(&self, frame: &[u8], id: u32, hook_ingress: bool) -> Verdict {
        let arrival = Arrival {
            id,
            hook_ingress,
            packets: 1,
            bytes: frame.len() as u32,
        };
        self.judge_frame(&frame, &arrival)
    }

    /// Judges a frame of any kind as the hooks do.
    pub fn judge_frame<P: Frame>(&self, frame: &P, arrival: &Arrival) -> Verdict {
        let memory = UnsafeCell::new(Scratch::ZERO);
        // SAFETY: one reference at a time.
        let scratch = || unsafe { memory.get().as_mut() };
        let meeting = Meeting {
            id: arrival.id,
            hook_ingress: arrival.hook_ingress,
            packets: arrival.packets,
        };
        let outcome = pipeline::judge(self, meeting, || frame, scratch);
        let (mut outcome, mut scratch) = (outcome, memory.into_inner());
        while !outcome.decided() {
            outcome = match outcome.next() {
                stage::GENERAL => pipeline::general(self, frame, arrival, &mut scratch),
                stage::MISS => pipeline::miss(self, &mut scratch),
                _ => pipeline::later(self, &mut scratch),
            };
        }
        outcome.verdict()
    }

    /// What was counted for an interface and direction.
    pub fn counted(&self, id: u32, direction: Direction, verdict: Verdict) -> Count {
        let index = (id * 2 + direction as u32) * OUTCOMES as u32 + verdict.outcome() as u32;
        let count = self.counters.get(index).expect("an interface in range");
        // SAFETY: a valid value; tests read it when nothing is judged.
        unsafe { *count }
    }

    /// What the account of an entry had no room for.
    pub fn carried(&self, key: CarriedKey) -> Carried {
        let carried = self.carried.lock().expect("no holder panics");
        let found = carried.get(&(key.index, key.which));
        found.copied().unwrap_or(Carried::ZERO)
    }

    /// Packets that were counted for a set of rules.
    pub fn hits(&self, bank: u32, rule_set: u32) -> u64 {
        let hits = self.hits.lock().expect("no holder panics");
        hits.get(&(bank, rule_set)).copied().unwrap_or_default()
    }

    /// Forgets what was counted in a bank.
    pub fn forget_hits(&self, bank: u32) {
        let mut hits = self.hits.lock().expect("no holder panics");
        hits.retain(|(of, _), _| *of != bank);
    }

    /// Occupancy of an interface.
    pub fn interface_state(&self, id: u32) -> Occupancy {
        let shared = self.ct_interfaces.get(id).expect("an interface in range");
        // SAFETY: as above.
        Occupancy::of_interface(&unsafe { *shared }, &self.locals(id))
    }

    /// Occupancy of the host.
    pub fn host_state(&self) -> Occupancy {
        let shared = self.ct_host.get(0).expect("there is one");
        // SAFETY: as above.
        Occupancy::of_host(&unsafe { *shared }, &self.locals(0))
    }

    /// What each CPU counts of an interface.
    fn locals(&self, id: u32) -> Vec<CtLocal> {
        let of = |cpu| self.ct_locals.get(cpu * INTERFACES + id);
        // SAFETY: as above.
        (0..CPUS)
            .filter_map(of)
            .map(|local| unsafe { *local })
            .collect()
    }

    /// Reclaims every expired entry, as the sweep does; answers how many went.
    pub fn sweep(&self) -> u32 {
        let mut freed = 0;
        for old in [false, true] {
            for ipv6 in [false, true] {
                let buckets = self.tags[usize::from(old)][usize::from(ipv6)].0.len();
                freed += (0..buckets as u32)
                    .map(|index| self.reclaim(ipv6, old, index))
                    .sum::<u32>();
            }
        }
        freed
    }

    /// Makes the tables drain into new ones, as a resize does.
    pub fn start_draining(&mut self, buckets: [u32; 2]) {
        self.runtime.old_buckets = self.runtime.buckets;
        self.runtime.buckets = buckets;
        self.tags.swap(0, 1);
        self.ct4.swap(0, 1);
        self.ct6.swap(0, 1);
        self.tags[0] = tags(buckets);
        self.ct4[0] = Shared::new(Accounted4::ZERO, slots(buckets[0]));
        self.ct6[0] = Shared::new(Accounted6::ZERO, slots(buckets[1]));
    }

    /// What table functions need.
    pub fn context(&self) -> Context<'_, Self> {
        Context {
            tables: self,
            runtime: &self.runtime,
            now: self.now(),
            generation: self.generation(),
        }
    }

    fn bank(&self, bank: u32) -> &Bank {
        &self.banks[(bank & 1) as usize]
    }
}

/// Whether the first `len` bits are equal.
fn matches(a: &[u8], b: &[u8], len: u32) -> bool {
    (0..len as usize).all(|bit| {
        let mask = 0x80 >> (bit % 8);
        a[bit / 8] & mask == b[bit / 8] & mask
    })
}

fn bytes(words: &[u32; 4]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

impl Tables for Host {
    fn generation(&self) -> u32 {
        self.generation.load(Ordering::SeqCst)
    }

    fn runtime(&self) -> Option<&Runtime> {
        Some(&self.runtime)
    }

    fn jiffies(&self) -> u64 {
        self.now.load(Ordering::SeqCst)
    }

    fn interface(&self, bank: u32, id: u32) -> Option<&Interface> {
        self.bank(bank).interfaces.get(id as usize)
    }

    fn class(&self, bank: u32, class: u32) -> Option<&Class> {
        self.bank(bank).classes.get(class as usize)
    }

    fn range(&self, bank: u32, index: u32) -> Option<&Range> {
        self.bank(bank).ranges.get(index as usize)
    }

    fn node(&self, bank: u32, index: u32) -> Option<&Node> {
        self.bank(bank).nodes.get(index as usize)
    }

    fn trie4(&self, trie: u32, address: u32) -> Option<u32> {
        let bank = self.bank(self.generation());
        bank.tries4
            .get(trie as usize)?
            .iter()
            .filter(|(prefix, len, _)| matches(&prefix.to_ne_bytes(), &address.to_ne_bytes(), *len))
            .max_by_key(|(_, len, _)| *len)
            .map(|(_, _, class)| *class)
    }

    fn trie6(&self, trie: u32, address: &[u32; 4]) -> Option<u32> {
        let bank = self.bank(self.generation());
        bank.tries6
            .get(trie as usize)?
            .iter()
            .filter(|(prefix, len, _)| matches(&bytes(prefix), &bytes(address), *len))
            .max_by_key(|(_, len, _)| *len)
            .map(|(_, _, class)| *class)
    }

    fn member4(&self, bank: u32, address: u32) -> Option<u32> {
        self.bank(bank).members4.get(&address).copied()
    }

    fn member6(&self, bank: u32, address: &[u32; 4]) -> Option<u32> {
        self.bank(bank).members6.get(address).copied()
    }

    fn identity(&self, bank: u32, key: &IdentityKey) -> Option<u32> {
        self.bank(bank)
            .identities
            .get(&(key.scope, key.identity))
            .copied()
    }

    fn address(&self, bank: u32, key: &AddressKey) -> bool {
        self.bank(bank)
            .addresses
            .contains(&(key.interface, key.family, key.address))
    }

    fn accounting(&self) -> bool {
        self.runtime.accounting != 0
    }

    fn tags(&self, ipv6: bool, old: bool, bucket: u32) -> Option<*mut Tags> {
        self.tags[usize::from(old)][usize::from(ipv6)].get(bucket)
    }

    fn slot4(&self, old: bool, index: u32) -> Option<*mut Slot4> {
        self.ct4[usize::from(old)].get(index).map(<*mut _>::cast)
    }

    fn slot6(&self, old: bool, index: u32) -> Option<*mut Slot6> {
        self.ct6[usize::from(old)].get(index).map(<*mut _>::cast)
    }

    fn carry(&self, key: CarriedKey, what: u32) {
        let mut carried = self.carried.lock().expect("no holder panics");
        let carried = carried
            .entry((key.index, key.which))
            .or_insert(Carried::ZERO);
        let words = if what < 2 {
            &mut carried.packets
        } else {
            &mut carried.bytes
        };
        words[what as usize % 2] += 1;
    }

    fn ct_interface(&self, id: u32) -> Option<*mut CtInterface> {
        self.ct_interfaces.get(id)
    }

    fn ct_host(&self) -> Option<*mut CtHost> {
        self.ct_host.get(0)
    }

    fn spills(&self, ipv6: bool) -> Option<*mut Spills> {
        self.spills.get(u32::from(ipv6))
    }

    fn ct_local(&self, id: u32) -> Option<*mut CtLocal> {
        let cpu = CPU.with(|cpu| cpu.0);
        if id < INTERFACES {
            self.ct_locals.get(cpu * INTERFACES + id)
        } else {
            None
        }
    }

    fn run(&self, what: u32, scratch: &mut Scratch) -> Outcome {
        match (
            pipeline::misses(what),
            pipeline::opens(what),
            pipeline::is_ipv6(what),
        ) {
            (true, _, false) => pipeline::missed::<Self, false>(self, what, scratch),
            (true, _, true) => pipeline::missed::<Self, true>(self, what, scratch),
            (_, true, false) => pipeline::open::<Self, false>(self, what, scratch),
            (_, true, true) => pipeline::open::<Self, true>(self, what, scratch),
            _ => pipeline::run(self, what, scratch),
        }
    }

    fn allows<F: Room>(&self, question: &Question, remote: &F::Address) -> Allowing {
        classify::allows::<Self, F>(self, question, remote)
    }

    fn untracked(&self, ipv6: bool, bank: u32, id: u32, protocol: u8, ports: u32) -> u32 {
        classify::untracked(self, ipv6, bank, id, protocol, ports)
    }

    fn settle(&self, ipv6: bool, hash: u64, index: u32) -> bool {
        if ipv6 {
            table::settle::<Self, V6>(&self.context(), hash, index)
        } else {
            table::settle::<Self, V4>(&self.context(), hash, index)
        }
    }

    fn free(&self, ipv6: bool, entry: FreeEntry) -> bool {
        if ipv6 {
            table::free::<Self, V6>(&self.context(), entry)
        } else {
            table::free::<Self, V4>(&self.context(), entry)
        }
    }

    fn clear(&self, ipv6: bool, old: bool, index: u32, id: u32) -> u32 {
        if ipv6 {
            table::clear::<Self, V6>(&self.context(), old, index, id)
        } else {
            table::clear::<Self, V4>(&self.context(), old, index, id)
        }
    }

    fn review_entry(&self, ipv6: bool, old: bool, index: u32) -> u32 {
        if ipv6 {
            table::review_entry::<Self, V6>(&self.context(), old, index)
        } else {
            table::review_entry::<Self, V4>(&self.context(), old, index)
        }
    }

    fn reclaim_beside(&self, ipv6: bool, hash: u64) {
        table::reclaim_beside(&self.context(), ipv6, hash);
    }

    fn reclaim(&self, ipv6: bool, old: bool, index: u32) -> u32 {
        if ipv6 {
            table::reclaim::<Self, V6>(&self.context(), old, index)
        } else {
            table::reclaim::<Self, V4>(&self.context(), old, index)
        }
    }

    fn replace_oldest(&self, ipv6: bool, index: u32, id: u32) {
        if ipv6 {
            table::replace_oldest::<Self, V6>(&self.context(), index, id)
        } else {
            table::replace_oldest::<Self, V4>(&self.context(), index, id)
        }
    }

    fn make_room(&self, ipv6: bool, hash: u64, id: u32) {
        table::make_room(&self.context(), ipv6, hash, id);
    }

    fn oldest_age(&self, ipv6: bool, index: u32, id: u32) -> u32 {
        if ipv6 {
            table::oldest_age::<Self, V6>(&self.context(), index, id)
        } else {
            table::oldest_age::<Self, V4>(&self.context(), index, id)
        }
    }

    fn find_unassured(&self, ipv6: bool, index: u32, count: u32, id: u32) -> u32 {
        let buckets = self.runtime.buckets[usize::from(ipv6)];
        (0..count)
            .map(|step| (index + step) % buckets)
            .find(|index| self.oldest_age(ipv6, *index, id) != 0)
            .unwrap_or(u32::MAX)
    }

    fn sweep_cursor(&self, ipv6: bool) -> u32 {
        let family = usize::from(ipv6);
        let buckets = with_stash(self.runtime.buckets[family]);
        self.cursor[family].fetch_add(1, Ordering::SeqCst) % buckets
    }

    fn fragment(&self, key: &FragmentKey) -> Option<u32> {
        let fragments = self.fragments.lock().expect("no holder panics");
        fragments.get(key.as_bytes()).copied()
    }

    fn remember_fragment(&self, key: &FragmentKey, now: u32) {
        let mut fragments = self.fragments.lock().expect("no holder panics");
        fragments.insert(key.as_bytes().to_vec(), now);
    }

    fn hit(&self, bank: u32, rule_set: u32, packets: u32) {
        let mut hits = self.hits.lock().expect("no holder panics");
        *hits.entry((bank, rule_set)).or_default() += u64::from(packets);
    }

    fn count(&self, id: u32, direction: Direction, outcome: usize, packets: u32, bytes: u32) {
        let index = (id * 2 + direction as u32) * OUTCOMES as u32 + outcome as u32;
        if let Some(count) = self.counters.get(index) {
            // SAFETY: a valid value; only atomic adds.
            unsafe {
                atomic::add(&raw mut (*count).packets, u64::from(packets));
                atomic::add(&raw mut (*count).bytes, u64::from(bytes));
            }
        }
    }
}
