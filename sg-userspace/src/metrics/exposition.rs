//! Metric families, their labels and their text (OpenMetrics 1.0).
//!
//! Labels are names of the definition, rule ids, devices, namespaces, and words of fixed lists: their number
//! is bounded by the number of interfaces and rules, and none tells a remote address.

use std::{collections::BTreeSet, fmt};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text},
    metrics::MetricType,
    registry::Registry,
};
use sg_common::verdict::Direction;

use crate::definition::escape;
use crate::stats::{Conntrack, HostStats, InterfaceStats, VerdictCount};

use super::Figures;

/// Writes all families and the end mark.
pub(super) fn write(figures: &Figures, out: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Families(figures.clone())));
    text::encode(out, &registry)
}

#[derive(Debug)]
struct Families(Figures);

/// Label names and values of one sample.
type Labels = Vec<(&'static str, String)>;

impl Collector for Families {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Figures {
            stats,
            rules,
            status,
            agent,
        } = &self.0;
        let mut out = Out(&mut encoder);
        let interfaces = stats.as_ref().map_or(&[][..], |stats| &stats.interfaces);
        ethtool(&mut out, interfaces)?;
        out.gauge(
            "sgctl_generation",
            "Generation of the policy in force, 0 if nothing is enforced",
            [(Labels::new(), u64::from(status.generation))],
        )?;
        out.gauge(
            "sgctl_generation_unconfirmed_seconds",
            "Seconds until the generation in force is taken back unless it is confirmed, 0 if it need not be",
            [(
                Labels::new(),
                status.pending.map_or(0, |pending| pending.seconds_left),
            )],
        )?;
        out.counter(
            "sgctl_generations_taken_back",
            "Generations that were taken back because nobody confirmed them, or because somebody asked for it",
            [(Labels::new(), status.taken_back)],
        )?;
        out.gauge(
            "sgctl_interface_attached",
            "1 if both directions of the interface are judged by our programs, 0 if it should be so and is not",
            status.interfaces.iter().map(|one| {
                let mut labels = device(&one.device, one.netns.as_deref());
                labels.push(("interface", one.name.clone()));
                labels.push(("hook", one.hook.name().to_owned()));
                (labels, u64::from(one.enforced))
            }),
        )?;
        out.gauge(
            "sgctl_interface_present",
            "1 if the device of the attached interface is there, 0 if it is gone: one that is there and not attached has had its links removed",
            status.interfaces.iter().map(|one| {
                let labels = vec![("interface", one.name.clone())];
                (labels, u64::from(one.present))
            }),
        )?;
        out.gauge(
            "sgctl_interface_warnings",
            "What `sgctl status` warns of on the interface, such as a program that runs before ours",
            status.interfaces.iter().map(|one| {
                let labels = vec![("interface", one.name.clone())];
                (labels, one.warnings.len() as u64)
            }),
        )?;
        conntrack(&mut out, interfaces)?;
        packets(&mut out, interfaces)?;
        out.counter(
            "sgctl_rule_hits",
            "Packets that opened a flow, or passed without one, by rule that allows them",
            rules.iter().map(|one| {
                let labels = vec![
                    ("rule", one.rule.clone()),
                    ("group", one.group.clone()),
                    ("direction", one.direction.clone()),
                ];
                (labels, one.packets)
            }),
        )?;
        if let Some(stats) = stats {
            host(&mut out, &stats.host)?;
        }
        let Some(agent) = agent else { return Ok(()) };
        let one = |value| [(Labels::new(), value)];
        out.gauge(
            "sgctl_definition_errors",
            "Errors that keep the definition as it is written out of force",
            one(agent.definition_errors),
        )?;
        out.gauge(
            "sgctl_definition_last_reload_successful",
            "1 if the definition as it was last read is in force",
            one(u64::from(agent.reload_successful)),
        )?;
        out.gauge(
            "sgctl_definition_last_reload_success_timestamp_seconds",
            "When a definition last came into force, in seconds since 1970",
            one(agent.reload_success_seconds),
        )?;
        out.gauge(
            "sgctl_interfaces_absent",
            "Interfaces of the definition whose device is not there",
            one(agent.absent),
        )?;
        out.counter(
            "sgctl_links_repaired",
            "Links that somebody else removed and the agent made again",
            one(agent.repaired),
        )
    }
}

