//! Real listening processes: each node's services are one process in its namespace, which says
//! back whatever it is told. The process is this program again, called `xtask serve`.

use std::env;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv6Addr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::thread;

use anyhow::{Context, Result, bail};

use super::attempt::What;
use super::topology::{Node, inside};
use crate::Answer;

/// What a process of services prints when it listens.
const READY: &str = "listening\n";

/// `xtask serve`, for this module alone.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// TCP port.
    #[arg(long)]
    tcp: Vec<u16>,
    /// UDP port.
    #[arg(long)]
    udp: Vec<u16>,
    /// Outlive the program that holds the other end of standard input.
    #[arg(long)]
    stay: bool,
}

/// A process of services; it ends when the demo does, unless it was told to stay.
pub(crate) struct Service {
    /// Its standard input is open as long as this lives.
    _child: Child,
}

impl Service {
    /// Starts a node's services and waits until they listen.
    ///
    /// # Errors
    /// If they do not.
    pub(crate) fn start(node: &Node, services: &[What], stay: bool) -> Result<Self> {
        let mut command = Command::new(env::current_exe().context("find this program")?);
        command.arg("serve");
        for service in services {
            match service {
                What::Tcp(port) => command.args(["--tcp", &port.to_string()]),
                What::Udp(port) => command.args(["--udp", &port.to_string()]),
                // The kernel answers.
                What::Ping => &mut command,
            };
        }
        if stay {
            // Whoever reads what the demo says must not wait for those who stay.
            command
                .arg("--stay")
                .stdin(Stdio::null())
                .stderr(Stdio::null());
        } else {
            command.stdin(Stdio::piped());
        }
        // Ctrl-C is for the demo alone, which ends the services in its turn.
        command.stdout(Stdio::piped()).process_group(0);
        let start = || format!("start the services of {}", node.name);
        let mut child = inside(&node.namespace, move || command.spawn())?.with_context(start)?;
        let mut line = String::new();
        if let Some(output) = child.stdout.take() {
            BufReader::new(output)
                .read_line(&mut line)
                .with_context(start)?;
        }
        if line != READY {
            bail!("the services of {} do not listen", node.name);
        }
        Ok(Self { _child: child })
    }
}

/// Carries out `xtask serve`.
pub(crate) fn serve(arguments: &Arguments) -> Result<Answer> {
    // Unless the system was told otherwise (ipv6(7), bindv6only), IPv4 comes to it too.
    let any = Ipv6Addr::UNSPECIFIED;
    for &port in &arguments.tcp {
        let listener =
            TcpListener::bind((any, port)).with_context(|| format!("listen on tcp {port}"))?;
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                thread::spawn(move || echo(stream));
            }
        });
    }
    for &port in &arguments.udp {
        let socket =
            UdpSocket::bind((any, port)).with_context(|| format!("listen on udp {port}"))?;
        thread::spawn(move || {
            let mut bytes = [0; 2048];
            loop {
                if let Ok((length, from)) = socket.recv_from(&mut bytes) {
                    // Who has gone needs no answer.
                    let _ = socket.send_to(&bytes[..length], from);
                }
            }
        });
    }
    let mut output = io::stdout().lock();
    output.write_all(READY.as_bytes()).context("say so")?;
    output.flush().context("say so")?;
    if arguments.stay {
        loop {
            thread::park();
        }
    }
    // Ends when the demo does, however it does.
    io::copy(&mut io::stdin().lock(), &mut io::sink()).context("wait for the end of the demo")?;
    Ok(Answer::Yes)
}

fn echo(mut stream: TcpStream) {
    let mut bytes = [0; 2048];
    while let Ok(length @ 1..) = stream.read(&mut bytes) {
        if stream.write_all(&bytes[..length]).is_err() {
            return;
        }
    }
}
