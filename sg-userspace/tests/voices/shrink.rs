//! A failing case made small.

use std::time::{Duration, Instant};

use sg_oracle::{
    policy::{Interface, Peer, Policy, Rule},
    random::{Case, Step},
};

/// How long is spent on it.
const PATIENCE: Duration = Duration::from_secs(60);

/// The smallest case found that still fails. `fails` answers at which step one does.
pub(crate) fn shrink(case: &Case, mut fails: impl FnMut(&Case) -> Option<usize>) -> Case {
    let start = Instant::now();
    let mut best = case.clone();
    let mut improve = |best: &mut Case, candidate: Case| {
        if start.elapsed() > PATIENCE {
            return false;
        }
        let Some(step) = fails(&candidate) else {
            return false;
        };
        *best = candidate;
        best.steps.truncate(step + 1);
        true
    };
    improve(&mut best, case.clone());
    loop {
        let before = best.clone();
        drop_steps(&mut best, &mut improve);
        simplify(&mut best, &mut improve);
        if best == before || start.elapsed() > PATIENCE {
            return best;
        }
    }
}

/// Halves first, then less and less, at last one by one, from the end on.
fn drop_steps(best: &mut Case, improve: &mut impl FnMut(&mut Case, Case) -> bool) {
    let mut size = best.steps.len() / 2;
    while size > 0 {
        let mut end = best.steps.len();
        while end > 0 {
            let start = end.saturating_sub(size);
            let mut candidate = best.clone();
            candidate.steps.drain(start..end.min(candidate.steps.len()));
            improve(best, candidate);
            end = start.min(best.steps.len());
        }
        size /= 2;
    }
}

/// Takes from all definitions of the case what the failure does not need.
fn simplify(best: &mut Case, improve: &mut impl FnMut(&mut Case, Case) -> bool) {
    let mut which = 0;
    loop {
        let mut candidate = best.clone();
        let mut simpler = Simpler { left: which };
        simpler.policy(&mut candidate.policy);
        for step in &mut candidate.steps {
            if let Step::Change(policy) = step {
                let mut simpler = Simpler { left: which };
                simpler.policy(policy);
            }
        }
        if candidate == *best {
            // Either nothing stands at this place any more, or it is simple already.
            which += 1;
            if which > 400 {
                return;
            }
        } else if !improve(best, candidate) {
            which += 1;
        }
    }
}

/// Whether a definition names a group or list anywhere.
fn refers(policy: &Policy, name: &str) -> bool {
    let carried = |interface: &Interface| interface.groups.iter().any(|group| group == name);
    let named = |rule: &Rule| match &rule.peer {
        Peer::Group(group) => group == name,
        Peer::List(list) => list == name,
        Peer::Prefix(_) => false,
    };
    let mut groups = policy.groups.values();
    policy.interfaces.values().any(carried)
        || groups.any(|group| group.ingress.iter().chain(&group.egress).any(named))
}

/// Counts the places of a definition that can be made simpler, and makes one of them so.
struct Simpler {
    left: usize,
}

impl Simpler {
    /// Whether this is the place.
    fn here(&mut self) -> bool {
        self.left = self.left.wrapping_sub(1);
        self.left == usize::MAX
    }

    fn policy(&mut self, policy: &mut Policy) {
        if self.here() {
            policy.services.clear();
        }
        if self.here()
            && let Some(last) = policy.interfaces.keys().next_back().cloned()
            && policy.interfaces.len() > 1
        {
            policy.interfaces.remove(&last);
        }
        let unused: Vec<String> = policy.groups.keys().cloned().collect();
        for name in unused.into_iter().filter(|name| !refers(policy, name)) {
            if self.here() {
                policy.groups.remove(&name);
                return;
            }
        }
        let unused: Vec<String> = policy.lists.keys().cloned().collect();
        for name in unused.into_iter().filter(|name| !refers(policy, name)) {
            if self.here() {
                policy.lists.remove(&name);
                return;
            }
        }
        for group in policy.groups.values_mut() {
            if self.here() {
                group.reevaluate = false;
            }
            if self.here() {
                group.members.clear();
            }
            for rules in [&mut group.ingress, &mut group.egress] {
                if self.here() {
                    rules.clear();
                }
                for at in (0..8).rev() {
                    if self.here() && at < rules.len() {
                        rules.remove(at);
                    }
                }
            }
        }
        for entries in policy.lists.values_mut() {
            for at in (0..6).rev() {
                if self.here() && at < entries.len() {
                    entries.remove(at);
                }
            }
        }
        for interface in policy.interfaces.values_mut() {
            self.interface(interface);
        }
    }

    fn interface(&mut self, interface: &mut Interface) {
        for at in (0..3).rev() {
            if self.here() && at < interface.groups.len() {
                interface.groups.remove(at);
            }
        }
        if self.here() {
            interface.addresses = None;
        }
        if self.here() {
            interface.timeouts.clear();
        }
        if self.here() {
            interface.ethertypes.clear();
        }
        if self.here() {
            interface.reserve = 0;
        }
        if self.here() {
            interface.allowance = None;
            interface.reserve = 0;
        }
        let usual = interface.host;
        let switches = [
            (&mut interface.source_dest_check, usual),
            (&mut interface.track_always, false),
            (&mut interface.tcp_loose, false),
            (&mut interface.icmp_strict, false),
            (&mut interface.dhcp, true),
            (&mut interface.mld, true),
            (&mut interface.nd_redirect, false),
        ];
        for (switch, usual) in switches {
            if self.here() {
                *switch = usual;
            }
        }
    }
}
