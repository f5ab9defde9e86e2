use super::super::{Checked, Source, check, render};
use crate::model::{Model, OnRevoke, Peer, Ports, Rule, Traffic};

const YAML: &str = include_str!("../../../tests/definition/cloudformation/template.yaml");

fn checked(text: &str) -> Checked {
    check(&[Source::new("template.yaml", text.as_bytes().to_vec())])
}

fn model(text: &str) -> Model {
    let checked = checked(text);
    checked
        .model
        .unwrap_or_else(|| panic!("{}", render(&checked.diagnostics)))
}

fn codes(text: &str) -> Vec<&'static str> {
    let found = checked(text).diagnostics;
    found.iter().map(|found| found.code).collect()
}

fn cidr(text: &str) -> Peer {
    Peer::Cidr(text.parse().unwrap())
}

fn group(name: &str) -> Peer {
    Peer::Group(name.into())
}

fn tcp(port: u16) -> Traffic {
    Traffic::Tcp(Ports {
        from: port,
        to: port,
    })
}

fn what(rules: &[Rule]) -> Vec<(Traffic, Peer)> {
    let what = |rule: &Rule| (rule.traffic, rule.peer.clone());
    rules.iter().map(what).collect()
}

fn everything() -> Vec<(Traffic, Peer)> {
    vec![
        (Traffic::All, cidr("0.0.0.0/0")),
        (Traffic::All, cidr("::/0")),
    ]
}

#[test]
fn a_template_is_a_definition() {
    let model = model(YAML);
    let web = &model.groups["web"];
    assert_eq!(web.on_revoke, OnRevoke::Reevaluate);
    assert_eq!(
        what(&web.ingress),
        [
            (tcp(443), cidr("0.0.0.0/0")),
            (tcp(443), cidr("::/0")),
            (tcp(22), cidr("203.0.113.0/24")),
            (tcp(8443), Peer::PrefixList("offices".into())),
        ]
    );
    // Facts 7.30, 7.52: what is missing is everything.
    assert_eq!(what(&web.egress), everything());
    let app = &model.groups["App"];
    assert_eq!(
        what(&app.ingress),
        [
            (tcp(8080), group("web")),
            (Traffic::Tcp(Ports { from: 0, to: 65535 }), group("App")),
        ]
    );
    // A rule of its own takes the place of the default.
    assert_eq!(what(&app.egress), [(tcp(5432), group("Db"))]);
    let db = &model.groups["Db"];
    assert_eq!(what(&db.ingress), [(tcp(5432), group("App"))]);
    assert_eq!(what(&db.egress), [(Traffic::All, cidr("127.0.0.1/32"))]);
    assert!(!model.groups.contains_key("Debug"));
    let members: Vec<String> = model.members["App"]
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(members, ["192.0.2.10", "192.0.2.11", "2001:db8::10"]);
    // Logical names are no ids.
    assert!(model.ids.groups.is_empty() && model.ids.prefix_lists.is_empty());
}

fn with_rule(head: &str, rule: &str) -> String {
    format!(
        "{head}\nResources:\n  G:\n    Type: AWS::EC2::SecurityGroup\n    Properties:\n      SecurityGroupIngress:\n        - {rule}\n"
    )
}

/// Where a prefix comes from in one rule.
fn source(head: &str, value: &str) -> Result<String, String> {
    let rule = format!("{{IpProtocol: -1, CidrIp: {value}}}");
    let checked = checked(&with_rule(head, &rule));
    match checked.model {
        Some(model) => match &model.groups["G"].ingress[0].peer {
            Peer::Cidr(net) => Ok(net.to_string()),
            other => panic!("{other:?}"),
        },
        None => Err(checked.diagnostics[0].message.clone()),
    }
}

