//! One direction and family of one set of groups: trie, class of everywhere, scope.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use sg_common::layout::{NO_TRIE, Node, Policy, policy_flags, slice};
use sg_common::verdict::Direction;

use super::classes::Classes;
use super::error::{Capacity, CompileError, Full};
use super::identities::Scopes;
use super::trees::Trees;
use super::{Compiled, CompiledInterface, Trie};
use crate::model::Peer;
use crate::resolve::{Name, Resolved};

/// What sorting a prefix among others takes.
const STEPS_PER_PREFIX: usize = 32;

/// Compiles policies, equal ones once.
pub(super) struct Policies<'a> {
    resolved: &'a Resolved,
    classes: Classes<'a>,
    /// Number of the first rule of a group and direction.
    first_rule: HashMap<(&'a Name, Direction), u32>,
    /// Tries of IPv4 and IPv6, with the class of what no prefix covers.
    tries: [Vec<(Trie, u32)>; 2],
    /// Entries of all tries.
    entries: usize,
    scopes: Scopes<'a>,
    compiled: HashMap<(Direction, bool, Vec<&'a Name>), Policy>,
}

impl<'a> Policies<'a> {
    /// Numbers the rules of all groups that an interface carries.
    pub(super) fn new(resolved: &'a Resolved) -> Self {
        let in_force: BTreeSet<&Name> = resolved
            .interfaces
            .values()
            .flat_map(|interface| &interface.groups)
            .collect();
        let mut rules = Vec::new();
        let mut first_rule = HashMap::new();
        for name in in_force {
            let Some((name, group)) = resolved.groups.get_key_value(name) else {
                continue;
            };
            for direction in Direction::ALL {
                first_rule.insert((name, direction), rules.len() as u32);
                rules.extend(group.rules(direction));
            }
        }
        Self {
            resolved,
            classes: Classes::new(rules),
            first_rule,
            tries: Default::default(),
            entries: 0,
            scopes: Scopes::default(),
            compiled: HashMap::new(),
        }
    }

    /// The policy of an interface with these groups.
    pub(super) fn policy(
        &mut self,
        groups: &[Name],
        direction: Direction,
        ipv6: bool,
    ) -> Result<Policy, Full> {
        let groups = self.relevant(groups, direction);
        let key = (direction, ipv6, groups);
        if let Some(policy) = self.compiled.get(&key) {
            return Ok(*policy);
        }
        let rules = self.sort_by_peer(&key.2, direction, ipv6)?;
        let policy = self.compile(rules, ipv6)?;
        self.compiled.insert(key, policy);
        Ok(policy)
    }

    /// All map content but the host's settings, with trees of at most so many nodes.
    pub(super) fn finish(
        mut self,
        mut interfaces: Vec<CompiledInterface>,
        nodes: usize,
    ) -> Result<Compiled, CompileError> {
        let members = self.scopes.members(self.resolved, &mut self.classes)?;
        let ([tries4, tries6], nodes) = plant(self.tries, &mut interfaces, nodes);
        let content = self.classes.finish();
        Ok(Compiled {
            classes: content.classes,
            ranges: content.ranges,
            interfaces,
            nodes,
            tries4,
            tries6,
            members4: members.members4,
            members6: members.members6,
            identities: members.identities,
            membership: members.membership,
            rules: content.rules,
            rule_sets: content.rule_sets,
            ..Compiled::default()
        })
    }

    /// The groups that have a rule of this direction, sorted: what makes two policies equal.
    fn relevant(&self, groups: &[Name], direction: Direction) -> Vec<&'a Name> {
        let relevant: BTreeSet<&Name> = groups
            .iter()
            .filter_map(|name| self.resolved.groups.get_key_value(name))
            .filter(|(_, group)| !group.rules(direction).is_empty())
            .map(|(name, _)| name)
            .collect();
        relevant.into_iter().collect()
    }

    fn sort_by_peer(
        &mut self,
        groups: &[&'a Name],
        direction: Direction,
        ipv6: bool,
    ) -> Result<RulesByPeer<'a>, Full> {
        let mut sorted = RulesByPeer::default();
        for name in groups {
            let first = self.first_rule[&(*name, direction)];
            let rules = self.resolved.groups[*name].rules(direction);
            for (number, rule) in (first..).zip(rules) {
                if rule.traffic.slices(ipv6).next().is_none() {
                    continue;
                }
                let full = |capacity| Full {
                    capacity,
                    rule: Some(rule.id),
                };
                match &rule.peer {
                    Peer::Cidr(net) => sorted.add_net(net, number, ipv6),
                    Peer::PrefixList(list) => {
                        let list = self.resolved.prefix_lists.get(list);
                        let nets = list.map_or(&[][..], Vec::as_slice);
                        self.classes
                            .spend(nets.len() * STEPS_PER_PREFIX)
                            .map_err(full)?;
                        for net in nets {
                            sorted.add_net(net, number, ipv6);
                        }
                    }
                    Peer::GroupOf(_, family) if family.is_ipv6() != ipv6 => {}
                    Peer::Group(group) | Peer::GroupOf(group, _) => {
                        sorted.groups.entry(group).or_default().push(number);
                    }
                }
                if sorted.prefixes.len() > Capacity::Prefixes.limit() {
                    return Err(full(Capacity::Prefixes));
                }
            }
        }
        // A list may hold everywhere more than once.
        sorted.everywhere.dedup();
        sorted.prefixes.sort_unstable();
        sorted.prefixes.dedup();
        Ok(sorted)
    }

    fn compile(&mut self, rules: RulesByPeer<'a>, ipv6: bool) -> Result<Policy, Full> {
        let everywhere = self.classes.of_rules(&rules.everywhere, ipv6)?;
        let entries = self.push_down(everywhere, &rules.prefixes, ipv6)?;
        let any_class = self.classes.publish(everywhere)?;
        let tries = &mut self.tries[usize::from(ipv6)];
        let trie = if entries.is_empty() {
            NO_TRIE
        } else {
            if tries.len() >= Capacity::Tries.limit() {
                return Err(Capacity::Tries.into());
            }
            self.entries += entries.len();
            if self.entries > Capacity::Prefixes.limit() {
                return Err(Capacity::Prefixes.into());
            }
            tries.push((Trie { entries }, any_class));
            tries.len() as u32 - 1
        };
        let mut by_group = Vec::with_capacity(rules.groups.len());
        for (group, numbers) in rules.groups {
            by_group.push((group, self.classes.of_rules(&numbers, ipv6)?));
        }
        let mut flags = 0;
        if self.classes.covers_everything(everywhere, slice::TCP) {
            flags |= policy_flags::OPEN_TCP;
        }
        if self.classes.covers_everything(everywhere, slice::UDP) {
            flags |= policy_flags::OPEN_UDP;
        }
        Ok(Policy {
            trie,
            any_class,
            scope: self.scopes.add(by_group),
            flags,
        })
    }

    /// Gives every prefix the class of all rules that cover it. In ascending order (address, then
    /// length) the prefixes that cover the next one are those on the stack.
    fn push_down(
        &mut self,
        everywhere: u32,
        prefixes: &[(Prefix, u32)],
        ipv6: bool,
    ) -> Result<Vec<(IpNet, u32)>, Full> {
        let mut entries = Vec::new();
        let mut covering: Vec<(Prefix, u32)> = Vec::new();
        let mut numbers = Vec::new();
        for same in prefixes.chunk_by(|a, b| a.0 == b.0) {
            let prefix = same[0].0;
            numbers.clear();
            numbers.extend(same.iter().map(|(_, rule)| rule));
            while covering.pop_if(|(top, _)| !top.contains(prefix)).is_some() {}
            let outer = covering.last().map_or(everywhere, |(_, class)| *class);
            let own = self.classes.of_rules(&numbers, ipv6)?;
            let rule = Some(self.classes.rule(numbers[0]).id);
            let full = |capacity| Full { capacity, rule };
            let class = self.classes.union(outer, own).map_err(full)?;
            // Where the prefix adds nothing, its covering prefix answers as well.
            if class != outer {
                let published = self.classes.publish(class).map_err(full)?;
                entries.push((prefix.net(ipv6), published));
                covering.push((prefix, class));
            }
        }
        Ok(entries)
    }
}

