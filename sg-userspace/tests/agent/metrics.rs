//! The figures that the agent serves, and who may have how much of them.

use std::{
    fs,
    io::{ErrorKind, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use crate::common::{
    agent::{Agent, LATER, answer, request, sample},
    netns::{Enforcer, answers, eventually},
    pair::{FAR, NEAR, Pair, web},
    require::require,
};

#[test]
fn figures_are_served_as_openmetrics_and_exported_alike() {
    require!(Root, Object);
    let (pair, enforcer) = (Pair::new(), Enforcer::new());
    let _server = pair.near.serve(NEAR, 8080);
    let definition = web("g", 8080) + &pair.interface("web", "[\"g\"]", "");
    let agent = Agent::start(&enforcer, &definition, &["--metrics", "127.0.0.1:0"]);
    let address = agent.metrics();
    let mut stream = pair.far.connect(NEAR, 8080).unwrap();
    assert!(answers(&mut stream));
    assert!(pair.far.connect_is_dropped(NEAR, 9090));

    let served = request(address, "GET", "/metrics");
    assert_eq!(served.status, 200);
    let kind = "content-type: application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert!(served.head.contains(kind), "{}", served.head);
    check_openmetrics(&served.body);
    let labels = format!("{{device=\"eth0\",netns=\"{}\"}}", pair.near.name);
    let available = format!("node_ethtool_conntrack_allowance_available{labels}");
    assert_eq!(sample(&served.body, &available), Some(262_143));
    let exceeded = format!("node_ethtool_conntrack_allowance_exceeded{labels}");
    assert_eq!(sample(&served.body, &exceeded), Some(0));
    let tracked = "sgctl_conntrack_tracked{interface=\"web\"}";
    assert_eq!(sample(&served.body, tracked), Some(1));
    let dropped =
        "sgctl_packets_dropped_total{interface=\"web\",direction=\"ingress\",reason=\"no_rule\"}";
    let before = sample(&served.body, dropped);
    assert!(before >= Some(1));
    assert!(!served.body.contains(&FAR.to_string()), "no remote address");

    // Neighbour discovery goes on: two readings may differ once, but not for ever.
    eventually("equal figures", || {
        request(address, "GET", "/metrics").body == enforcer.sgctl(&["export"]).ok().out
    });
    assert!(pair.far.connect_is_dropped(NEAR, 9090));
    let after = sample(&request(address, "GET", "/metrics").body, dropped);
    assert!(after > before, "{after:?} {before:?}");

    let hint = request(address, "GET", "/");
    assert_eq!(hint.status, 200);
    assert_eq!(hint.body.lines().count(), 1);
    assert!(hint.body.contains("/metrics"));
    assert_eq!(request(address, "GET", "/etc/passwd").status, 404);
    assert_eq!(request(address, "POST", "/metrics").status, 405);
}

#[test]
fn n6_idle_clients_do_not_keep_others_from_the_figures() {
    require!(Root, Object);
    let (pair, enforcer) = (Pair::new(), Enforcer::new());
    let definition = web("g", 8080) + &pair.interface("web", "[\"g\"]", "");
    let agent = Agent::start(&enforcer, &definition, &["--metrics", "127.0.0.1:0"]);
    let address = agent.metrics();
    let start = Instant::now();
    let mut idle: Vec<TcpStream> = (0..16)
        .map(|_| TcpStream::connect(address).unwrap())
        .collect();
    // One byte now and then is no more than none.
    idle[0].write_all(b"G").unwrap();
    let mut waiting = TcpStream::connect(address).unwrap();
    write!(waiting, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    waiting
        .set_read_timeout(Some(Duration::from_millis(300)))
        .unwrap();
    let early = waiting.read(&mut [0; 1]);
    assert!(
        early.is_err_and(|error| error.kind() == ErrorKind::WouldBlock),
        "the seventeenth is not served beside sixteen"
    );
    waiting.set_read_timeout(Some(LATER)).unwrap();
    assert_eq!(answer(&mut waiting).status, 200);
    for stream in &mut idle {
        stream.set_read_timeout(Some(LATER)).unwrap();
        // Whatever the server has said, it has hung up.
        assert!(stream.read_to_end(&mut Vec::new()).is_ok());
    }
    assert!(start.elapsed() < LATER);
    assert_eq!(request(address, "GET", "/metrics").status, 200);
}

#[test]
fn clients_that_do_not_wait_start_no_more_than_one_reading() {
    require!(Root, Object);
    let (pair, enforcer) = (Pair::new(), Enforcer::new());
    let definition = web("g", 8080) + &pair.interface("web", "[\"g\"]", "");
    let agent = Agent::start(&enforcer, &definition, &["--metrics", "127.0.0.1:0"]);
    let threads = || {
        let tasks = format!("/proc/{}/task", agent.pid());
        fs::read_dir(tasks).unwrap().count()
    };
    let (before, address) = (threads(), agent.metrics());
    let most = (0..200).map(|_| {
        let mut stream = TcpStream::connect(address).unwrap();
        write!(stream, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        // Time for the server to begin, and none to end.
        thread::sleep(Duration::from_millis(2));
        drop(stream);
        threads()
    });
    let most = most.max().unwrap();
    assert!(
        most <= before + 8,
        "{most} threads, {before} before the clients came"
    );
    assert_eq!(request(address, "GET", "/metrics").status, 200);
}

#[test]
fn n6_figures_for_everybody_need_permission() {
    require!(Root, Object);
    let (pair, enforcer) = (Pair::new(), Enforcer::new());
    let definition = web("g", 8080) + &pair.interface("web", "[\"g\"]", "");
    fs::write(&enforcer.file, &definition).unwrap();
    let file = enforcer.file.to_str().unwrap().to_owned();
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:9464"] {
        enforcer
            .sgctl(&["run", &file, "--metrics", address])
            .fails(&[address, "--metrics-public"]);
    }
    assert!(!enforcer.context.bpffs.exists(), "nothing was attached");
    let agent = Agent::start(
        &enforcer,
        &definition,
        &["--metrics", "0.0.0.0:0", "--metrics-public"],
    );
    let mut address = agent.metrics();
    address.set_ip(IpAddr::V4(Ipv4Addr::LOCALHOST));
    assert_eq!(request(address, "GET", "/metrics").status, 200);
}

/// The rules of OpenMetrics 1.0, "Text format", as far as they concern gauges, counters and unknown
/// metrics: families are declared, whole and in one piece, samples named after their type, series
/// unique, values numbers, and the end is marked.
pub(crate) fn check_openmetrics(text: &str) {
    let body = text.strip_suffix("# EOF\n").expect("an end mark");
    assert!(!body.contains("# EOF"), "one end mark");
    let (mut families, mut series) = (Vec::new(), Vec::new());
    let mut family: Option<(&str, &str)> = None;
    for line in body.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            assert!(help.split_once(' ').is_some(), "{line}");
            continue;
        }
        if let Some(declared) = line.strip_prefix("# TYPE ") {
            let (name, kind) = declared.split_once(' ').unwrap();
            assert!(["gauge", "counter", "unknown"].contains(&kind), "{line}");
            assert!(!families.contains(&name), "{name} stands twice");
            families.push(name);
            family = Some((name, kind));
            continue;
        }
        assert!(!line.starts_with('#'), "{line}");
        let (name, kind) = family.expect("a sample follows its declaration");
        let (one, value) = line.rsplit_once(' ').unwrap();
        value.parse::<u64>().unwrap();
        let (sample, labels) = match one.split_once('{') {
            Some((sample, labels)) => (sample, labels.strip_suffix('}').expect("a brace")),
            None => (one, ""),
        };
        let suffix = if kind == "counter" { "_total" } else { "" };
        assert_eq!(sample, format!("{name}{suffix}"), "{line}");
        for label in labels.split(',').filter(|label| !label.is_empty()) {
            let (key, value) = label.split_once('=').unwrap();
            assert!(key.bytes().all(|byte| byte.is_ascii_lowercase()), "{line}");
            assert!(value.starts_with('"') && value.ends_with('"'), "{line}");
        }
        assert!(!series.contains(&one), "{one} stands twice");
        series.push(one);
    }
    assert!(!series.is_empty());
}
