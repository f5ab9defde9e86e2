//! What `aws ec2 describe-…` would print of the model (facts 7.1–7.6).

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Map, Value, json};
use sg_common::layout::Timeout;
use sg_common::verdict::Direction;

use super::clouds::{family, group_id, list_id, portable, rules};
use super::{Converted, ConvertedFile, host, permission};
use crate::model::{Ids, Interface, Model, OnRevoke, Peer, Rule};

pub(super) fn convert(model: &Model) -> Converted {
    let (model, mut left_out) = portable(model);
    let mut files = vec![
        file("security-groups.json", "groups and rules", groups(&model)),
        file(
            "security-group-rules.json",
            "rules with their ids",
            all_rules(&model),
        ),
    ];
    if !model.prefix_lists.is_empty() {
        files.push(file(
            "managed-prefix-lists.json",
            "names of prefix lists",
            prefix_lists(&model),
        ));
        for (name, nets) in &model.prefix_lists {
            let id = list_id(&model, name);
            let entries: Vec<Value> = nets
                .iter()
                .map(|net| json!({ "Cidr": net.to_string() }))
                .collect();
            // The id is told by the file's name and inside; what could lead out of the directory inside alone.
            let file_name = match id.contains('/') || id.contains("..") {
                true => Ids::derived_prefix_list(name).into(),
                false => id.clone(),
            };
            let entries = json!({ "PrefixListId": id, "Entries": entries });
            files.push(file(
                &format!("{file_name}.json"),
                "entries of a prefix list",
                entries,
            ));
        }
    }
    if !model.ids.interfaces.is_empty() {
        files.push(file(
            "network-interfaces.json",
            "network interfaces",
            network_interfaces(&model),
        ));
    }
    files.extend(host::file(&model, &mut left_out));
    Converted { files, left_out }
}

fn file(name: &str, holds: &'static str, value: Value) -> ConvertedFile {
    let text = serde_json::to_string_pretty(&value).expect("a JSON value is written");
    ConvertedFile {
        name: name.into(),
        text: text + "\n",
        holds,
    }
}

fn groups(model: &Model) -> Value {
    let groups = model.groups.iter().map(|(name, group)| {
        let permissions = |rules: &[Rule]| -> Vec<Value> {
            rules
                .iter()
                .map(|rule| ip_permission(model, rule))
                .collect()
        };
        let tags = match group.on_revoke {
            OnRevoke::Keep => json!([]),
            OnRevoke::Reevaluate => json!([{ "Key": "sgctl:on_revoke", "Value": "reevaluate" }]),
        };
        json!({
            "GroupId": group_id(model, name),
            "GroupName": name,
            "Description": group.description.as_deref().unwrap_or_default(),
            "IpPermissions": permissions(&group.ingress),
            "IpPermissionsEgress": permissions(&group.egress),
            "Tags": tags,
        })
    });
    json!({ "SecurityGroups": groups.collect::<Vec<_>>() })
}

/// One source each, so that rules keep their order.
fn ip_permission(model: &Model, rule: &Rule) -> Value {
    let (protocol, ports) = permission(&rule.traffic);
    let (key, mut source) = match &rule.peer {
        Peer::Cidr(net @ IpNet::V4(_)) => ("IpRanges", json!({ "CidrIp": net.to_string() })),
        Peer::Cidr(net @ IpNet::V6(_)) => ("Ipv6Ranges", json!({ "CidrIpv6": net.to_string() })),
        Peer::PrefixList(name) => (
            "PrefixListIds",
            json!({ "PrefixListId": list_id(model, name) }),
        ),
        Peer::Group(name) | Peer::GroupOf(name, _) => (
            "UserIdGroupPairs",
            json!({ "GroupId": group_id(model, name) }),
        ),
    };
    if let Some(description) = &rule.description {
        source["Description"] = json!(description);
    }
    let mut permission = json!({
        "IpProtocol": protocol,
        "IpRanges": [],
        "Ipv6Ranges": [],
        "PrefixListIds": [],
        "UserIdGroupPairs": [],
    });
    if let Some((from, to)) = ports {
        permission["FromPort"] = json!(from);
        permission["ToPort"] = json!(to);
    }
    permission[key] = json!([source]);
    permission
}

