//! `sgctl ct`: tracked flows.

use std::{
    io::{self, BufWriter, Write as _},
    net::IpAddr,
    process::ExitCode,
};

use clap::Subcommand;
use serde::{Serializer as _, ser::SerializeSeq as _};
use sg_userspace::{
    flows::{self, Side, Summary, TrackedFlow, protocol_name},
    session::Context,
};

use super::text::{json_out, out, print_json};

/// Look at tracked flows.
#[derive(clap::Args)]
pub(crate) struct Ct {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    List(List),
    Summary(Summarize),
}

/// List the connections that are tracked now.
///
/// One a line: interface, protocol and state, the workload's end, an arrow from the side that
/// opened it to the other, the other end, and how long it lasts if nothing more comes. Then, where it
/// applies:
///
/// "unassured": not both sides have answered; such a flow makes room for others when that is scarce.
///
/// "adopted": taken up in its middle: at attachment, by hand-over (it was untracked until a change) or
/// by `tcp_loose`.
///
/// "in 4/277B out 3/211B": 4 packets of 277 bytes towards the workload and 3 of 211 from it since it
/// is tracked, Ethernet headers included; not with `accounting = false`.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  sgctl ct list
  sgctl ct list --interface eth0
  sgctl ct list --json | jq '.[] | select(.state == \"established\")'")]
struct List {
    /// Only flows of this interface, by its name in the definition or by its device
    #[arg(long, value_name = "IFACE")]
    interface: Option<String>,
    /// Print as JSON
    #[arg(long)]
    json: bool,
}

/// Count the connections that are tracked now.
///
/// By interface, protocol and state, with how many of them are unassured: not both sides have answered.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  sgctl ct summary
  sgctl ct summary --interface eth0
  sgctl ct summary --json | jq .flows")]
struct Summarize {
    /// Only flows of this interface, by its name in the definition or by its device
    #[arg(long, value_name = "IFACE")]
    interface: Option<String>,
    /// Print as JSON
    #[arg(long)]
    json: bool,
}

