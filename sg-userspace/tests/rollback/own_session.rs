//! A change that would cut the connection it is given over is asked about.

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::fd::{FromRawFd as _, OwnedFd},
    process::{Command, Stdio},
};

use crate::common::{
    netns::{Answer, Enforcer, answers},
    pair::{FAR, NEAR, Pair, web},
    require::require,
};

/// A connection from the far end to port 22 of the near one, and its two sockets.
fn session(pair: &Pair) -> (TcpStream, TcpStream) {
    let listener = pair.near.run(|| TcpListener::bind((NEAR, 22))).unwrap();
    let client = pair.far.run(|| TcpStream::connect((NEAR, 22))).unwrap();
    let (server, _) = listener.accept().unwrap();
    // It goes on listening, as sshd does.
    std::mem::forget(listener);
    (client, server)
}

/// `sgctl apply` inside the near namespace, as the child of a shell whose standard input is `input`.
fn below_a_shell(
    pair: &Pair,
    enforcer: &Enforcer,
    definition: &str,
    arguments: &[&str],
    input: Stdio,
) -> Answer {
    fs::write(&enforcer.file, definition).unwrap();
    let mut all = vec!["apply", enforcer.file.to_str().unwrap()];
    all.extend(arguments);
    let sgctl = enforcer.command(&all);
    let mut shell = Command::new("sh");
    shell.args(["-c", "\"$@\" < /dev/null; exit $?", "sh"]);
    shell.arg(sgctl.get_program()).args(sgctl.get_args());
    shell.env_remove("SSH_CONNECTION").stdin(input);
    Answer::from(pair.near.run(move || shell.output()).unwrap())
}

fn socket(stream: &TcpStream) -> Stdio {
    Stdio::from(OwnedFd::from(stream.try_clone().unwrap()))
}

fn ssh(more: &str) -> String {
    let egress = "egress = []\n";
    format!(
        "[groups.g]\n{more}ingress = [{{ protocol = \"tcp\", ports = 22, cidr = \"{FAR}/32\" }}]\n{egress}"
    )
}

#[test]
fn what_would_cut_the_own_session_is_refused() {
    require!(Root, Object);
    let (pair, enforcer) = (Pair::new(), Enforcer::new());
    let interface = pair.interface("a", "[\"g\"]", "");
    let (mut client, server) = session(&pair);
    let mut echo = server.try_clone().unwrap();
    std::thread::spawn(move || {
        let mut bytes = [0; 64];
        while let Ok(read @ 1..) = echo.read(&mut bytes) {
            if echo.write_all(&bytes[..read]).is_err() {
                return;
            }
        }
    });
    let apply = |definition: &str, arguments: &[&str]| {
        let definition = definition.to_owned() + &interface;
        below_a_shell(&pair, &enforcer, &definition, arguments, socket(&server))
    };
    // Not yet attached: taken over, but not to be had again.
    let said = apply(&web("g", 8080), &[]);
    said.fails(&[
        "a, could not be opened again",
        "10.77.0.1:22",
        "nothing was changed",
        "--yes",
    ]);
    assert!(!enforcer.context.bpffs.exists());
    // Nor taken over: cut, whatever the rules say.
    let said = apply(&ssh(""), &["--no-adopt"]);
    said.fails(&["would be cut", "nothing was changed"]);

    let said = apply(&ssh("on_revoke = \"reevaluate\"\n"), &[]).ok();
    assert!(!said.err.contains("connection"), "{said:?}");
    assert!(answers(&mut client));
    let said = apply(&web("g", 8080), &[]);
    said.fails(&["would be cut", "nothing was changed"]);
    assert!(answers(&mut client));

    // With a way back it is a warning.
    let said = apply(&web("g", 8080), &["--confirm-within=5m"]).ok();
    assert!(said.err.contains("would be cut"), "{said:?}");
    enforcer.sgctl(&["rollback"]).ok();
    assert!(answers(&mut client));
    let said = apply(&web("g", 8080), &["--yes"]).ok();
    assert!(!said.err.contains("would be cut"), "{said:?}");
    client
        .set_read_timeout(Some(crate::common::netns::NEVER))
        .unwrap();
    assert!(!answers(&mut client), "it was cut, as was said");
}

#[test]
fn a_session_to_an_address_of_another_device_comes_by_its_route() {
    require!(Root, Object);
    let (pair, enforcer) = (Pair::new(), Enforcer::new());
    let address = std::net::Ipv4Addr::new(10, 88, 0, 1);
    pair.near.ip(&format!("addr add {address}/32 dev lo"));
    pair.far.ip(&format!("route add {address}/32 via {NEAR}"));
    let listener = pair.near.run(|| TcpListener::bind((address, 22))).unwrap();
    let _client = pair.far.run(|| TcpStream::connect((address, 22))).unwrap();
    let (server, _) = listener.accept().unwrap();
    let definition = web("g", 8080) + &pair.interface("a", "[\"g\"]", "");
    let said = below_a_shell(&pair, &enforcer, &definition, &[], socket(&server));
    said.fails(&["10.88.0.1:22", "by interface a", "nothing was changed"]);
}

#[test]
fn somebody_elses_session_is_nobodys_business() {
    require!(Root, Object);
    let (pair, enforcer) = (Pair::new(), Enforcer::new());
    let interface = pair.interface("a", "[\"g\"]", "");
    let _session = session(&pair);
    let definition = web("g", 8080) + &interface;
    below_a_shell(&pair, &enforcer, &definition, &[], Stdio::null()).ok();
}

/// The two ends of a terminal.
fn terminal() -> (File, OwnedFd) {
    let (mut master, mut slave) = (-1, -1);
    // SAFETY: two places for descriptors; no name, no settings.
    let done = unsafe {
        libc::openpty(
            &raw mut master,
            &raw mut slave,
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            std::ptr::null_mut(),
        )
    };
    assert_eq!(done, 0);
    // SAFETY: nobody else owns them.
    unsafe { (File::from_raw_fd(master), OwnedFd::from_raw_fd(slave)) }
}

#[test]
fn on_a_terminal_it_is_asked() {
    require!(Root, Object);
    let (pair, enforcer) = (Pair::new(), Enforcer::new());
    let interface = pair.interface("a", "[\"g\"]", "");
    let (client, _server) = session(&pair);
    let port = client.local_addr().unwrap().port();
    fs::write(&enforcer.file, web("g", 8080) + &interface).unwrap();
    for (answer, code) in [("n", 2), ("", 2), ("y", 0)] {
        let (mut master, slave) = terminal();
        let mut command = enforcer.command(&["apply", enforcer.file.to_str().unwrap()]);
        command
            .env("SSH_CONNECTION", format!("{FAR} {port} {NEAR} 22"))
            .stdin(slave.try_clone().unwrap())
            .stderr(slave.try_clone().unwrap())
            .stdout(Stdio::piped());
        let mut child = pair.near.run(move || command.spawn()).unwrap();
        drop(slave);
        master.write_all(format!("{answer}\n").as_bytes()).unwrap();
        let mut said = Vec::new();
        // EIO at the end of a terminal.
        let _ = master.read_to_end(&mut said);
        let said = String::from_utf8_lossy(&said).into_owned();
        assert_eq!(child.wait().unwrap().code(), Some(code), "{said}");
        assert!(
            said.contains("could not be opened again") && said.contains("[y/N]"),
            "{said}"
        );
        assert_eq!(enforcer.context.bpffs.exists(), code == 0);
    }
}