#[test]
fn functions_of_known_values_are_evaluated() {
    let head = "
Parameters:
  Net: {Type: String, Default: 10.0.0.0/8}
  Host: {Type: String, Default: 192.0.2.1}
  Nets: {Type: CommaDelimitedList, Default: '10.1.0.0/16, 10.2.0.0/16'}
  Stage: {Type: String, Default: prod}
Mappings:
  Stages: {prod: {net: 10.3.0.0/16}, test: {net: 10.4.0.0/16}}
Conditions:
  Prod: !Equals [!Ref Stage, prod]
  Unknown: !Equals [!Ref 'AWS::Region', eu-west-1]
  Either: !Or [!Condition Unknown, !Condition Prod]
  Neither: !And [!Condition Unknown, !Not [!Condition Prod]]
";
    for (value, expected) in [
        ("!Ref Net", "10.0.0.0/8"),
        ("{Ref: Net}", "10.0.0.0/8"),
        ("!Sub '${Host}/32'", "192.0.2.1/32"),
        ("!Sub ['${A}/${B}', {A: !Ref Host, B: 32}]", "192.0.2.1/32"),
        ("!Join ['/', [!Ref Host, 32]]", "192.0.2.1/32"),
        ("!Select [1, !Ref Nets]", "10.2.0.0/16"),
        (
            "!Select ['0', !Split [',', '10.5.0.0/16,x']]",
            "10.5.0.0/16",
        ),
        ("!FindInMap [Stages, !Ref Stage, net]", "10.3.0.0/16"),
        ("!If [Prod, 10.6.0.0/16, 10.7.0.0/16]", "10.6.0.0/16"),
        ("!If [Either, 10.6.0.0/16, 10.7.0.0/16]", "10.6.0.0/16"),
        ("!If [Neither, 10.6.0.0/16, 10.7.0.0/16]", "10.7.0.0/16"),
        ("'Fn::Join': ['', ['10.', '8.0.0/16']]", "10.8.0.0/16"),
    ] {
        let value = match value.starts_with('\'') {
            true => format!("{{{value}}}"),
            false => value.into(),
        };
        assert_eq!(source(head, &value).as_deref(), Ok(expected), "{value}");
    }
}

#[test]
fn what_the_template_does_not_tell_is_named() {
    let head = "
Parameters:
  Net: {Type: String}
  Kept: {Type: 'AWS::SSM::Parameter::Value<String>', Default: /net}
Conditions:
  Unknown: !Equals [!Ref 'AWS::Region', eu-west-1]
  Round: !Condition Round
";
    for (value, what) in [
        ("!Ref Net", "the parameter Net, which has no default"),
        ("!Ref Kept", "the parameter Kept, which is kept in SSM"),
        ("!Ref AWS::Region", "AWS::Region"),
        ("!Ref Nothing", "no parameter and no resource"),
        ("!GetAtt Vpc.CidrBlock", "Vpc.CidrBlock"),
        ("!Sub '${AWS::AccountId}/32'", "AWS::AccountId"),
        ("!ImportValue net", "Fn::ImportValue"),
        ("!If [Unknown, 10.0.0.0/8, 10.1.0.0/16]", "AWS::Region"),
        ("!If [Round, 10.0.0.0/8, 10.1.0.0/16]", "refers to itself"),
        ("!If [None, 10.0.0.0/8, 10.1.0.0/16]", "not defined"),
        ("!FindInMap [A, B, C]", "of the mapping A"),
        ("!Select [7, [a]]", "Fn::Select"),
        ("'{{resolve:ssm:/net}}'", "{{resolve:ssm:/net}}"),
        ("!Sub '{{resolve:ssm:/${Stage}}}'", "no parameter"),
    ] {
        let found = source(head, value).unwrap_err();
        assert!(found.contains(what), "{value}: {found}");
    }
}

#[test]
fn ports_may_be_text_and_rules_are_one_or_many() {
    let rule = "{IpProtocol: tcp, FromPort: '22', ToPort: 22, CidrIp: 10.0.0.0/8}";
    assert_eq!(
        what(&model(&with_rule("", rule)).groups["G"].ingress),
        [(tcp(22), cidr("10.0.0.0/8"))]
    );
    let json = r#"{"Resources": {"G": {"Type": "AWS::EC2::SecurityGroup", "Properties": {
        "SecurityGroupIngress": {"IpProtocol": "6", "FromPort": "22", "ToPort": "22", "CidrIp": "10.0.0.0/8"},
        "SecurityGroupEgress": []}}}}"#;
    let group = &model(json).groups["G"];
    assert_eq!(what(&group.ingress), [(tcp(22), cidr("10.0.0.0/8"))]);
    // An empty list adds no rule, so the default stays.
    assert_eq!(what(&group.egress), everything());
}

#[test]
fn rules_that_aws_would_not_take_are_refused() {
    for (rule, expected) in [
        ("{IpProtocol: -1}", "no-effect"),
        (
            "{IpProtocol: -1, CidrIp: 10.0.0.0/8, CidrIpv6: '::/0'}",
            "InvalidParameterValue",
        ),
        ("{IpProtocol: -1, CidrIp: '::/0'}", "InvalidParameterValue"),
        (
            "{IpProtocol: tcp, CidrIp: 10.0.0.0/8}",
            "InvalidParameterValue",
        ),
        ("{CidrIp: 10.0.0.0/8}", "missing-key"),
        (
            "{IpProtocol: icmp, FromPort: 0, ToPort: 0, CidrIp: 10.0.0.0/8}",
            "icmp-echo-reply-only",
        ),
        ("{IpProtocol: -1, CidrIp: 10.0.0.1/8}", "host-bits"),
        ("7", "wrong-type"),
        ("!Ref Nothing", "unknown-value"),
        (
            "{IpProtocol: -1, SourceSecurityGroupId: sg-1}",
            "stale-rule",
        ),
    ] {
        let found = codes(&with_rule("", rule));
        assert!(found.contains(&expected), "{rule}: {found:?}");
    }
}