fn all_rules(model: &Model) -> Value {
    let mut list = Vec::new();
    for (name, group) in &model.groups {
        for (direction, rule) in rules(group) {
            let (protocol, ports) = permission(&rule.traffic);
            let (from, to) = ports.unwrap_or((-1, -1));
            let mut value = json!({
                "SecurityGroupRuleId": rule.id.to_string(),
                "GroupId": group_id(model, name),
                "IsEgress": direction == Direction::Egress,
                "IpProtocol": protocol,
                "FromPort": from,
                "ToPort": to,
                "Tags": [],
            });
            match &rule.peer {
                Peer::Cidr(net @ IpNet::V4(_)) => value["CidrIpv4"] = json!(net.to_string()),
                Peer::Cidr(net @ IpNet::V6(_)) => value["CidrIpv6"] = json!(net.to_string()),
                Peer::PrefixList(list) => value["PrefixListId"] = json!(list_id(model, list)),
                Peer::Group(other) | Peer::GroupOf(other, _) => {
                    let id = group_id(model, other);
                    value["ReferencedGroupInfo"] = json!({ "GroupId": id });
                }
            }
            if let Some(description) = &rule.description {
                value["Description"] = json!(description);
            }
            list.push(value);
        }
    }
    json!({ "SecurityGroupRules": list })
}

fn prefix_lists(model: &Model) -> Value {
    let lists = model.prefix_lists.iter().map(|(name, nets)| {
        json!({
            "PrefixListId": list_id(model, name),
            "PrefixListName": name,
            "AddressFamily": family(nets),
            "MaxEntries": nets.len().max(1),
            "Tags": [],
        })
    });
    json!({ "PrefixLists": lists.collect::<Vec<_>>() })
}

/// Those that have an id of AWS's.
fn network_interfaces(model: &Model) -> Value {
    let known = model.ids.interfaces.iter().filter_map(|(name, id)| {
        let interface = model.interfaces.get(name)?;
        Some(network_interface(model, id, interface))
    });
    json!({ "NetworkInterfaces": known.collect::<Vec<_>>() })
}

fn network_interface(model: &Model, id: &str, interface: &Interface) -> Value {
    let groups = interface.groups.iter();
    let groups = groups.map(|name| json!({ "GroupId": group_id(model, name), "GroupName": name }));
    let addresses = interface.addresses.as_deref().unwrap_or_default();
    let v4 = addresses.iter().filter(|address| address.is_ipv4());
    let v6 = addresses.iter().filter(|address| address.is_ipv6());
    let private = v4
        .enumerate()
        .map(|(place, address)| json!({ "PrivateIpAddress": address, "Primary": place == 0 }));
    let mut value = json!({
        "NetworkInterfaceId": id,
        "Groups": groups.collect::<Vec<_>>(),
        "PrivateIpAddresses": private.collect::<Vec<_>>(),
        "Ipv6Addresses": v6.map(|address: &IpAddr| json!({ "Ipv6Address": address })).collect::<Vec<_>>(),
    });
    if let Some(check) = interface.settings.source_dest_check {
        value["SourceDestCheck"] = json!(check);
    }
    let seconds = |timeout: Timeout| interface.settings.timeouts[timeout as usize];
    let mut timeouts = Map::new();
    for (key, timeout) in [
        ("TcpEstablishedTimeout", Timeout::TcpEstablished),
        ("UdpStreamTimeout", Timeout::UdpStream),
        ("UdpTimeout", Timeout::Udp),
    ] {
        timeouts.insert(key.into(), seconds(timeout).into());
    }
    value["ConnectionTrackingConfiguration"] = Value::Object(timeouts);
    value
}