impl Ct {
    pub(crate) fn run(&self, context: &Context) -> anyhow::Result<ExitCode> {
        match &self.command {
            Command::List(list) => {
                let interface = list.interface.as_deref();
                if list.json {
                    list_json(context, interface)?;
                } else {
                    list_text(context, interface)?;
                }
            }
            Command::Summary(wanted) => {
                let summary = flows::summarize(context, wanted.interface.as_deref())?;
                if wanted.json {
                    print_json(&summary)?;
                } else {
                    print_summary(&summary)?;
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Bytes of lines that are written at a time: flows are many.
const CHUNK: usize = 1 << 16;

fn list_text(context: &Context, interface: Option<&str>) -> anyhow::Result<()> {
    let mut out = out();
    let mut lines = Vec::with_capacity(CHUNK + 1024);
    let mut written = Ok(());
    flows::list(context, interface, |flow| {
        if written.is_err() {
            return;
        }
        print(&mut lines, flow);
        if lines.len() >= CHUNK {
            written = out.write_all(&lines);
            lines.clear();
        }
    })?;
    written?;
    Ok(out.write_all(&lines)?)
}

fn list_json(context: &Context, interface: Option<&str>) -> anyhow::Result<()> {
    let mut out = BufWriter::with_capacity(CHUNK, json_out());
    let mut json = serde_json::Serializer::pretty(&mut out);
    let mut array = json.serialize_seq(None).map_err(io::Error::from)?;
    let mut written = Ok(());
    flows::list(context, interface, |flow| {
        if written.is_ok() {
            written = array.serialize_element(flow);
        }
    })?;
    written
        .and_then(|()| array.end())
        .map_err(io::Error::from)?;
    writeln!(out)?;
    Ok(out.flush()?)
}

fn print_summary(summary: &Summary) -> io::Result<()> {
    let mut out = out();
    for one in &summary.interfaces {
        writeln!(out, "{}: {} flows", one.name, one.flows)?;
        for count in &one.states {
            write!(
                out,
                "  {:<7} {:<13} {:>10}",
                count.protocol, count.state, count.flows
            )?;
            if count.unassured > 0 {
                write!(out, "  {} unassured", count.unassured)?;
            }
            writeln!(out)?;
        }
    }
    writeln!(
        out,
        "{} flows of {} allowed",
        summary.flows, summary.allowance
    )
}

/// Appends a line. Formatted by hand: with `write!` a million of them take four times as long.
fn print(line: &mut Vec<u8>, flow: &TrackedFlow<'_>) {
    line.extend(flow.interface.as_bytes());
    line.push(b' ');
    match protocol_name(flow.protocol) {
        "other" => push_number(line, flow.protocol.into()),
        name => line.extend(name.as_bytes()),
    }
    line.push(b' ');
    line.extend(flow.state.as_bytes());
    line.push(b' ');
    push_end(line, flow.local, flow.local_port);
    line.extend(match flow.opened_by {
        Side::Local => b" -> ",
        Side::Remote => b" <- ",
    });
    push_end(line, flow.remote, flow.remote_port);
    line.extend(b" expires ");
    push_number(line, flow.expires_seconds.round() as u64);
    line.push(b's');
    if !flow.assured {
        line.extend(b" unassured");
    }
    if flow.adopted {
        line.extend(b" adopted");
    }
    if let Some(traffic) = flow.traffic {
        for (words, packets, bytes) in [
            (
                b" in ".as_slice(),
                traffic.ingress_packets,
                traffic.ingress_bytes,
            ),
            (b" out ", traffic.egress_packets, traffic.egress_bytes),
        ] {
            line.extend(words);
            push_number(line, packets);
            line.push(b'/');
            push_number(line, bytes);
            line.push(b'B');
        }
    }
    line.push(b'\n');
}

/// Port 0 stands for a protocol without ports.
fn push_end(line: &mut Vec<u8>, address: IpAddr, port: u16) {
    match address {
        IpAddr::V4(address) => {
            for (place, octet) in address.octets().into_iter().enumerate() {
                if place > 0 {
                    line.push(b'.');
                }
                push_number(line, octet.into());
            }
        }
        IpAddr::V6(address) if port == 0 => line.extend(address.to_string().as_bytes()),
        IpAddr::V6(address) => line.extend(format!("[{address}]").as_bytes()),
    }
    if port != 0 {
        line.push(b':');
        push_number(line, port.into());
    }
}

fn push_number(line: &mut Vec<u8>, mut number: u64) {
    // u64::MAX has 20 digits.
    let mut digits = [0; 20];
    let mut first = digits.len();
    loop {
        first -= 1;
        digits[first] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    line.extend(&digits[first..]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use sg_userspace::flows::Traffic;

    #[test]
    fn a_line_says_what_the_help_promises() {
        let mut flow = TrackedFlow {
            interface: "eth0",
            protocol: 6,
            state: "established",
            local: "10.0.0.10".parse().unwrap(),
            local_port: 443,
            remote: "203.0.113.255".parse().unwrap(),
            remote_port: 55434,
            opened_by: Side::Remote,
            assured: true,
            adopted: false,
            idle_seconds: 0.0,
            expires_seconds: 431_999.6,
            generation: 1,
            traffic: Some(Traffic {
                ingress_packets: 4,
                ingress_bytes: 277,
                egress_packets: 0,
                egress_bytes: u64::MAX,
            }),
        };
        let line = |flow: &TrackedFlow<'_>| {
            let mut line = Vec::new();
            print(&mut line, flow);
            String::from_utf8(line).unwrap()
        };
        assert_eq!(
            line(&flow),
            "eth0 tcp established 10.0.0.10:443 <- 203.0.113.255:55434 expires 432000s in 4/277B out 0/18446744073709551615B\n"
        );
        flow.local = "2001:db8::1".parse().unwrap();
        flow.remote = "2001:db8::2".parse().unwrap();
        (flow.local_port, flow.protocol, flow.state) = (0, 132, "other");
        (flow.assured, flow.adopted, flow.traffic) = (false, true, None);
        flow.opened_by = Side::Local;
        assert_eq!(
            line(&flow),
            "eth0 132 other 2001:db8::1 -> [2001:db8::2]:55434 expires 432000s unassured adopted\n"
        );
    }
}
