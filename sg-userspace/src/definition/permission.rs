//! `IpProtocol`, `FromPort` and `ToPort` as AWS's interfaces have them (facts 1.9–1.15).

use super::escape::quote;
use super::findings::Findings;
use super::tree::{At, Located};
use crate::model::{Icmp, Ports, Traffic, protocol};

/// The three as a file gives them; ports that it does not give, or gives as null, are `None`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Permission<'a> {
    /// Name or number.
    pub(super) protocol: Located<&'a str>,
    /// First port, or type of ICMP.
    pub(super) from: Option<Located<i64>>,
    /// Last port, or code of ICMP.
    pub(super) to: Option<Located<i64>>,
    /// The whole rule.
    pub(super) at: At,
}

impl Permission<'_> {
    /// What it allows. By the protocol, never by the ports: how a file writes "everything" differs by
    /// interface (7.50), but with `-1` and with protocols other than TCP, UDP and ICMP ports are ignored (1.10).
    pub(super) fn traffic(&self, findings: &mut Findings) -> Option<Traffic> {
        let number = match self.protocol.value.trim().to_ascii_lowercase().as_str() {
            "-1" | "all" => return Some(Traffic::All),
            "tcp" => protocol::TCP,
            "udp" => protocol::UDP,
            "icmp" => protocol::ICMP,
            "icmpv6" => protocol::ICMPV6,
            number => match number.parse() {
                Ok(number)
                    if self
                        .protocol
                        .value
                        .bytes()
                        .all(|byte| byte.is_ascii_digit()) =>
                {
                    number
                }
                _ => {
                    let message = format!("{} is not a protocol", quote(self.protocol.value));
                    invalid(findings, self.protocol.at, message)
                        .help("tcp, udp, icmp, icmpv6, -1 for all, or a number from 0 to 255");
                    return None;
                }
            },
        };
        match number {
            protocol::TCP => self.ports(findings).map(Traffic::Tcp),
            protocol::UDP => self.ports(findings).map(Traffic::Udp),
            protocol::ICMP => self.icmp(findings, true).map(Traffic::Icmp),
            protocol::ICMPV6 => self.icmp(findings, false).map(Traffic::Icmpv6),
            number => Some(Traffic::Protocol(number)),
        }
    }

    /// `-1` in both is every port, as the API writes where it has no range.
    fn ports(&self, findings: &mut Findings) -> Option<Ports> {
        let (Some(from), Some(to)) = (self.from, self.to) else {
            let message = "a rule of tcp or udp needs both ports";
            invalid(findings, self.at, message).help("every port is 0 to 65535");
            return None;
        };
        if (from.value, to.value) == (-1, -1) {
            return Some(Ports {
                from: 0,
                to: u16::MAX,
            });
        }
        let port = |findings: &mut Findings, port: Located<i64>| {
            let fits = u16::try_from(port.value).ok();
            if fits.is_none() {
                let message = format!("{} is not a port", port.value);
                findings
                    .error("InvalidPermission.Malformed", port.at, message)
                    .help("ports are 0 to 65535");
            }
            fits
        };
        let (from, to) = (port(findings, from)?, port(findings, to)?);
        if from > to {
            findings
                .error(
                    "InvalidPermission.Malformed",
                    self.at,
                    format!("the port range {from} to {to} ends before it begins"),
                )
                .help("the first port comes first");
            return None;
        }
        Some(Ports { from, to })
    }

    fn icmp(&self, findings: &mut Findings, required: bool) -> Option<Icmp> {
        let (kind, code) = match (self.from, self.to) {
            (Some(kind), Some(code)) => (kind, code),
            (None, None) if !required => return Some(Icmp::Any),
            // Fact 1.15.
            _ => {
                invalid(
                    findings,
                    self.at,
                    "Must specify both from and to ports with ICMP.",
                )
                .help("the first is the type, the second the code, -1 is every one");
                return None;
            }
        };
        let field = |findings: &mut Findings, name: &str, value: Located<i64>| {
            let fits = (-1..=255).contains(&value.value);
            if !fits {
                invalid(
                    findings,
                    value.at,
                    format!("ICMP {name} ({}) out of range", value.value),
                )
                .help("-1 is every one, others are 0 to 255");
            }
            fits.then(|| u8::try_from(value.value).ok())
        };
        let (kind_at, code_at) = (kind.at, code.at);
        let (kind, code) = (
            field(findings, "type", kind)?,
            field(findings, "code", code)?,
        );
        match (kind, code) {
            (None, None) => Some(Icmp::Any),
            (None, Some(_)) => {
                invalid(findings, code_at, "every type has every code")
                    .help("with type -1 the code is -1");
                None
            }
            (Some(kind), None) => Some(Icmp::Type(kind)),
            (Some(0), Some(0)) if required => {
                findings
                    .warning(
                        "icmp-echo-reply-only",
                        kind_at,
                        "ICMP 0 to 0 is echo reply, not everything",
                    )
                    .help("every type and code is -1 to -1; echo request is type 8, code -1");
                Some(Icmp::Code(0, 0))
            }
            (Some(kind), Some(code)) => Some(Icmp::Code(kind, code)),
        }
    }
}