#[test]
fn resources_called_alike_in_two_templates_are_two() {
    let template = |name: &str| {
        format!(
            "Resources:\n  G:\n    Type: AWS::EC2::SecurityGroup\n    Properties:\n      GroupName: {name}\n      SecurityGroupIngress: [{{IpProtocol: -1, SourceSecurityGroupId: !Ref G}}]\n"
        )
    };
    let sources = [
        Source::new("1.yaml", template("one").into()),
        Source::new("2.yaml", template("two").into()),
    ];
    let model = check(&sources).model.unwrap();
    assert_eq!(
        what(&model.groups["one"].ingress),
        [(Traffic::All, group("one"))]
    );
    assert_eq!(
        what(&model.groups["two"].ingress),
        [(Traffic::All, group("two"))]
    );
}

#[test]
fn functions_do_not_put_together_more_than_fits() {
    let long = "x".repeat(1 << 20);
    let subs = "${P}".repeat(1000);
    let head = format!("Parameters:\n  P: {{Type: String, Default: {long}}}\n");
    let found = source(&head, &format!("!Sub '{subs}'")).unwrap_err();
    assert!(found.contains("more text than is put together"), "{found}");
    let list = "[1, 2, 3, 4, 5, 6, 7, 8, 9, 0]";
    let mut head = String::from("Mappings:\n  M:\n");
    let items = format!("{list}, ").repeat(1000);
    head += &format!("    a: {{b: [{items}]}}\n");
    let uses = "!FindInMap [M, a, b], ".repeat(200);
    let found = source(&head, &format!("!Select [0, [{uses}]]")).unwrap_err();
    assert!(!found.is_empty());
}

#[test]
fn truncated_templates_end_in_an_error() {
    for (end, _) in YAML.char_indices().step_by(97) {
        let _ = checked(&YAML[..end]);
    }
    assert_eq!(codes("Resources: {G: [\n"), ["syntax"]);
    assert_eq!(codes("Resources: 3\n"), ["missing-key"]);
}

#[test]
fn what_is_not_known_is_not_taken_for_the_default() {
    let include = "Fn::Transform: {Name: AWS::Include, Parameters: {Location: s3://x/y}}";
    let group = |properties: &str| {
        format!(
            "Resources:\n  G:\n    Type: AWS::EC2::SecurityGroup\n    Properties: {properties}\n"
        )
    };
    for (text, expected) in [
        (group(&format!("{{{include}}}")), "unknown-value"),
        (
            group(&format!("{{GroupDescription: x, {include}}}")),
            "unknown-value",
        ),
        (group("[]"), "wrong-type"),
        (group(""), "unknown-value"),
        (group("!Ref AWS::NoValue"), "wrong-type"),
        (group("{SecurityGroupEgress: }"), "unknown-value"),
        (group("{SecurityGroupIngress: null}"), "unknown-value"),
        (group("{SecurityGroupEgress: [null]}"), "unknown-value"),
        (
            group(&format!(
                "{{SecurityGroupEgress: [{{CidrIp: 10.0.0.0/8, {include}}}]}}"
            )),
            "unknown-value",
        ),
        (format!("Resources:\n  {include}\n"), "unknown-value"),
        ("Resources: {G: {Properties: {}}}".into(), "missing-key"),
        ("Resources: {G: 3}".into(), "missing-key"),
        ("Resources: {G: {Type: [x]}}".into(), "wrong-type"),
    ] {
        let checked = checked(&text);
        let found: Vec<_> = checked.diagnostics.iter().map(|found| found.code).collect();
        assert_eq!(found, [expected], "{text}");
        assert!(checked.model.is_none(), "{text}");
    }
    // What is left out is not given.
    let left_out = model(&group("{SecurityGroupEgress: !Ref AWS::NoValue}"));
    assert_eq!(what(&left_out.groups["G"].egress), everything());
}

