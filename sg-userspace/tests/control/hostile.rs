//! What others may have put there: definition files, directories, links, names.

use std::{
    ffi::OsStr,
    fs::{self, Permissions},
    os::unix::{
        ffi::OsStrExt as _,
        fs::{PermissionsExt as _, chown, symlink},
    },
    path::{Path, PathBuf},
    process::Command,
};

use crate::common::{
    netns::{Answer, Enforcer, unique},
    pair::{NEAR, Pair, web},
    require::require,
};

/// Two users of nobody.
const STRANGER: u32 = 65_534;
const OPERATOR: u32 = 54_321;

/// A directory of the test's own, of root.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        let path = PathBuf::from("/run").join(unique("hostile"));
        fs::create_dir(&path).unwrap();
        mode(&path, 0o755);
        Self(path)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn directory(&self, name: &str) -> PathBuf {
        let path = self.at(name);
        fs::create_dir(&path).unwrap();
        mode(&path, 0o755);
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn give(path: &Path, user: u32) {
    std::os::unix::fs::lchown(path, Some(user), Some(user)).unwrap();
}

fn apply(enforcer: &Enforcer, path: &Path, arguments: &[&str]) -> Answer {
    let mut all = vec!["apply", path.to_str().unwrap()];
    all.extend(arguments);
    enforcer.sgctl(&all)
}

#[test]
fn n4_files_that_others_could_have_written_define_nothing() {
    require!(Root, Object);
    let (pair, enforcer, scratch) = (Pair::new(), Enforcer::new(), Scratch::new());
    let definition = web("g", 8080) + &pair.interface("a", "[\"g\"]", "");
    let write = |path: &Path| {
        fs::write(path, &definition).unwrap();
        mode(path, 0o644);
    };
    let refuses = |path: &Path, words: &[&str]| {
        let said = apply(&enforcer, path, &[]);
        said.fails(&[&["is not taken for a definition", "--trust-files"], words].concat());
        assert!(!enforcer.context.bpffs.exists(), "{}", path.display());
        // Whether it is valid may still be asked.
        enforcer.sgctl(&["check", path.to_str().unwrap()]).ok();
    };
    let file = scratch.at("a.toml");
    write(&file);
    for open in [0o664, 0o646, 0o666] {
        mode(&file, open);
        refuses(&file, &["writable by its group or by others"]);
    }
    mode(&file, 0o644);
    give(&file, STRANGER);
    refuses(&file, &["belongs to uid 65534"]);
    give(&file, 0);

    // By a directory that others can write, however far up, and by whatever way.
    let below = scratch.directory("open");
    let inner = below.join("inner");
    fs::create_dir(&inner).unwrap();
    mode(&inner, 0o755);
    let inside = inner.join("a.toml");
    write(&inside);
    let link = scratch.at("link.toml");
    symlink(&inside, &link).unwrap();
    let dots = inner.join("../../a.toml");
    for open in [0o775, 0o757] {
        mode(&below, open);
        for path in [&inside, &link, &dots, &inner] {
            refuses(
                path,
                &["open belongs to somebody else, or is writable by others"],
            );
        }
    }
    mode(&below, 0o755);
    give(&below, STRANGER);
    refuses(&inside, &["open belongs to somebody else"]);
    give(&below, 0);

    // A directory of files is what whoever can write it says.
    mode(&inner, 0o1777);
    refuses(&inner, &["writable by its group or by others"]);
    mode(&inner, 0o755);
    let planted = inner.join("b.toml");
    fs::write(&planted, "").unwrap();
    give(&planted, STRANGER);
    refuses(&inner, &["b.toml", "belongs to uid 65534"]);
    fs::remove_file(&planted).unwrap();
    // Where all may write, a link is its owner's.
    mode(&below, 0o1777);
    let planted = below.join("planted.toml");
    symlink(&file, &planted).unwrap();
    give(&planted, STRANGER);
    refuses(&planted, &["planted.toml", "belongs to uid 65534"]);

    for path in [&file, &inside, &link, &inner] {
        apply(&enforcer, path, &[]).ok();
        enforcer.sgctl(&["detach", "--all"]).ok();
    }
    mode(&file, 0o666);
    apply(&enforcer, &file, &["--trust-files"]).ok();
}

#[test]
fn n4_what_is_no_file_is_refused_at_once() {
    require!(Root, Object);
    let (enforcer, scratch) = (Enforcer::new(), Scratch::new());
    let fifo = scratch.at("fifo.toml");
    assert!(
        Command::new("mkfifo")
            .arg(&fifo)
            .status()
            .unwrap()
            .success()
    );
    mode(&fifo, 0o644);
    apply(&enforcer, &fifo, &[]).fails(&["fifo.toml is a FIFO"]);
    apply(&enforcer, &scratch.0, &[]).fails(&["holds no definition file"]);
    apply(&enforcer, Path::new("/dev/zero"), &["--trust-files"]).fails(&["is a device"]);
    apply(&enforcer, &scratch.at("missing"), &[]).fails(&[
        "cannot read",
        "missing",
        "No such file",
    ]);
    symlink("loop.toml", scratch.at("loop.toml")).unwrap();
    apply(&enforcer, &scratch.at("loop.toml"), &[]).fails(&["symbolic links"]);
}

#[test]
fn n4_the_user_behind_sudo_is_trusted_and_nobody_else() {
    require!(Root, Object);
    let (pair, enforcer, scratch) = (Pair::new(), Enforcer::new(), Scratch::new());
    let home = scratch.directory("home");
    let file = home.join("my.toml");
    let definition = web("g", 8080) + &pair.interface("a", "[\"g\"]", "");
    fs::write(&file, definition).unwrap();
    mode(&file, 0o644);
    for path in [&home, &file] {
        chown(path, Some(OPERATOR), None).unwrap();
    }
    let as_root_for = |user: &str| {
        let mut command = enforcer.command(&["apply", file.to_str().unwrap()]);
        Answer::from(command.env("SUDO_UID", user).output().unwrap())
    };
    apply(&enforcer, &file, &[]).fails(&["belongs to somebody else"]);
    for other in ["65534", "x", "-1", ""] {
        as_root_for(other).fails(&["belongs to somebody else"]);
    }
    as_root_for(&OPERATOR.to_string()).ok();
}

#[test]
fn n1_directories_on_an_open_way_are_refused() {
    require!(Root, Object);
    let (pair, mut enforcer, scratch) = (Pair::new(), Enforcer::new(), Scratch::new());
    let definition = web("g", 8080) + &pair.interface("a", "[\"g\"]", "");
    let (own_state, own_pins) = (
        enforcer.context.state_dir.clone(),
        enforcer.context.bpffs.clone(),
    );
    let open = scratch.directory("open");
    let private = open.join("private");
    fs::create_dir(&private).unwrap();
    mode(&private, 0o700);
    mode(&open, 0o777);
    enforcer.context.state_dir = private.join("state");
    enforcer
        .apply(&definition, &[])
        .fails(&["open belongs to somebody else, or is writable"]);
    assert!(!private.join("state").exists());
    mode(&open, 0o755);
    // The directory itself is never a link, whoever's.
    let link = scratch.at("link");
    symlink(&private, &link).unwrap();
    enforcer.context.state_dir = link;
    enforcer.apply(&definition, &[]).fails(&["symbolic link"]);
    // One on the way may be, where nobody else can switch it.
    symlink("open", scratch.at("way")).unwrap();
    enforcer.context.state_dir = scratch.at("way").join("private/state");
    enforcer.apply(&definition, &[]).ok();
    enforcer.sgctl(&["detach", "--all"]).ok();

    // What is in the directory is not followed either.
    enforcer.context.state_dir.clone_from(&own_state);
    for name in ["lock", "state.json"] {
        fs::create_dir_all(&own_state).unwrap();
        mode(&own_state, 0o700);
        let target = scratch.at("target");
        fs::write(&target, "precious").unwrap();
        symlink(&target, own_state.join(name)).unwrap();
        let said = enforcer.apply(&definition, &[]);
        if name == "lock" {
            said.fails(&["cannot open", "lock"]);
        }
        assert_eq!(fs::read_to_string(&target).unwrap(), "precious", "{name}");
        let _ = enforcer.sgctl(&["detach", "--all"]);
        fs::remove_dir_all(&own_state).unwrap();
    }

    // The same below a BPF file system that all may write, as one is when it is fresh.
    let theirs = own_pins.with_file_name(unique("theirs"));
    fs::create_dir(&theirs).unwrap();
    mode(&theirs, 0o777);
    enforcer.context.bpffs = theirs.join("pins");
    let said = enforcer.apply(&definition, &[]);
    mode(&theirs, 0o1777);
    let accepted = enforcer.apply(&definition, &[]);
    enforcer.sgctl(&["detach", "--all"]).ok();
    // Somebody was first.
    fs::create_dir(theirs.join("pins")).unwrap();
    mode(&theirs.join("pins"), 0o700);
    give(&theirs.join("pins"), STRANGER);
    let squatted = enforcer.apply(&definition, &[]);
    fs::remove_dir(theirs.join("pins")).unwrap();
    // And a directory inside that is not root's.
    fs::create_dir_all(enforcer.context.bpffs.join("links")).unwrap();
    mode(&enforcer.context.bpffs, 0o700);
    let root = sg_userspace::pin::Pins::new(&enforcer.context.bpffs)
        .root()
        .to_owned();
    fs::create_dir_all(root.join("links")).unwrap();
    mode(&root, 0o700);
    mode(&root.join("links"), 0o777);
    let inside = enforcer.apply(&definition, &[]);
    let _ = fs::remove_dir_all(&theirs);
    enforcer.context.bpffs = own_pins;
    said.fails(&["theirs belongs to somebody else, or is writable by others"]);
    accepted.ok();
    squatted.fails(&["uid 65534"]);
    inside.fails(&["links is a directory of uid 0 with mode 0777"]);
}

#[test]
fn l16_n8_names_do_not_reach_the_terminal_as_they_are() {
    require!(Root, Object);
    let (pair, mut enforcer, scratch) = (Pair::new(), Enforcer::new(), Scratch::new());
    let hostile = "x\x1b[2J\u{9b}31m\u{202e}\r\n\u{7}.toml";
    let directory = scratch.directory("d\x1b]0;title\x07");
    let file = directory.join(hostile);
    fs::write(&file, "[groups.g]\ningress = 5\n\"a\x1b[31mb\" = 1\n").unwrap();
    mode(&file, 0o644);
    let harmless = |said: &Answer, what: &str| {
        for text in [&said.out, &said.err] {
            let bad =
                |c: &char| *c != '\n' && (c.is_control() || matches!(c, '\u{202a}'..='\u{202e}'));
            assert_eq!(text.chars().find(bad), None, "{what}: {text:?}");
        }
        assert!(
            !said.out.is_empty() || !said.err.is_empty(),
            "{what} says nothing"
        );
    };
    for arguments in [&["check"][..], &["check", "--json"], &["apply"], &["run"]] {
        for path in [&directory, &file] {
            let mut all = arguments.to_vec();
            all.push(path.to_str().unwrap());
            let said = enforcer.sgctl(&all);
            assert_ne!(said.code, 0);
            harmless(&said, arguments[0]);
        }
    }
    // Bytes that are no text at all.
    let bytes = directory.join(OsStr::from_bytes(b"\xff\x1b[2J.toml"));
    fs::write(&bytes, "x = ").unwrap();
    mode(&bytes, 0o644);
    let output = enforcer.command(&["apply"]).arg(&bytes).output().unwrap();
    harmless(&Answer::from(output), "apply");
    let missing = directory.join("missing\x1b[2J");
    harmless(&enforcer.sgctl(&["run", missing.to_str().unwrap()]), "run");
    harmless(&enforcer.sgctl(&["stats", "\x1b[2J"]), "stats");

    // Where the enforcer's own things are.
    let own = enforcer.context.state_dir.clone();
    let state_dir = scratch.at("state\x1b[2J");
    enforcer.context.state_dir.clone_from(&state_dir);
    let definition = web("g", 8080) + &pair.interface("a", "[\"g\"]", "");
    enforcer.apply(&definition, &[]).ok();
    let _server = pair.near.serve(NEAR, 8080);
    pair.far.connect(NEAR, 8080).unwrap();
    for arguments in [
        &["status"][..],
        &["status", "--json"],
        &["stats"],
        &["stats", "--json"],
        &["stats", "--rules"],
        &["ct", "list"],
        &["ct", "list", "--json"],
        &["ct", "summary"],
        &["export"],
        &["wait", "a"],
    ] {
        let said = enforcer.sgctl(arguments).ok();
        harmless(&said, arguments[0]);
        if arguments.contains(&"--json") {
            serde_json::from_str::<serde_json::Value>(&said.out).unwrap();
        }
    }
    fs::remove_file(state_dir.join("state.json")).unwrap();
    harmless(&enforcer.sgctl(&["status"]), "status");
    harmless(&enforcer.sgctl(&["detach", "--all"]), "detach");
    enforcer.context.state_dir = own;
}

/// Whoever administers a namespace names its devices; that must not keep the host from changing its rules.
#[test]
fn l16_names_of_devices_that_are_no_text_keep_nothing_from_coming_into_force() {
    require!(Root, Object);
    let (pair, enforcer) = (Pair::new(), Enforcer::new());
    let _server = pair.near.serve(NEAR, 8080);
    let ip = |arguments: &[&[u8]]| {
        let arguments = arguments.iter().map(|argument| OsStr::from_bytes(argument));
        let done = pair
            .near
            .run(|| Command::new("ip").args(arguments).output());
        assert!(done.as_ref().unwrap().status.success(), "{done:?}");
    };
    let name = b"x\xff\x1b[2J";
    ip(&[b"link", b"add", name, b"type", b"bridge"]);
    ip(&[b"link", b"set", name, b"up"]);
    ip(&[b"addr", b"add", b"10.78.0.1/24", b"dev", name]);
    ip(&[b"link", b"set", b"eth0", b"alias", b"\xfe\x1b[2J"]);
    ip(&[
        b"addr",
        b"add",
        b"10.77.0.9/24",
        b"dev",
        b"eth0",
        b"label",
        b"eth0:\xff",
    ]);
    ip(&[
        b"link",
        b"property",
        b"add",
        b"dev",
        b"eth0",
        b"altname",
        b"\xff\xfe",
    ]);
    let definition = web("g", 8080) + &pair.interface("a", "[\"g\"]", "");
    enforcer.apply(&definition, &[]).ok();
    enforcer.sgctl(&["wait", "a", "--timeout", "0"]).ok();
    let status = enforcer.sgctl(&["status"]).ok();
    assert!(!status.out.contains("warning"), "{status:?}");
    assert!(pair.far.connect(NEAR, 8080).is_ok());
    assert!(pair.far.connect_is_dropped(NEAR, 9090));
}
