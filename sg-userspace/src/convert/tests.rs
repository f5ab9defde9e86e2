//! To and fro: what was written out reads as the model that it was made of.

use std::collections::BTreeMap;
use std::path::Path;

use proptest::prelude::*;
use sg_common::layout::{TIMEOUT_DEFAULTS, Timeout};

use super::clouds::portable;
use super::*;
use crate::definition::{Severity, Source, check, render};
use crate::model::{Family, Ids};

mod models;

use models::model;

/// What is read of a conversion; places of rules aside, which are new.
fn read(converted: &Converted) -> Result<Model, String> {
    let sources: Vec<Source> = converted
        .files
        .iter()
        .map(|file| Source::new(&file.name, file.text.clone().into_bytes()))
        .collect();
    let checked = check(&sources);
    let errors = checked
        .diagnostics
        .iter()
        .any(|found| found.severity == Severity::Error);
    match checked.model {
        Some(model) if !errors => Ok(without_places(model)),
        _ => Err(render(&checked.diagnostics)),
    }
}

fn without_places(mut model: Model) -> Model {
    for group in model.groups.values_mut() {
        for rule in group.ingress.iter_mut().chain(&mut group.egress) {
            rule.origin = None;
        }
    }
    model
}

fn text_of(converted: &Converted) -> String {
    let files = converted.files.iter();
    files
        .map(|file| format!("--- {}\n{}\n", file.name, file.text))
        .collect()
}

fn cases() -> ProptestConfig {
    ProptestConfig {
        cases: 200,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

fn comes_back(model: &Model, target: Target) -> Result<(), TestCaseError> {
    let converted = convert(model, target);
    let expected = match target {
        Target::Toml => model.clone(),
        // What is beyond AWS is said, and the rest comes back.
        Target::AwsJson | Target::Terraform => portable(model).0,
    };
    let said = match target {
        Target::Toml => Vec::new(),
        Target::AwsJson | Target::Terraform => portable(model).1,
    };
    prop_assert_eq!(&converted.left_out, &said);
    match read(&converted) {
        Ok(found) => prop_assert_eq!(found, expected, "{}", text_of(&converted)),
        Err(errors) => prop_assert!(false, "{}\n{}", errors, text_of(&converted)),
    }
    Ok(())
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn toml_reads_as_the_same_model(model in model()) {
        comes_back(&model, Target::Toml)?;
    }

    #[test]
    fn aws_json_reads_as_the_same_model(model in model()) {
        comes_back(&model, Target::AwsJson)?;
    }

    #[test]
    fn terraform_reads_as_the_same_model(model in model()) {
        comes_back(&model, Target::Terraform)?;
    }
}

fn small() -> Model {
    let text = r#"
        [groups.web]
        description = "say ${x}"
        on_revoke = "reevaluate"
        ingress = [
            { protocol = "tcp", ports = 443, cidr = ["0.0.0.0/0", "::/0"], description = "the web" },
            { protocol = "icmp", type = 8, prefix_list = "offices", id = "sgr-0123456789abcdef0" },
            { protocol = "all", group = "web" },
        ]
        egress = []
        [prefix_lists.offices]
        entries = ["198.51.100.0/24", "203.0.113.16/28"]
        [interfaces.eth0]
        groups = ["web"]
        timeouts = { tcp_established = 350 }
    "#;
    let checked = check(&[Source::new("d.toml", text.into())]);
    checked.model.expect("the definition is without fault")
}

/// Compared with files beside; `SG_BLESS=1` writes them anew.
#[test]
fn the_forms_are_those_that_others_write() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/convert/tests");
    for target in Target::ALL {
        let found = text_of(&convert(&small(), target));
        let file = directory.join(format!("{}.txt", target.name()));
        if std::env::var_os("SG_BLESS").is_some() {
            std::fs::write(&file, &found).unwrap();
        }
        assert_eq!(found, std::fs::read_to_string(&file).unwrap());
    }
}

#[test]
fn what_aws_cannot_hold_is_said_and_never_widened() {
    let mut model = small();
    model.prefix_lists.insert(
        "offices".into(),
        ["198.51.100.0/24", "2001:db8::/32"]
            .map(|net| net.parse().unwrap())
            .into(),
    );
    let rules = &mut model.groups.get_mut("web").unwrap().ingress;
    rules[0].peer = Peer::GroupOf("web".into(), Family::Ipv6);
    rules[1].peer = Peer::Group("gone".into());
    rules[3].peer = Peer::PrefixList("offices".into());
    model
        .ids
        .groups
        .insert("web".into(), "0f1d2d00-0000".into());
    let (portable, left_out) = portable(&model);
    assert_eq!(
        left_out,
        [
            "the id 0f1d2d00-0000 of group web: AWS's are sg-…",
            "that offices is one prefix list: AWS's are of one family, so it is offices (ipv4) and offices (ipv6)",
            "the ingress rule \"tcp 443, group web, ipv6 only\" of group web: AWS's references to groups are of both families",
            "the ingress rule \"tcp 443, group gone\" of group web: there is no such group",
        ]
    );
    let kept: Vec<_> = portable.groups["web"]
        .ingress
        .iter()
        .map(in_words)
        .collect();
    assert_eq!(
        kept,
        [
            "\"icmp 8, prefix list offices\"",
            "\"all, prefix list offices (ipv4)\"",
            "\"all, prefix list offices (ipv6)\"",
        ]
        .map(|text| text.replace(
            "icmp 8, prefix list offices\"",
            "icmp 8, prefix list offices (ipv4)\""
        ))
    );
}

#[test]
fn an_interface_that_toml_cannot_name_is_named_anew() {
    let mut model = small();
    let interface = model.interfaces.remove("eth0").unwrap();
    model.interfaces.insert("eth%0".into(), interface);
    let converted = convert(&model, Target::Toml);
    assert_eq!(
        converted.left_out,
        ["the name of interface eth%0, which is eth_0 now"]
    );
    let read = read(&converted).unwrap();
    assert_eq!(read.interfaces["eth_0"].settings.device, "eth0");
}

#[test]
fn timeouts_that_are_aws_defaults_too_come_back() {
    let index = Timeout::TcpEstablished as usize;
    let mut model = small();
    model.ids = Ids {
        interfaces: BTreeMap::from([("eth0".to_string(), "eni-0123456789abcdef0".to_string())]),
        ..Ids::default()
    };
    let eth0 = model.interfaces.get_mut("eth0").unwrap();
    eth0.settings.timeouts[index] = TIMEOUT_DEFAULTS[index].1;
    let read = read(&convert(&model, Target::Toml)).unwrap();
    assert_eq!(read, without_places(model));
}

#[test]
fn no_id_leads_a_file_out_of_its_directory() {
    let mut model = small();
    model.prefix_lists.insert("l".into(), Vec::new());
    let id = "pl-x/../../evil".to_owned();
    model.ids.prefix_lists.insert("l".into(), id);
    let files = super::aws::convert(&model).files;
    assert!(files.len() > 3);
    for file in files {
        assert!(
            !file.name.contains(['/', '\\']) && !file.name.contains(".."),
            "{}",
            file.name
        );
    }
}
