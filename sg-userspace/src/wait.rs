//! Waiting until an interface is enforced, for whoever wants to use it only then.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    thread,
    time::{Duration, Instant, SystemTime},
};

use sg_common::layout::interface_flags::PRESENT;

use crate::{
    link::Link,
    netns::Netns,
    session::Context,
    state::{self, Attached},
    status::{self, chain},
    view::{View, ViewError},
};

/// How often it is asked whether the state was replaced, which every change does. Costs a `stat`.
const ASK: Duration = Duration::from_millis(10);
/// How often everything is looked at, whatever the state says: a device or link may have gone.
const LOOK: Duration = Duration::from_millis(500);

/// How long is waited at most: longer than any machine runs, and not too long to reckon with.
const LONGEST: Duration = Duration::from_secs(50 * 365 * 24 * 3600);

/// What waiting came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waited {
    /// Both directions of it are judged, by this generation.
    Enforced {
        /// Name in the definition.
        name: String,
        /// Its device.
        device: String,
        /// The generation in force.
        generation: u32,
    },
    /// It is not, for this reason.
    NotEnforced(String),
}

/// Waits until an interface, by its name in the definition or by its device, is enforced as the definition in
/// force says, or `timeout` is over.
///
/// # Errors
/// See [`ViewError`]; that nothing is enforced yet is none.
pub fn wait(context: &Context, name: &str, timeout: Duration) -> Result<Waited, ViewError> {
    let end = Instant::now() + timeout.min(LONGEST);
    loop {
        let before = version(context);
        let found = look(context, name)?;
        let now = Instant::now();
        if matches!(found, Waited::Enforced { .. }) || now >= end {
            return Ok(found);
        }
        let again = (now + LOOK).min(end);
        while Instant::now() < again && version(context) == before {
            thread::sleep(ASK.min(again.saturating_duration_since(Instant::now())));
        }
    }
}

/// What tells one state file from the next.
fn version(context: &Context) -> Option<(u64, SystemTime)> {
    let found = fs::metadata(context.state_dir.join(state::FILE)).ok()?;
    Some((found.ino(), found.modified().ok()?))
}

fn look(context: &Context, name: &str) -> Result<Waited, ViewError> {
    let no = |why: String| Ok(Waited::NotEnforced(why));
    let view = match View::open(context) {
        Ok(view) => view,
        // The second while everything is made for the first time.
        Err(error @ (ViewError::Nothing | ViewError::Strange { .. })) => return no(chain(&error)),
        Err(error) => return Err(error),
    };
    let one = match view.interfaces(context, Some(name)) {
        Ok(found) => found[0],
        Err(error @ ViewError::Unknown { .. }) => return no(chain(&error)),
        // A namespace that is not there yet.
        Err(ViewError::Netns(error)) => return no(chain(&error)),
        Err(error) => return Err(error),
    };
    let generation = view.tables.generation()?;
    if view.record(one.id)?.flags & PRESENT == 0 {
        return no(format!("generation {generation} does not know it yet"));
    }
    let status = status::interface(&view, one)?;
    if status.orphan {
        return no("the definition in force does not name it: it keeps its last policy".to_owned());
    }
    if !status.enforced {
        return no(status.warnings.join("; "));
    }
    if let Err(why) = is_where_it_was(&view, one) {
        return no(why);
    }
    Ok(Waited::Enforced {
        name: status.name,
        device: status.device,
        generation,
    })
}

/// Whether what is called so now is the device that was attached.
fn is_where_it_was(view: &View, one: &Attached) -> Result<(), String> {
    let namespace = view.state.namespace(one.namespace);
    let identity = namespace.map(|namespace| &namespace.identity);
    let identity = identity.ok_or("its network namespace is not known")?;
    let netns = Netns::reopen(identity).map_err(|error| chain(&error))?;
    let found = netns.run(|| Link::read(&one.device));
    let found = found.map_err(|error| chain(&error))?;
    let link = found.map_err(|error| chain(&error))?;
    if link.ifindex == one.ifindex {
        return Ok(());
    }
    Err(format!(
        "{} is another device than the one that is enforced",
        one.device
    ))
}