/// The figures of EC2 as node_exporter's ethtool collector spells them: untyped, `device`.
/// Only interfaces of other namespaces than sgctl's own have a second label, without which equal
/// devices could not be told apart.
fn ethtool(out: &mut Out<'_, '_>, interfaces: &[InterfaceStats]) -> fmt::Result {
    let mut seen = BTreeSet::new();
    // A renamed device may leave its name to another one; a sample may stand only once.
    let distinct: Vec<_> = interfaces
        .iter()
        .filter(|one| seen.insert((&one.netns, &one.device)))
        .collect();
    let samples = |value: fn(&Conntrack) -> u64| {
        distinct.iter().map(move |one| {
            let labels = device(&one.device, one.netns.as_deref());
            (labels, value(&one.conntrack))
        })
    };
    out.family(
        "node_ethtool_conntrack_allowance_available",
        "Connections that can still be tracked",
        MetricType::Unknown,
        samples(|conntrack| conntrack.available),
    )?;
    out.family(
        "node_ethtool_conntrack_allowance_exceeded",
        "Packets dropped because no further connection could be tracked",
        MetricType::Unknown,
        samples(|conntrack| conntrack.exceeded),
    )
}

type Figure = (&'static str, &'static str, fn(&Conntrack) -> u64);

const CONNTRACK_GAUGES: [Figure; 6] = [
    ("tracked", "Flows tracked", |figures| figures.tracked),
    ("allowance", "Flows that may be tracked", |figures| {
        figures.allowance
    }),
    (
        "available",
        "Flows that could still be tracked",
        |figures| figures.available,
    ),
    ("peak", "Most flows tracked at a time", |figures| {
        figures.peak
    }),
    (
        "unassured",
        "Tracked flows that are not assured",
        |figures| figures.unassured,
    ),
    (
        "new_per_second",
        "Flows made in the last second",
        |figures| figures.new_per_second,
    ),
];

const CONNTRACK_COUNTERS: [Figure; 5] = [
    (
        "allowance_exceeded",
        "Packets dropped because no further flow could be tracked",
        |figures| figures.exceeded,
    ),
    ("new", "Flows made", |figures| figures.created),
    ("expired", "Flows that idled out", |figures| figures.expired),
    ("replaced", "Flows replaced while unassured", |figures| {
        figures.replaced
    }),
    (
        "removed",
        "Flows removed by command or by a new generation",
        |figures| figures.removed,
    ),
];

fn conntrack(out: &mut Out<'_, '_>, interfaces: &[InterfaceStats]) -> fmt::Result {
    let samples = |value: fn(&Conntrack) -> u64| {
        interfaces.iter().map(move |one| {
            let labels = vec![("interface", one.name.clone())];
            (labels, value(&one.conntrack))
        })
    };
    for (name, help, value) in CONNTRACK_GAUGES {
        out.gauge(&format!("sgctl_conntrack_{name}"), help, samples(value))?;
    }
    for (name, help, value) in CONNTRACK_COUNTERS {
        out.counter(&format!("sgctl_conntrack_{name}"), help, samples(value))?;
    }
    out.gauge(
        "sgctl_conntrack_flows",
        "Live flows by protocol and state",
        interfaces.iter().flat_map(|one| {
            one.states.iter().map(|count| {
                let labels = vec![
                    ("interface", one.name.clone()),
                    ("protocol", count.protocol.clone()),
                    ("state", count.state.clone()),
                ];
                (labels, count.flows)
            })
        }),
    )
}

fn host(out: &mut Out<'_, '_>, host: &HostStats) -> fmt::Result {
    for (name, help, value) in CONNTRACK_GAUGES {
        let sample = [(Labels::new(), value(&host.conntrack))];
        let help = format!("{help}, all interfaces together");
        out.gauge(&format!("sgctl_host_conntrack_{name}"), &help, sample)?;
    }
    for (name, help, value) in CONNTRACK_COUNTERS {
        let sample = [(Labels::new(), value(&host.conntrack))];
        let help = format!("{help}, all interfaces together");
        out.counter(&format!("sgctl_host_conntrack_{name}"), &help, sample)?;
    }
    let unclaimed = || Direction::ALL.iter().zip(&host.unclaimed);
    let labels = |direction: &Direction| vec![("direction", direction.name().to_owned())];
    out.counter(
        "sgctl_host_packets_unclaimed",
        "Packets dropped on devices that no interface claims",
        unclaimed().map(|(direction, count)| (labels(direction), count.packets)),
    )?;
    out.counter(
        "sgctl_host_bytes_unclaimed",
        "Bytes dropped on devices that no interface claims",
        unclaimed().map(|(direction, count)| (labels(direction), count.bytes)),
    )
}

