//! Codes of all diagnostics: stable words by which findings are switched and counted.

/// Every code and what it means, sorted. AWS's own error codes are kept where AWS has one (fact 1.44).
pub const ALL: &[(&str, &str)] = &[
    ("InvalidGroup.Duplicate", "two groups have one name"),
    (
        "InvalidGroup.NotFound",
        "a group is named that there is not",
    ),
    (
        "InvalidNetworkInterfaceID.NotFound",
        "an interface is named that there is not",
    ),
    (
        "InvalidParameterValue",
        "a value is malformed or out of its range",
    ),
    (
        "InvalidPermission.Duplicate",
        "a rule stands twice in a group",
    ),
    (
        "InvalidPermission.Malformed",
        "a prefix or port range is malformed",
    ),
    (
        "InvalidPrefixListID.NotFound",
        "a prefix list is named that there is not",
    ),
    (
        "InvalidSecurityGroupRuleId.Malformed",
        "a rule id has another shape",
    ),
    (
        "RulesPerSecurityGroupLimitExceeded",
        "more rules in a group than AWS allows",
    ),
    ("SecurityGroupLimitExceeded", "more groups than AWS allows"),
    (
        "SecurityGroupsPerInterfaceLimitExceeded",
        "more groups on an interface than AWS, or sgctl, allows",
    ),
    ("ambiguous-name", "several things have the name"),
    (
        "capacity",
        "the definition does not fit the kernel's tables",
    ),
    ("cycle", "things are defined by each other"),
    (
        "default-egress-revoked",
        "AWS may take away a rule that lets everything out",
    ),
    ("duplicate-device", "two interfaces are one device"),
    ("duplicate-entry", "a list names something twice"),
    ("duplicate-id", "two things have one id"),
    (
        "duplicate-name",
        "two things have one name, or a setting stands twice",
    ),
    ("empty", "an empty list allows nothing"),
    ("evaluation", "an expression has no value"),
    (
        "from-configuration",
        "a plan does not tell a list, but what its configuration refers to",
    ),
    ("host-bits", "a prefix has bits beyond its length"),
    (
        "icmp-echo-reply-only",
        "0 to 0 with ICMP is echo reply and not everything",
    ),
    ("ignored", "a key has no effect with this protocol"),
    ("incomplete-plan", "a plan did not come to its end"),
    ("missing-egress", "a group does not say what may leave"),
    ("missing-key", "something that is needed is not given"),
    (
        "mixed-rules",
        "rules of a group stand in two places that undo each other",
    ),
    (
        "never-matches",
        "no packet has that protocol and such addresses",
    ),
    (
        "never-matches-here",
        "no interface of the group has an address of the rule's family",
    ),
    ("no-devices", "the devices of this host cannot be listed"),
    ("no-effect", "a setting has nothing to work on"),
    ("no-members", "a group that a rule refers to has no members"),
    ("not-a-definition", "a file is of no known kind"),
    (
        "not-carried-over",
        "something of the file has no effect here",
    ),
    ("not-shown", "stands for findings beyond the first thousand"),
    ("open-egress", "everything may leave a group"),
    (
        "open-management-port",
        "a management port is open to the world",
    ),
    (
        "prefix-list-entries",
        "more entries in a prefix list than AWS allows",
    ),
    ("prefix-lists", "more prefix lists than AWS allows"),
    ("quota-headroom", "a quota of AWS is almost used up"),
    (
        "renamed",
        "a name or description has characters that may not stand in one",
    ),
    (
        "shadowed-rule",
        "a rule allows nothing that another does not allow",
    ),
    (
        "sources-disagree",
        "two files say different things about one group",
    ),
    (
        "stale-rule",
        "a rule refers to a group that there is not, and matches nothing",
    ),
    ("syntax", "a file is not what it is written in"),
    ("test-failed", "the rules do not do what a test expects"),
    ("too-large", "a file asks for more than is evaluated"),
    ("unknown-key", "a key has no meaning there"),
    ("unknown-name", "a name stands for nothing there"),
    ("unknown-value", "the file does not say what a value is"),
    ("unknown-variable", "a value is given to no variable"),
    (
        "unsupported-version",
        "a file is of a version that is not known",
    ),
    (
        "unused-group",
        "a group is on no interface here and in no rule",
    ),
    ("unused-prefix-list", "a prefix list is in no rule"),
    ("wrong-type", "a value is of another type than its key has"),
];

/// What a code means; `None`: there is no such code.
pub fn meaning(code: &str) -> Option<&'static str> {
    let index = ALL.binary_search_by_key(&code, |(own, _)| own).ok()?;
    Some(ALL[index].1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_sorted_and_stand_once() {
        assert!(ALL.is_sorted_by(|(a, _), (b, _)| a < b));
        assert_eq!(
            meaning("syntax"),
            Some("a file is not what it is written in")
        );
        assert_eq!(meaning("syntaxx"), None);
    }
}
