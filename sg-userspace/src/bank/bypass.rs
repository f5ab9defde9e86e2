//! What an interface's record says for itself: flows that need no tracking, where that takes no looking up.

use sg_common::{
    layout::{Interface, NO_TRIE, Range, interface_flags, policy_index, slice},
    verdict::Direction,
};

use crate::compile::Compiled;

/// All ports.
const EVERY: (u16, u16) = (0, u16::MAX);

/// Fills in [`Interface::bypass`]: where the workload may reach everybody's every port, and everybody one range of
/// its ports, flows to that range are untracked (fact 3.3), whoever opens them.
pub(super) fn add(record: &mut Interface, compiled: &Compiled) {
    if record.flags & interface_flags::TRACK_ALWAYS != 0 {
        return;
    }
    for ipv6 in [false, true] {
        let [ingress, egress] = Direction::ALL.map(|direction| policy_index(direction, ipv6));
        for (place, slice) in [slice::TCP, slice::UDP].into_iter().enumerate() {
            let only = |policy| only_range(record, compiled, policy, slice);
            let (Some(inward), Some(outward)) = (only(ingress), only(egress)) else {
                continue;
            };
            if (outward.low, outward.high) == EVERY {
                record.bypass[ingress][place] = inward;
                record.bypass[egress][place] = Range {
                    rule_set: outward.rule_set,
                    ..inward
                };
                record.flags |= interface_flags::BYPASS;
            }
        }
    }
}

/// The one range that everybody may reach, if the policy says nothing else of the protocol.
fn only_range(
    record: &Interface,
    compiled: &Compiled,
    policy: usize,
    slice: usize,
) -> Option<Range> {
    let policy = &record.policy[policy];
    if policy.trie != NO_TRIE || policy.scope != 0 || policy.any_class == 0 {
        return None;
    }
    let slice = compiled.classes[policy.any_class as usize].slices[slice];
    (slice.len == 1).then(|| compiled.ranges[slice.start as usize])
}