/// Makes trees of tries, the largest first, as long as they fit; answers the tries left and the trees' nodes.
fn plant(
    tries: [Vec<(Trie, u32)>; 2],
    interfaces: &mut [CompiledInterface],
    limit: usize,
) -> ([Vec<Trie>; 2], Vec<Node>) {
    let mut trees = Trees::new(limit);
    let mut order: Vec<(usize, usize)> = (0..2)
        .flat_map(|family| (0..tries[family].len()).map(move |trie| (family, trie)))
        .collect();
    order.sort_by_key(|(family, trie)| Reverse(tries[*family][*trie].0.entries.len()));
    let mut roots: HashMap<(usize, u32), u32> = HashMap::new();
    for (family, number) in order {
        let (trie, outside) = &tries[family][number];
        if let Some(root) = trees.add(trie, *outside) {
            roots.insert((family, number as u32), root);
        }
    }
    let mut left: [Vec<Trie>; 2] = Default::default();
    let mut moved: HashMap<(usize, u32), u32> = HashMap::new();
    for (family, tries) in tries.into_iter().enumerate() {
        for (number, (trie, _)) in (0..).zip(tries) {
            if !roots.contains_key(&(family, number)) {
                moved.insert((family, number), left[family].len() as u32);
                left[family].push(trie);
            }
        }
    }
    for interface in interfaces {
        for (place, policy) in interface.policy.iter_mut().enumerate() {
            // See `policy_index`.
            let trie = (place % 2, policy.trie);
            if let Some(root) = roots.get(&trie) {
                policy.trie = *root;
                policy.flags |= policy_flags::TREE;
            } else if let Some(number) = moved.get(&trie) {
                policy.trie = *number;
            }
        }
    }
    (left, trees.nodes)
}