fn invalid(
    findings: &mut Findings,
    at: At,
    message: impl Into<String>,
) -> &mut super::findings::Finding {
    findings.error("InvalidParameterValue", at, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: At = At {
        file: 0,
        start: 0,
        end: 0,
    };

    fn traffic(protocol: &str, from: Option<i64>, to: Option<i64>) -> Option<Traffic> {
        let located = |value| Located { value, at: AT };
        let permission = Permission {
            protocol: Located {
                value: protocol,
                at: AT,
            },
            from: from.map(located),
            to: to.map(located),
            at: AT,
        };
        permission.traffic(&mut Findings::default())
    }

    #[test]
    fn everything_is_read_by_protocol_and_never_by_ports() {
        for (from, to) in [
            (None, None),
            (Some(-1), Some(-1)),
            (Some(0), Some(0)),
            (Some(22), Some(22)),
        ] {
            assert_eq!(traffic("-1", from, to), Some(Traffic::All));
            assert_eq!(traffic("50", from, to), Some(Traffic::Protocol(50)));
        }
    }

    #[test]
    fn numbers_of_known_protocols_are_those_protocols() {
        let ports = Ports { from: 22, to: 23 };
        assert_eq!(traffic("6", Some(22), Some(23)), Some(Traffic::Tcp(ports)));
        assert_eq!(
            traffic("UDP", Some(22), Some(23)),
            Some(Traffic::Udp(ports))
        );
        assert_eq!(traffic("58", None, None), Some(Traffic::Icmpv6(Icmp::Any)));
        for bad in ["", "tpc", "256", "+6", "-2", "6.0"] {
            assert_eq!(traffic(bad, Some(1), Some(1)), None, "{bad}");
        }
    }

    #[test]
    fn ports_and_types_are_checked() {
        assert_eq!(traffic("tcp", None, Some(1)), None);
        assert_eq!(
            traffic("tcp", Some(-1), Some(-1)),
            Some(Traffic::Tcp(Ports { from: 0, to: 65535 }))
        );
        assert_eq!(traffic("tcp", Some(-1), Some(1)), None);
        assert_eq!(traffic("udp", Some(2), Some(1)), None);
        assert_eq!(traffic("udp", Some(2), Some(65536)), None);
        for (from, to) in [(None, None), (Some(8), None), (None, Some(0))] {
            assert_eq!(traffic("icmp", from, to), None);
        }
        assert_eq!(traffic("icmpv6", Some(128), None), None);
        assert_eq!(
            traffic("icmp", Some(8), Some(-1)),
            Some(Traffic::Icmp(Icmp::Type(8)))
        );
        assert_eq!(
            traffic("icmp", Some(-1), Some(-1)),
            Some(Traffic::Icmp(Icmp::Any))
        );
        assert_eq!(traffic("icmp", Some(-1), Some(0)), None);
        assert_eq!(traffic("icmp", Some(8), Some(65535)), None);
        assert_eq!(
            traffic("icmp", Some(0), Some(0)),
            Some(Traffic::Icmp(Icmp::Code(0, 0)))
        );
    }
}
