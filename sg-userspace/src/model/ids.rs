//! Ids that clouds gave, and those that stand for none.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

/// Ids that AWS or another gave to what the definition names, by name. They play no part in verdicts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ids {
    /// Of groups: `sg-…`.
    pub groups: BTreeMap<String, String>,
    /// Of prefix lists: `pl-…`.
    pub prefix_lists: BTreeMap<String, String>,
    /// Of interfaces: `eni-…`.
    pub interfaces: BTreeMap<String, String>,
}

impl Ids {
    /// What a group is called by a format that needs an id, if nobody gave it one. Where this is read, the group
    /// has no id.
    pub fn derived_group(name: &str) -> String {
        derive("sg-", name)
    }

    /// The same of a prefix list.
    pub fn derived_prefix_list(name: &str) -> String {
        derive("pl-", name)
    }
}

/// The prefix and 17 hexadecimal digits, as AWS has them.
fn derive(prefix: &str, name: &str) -> String {
    let mut hash = Sha256::new();
    hash.update(prefix);
    hash.update(name);
    let digest: [u8; 32] = hash.finalize().into();
    let digits: String = digest[..9]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("{prefix}{}", &digits[..17])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derived_ids_depend_on_the_name_only_and_never_change() {
        assert_eq!(Ids::derived_group("web"), Ids::derived_group("web"));
        assert_ne!(Ids::derived_group("web"), Ids::derived_group("Web"));
        assert_eq!(
            Ids::derived_group("web").len(),
            "sg-0123456789abcdef0".len()
        );
        assert_eq!(Ids::derived_group("web"), "sg-619027e50d0c65075");
        assert_eq!(Ids::derived_prefix_list("web"), "pl-25a5cac2bdcd7a3be");
    }
}
