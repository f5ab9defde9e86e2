//! What a run that was ended from outside left behind: pinned maps hold memory until somebody
//! removes them.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::process;

/// How everything is called that a run makes outside of `target`: this and its process id.
const PREFIX: &str = "sgbench-";
/// Where pins, state and named network namespaces are.
const PLACES: [&str; 3] = ["/sys/fs/bpf", "/run", "/run/netns"];

/// Removes what is left of processes that are gone.
pub(crate) fn remove() {
    for place in PLACES.map(Path::new) {
        let Ok(names) = fs::read_dir(place) else {
            continue;
        };
        let names = names.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        for name in names.filter(|name| owner(name).is_some_and(is_gone)) {
            eprintln!("removing {}", place.join(&name).display());
            if place.ends_with("netns") {
                let _ = process::run(Command::new("ip").args(["netns", "delete", &name]));
            } else {
                let _ = fs::remove_dir_all(place.join(&name));
            }
        }
    }
}

/// The process that made something, by its name.
fn owner(name: &str) -> Option<u32> {
    let rest = name.strip_prefix(PREFIX)?;
    rest.split('-').next()?.parse().ok()
}

fn is_gone(process: u32) -> bool {
    !Path::new("/proc").join(process.to_string()).exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_process_that_is_gone_has_made_is_left_over() {
        assert_eq!(owner("sgbench-123-4"), Some(123));
        assert_eq!(owner("sgbench-123"), Some(123));
        assert_eq!(owner("sgbench-x"), None);
        assert_eq!(owner("sg-123"), None);
        assert!(!is_gone(std::process::id()));
        // Beyond the greatest process id of Linux (PID_MAX_LIMIT, 2²²).
        assert!(is_gone(1 << 23));
    }
}