#[test]
fn what_refers_to_itself_or_goes_on_without_end_is_not_known() {
    let head = "Mappings: {M: {A: {B: !FindInMap [M, A, B], C: [!Ref X], D: {E: f}}}}";
    for key in ["B", "C", "D"] {
        let found = source(head, &format!("!FindInMap [M, A, {key}]")).unwrap_err();
        assert!(found.contains("neither text nor a list"), "{found}");
    }
    let chain = |equals: &str, count: usize| {
        let mut head = String::from("Conditions:\n");
        for index in 0..count {
            let next = equals.replace('@', &format!("C{}", index + 1));
            head += &format!("  C{index}: {next}\n");
        }
        head + &format!("  C{count}: !Equals [a, a]\n")
    };
    let value = "!If [C0, 10.0.0.0/8, 10.1.0.0/16]";
    for equals in ["!Equals [!If [@, a, b], a]", "!Not [!Condition @]"] {
        let found = source(&chain(equals, 20_000), value).unwrap_err();
        assert!(found.contains("without end"), "{found}");
        let found = source(&chain(equals, 20), value);
        assert_eq!(found.as_deref(), Ok("10.0.0.0/8"));
    }
}

#[test]
fn names_are_no_logical_names_and_those_no_ids() {
    let found = |text: &str| checked(text);
    let text = |rule: &str| {
        format!(
            "Resources:\n  Web: {{Type: AWS::EC2::SecurityGroup, Properties: {{GroupName: backend}}}}\n  Front: {{Type: AWS::EC2::SecurityGroup, Properties: {{GroupName: Web}}}}\n  Plain: {{Type: AWS::EC2::SecurityGroup, Properties: {{}}}}\n  In:\n    Type: AWS::EC2::SecurityGroupIngress\n    Properties: {{IpProtocol: '-1', {rule}}}\n"
        )
    };
    let rules = |rule: &str| {
        let model = model(&text(rule));
        let rules = |name: &str| what(&model.groups[name].ingress);
        (rules("backend"), rules("Web"))
    };
    let net = vec![(Traffic::All, cidr("10.0.0.0/8"))];
    assert_eq!(
        rules("GroupName: Web, CidrIp: 10.0.0.0/8"),
        (vec![], net.clone())
    );
    assert_eq!(
        rules("GroupId: !Ref Web, CidrIp: 10.0.0.0/8"),
        (net, vec![])
    );
    let from = |name: &str| vec![(Traffic::All, group(name))];
    let of_web = |source: &str| rules(&format!("GroupId: !Ref Web, {source}")).0;
    assert_eq!(of_web("SourceSecurityGroupName: Web"), from("Web"));
    assert_eq!(of_web("SourceSecurityGroupId: !Ref Web"), from("backend"));
    let own = "SourceSecurityGroupName: Web, SourceSecurityGroupOwnerId: !Ref AWS::AccountId";
    assert_eq!(of_web(own), from("Web"));
    let other = "SourceSecurityGroupName: Web, SourceSecurityGroupOwnerId: '999999999999'";
    assert_eq!(of_web(other), []);
    let other = found(&text(&format!("GroupId: !Ref Web, {other}")));
    let code = |found: &&super::super::Diagnostic| found.code == "not-carried-over";
    assert!(other.diagnostics.iter().any(|found| code(&found)));
    for (rule, expected) in [
        (
            "GroupName: Plain, CidrIp: 10.0.0.0/8",
            "InvalidGroup.NotFound",
        ),
        (
            "GroupId: !Ref Web, SourceSecurityGroupName: Plain",
            "InvalidGroup.NotFound",
        ),
        (
            "GroupId: !Ref Web, SourceSecurityGroupId: Front",
            "InvalidParameterValue",
        ),
        (
            "GroupId: !Ref Web, SourcePrefixListId: Front",
            "InvalidParameterValue",
        ),
    ] {
        let found = found(&text(rule));
        assert!(found.model.is_none(), "{rule}");
        let codes: Vec<_> = found.diagnostics.iter().map(|found| found.code).collect();
        assert!(codes.contains(&expected), "{rule}: {codes:?}");
    }
    // By name to one that is not here: nothing that is here is meant.
    let missing = found(&text("GroupName: Front, CidrIp: 0.0.0.0/0"));
    let model = missing.model.unwrap();
    assert!(model.groups.values().all(|group| group.ingress.is_empty()));
}

#[test]
fn what_a_template_calls_a_thing_means_nothing_in_another_file() {
    let template =
        "Resources: {Web: {Type: AWS::EC2::SecurityGroup, Properties: {GroupName: front}}}";
    let toml =
        "[groups.g]\negress = []\ningress = [\n  { protocol = \"all\", group = \"WORD\" }]\n";
    for word in ["Web", "cfn:t.yaml#Web"] {
        let sources = [
            Source::new("t.yaml", template.into()),
            Source::new("host.toml", toml.replace("WORD", word).into()),
        ];
        let found = check(&sources).diagnostics;
        let codes: Vec<_> = found.iter().map(|found| found.code).collect();
        assert!(codes.contains(&"stale-rule"), "{word}: {codes:?}");
    }
}
