//! A change that ends anywhere is made or not, and what it leaves is put right by the next one.

use std::{
    fs,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use crate::{
    attempt::{LATER, begin, generation, open, opens, status},
    common::{
        netns::{Enforcer, answers, eventually_within},
        pair::{NEAR, Pair, web},
        require::require,
    },
};

/// Kills; each ends at another point of a change.
const KILLS: u64 = 12;

#[test]
fn a_change_that_was_killed_anywhere_is_taken_back_in_time() {
    require!(Root, Object);
    let (pair, enforcer) = (Pair::new(), Enforcer::new());
    let _servers = [8080, 9090].map(|port| pair.near.serve(NEAR, port));
    let interface = pair.interface("a", "[\"g\"]", "");
    let (good, tried) = (web("g", 8080) + &interface, web("g", 9090) + &interface);
    enforcer.apply(&good, &[]).ok();
    let mut stream = open(&pair, 8080);
    let start = Instant::now();
    enforcer.apply(&good, &[]).ok();
    let whole = start.elapsed();
    let mut tried_in_force = 0;
    for kill in 0..KILLS {
        let before = generation(&enforcer);
        let mut attempt = begin(&enforcer, &tried, &["--confirm-within=1s"]);
        thread::sleep(whole * kill as u32 / KILLS as u32);
        attempt.kill().unwrap();
        attempt.wait().unwrap();
        let now = generation(&enforcer);
        tried_in_force += u32::from(now > before);
        assert!(answers(&mut stream));
        eventually_within(LATER, "the end of the attempt", || {
            status(&enforcer)["pending"].is_null()
        });
        assert!(generation(&enforcer) == before || generation(&enforcer) == before + 2);
        assert!(opens(&pair, 8080), "kill {kill}");
        assert!(!opens_at_once(&pair, 9090), "kill {kill}");
        if kill % 4 == 3 {
            enforcer.apply(&good, &[]).ok();
            assert_eq!(status(&enforcer)["warnings"], serde_json::json!([]));
            assert!(opens(&pair, 8080));
        }
        assert!(answers(&mut stream));
    }
    println!("{tried_in_force} of {KILLS} attempts were in force when they were killed");
    assert!(
        tried_in_force < KILLS as u32,
        "none was killed before the change"
    );
}

/// One attempt that need not be waited for long: a namespace answers in well under this time.
fn opens_at_once(pair: &Pair, port: u16) -> bool {
    let address = std::net::SocketAddr::from((NEAR, port));
    let time = Duration::from_millis(300);
    let connect = || std::net::TcpStream::connect_timeout(&address, time);
    pair.far.run(connect).is_ok()
}

/// A file system of a few pages, unmounted at the end.
struct Small<'a>(&'a Path);

impl<'a> Small<'a> {
    fn mount(path: &'a Path) -> Self {
        fs::create_dir(path).unwrap();
        let place = path.to_str().unwrap();
        let arguments = ["-t", "tmpfs", "-o", "size=1m,mode=0700", "none", place];
        let done = Command::new("mount").args(arguments).status().unwrap();
        assert!(done.success());
        Self(path)
    }

    /// Leaves this much room.
    fn leave(&self, room: usize) {
        let filler = self.0.join("filler");
        let _ = fs::remove_file(&filler);
        let mut bytes = 1 << 20;
        while fs::write(&filler, vec![1; bytes]).is_err() {
            bytes -= 1024;
        }
        fs::write(&filler, vec![1; bytes.saturating_sub(room)]).unwrap();
    }
}

impl Drop for Small<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}

#[test]
fn a_full_disk_leaves_the_generation_before_in_force() {
    require!(Root, Object);
    let (pair, enforcer) = (Pair::new(), Enforcer::new());
    let _servers = [8080, 9090].map(|port| pair.near.serve(NEAR, port));
    let interface = pair.interface("a", "[\"g\"]", "");
    let (good, tried) = (web("g", 8080) + &interface, web("g", 9090) + &interface);
    // As many rules as take some pages in each file.
    let many: String = (1..200)
        .map(|port| format!("{{ protocol = \"tcp\", ports = {port}, cidr = \"192.0.2.0/24\" }},\n"))
        .collect();
    let tried = tried.replace("ingress = [", &format!("ingress = [\n{many}"));
    let state_dir = enforcer.context.state_dir.clone();
    let disk = Small::mount(&state_dir);
    enforcer.apply(&good, &[]).ok();
    let mut stream = open(&pair, 8080);
    let (mut refused, mut done) = (0, 0);
    for pages in (0..40).step_by(4) {
        for arguments in [&[][..], &["--confirm-within=5m"]] {
            disk.leave(pages * 4096);
            let said = enforcer.apply(&tried, arguments);
            if said.code == 0 {
                done += 1;
                assert!(opens(&pair, 9090));
            } else {
                refused += 1;
                assert!(!said.err.contains("could not be taken back"), "{said:?}");
                assert!(said.err.contains("o space left"), "{said:?}");
                assert!(opens(&pair, 8080), "{pages} pages: {said:?}");
                assert!(!opens_at_once(&pair, 9090), "{pages} pages: {said:?}");
            }
            assert!(answers(&mut stream));
            disk.leave(512 << 10);
            if said.code == 0 && !arguments.is_empty() {
                enforcer.sgctl(&["rollback"]).ok();
            }
            enforcer.apply(&good, &[]).ok();
            assert!(opens(&pair, 8080));
            assert_eq!(status(&enforcer)["warnings"], serde_json::json!([]));
        }
    }
    assert!(refused > 2 && done > 2, "{refused} refused, {done} done");
    drop(disk);
}
