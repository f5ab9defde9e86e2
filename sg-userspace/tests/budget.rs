//! No program costs more than `sg-ebpf/budget.toml` allows.

mod common;
#[path = "budget/footprint.rs"]
#[allow(dead_code, reason = "blessing is for `cargo xtask bench`")]
mod footprint;

use std::{fs, path::Path};

use common::{netns::Enforcer, require::require};
use footprint::Budget;
use sg_userspace::{model::Conntrack, object, session::Session, state::Lock};

#[test]
fn l10_no_program_exceeds_its_budget() {
    require!(Root, Object);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sg-ebpf/budget.toml");
    let budget: Budget = toml::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let enforcer = Enforcer::new();
    let lock = Lock::take(&enforcer.context.state_dir).unwrap();
    let session = Session::create(&enforcer.context, &lock, Conntrack::default()).unwrap();
    let found = footprint::measure(&session).unwrap();
    println!("{found:#?}");
    let flavour = footprint::flavour(object::bytes().unwrap());
    let over = footprint::exceeding(&found, flavour, &budget);
    assert!(
        over.is_empty(),
        "{}\nif it is worth it: cargo xtask bench --bless-budget",
        over.join("\n")
    );
}
