//! Size of the programs, and the budget it is kept within.

#[path = "../../../sg-userspace/tests/budget/footprint.rs"]
#[allow(dead_code, reason = "comparing is for the test")]
mod footprint;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use sg_userspace::model::Conntrack;
use sg_userspace::session::Session;
use sg_userspace::shape::Object;
use sg_userspace::state::Lock;

use footprint::{Budget, Footprints};

use super::program_cost::world::Place;
use super::report::{Figure, Findings};
use crate::ebpf::Flavour;
use crate::workspace;

/// Verified instructions, machine code and stack of every program.
pub(crate) fn measure() -> Result<Findings> {
    let (_, found) = load(Flavour::Measured)?;
    let mut figures = Vec::new();
    for (program, footprint) in found {
        for (what, value) in footprint.figures() {
            let (name, unit) = match what {
                "instructions" => ("instructions verified", ""),
                "jited" => ("machine code", "B"),
                _ => ("stack, of 512", "B"),
            };
            let name = format!("{program}, {name}");
            figures.push(Figure::new(
                "size of the programs",
                &name,
                unit,
                vec![f64::from(value)],
            ));
        }
    }
    Ok(Findings {
        figures,
        ..Findings::default()
    })
}

/// Takes what the programs are now as their budget, with log code and without.
pub(crate) fn bless() -> Result<()> {
    let path = file();
    let mut budget = Budget::new();
    for flavour in [Flavour::Measured, Flavour::Debug] {
        let (object, found) = load(flavour)?;
        footprint::bless(&found, footprint::flavour(object), &mut budget);
    }
    fs::write(&path, footprint::text(&budget))
        .with_context(|| format!("write {}", path.display()))?;
    println!("wrote {}", workspace::shown(&path));
    Ok(())
}

fn file() -> PathBuf {
    workspace::root().join("sg-ebpf/budget.toml")
}

/// The object of a flavour, and what its programs are once they are loaded.
fn load(flavour: Flavour) -> Result<(&'static [u8], Footprints)> {
    let path = flavour.place();
    let object = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
    let object: &'static [u8] = object.leak();
    let place = Place::new();
    let lock = Lock::take(&place.0.state_dir)?;
    let session = Session::create_from(
        Object::parse(object)?,
        &place.0,
        &lock,
        Conntrack::default(),
    )?;
    drop(lock);
    Ok((object, footprint::measure(&session)?))
}
