//! Does a rule allow it? (facts 1.1–1.4: allow only, no order, union over groups)

use crate::{
    atomic,
    family::Family,
    layout::{
        IdentityKey, Interface, NO_TRIE, Policy, interface_flags, policy_flags, policy_index, slice,
    },
    tables::Tables,
    tree,
    verdict::Direction,
};

/// What a rule is asked about: a slice of a class and a value in it.
///
/// TCP and UDP: the destination port. The family's ICMP: `type << 8 | code`. Everything else: the
/// protocol number (fact 1.10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Selector {
    /// See [`slice`](mod@slice).
    pub slice: u8,
    /// The value.
    pub value: u16,
}

impl Selector {
    /// The selector of a packet; `value` is the destination port or the ICMP type and code.
    #[inline(always)]
    pub fn new<F: Family>(protocol: u8, value: u16) -> Self {
        match protocol {
            6 => Self {
                slice: slice::TCP as u8,
                value,
            },
            17 => Self {
                slice: slice::UDP as u8,
                value,
            },
            icmp if icmp == F::ICMP => Self {
                slice: slice::ICMP as u8,
                value,
            },
            other => Self {
                slice: slice::OTHER as u8,
                value: u16::from(other),
            },
        }
    }
}

/// What the rules are asked: may this peer be reached, or reach, by this?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// Bank that answers.
    pub bank: u32,
    /// Interface id.
    pub id: u32,
    /// Direction of the rules.
    pub direction: Direction,
    /// Protocol and port, or what stands for them.
    pub selector: Selector,
}

/// Which sets of rules allow something. A rule names prefixes or a group, so it is in one of the two at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Allowing(u64);

impl Allowing {
    /// No rule does.
    pub const NOBODY: Self = Self(0);

    #[inline(always)]
    fn new(prefixes: u32, groups: u32) -> Self {
        Self(u64::from(groups) << 32 | u64::from(prefixes))
    }

    /// As a number; 0: no rule.
    #[inline(always)]
    pub fn raw(self) -> u64 {
        self.0
    }

    /// What [`Self::raw`] answered.
    #[inline(always)]
    pub fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    /// Whether a rule does.
    #[inline(always)]
    pub fn any(self) -> bool {
        self.0 != 0
    }

    /// The set of rules with prefixes and that of rules with groups; 0: no rule.
    #[inline(always)]
    pub fn sets(self) -> [u32; 2] {
        [self.0 as u32, (self.0 >> 32) as u32]
    }
}

/// Halvings that suffice for any slice: its ranges are disjoint runs of 16-bit values.
const SEARCH_STEPS: u64 = 16;

/// The rule set of `class` that allows the selector; 0 if none does.
#[inline(always)]
pub fn rule_set<T: Tables>(tables: &T, bank: u32, class: u32, selector: Selector) -> u32 {
    let Some(class) = tables.class(bank, class) else {
        return 0;
    };
    let run = class.slices[usize::from(selector.slice) & 3];
    if run.len == 0 {
        return 0;
    }
    // Invariant: the last range with `low <= value`, if any, is in start..start + len.
    let mut start = run.start;
    let mut len = run.len;
    let value = atomic::opaque(selector.value.into());
    for _ in 0..atomic::opaque(SEARCH_STEPS) {
        if len <= 1 {
            break;
        }
        let half = len / 2;
        let Some(range) = tables.range(bank, start.wrapping_add(half)) else {
            return 0;
        };
        // Without a branch: it would be taken at random.
        let above = value.wrapping_sub(range.low.into()) >> 63;
        start = start.wrapping_add(half & (above as u32).wrapping_sub(1));
        len -= half;
    }
    match tables.range(bank, start) {
        Some(range) if range.low <= selector.value && selector.value <= range.high => {
            range.rule_set
        }
        _ => 0,
    }
}

/// The class of the longest prefix that holds the address; prefixes nest, so the compiler has pushed
/// down what covering prefixes allow. Without a match: the class of "everywhere".
#[inline(always)]
fn prefix_class<T: Tables, F: Family>(
    tables: &T,
    bank: u32,
    policy: &Policy,
    remote: &F::Address,
) -> u32 {
    if policy.flags & policy_flags::TREE != 0 {
        tree::find(tables, bank, policy.trie, F::WORDS, |place| {
            F::word(remote, place)
        })
    } else if policy.trie == NO_TRIE {
        policy.any_class
    } else {
        F::trie(tables, policy.trie, remote).unwrap_or(policy.any_class)
    }
}

