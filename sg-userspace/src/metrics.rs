//! Figures for monitoring, as OpenMetrics: the same whether printed or served.

use std::fmt;

use crate::{
    agent::{Record, RecordError},
    hits::{self, HitsError, RuleHits},
    session::Context,
    stats::{self, Stats, StatsError},
    status::{self, Status},
    view::ViewError,
};

mod exposition;
mod server;

pub use server::{Server, ServerError};

/// Everything that is exposed, read at one moment.
#[derive(Clone, Debug)]
pub struct Figures {
    /// Counters and occupancy; `None`: nothing is enforced.
    pub stats: Option<Stats>,
    /// Packets by rule.
    pub rules: Vec<RuleHits>,
    /// What is attached, and what is wrong with it.
    pub status: Status,
    /// What the agent says of itself; `None`: none runs.
    pub agent: Option<Record>,
}

/// Why figures cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MetricsError {
    /// Counters cannot be read.
    #[error(transparent)]
    Stats(#[from] StatsError),
    /// Hits of rules cannot be read.
    #[error(transparent)]
    Hits(#[from] HitsError),
    /// What is attached cannot be read.
    #[error(transparent)]
    View(#[from] ViewError),
    /// The agent's record cannot be read.
    #[error(transparent)]
    Record(#[from] RecordError),
}

impl Figures {
    /// Reads the figures of an enforcer. That nothing is enforced is a figure too.
    ///
    /// # Errors
    /// See [`MetricsError`].
    pub fn read(context: &Context) -> Result<Self, MetricsError> {
        let stats = match stats::read(context, None) {
            Ok(stats) => Some(stats),
            Err(StatsError::View(ViewError::Nothing)) => None,
            Err(error) => return Err(error.into()),
        };
        let rules = match hits::read(context) {
            Ok(rules) => rules,
            Err(HitsError::View(ViewError::Nothing)) => Vec::new(),
            Err(error) => return Err(error.into()),
        };
        Ok(Self {
            stats,
            rules,
            status: status::read(context)?,
            agent: Record::read(&context.state_dir)?,
        })
    }
}

/// The complete OpenMetrics text, `# EOF` included.
impl fmt::Display for Figures {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        exposition::write(self, out)
    }
}
