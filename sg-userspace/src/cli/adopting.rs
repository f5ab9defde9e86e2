//! Which connections are taken over where an interface is first attached: of `apply`, `rollback` and `run`.

use clap::ValueEnum;
use sg_userspace::adopt::Adopt;

#[derive(clap::Args)]
pub(crate) struct Adopting {
    /// Which of the connections that are open when an interface is first attached are taken over
    #[arg(long, value_enum, value_name = "WHICH", default_value_t = Which::All)]
    adopt: Which,
    /// Take none over: those that no rule lets begin again are cut, yours perhaps among them
    #[arg(long, conflicts_with = "adopt")]
    no_adopt: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Which {
    /// All that can be seen
    All,
    /// Those that a rule lets begin, by the definition that comes into force
    Policy,
}

impl Adopting {
    pub(crate) fn adopt(&self) -> Adopt {
        match (self.no_adopt, self.adopt) {
            (true, _) => Adopt::None,
            (false, Which::All) => Adopt::All,
            (false, Which::Policy) => Adopt::Policy,
        }
    }
}