fn packets(out: &mut Out<'_, '_>, interfaces: &[InterfaceStats]) -> fmt::Result {
    let samples = |passed: bool, value: fn(&VerdictCount) -> u64| {
        let label = if passed { "kind" } else { "reason" };
        interfaces.iter().flat_map(move |one| {
            let same = move |count: &&VerdictCount| count.passed == passed;
            one.verdicts.iter().filter(same).map(move |count| {
                let labels = vec![
                    ("interface", one.name.clone()),
                    ("direction", count.direction.clone()),
                    (label, count.outcome.clone()),
                ];
                (labels, value(count))
            })
        })
    };
    out.counter(
        "sgctl_packets_passed",
        "Packets that passed, by kind",
        samples(true, |count| count.packets),
    )?;
    out.counter(
        "sgctl_packets_dropped",
        "Packets that were dropped, by reason",
        samples(false, |count| count.packets),
    )?;
    out.counter(
        "sgctl_bytes_passed",
        "Bytes of packets that passed, Ethernet headers included",
        samples(true, |count| count.bytes),
    )?;
    out.counter(
        "sgctl_bytes_dropped",
        "Bytes of packets that were dropped, Ethernet headers included",
        samples(false, |count| count.bytes),
    )
}

fn device(device: &str, netns: Option<&str>) -> Labels {
    let mut labels = vec![("device", device.to_owned())];
    if let Some(path) = netns {
        let name = path.strip_prefix("/run/netns/").unwrap_or(path);
        labels.push(("netns", name.to_owned()));
    }
    labels
}

/// Where families go.
struct Out<'a, 'b>(&'a mut DescriptorEncoder<'b>);

impl Out<'_, '_> {
    fn gauge(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (Labels, u64)>,
    ) -> fmt::Result {
        self.family(name, help, MetricType::Gauge, samples)
    }

    /// `name` is without the suffix `_total` of the samples.
    fn counter(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (Labels, u64)>,
    ) -> fmt::Result {
        self.family(name, help, MetricType::Counter, samples)
    }

    fn family(
        &mut self,
        name: &str,
        help: &str,
        kind: MetricType,
        samples: impl IntoIterator<Item = (Labels, u64)>,
    ) -> fmt::Result {
        let mut samples = samples.into_iter().peekable();
        if samples.peek().is_none() {
            return Ok(());
        }
        let mut metric = self.0.encode_descriptor(name, help, None, kind)?;
        for (mut labels, value) in samples {
            // The format escapes what would break it, and nothing that a reader's terminal would act on.
            for (_, text) in &mut labels {
                *text = escape(text).into_owned();
            }
            if labels.is_empty() {
                encode(&mut metric, kind, value)?;
            } else {
                encode(&mut metric.encode_family(&labels)?, kind, value)?;
            }
        }
        Ok(())
    }
}

