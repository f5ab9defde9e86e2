//! `sgctl ct`: tracked flows.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    process::ExitCode,
};

use clap::Subcommand;
use sg_userspace::{
    flows::{self, Side, TrackedFlow, protocol_name},
    session::Context,
};

use super::text::print_json;

/// Look at tracked flows.
#[derive(clap::Args)]
pub(crate) struct Ct {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    List(List),
}

/// List the connections that are tracked now.
///
/// One a line: interface, protocol and state, the workload's end, an arrow from the side that
/// opened it to the other, the other end, and how long it lasts if nothing more comes. Then, where it
/// applies:
///
/// "unassured": not both sides have answered; such a flow makes room for others when that is scarce.
///
/// "adopted": TCP taken up in its middle: at attachment, by hand-over (it was untracked until a
/// change) or by `tcp_loose`.
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

impl Ct {
    pub(crate) fn run(&self, context: &Context) -> anyhow::Result<ExitCode> {
        let Command::List(list) = &self.command;
        let flows = flows::list(context, list.interface.as_deref())?;
        if list.json {
            print_json(&flows)?;
        } else {
            let mut out = io::stdout().lock();
            for flow in &flows {
                print(&mut out, flow)?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn print(out: &mut impl io::Write, flow: &TrackedFlow) -> io::Result<()> {
    let protocol = match protocol_name(flow.protocol) {
        "other" => flow.protocol.to_string(),
        name => name.to_owned(),
    };
    let arrow = match flow.opened_by {
        Side::Local => "->",
        Side::Remote => "<-",
    };
    write!(
        out,
        "{} {protocol} {} {} {arrow} {} expires {:.0}s",
        flow.interface,
        flow.state,
        end(flow.local, flow.local_port),
        end(flow.remote, flow.remote_port),
        flow.expires_seconds
    )?;
    if !flow.assured {
        write!(out, " unassured")?;
    }
    if flow.adopted {
        write!(out, " adopted")?;
    }
    if let Some(traffic) = flow.traffic {
        write!(
            out,
            " in {}/{}B out {}/{}B",
            traffic.ingress_packets,
            traffic.ingress_bytes,
            traffic.egress_packets,
            traffic.egress_bytes
        )?;
    }
    writeln!(out)
}

/// Port 0 stands for a protocol without ports.
fn end(address: IpAddr, port: u16) -> String {
    match port {
        0 => address.to_string(),
        port => SocketAddr::new(address, port).to_string(),
    }
}
