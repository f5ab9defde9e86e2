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

#[test]
fn a_group_without_rows_among_all_rows_has_no_rules() {
    let old = permissions(&format!("{{\"IpProtocol\": \"-1\", {ANYWHERE}}}"), "");
    let row = "\"IsEgress\": false, \"IpProtocol\": \"-1\", \"CidrIpv4\": \"10.0.0.0/8\"";
    let others = rules(&[row]).replace(WEB, APP);
    let none = "{\"SecurityGroupRules\": []}".to_owned();
    for rows in [&others, &none] {
        let (model, codes) = read(&[("g.json", &old), ("r.json", rows)]);
        assert!(model.unwrap().groups["web"].ingress.is_empty(), "{rows}");
        assert_eq!(codes, ["sources-disagree"], "{rows}");
    }
    // There are more rows, which may be of this group.
    let page = others.replacen('{', "{\"NextToken\": \"x\", ", 1);
    let (model, codes) = read(&[("g.json", &old), ("r.json", &page)]);
    assert_eq!(model.unwrap().groups["web"].ingress.len(), 1);
    assert_eq!(codes, ["not-carried-over"]);
}

#[test]
fn only_pages_of_a_list_are_joined() {
    let answer = |token: &str, nets: &[&str]| {
        let nets: Vec<String> = nets
            .iter()
            .map(|net| format!("{{\"Cidr\": \"{net}\"}}"))
            .collect();
        format!("{{{token}\"Entries\": [{}]}}", nets.join(", "))
    };
    let list = |files: &[(&str, &str)]| {
        let (model, codes) = read(files);
        let nets = model.map_or(0, |model| model.prefix_lists["pl_0a"].len());
        (nets, codes)
    };
    const NEXT: &str = "\"NextToken\": \"x\", ";
    let both = answer("", &["192.0.2.0/24", "198.51.100.0/24"]);
    let turned = answer("", &["198.51.100.0/24", "192.0.2.0/24"]);
    let one = answer("", &["192.0.2.0/24"]);
    let page = answer(NEXT, &["198.51.100.0/24"]);
    let (none, name, other) = (Vec::new(), "pl-0a.json", "old.pl-0a.json");
    assert_eq!(list(&[(name, &one)]), (1, none.clone()));
    assert_eq!(list(&[(name, &page), (other, &one)]), (2, none.clone()));
    assert_eq!(list(&[(name, &both), (other, &turned)]), (2, none.clone()));
    assert_eq!(list(&[(name, &one), (other, &both)]).1, ["duplicate-id"]);
    let elements = "[{\"Cidr\": \"192.0.2.0/24\"}, {\"Cidr\": \"198.51.100.0/24\"}]";
    assert_eq!(list(&[(name, elements)]), (2, none.clone()));
    assert_eq!(list(&[(name, elements), (other, &both)]), (2, none));
    assert_eq!(list(&[(name, elements), (other, &one)]).1, ["duplicate-id"]);
    let cidrs = "{\"PrefixLists\": [{\"PrefixListId\": \"pl-0a\", \"Cidrs\": [\"192.0.2.0/24\"]}]}";
    assert_eq!(
        list(&[(name, &both), ("l.json", cidrs)]).1,
        ["duplicate-id"]
    );
}