/// The class of the address's identity in the policy's scope; 0 if there is none.
#[inline(always)]
fn identity_class<T: Tables, F: Family>(
    tables: &T,
    bank: u32,
    policy: &Policy,
    remote: &F::Address,
) -> u32 {
    if policy.scope == 0 {
        return 0;
    }
    let Some(identity) = F::member(tables, bank, remote) else {
        return 0;
    };
    let key = IdentityKey {
        scope: policy.scope,
        identity,
    };
    tables.identity(bank, &key).unwrap_or_default()
}

/// The sets of rules that allow a new flow with `remote`: by the prefixes that hold its address, and by
/// the groups that it is a member of. Both are looked up, because every rule that allows it is counted.
#[inline(always)]
pub fn allows<T: Tables, F: Family>(
    tables: &T,
    question: &Question,
    remote: &F::Address,
) -> Allowing {
    let Question { bank, selector, .. } = *question;
    let Some(interface) = tables.interface(bank, question.id) else {
        return Allowing::NOBODY;
    };
    let policy = &interface.policy[policy_index(question.direction, F::IPV6)];
    let of_class = |class: u32| match class {
        0 => 0,
        class => rule_set(tables, bank, class, selector),
    };
    let prefixes = of_class(prefix_class::<T, F>(tables, bank, policy, remote));
    let groups = of_class(identity_class::<T, F>(tables, bank, policy, remote));
    Allowing::new(prefixes, groups)
}

/// For [`untracked`]: the workload opens the flow.
pub const BY_LOCAL: u32 = 1;
/// For [`untracked`]: the peer opens it.
pub const BY_REMOTE: u32 = 2;

/// The flag of [`policy_flags`] that says that a direction is open to flows of this protocol, if either
/// direction is; 0: no flow of it is untracked.
#[inline(always)]
fn open(interface: &Interface, ipv6: bool, protocol: u8) -> u32 {
    let open = match protocol {
        6 => policy_flags::OPEN_TCP,
        17 => policy_flags::OPEN_UDP,
        _ => return 0,
    };
    let flags = interface.flags & (interface_flags::PRESENT | interface_flags::TRACK_ALWAYS);
    if flags != interface_flags::PRESENT {
        return 0;
    }
    let ingress = &interface.policy[policy_index(Direction::Ingress, ipv6)];
    let egress = &interface.policy[policy_index(Direction::Egress, ipv6)];
    (ingress.flags | egress.flags) & open
}

/// Whether a TCP or UDP flow is untracked (facts 3.3, 3.10): a rule from everywhere admits it in one
/// direction, and the other direction is open to everywhere on every port. Answers whose opening that lets
/// pass, [`BY_LOCAL`] and [`BY_REMOTE`]; 0: tracked. `ports` are those of [`crate::family::Flow::ports`].
#[inline(always)]
pub fn untracked<T: Tables>(
    tables: &T,
    ipv6: bool,
    bank: u32,
    id: u32,
    protocol: u8,
    ports: u32,
) -> u32 {
    let Some(interface) = tables.interface(bank, id) else {
        return 0;
    };
    let open = open(interface, ipv6, protocol);
    if open == 0 {
        return 0;
    }
    let ingress = &interface.policy[policy_index(Direction::Ingress, ipv6)];
    let egress = &interface.policy[policy_index(Direction::Egress, ipv6)];
    let slice = if open == policy_flags::OPEN_TCP {
        slice::TCP
    } else {
        slice::UDP
    };
    let covers = |policy: &Policy, value: u32| {
        policy.flags & open != 0
            || (policy.any_class != 0
                && rule_set(
                    tables,
                    bank,
                    policy.any_class,
                    Selector {
                        slice: slice as u8,
                        value: value as u16,
                    },
                ) != 0)
    };
    let mut openers = 0;
    if egress.flags & open != 0 && covers(ingress, ports >> 16) {
        openers |= BY_REMOTE;
    }
    if ingress.flags & open != 0 && covers(egress, ports & 0xffff) {
        openers |= BY_LOCAL;
    }
    openers
}
