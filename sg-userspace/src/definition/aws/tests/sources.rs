//! What several accounts, files and pages say together.

use super::*;

#[test]
fn a_name_of_another_account_is_no_group_here() {
    let pair = |pair: &str| {
        let ssh = format!(
            "{{\"IpProtocol\": \"tcp\", \"FromPort\": 22, \"ToPort\": 22, \"UserIdGroupPairs\": [{{{pair}}}]}}"
        );
        let fields = format!(
            "\"OwnerId\": \"111111111111\", \"IpPermissions\": [{ssh}], \"IpPermissionsEgress\": []"
        );
        let (model, codes) = read(&[("f.json", &group(&fields))]);
        (model.unwrap().groups["web"].ingress.len(), codes)
    };
    let own = "\"GroupName\": \"web\", \"UserId\": \"111111111111\"";
    assert_eq!(pair(own).0, 1);
    let other = "\"GroupName\": \"web\", \"UserId\": \"999999999999\"";
    assert_eq!(pair(other), (0, vec!["stale-rule"]));
    let by_id = format!("\"GroupId\": \"{WEB}\", {other}");
    assert_eq!(pair(&by_id).0, 1);
    assert!(!pair(&by_id).1.contains(&"stale-rule"));
}

#[test]
fn a_list_is_not_found_by_a_name_that_is_like_an_id() {
    let rule = permissions(
        "{\"IpProtocol\": \"-1\", \"PrefixListIds\": [{\"PrefixListId\": \"pl-0aaa\"}]}",
        "",
    );
    let list = "{\"PrefixLists\": [{\"PrefixListId\": \"pl-0bbb\", \"PrefixListName\": \"pl-0aaa\", \"Cidrs\": [\"192.0.2.0/24\"]}]}";
    let (_, codes) = read(&[("g.json", &rule), ("l.json", list)]);
    assert!(codes.contains(&"InvalidPrefixListID.NotFound"), "{codes:?}");
    assert!(codes.contains(&"renamed"), "{codes:?}");
}