/// Rule numbers of one policy, ascending, by peer.
#[derive(Default)]
struct RulesByPeer<'a> {
    everywhere: Vec<u32>,
    prefixes: Vec<(Prefix, u32)>,
    groups: BTreeMap<&'a Name, Vec<u32>>,
}

impl RulesByPeer<'_> {
    fn add_net(&mut self, net: &IpNet, rule: u32, ipv6: bool) {
        if matches!(net, IpNet::V6(_)) != ipv6 {
            return;
        }
        if net.prefix_len() == 0 {
            self.everywhere.push(rule);
        } else {
            self.prefixes.push((Prefix::of(net), rule));
        }
    }
}

/// A prefix of one family. IPv4 addresses stand in the upper bits, so that both families mask alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Prefix {
    bits: u128,
    len: u8,
}

impl Prefix {
    fn of(net: &IpNet) -> Self {
        let bits = match net {
            IpNet::V4(net) => u128::from(net.network().to_bits()) << 96,
            IpNet::V6(net) => net.network().to_bits(),
        };
        Self {
            bits,
            len: net.prefix_len(),
        }
    }

    /// Whether `other` lies within. Neither has length 0.
    fn contains(self, other: Self) -> bool {
        self.len <= other.len && (self.bits ^ other.bits) >> (128 - u32::from(self.len)) == 0
    }

    fn net(self, ipv6: bool) -> IpNet {
        if ipv6 {
            IpNet::V6(Ipv6Net::new_assert(self.bits.into(), self.len))
        } else {
            let bits = (self.bits >> 96) as u32;
            IpNet::V4(Ipv4Net::new_assert(bits.into(), self.len))
        }
    }
}
