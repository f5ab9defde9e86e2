//! The policy in force, in a file of its own beside the state: it may be large, and few need it.
//!
//! The state names its file by number. A new policy gets a new number, and the files of others go only
//! after the state that names it is in place.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    os::fd::OwnedFd,
    path::Path,
};

use serde::{Deserialize, Serialize};

use super::{Lock, State, StateError, io_error, numbered, parsed};
use crate::{
    directory,
    resolve::{Resolved, ResolvedInterface},
};

/// What was last put in force.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Policy {
    /// Groups, lists and interfaces. In the file the interfaces are missing: the state has them.
    pub resolved: Resolved,
}

/// Members that a group has gained and lost since its policy was written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Learnt {
    /// They are members now and stand in no file.
    pub joined: BTreeSet<IpAddr>,
    /// They stand in the file and are members no more.
    pub left: BTreeSet<IpAddr>,
}

impl Learnt {
    /// Notes that an address has become a member.
    pub fn join(&mut self, address: IpAddr) {
        if !self.left.remove(&address) {
            self.joined.insert(address);
        }
    }

    /// Notes that an address is a member no more.
    pub fn leave(&mut self, address: IpAddr) {
        if !self.joined.remove(&address) {
            self.left.insert(address);
        }
    }
}

impl Policy {
    /// Reads the policy that a state names, without the lock.
    ///
    /// # Errors
    /// See [`StateError`].
    pub fn read(directory: &Path, state: &State) -> Result<Self, StateError> {
        let opened = directory::private(directory)?;
        read(directory, &opened, state)
    }
}

impl Lock {
    /// Reads the policy that the state names.
    ///
    /// # Errors
    /// See [`StateError`].
    pub fn read_policy(&self, state: &State) -> Result<Policy, StateError> {
        read(&self.path, &self.directory, state)
    }

    /// Writes the policy of a number for a state that names it, and takes its interfaces out, which that
    /// state keeps.
    ///
    /// # Errors
    /// [`StateError::Io`].
    pub fn write_policy(
        &self,
        number: u32,
        policy: &mut Policy,
    ) -> Result<BTreeMap<String, ResolvedInterface>, StateError> {
        let interfaces = std::mem::take(&mut policy.resolved.interfaces);
        self.replace(&numbered(POLICY, number), policy)?;
        Ok(interfaces)
    }

    /// Removes all policies but those of these numbers.
    ///
    /// # Errors
    /// [`StateError::Io`].
    pub fn remove_policies(&self, but: &[u32]) -> Result<(), StateError> {
        self.remove_but(POLICY, but)
    }
}

const POLICY: &str = "policy-";

fn read(path: &Path, directory: &OwnedFd, state: &State) -> Result<Policy, StateError> {
    if state.policy == 0 {
        return Ok(Policy::default());
    }
    let name = numbered(POLICY, state.policy);
    let missing = || io_error("open", &path.join(&name), rustix::io::Errno::NOENT);
    let mut policy: Policy = parsed(path, directory, &name)?.ok_or_else(missing)?;
    policy.resolved.interfaces.clone_from(&state.resolved);
    for (name, learnt) in &state.learnt {
        if let Some(group) = policy.resolved.groups.get_mut(name) {
            group.members.extend(&learnt.joined);
            group
                .members
                .retain(|address| !learnt.left.contains(address));
        }
    }
    Ok(policy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resolve::{Name, ResolvedGroup};

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_policy_is_read_with_the_interfaces_of_its_state() {
        let path = std::env::temp_dir().join(format!("sg-policy-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        let lock = Lock::take(&path).unwrap();
        let mut state = State::new(1, "");
        assert_eq!(
            lock.read_policy(&state).unwrap().resolved,
            Resolved::default()
        );
        let interface = ResolvedInterface {
            settings: crate::model::InterfaceSettings::new("eth0"),
            groups: vec![Name::of_definition("g")],
            addresses: None,
            orphan: false,
        };
        let group = ResolvedGroup {
            members: [address("10.0.0.1")].into(),
            ..ResolvedGroup::default()
        };
        let resolved = Resolved {
            groups: [(Name::of_definition("g"), group)].into(),
            interfaces: [("a".into(), interface)].into(),
            ..Resolved::default()
        };
        for number in [1, 2] {
            let mut policy = Policy {
                resolved: resolved.clone(),
            };
            state.resolved = lock.write_policy(number, &mut policy).unwrap();
            state.policy = number;
        }
        lock.write(&state).unwrap();
        lock.remove_policies(&[2]).unwrap();
        assert!(!path.join("policy-1.json").exists());
        let mut state = State::read(&path).unwrap().unwrap();
        assert_eq!(Policy::read(&path, &state).unwrap().resolved, resolved);

        let (one, other) = (address("10.0.0.1"), address("10.0.0.2"));
        let learnt = state.learnt.entry(Name::of_definition("g")).or_default();
        learnt.join(other);
        learnt.leave(one);
        let members = |state: &State| {
            let policy = Policy::read(&path, state).unwrap();
            policy.resolved.groups[&Name::of_definition("g")]
                .members
                .clone()
        };
        assert_eq!(members(&state), [other].into());
        let learnt = state.learnt.entry(Name::of_definition("g")).or_default();
        learnt.leave(other);
        learnt.join(one);
        assert_eq!(*learnt, Learnt::default(), "as it was");
        assert_eq!(members(&state), [one].into());
        lock.clear().unwrap();
        assert!(!path.join("policy-2.json").exists());
        std::fs::remove_dir_all(&path).unwrap();
    }
}
