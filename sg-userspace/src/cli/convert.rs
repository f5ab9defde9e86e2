//! `sgctl convert`: a definition in the form that others read.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use sg_userspace::convert::{Converted, Target, convert};
use sg_userspace::definition;

use super::definition::Files;
use super::text::{count, json_out, out, remark};

/// Write a definition in another form.
///
/// TOML holds all of it. The others hold groups, rules and prefix lists; with `-o`, what they have no words for,
/// such as interfaces, stands in a `host.toml` beside them, and the directory reads as the same definition again.
/// Interfaces that the files of a cloud tell of are members of their groups, unless [interfaces.NAME] names them.
///
/// What the form cannot hold is left out and said; the command then answers 1.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  sgctl convert dump/ --to toml > my.toml
  sgctl convert my.toml --to aws-json -o dump
  sgctl convert my.toml --to terraform -o tf")]
pub(crate) struct Convert {
    #[command(flatten)]
    files: Files,
    /// toml, aws-json (what `aws ec2 describe-…` prints) or terraform
    #[arg(long, value_name = "FORM", value_parser = target)]
    to: Target,
    /// Write all files into this directory, which is made, instead of the one with the groups to standard output
    #[arg(short, long = "output", value_name = "DIR")]
    output: Option<PathBuf>,
    /// Write into a directory that holds something; files of the same names are replaced, others stay
    #[arg(long, requires = "output")]
    force: bool,
}

fn target(name: &str) -> Result<Target, String> {
    let found = Target::ALL.into_iter().find(|target| target.name() == name);
    found.ok_or_else(|| {
        let names = Target::ALL.map(Target::name);
        format!("known are {}", names.join(", "))
    })
}

impl Convert {
    /// Answers 1 if something is left out.
    ///
    /// # Errors
    /// A definition with errors; what cannot be read or written.
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        super::definition::keep_memory();
        let sources = self.files.read()?;
        // The same wherever it is run: devices of this host play no part.
        let model = super::definition::checked(definition::check(&sources))?;
        let converted = convert(&model, self.to);
        match &self.output {
            Some(directory) => self.write(directory, &converted)?,
            None => self.print(&converted)?,
        }
        for what in &converted.left_out {
            remark(&format!("left out: {what}\n"));
        }
        Ok(match converted.left_out.is_empty() {
            true => ExitCode::SUCCESS,
            false => ExitCode::from(1),
        })
    }

    fn print(&self, converted: &Converted) -> io::Result<()> {
        let Some((main, others)) = converted.files.split_first() else {
            return Ok(());
        };
        match self.to {
            Target::AwsJson => json_out().write_all(main.text.as_bytes())?,
            Target::Toml | Target::Terraform => out().write_all(main.text.as_bytes())?,
        }
        if !others.is_empty() {
            let mut holds: Vec<&str> = others.iter().map(|file| file.holds).collect();
            holds.dedup();
            remark(&format!(
                "not printed, but written by -o DIR: {}\n",
                holds.join("; ")
            ));
        }
        Ok(())
    }

    fn write(&self, directory: &Path, converted: &Converted) -> anyhow::Result<()> {
        let shown = directory.display();
        match DirBuilder::new().mode(0o700).create(directory) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let mut entries = fs::read_dir(directory)
                    .with_context(|| format!("cannot read directory {shown}"))?;
                if !self.force && entries.next().is_some() {
                    bail!("{shown} is not empty; --force writes into it all the same");
                }
            }
            Err(error) => return Err(error).with_context(|| format!("cannot make {shown}")),
        }
        for file in &converted.files {
            let path = directory.join(&file.name);
            let written = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .custom_flags(libc::O_NOFOLLOW)
                .open(&path)
                .and_then(|mut to| to.write_all(file.text.as_bytes()));
            written.with_context(|| format!("cannot write {}", path.display()))?;
            let mut out = out();
            writeln!(out, "{}: {}", path.display(), file.holds)?;
        }
        let files = count(converted.files.len() as u64, "file");
        remark(&format!("{files} in {shown}\n"));
        Ok(())
    }
}
