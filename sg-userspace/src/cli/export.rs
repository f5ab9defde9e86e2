//! `sgctl export`: figures for monitoring.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use sg_userspace::{metrics::Figures, session::Context};

/// Print figures as OpenMetrics.
///
/// The same figures that `sgctl run --metrics` serves, for collectors that read files, such as
/// node_exporter's textfile collector. The two of EC2 are called as dashboards for them expect:
/// node_ethtool_conntrack_allowance_available and node_ethtool_conntrack_allowance_exceeded.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  sgctl export
  sgctl export | grep ^sgctl_conntrack_tracked")]
pub(crate) struct Export {}

impl Export {
    pub(crate) fn run(context: &Context) -> anyhow::Result<ExitCode> {
        let figures = Figures::read(context)?;
        write!(io::stdout().lock(), "{figures}")?;
        Ok(ExitCode::SUCCESS)
    }
}