fn encode(sample: &mut MetricEncoder<'_>, kind: MetricType, value: u64) -> fmt::Result {
    match kind {
        MetricType::Counter => sample.encode_counter::<NoLabelSet, u64, u64>(&value, None),
        _ => sample.encode_gauge(&value),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use crate::{
        agent::Record,
        hits::RuleHits,
        metrics::Figures,
        model::{IcmpErrors, OnRevoke, Orientation, Track},
        state::HookInForce,
        stats::{Conntrack, HostStats, InterfaceStats, Packets, StateCount, Stats, VerdictCount},
        status::{InterfaceStatus, Settings, SourceDestCheck, Status, TcAttachment},
    };

    fn interface(name: &str, netns: Option<&str>) -> (InterfaceStats, InterfaceStatus) {
        let netns = netns.map(str::to_owned);
        let verdict = |passed, outcome: &str| VerdictCount {
            direction: "ingress".into(),
            passed,
            outcome: outcome.into(),
            packets: 7,
            bytes: 700,
        };
        let stats = InterfaceStats {
            name: name.into(),
            device: "eth0".into(),
            netns: netns.clone(),
            id: 1,
            conntrack: Conntrack {
                available: 90,
                exceeded: 3,
                ..Conntrack::default()
            },
            states: vec![StateCount {
                protocol: "udp".into(),
                state: "stream".into(),
                flows: 2,
            }],
            verdicts: vec![verdict(true, "new"), verdict(false, "no_rule")],
        };
        let status = InterfaceStatus {
            name: name.into(),
            device: "eth0".into(),
            netns,
            ifindex: 2,
            id: 1,
            orientation: Orientation::Own,
            hook: HookInForce::Tc,
            why: String::new(),
            adopted: None,
            tc: TcAttachment::Tcx,
            groups: Vec::new(),
            source_dest_check: SourceDestCheck::Off,
            on_revoke: OnRevoke::Keep,
            ethertypes: Vec::new(),
            settings: Settings {
                track: Track::Auto,
                tcp_loose: false,
                icmp_errors: IcmpErrors::Related,
                dhcp: true,
                mld: true,
                nd_redirect: false,
                allowance: 10,
                reserve: 0,
                timeouts: BTreeMap::new(),
            },
            orphan: false,
            enforced: true,
            present: true,
            warnings: Vec::new(),
        };
        (stats, status)
    }

    fn figures(interfaces: Vec<(InterfaceStats, InterfaceStatus)>) -> Figures {
        let (stats, status) = interfaces.into_iter().unzip();
        Figures {
            stats: Some(Stats {
                host: HostStats {
                    generation: 4,
                    conntrack: Conntrack::default(),
                    unclaimed: [Packets::default(); 2],
                },
                interfaces: stats,
            }),
            rules: vec![RuleHits {
                rule: "sgr-1".into(),
                group: "web".into(),
                direction: "ingress".into(),
                packets: 5,
                complete: true,
            }],
            status: Status {
                generation: 4,
                allowance: 100,
                accounting: true,
                pins: String::new(),
                pending: None,
                taken_back: 2,
                interfaces: status,
                warnings: Vec::new(),
            },
            agent: Some(Record::default()),
        }
    }

    #[test]
    fn aws_figures_are_spelled_as_node_exporter_does() {
        let text = figures(vec![interface("web", None)]).to_string();
        for line in [
            "# TYPE node_ethtool_conntrack_allowance_exceeded unknown",
            "node_ethtool_conntrack_allowance_available{device=\"eth0\"} 90",
            "node_ethtool_conntrack_allowance_exceeded{device=\"eth0\"} 3",
            "sgctl_generation 4",
            "sgctl_packets_dropped_total{interface=\"web\",direction=\"ingress\",reason=\"no_rule\"} 7",
            "sgctl_bytes_passed_total{interface=\"web\",direction=\"ingress\",kind=\"new\"} 700",
            "sgctl_rule_hits_total{rule=\"sgr-1\",group=\"web\",direction=\"ingress\"} 5",
            "sgctl_conntrack_flows{interface=\"web\",protocol=\"udp\",state=\"stream\"} 2",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert!(text.ends_with("\n# EOF\n"), "{text}");
    }

    #[test]
    fn n8_equal_devices_are_told_apart_and_values_escaped() {
        let hostile = "a\"b\\c\nd\x1b[2J\u{202e}";
        let text = figures(vec![
            interface("one", Some("/run/netns/blue")),
            interface(hostile, Some("/proc/7/ns/net")),
        ])
        .to_string();
        for line in [
            "node_ethtool_conntrack_allowance_exceeded{device=\"eth0\",netns=\"blue\"} 3",
            "node_ethtool_conntrack_allowance_exceeded{device=\"eth0\",netns=\"/proc/7/ns/net\"} 3",
            "sgctl_conntrack_available{interface=\"a\\\"b\\\\c\\\\u{a}d\\\\u{1b}[2J\\\\u{202e}\"} 90",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        let mut samples: Vec<&str> = text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.rsplit_once(' ').map(|(series, _)| series))
            .collect();
        let all = samples.len();
        samples.sort_unstable();
        samples.dedup();
        assert_eq!(samples.len(), all, "every series stands once");
    }

    #[test]
    fn that_nothing_is_enforced_is_a_figure() {
        let mut figures = figures(Vec::new());
        (figures.stats, figures.agent) = (None, None);
        figures.rules.clear();
        figures.status.generation = 0;
        let text = figures.to_string();
        let samples: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        let expected = [
            "sgctl_generation 0",
            "sgctl_generation_unconfirmed_seconds 0",
            "sgctl_generations_taken_back_total 2",
        ];
        assert_eq!(samples, expected, "{text}");
        assert!(text.ends_with("\n# EOF\n"), "{text}");
    }
}
