"""Creates groups, rules, prefix lists and interfaces by boto3, writes its answers as JSON into a directory, and prints
what was asked for: ids by name, and every rule with one peer."""

import json
import os
import subprocess
import sys

import boto3

directory = sys.argv[1]
ec2 = boto3.client("ec2")
vpc = ec2.create_vpc(CidrBlock="10.1.0.0/16", AmazonProvidedIpv6CidrBlock=True)["Vpc"]
subnet = ec2.create_subnet(VpcId=vpc["VpcId"], CidrBlock="10.1.0.0/24")["Subnet"]["SubnetId"]
asked = {"groups": {}, "lists": {}, "interfaces": {}, "rules": []}


def group(name, on_revoke=None):
    tags = [{"Key": "env", "Value": "test"}]
    if on_revoke:
        tags.append({"Key": "sgctl:on_revoke", "Value": on_revoke})
    specification = [{"ResourceType": "security-group", "Tags": tags}]
    answer = ec2.create_security_group(
        GroupName=name, Description=f"{name} of the test", VpcId=vpc["VpcId"], TagSpecifications=specification
    )
    asked["groups"][name] = answer["GroupId"]
    of_it = [{"Name": "group-id", "Values": [answer["GroupId"]]}]
    given = ec2.describe_security_group_rules(Filters=of_it)["SecurityGroupRules"]
    ec2.revoke_security_group_egress(
        GroupId=answer["GroupId"], SecurityGroupRuleIds=[rule["SecurityGroupRuleId"] for rule in given]
    )


def prefix_list(name, family, entries):
    answer = ec2.create_managed_prefix_list(
        PrefixListName=name,
        AddressFamily=family,
        MaxEntries=10,
        Entries=[{"Cidr": cidr, "Description": f"of {name}"} for cidr in entries],
    )
    asked["lists"][name] = {"id": answer["PrefixList"]["PrefixListId"], "entries": entries}


LISTS = {
    "cidr": ("IpRanges", "CidrIp"),
    "cidr6": ("Ipv6Ranges", "CidrIpv6"),
    "list": ("PrefixListIds", "PrefixListId"),
    "group": ("UserIdGroupPairs", "GroupId"),
}


def ask(name, direction, protocol, ports, kind, peer, description=None):
    asked["rules"].append(
        {
            "group": name,
            "direction": direction,
            "protocol": protocol,
            "ports": ports,
            "kind": kind,
            "peer": peer,
            "description": description,
        }
    )


def aws(*arguments):
    """Calls the AWS CLI."""
    subprocess.run(["aws", "ec2", *arguments], check=True, stdout=subprocess.DEVNULL)


def allow(name, direction, protocol, ports, *peers):
    """One permission; a peer is (kind, word, description)."""
    permission = {"IpProtocol": protocol}
    if ports is not None:
        permission["FromPort"], permission["ToPort"] = ports
    for kind, word, description in peers:
        ids = {"group": asked["groups"].get(word), "list": asked["lists"].get(word, {}).get("id")}
        entries, key = LISTS[kind]
        entry = {key: ids.get(kind, word)}
        if description:
            entry["Description"] = description
        permission.setdefault(entries, []).append(entry)
        ask(name, direction, protocol, ports, kind, word, description)
    call = {"ingress": ec2.authorize_security_group_ingress, "egress": ec2.authorize_security_group_egress}
    call[direction](GroupId=asked["groups"][name], IpPermissions=[permission])


def interface(name, groups, address, more=(), ipv6=(), check=True):
    answer = ec2.create_network_interface(
        SubnetId=subnet,
        Groups=[asked["groups"][group] for group in groups],
        PrivateIpAddresses=[
            {"PrivateIpAddress": one, "Primary": one == address} for one in (address, *more)
        ],
    )["NetworkInterface"]
    id = answer["NetworkInterfaceId"]
    if ipv6:
        ec2.assign_ipv6_addresses(NetworkInterfaceId=id, Ipv6Addresses=list(ipv6))
    if not check:
        ec2.modify_network_interface_attribute(NetworkInterfaceId=id, SourceDestCheck={"Value": False})
    asked["interfaces"][name] = {
        "id": id,
        "mac": answer["MacAddress"],
        "groups": groups,
        "addresses": [address, *more, *ipv6],
        "check": check,
    }


for name in ("web", "app", "alone"):
    group(name)
group("bastion", "reevaluate")
prefix_list("offices", "IPv4", ["198.51.100.0/24", "203.0.113.16/28"])
prefix_list("offices6", "IPv6", ["2001:db8:f::/48"])

anywhere = ("cidr", "0.0.0.0/0", "https"), ("cidr6", "::/0", None)
allow("web", "ingress", "tcp", (443, 443), *anywhere)
allow("web", "ingress", "udp", (443, 444), ("cidr", "10.0.0.0/8", "quic"), ("cidr", "172.16.0.0/12", None))
allow("web", "ingress", "tcp", (22, 22), ("group", "bastion", "from the bastion"), ("group", "web", None))
allow("web", "ingress", "icmp", (8, -1), ("cidr", "10.0.0.0/8", None))
allow("web", "ingress", "icmp", (-1, -1), ("cidr", "192.0.2.1/32", None))
allow("web", "ingress", "icmpv6", (-1, -1), ("cidr6", "2001:db8::/32", None))
allow("web", "egress", "-1", None, ("cidr", "0.0.0.0/0", None), ("cidr6", "::/0", None))
allow("app", "ingress", "tcp", (0, 65535), ("group", "web", None))
allow("app", "ingress", "-1", None, ("group", "app", "each other"))
allow("app", "ingress", "50", (-1, -1), ("cidr", "10.9.0.0/16", None))
allow("app", "egress", "tcp", (5432, 5432), ("list", "offices6", None))
allow("bastion", "ingress", "tcp", (22, 22), ("list", "offices", "offices"), ("list", "offices6", None))
allow("bastion", "egress", "tcp", (22, 22), ("group", "web", None), ("group", "app", None))

into = "authorize-security-group-ingress", "--group-id", asked["groups"]["app"]
aws(*into, "--protocol", "tcp", "--port", "8080-8090", "--cidr", "10.8.0.0/16")
ask("app", "ingress", "tcp", (8080, 8090), "cidr", "10.8.0.0/16")
aws(*into, "--protocol", "all", "--source-group", asked["groups"]["bastion"])
ask("app", "ingress", "-1", None, "group", "bastion")

interface("web-1", ["web"], "10.1.0.10", more=["10.1.0.11", "10.1.0.12"], ipv6=["2001:db8:1::5"])
interface("web-2", ["web", "app"], "10.1.0.20", check=False)
interface("bastion-1", ["bastion"], "10.1.0.30")


def write(name, answer):
    with open(os.path.join(directory, name), "w", encoding="utf-8") as file:
        json.dump(answer, file, default=str)


pages = ec2.get_paginator("describe_security_groups").paginate(PaginationConfig={"PageSize": 5})
write("groups.json", list(pages))
write("rules.json", ec2.describe_security_group_rules())
write("interfaces.json", ec2.describe_network_interfaces()["NetworkInterfaces"])
write("lists.json", ec2.describe_managed_prefix_lists())
for one in asked["lists"].values():
    answer = ec2.get_managed_prefix_list_entries(PrefixListId=one["id"])
    write(f"entries-of-{one['id']}.json", answer)
json.dump(asked, sys.stdout, indent=1)
