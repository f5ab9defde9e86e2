//! The definition file that the agent follows, and the change that is made to it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use sg_userspace::model::{Model, RuleId};

use super::definition;

/// A definition file of the demo's own.
pub(crate) struct Revision {
    /// Where it is.
    pub(crate) file: PathBuf,
}

impl Revision {
    /// Copies a definition into a directory.
    ///
    /// # Errors
    /// If that cannot be done.
    pub(crate) fn new(original: &Path, directory: &str) -> Result<Self> {
        let name = original
            .file_name()
            .with_context(|| format!("{} is no file", original.display()))?;
        let file = Path::new(directory).join(name);
        fs::create_dir(directory).with_context(|| format!("make {directory}"))?;
        fs::copy(original, &file).with_context(|| format!("copy {}", original.display()))?;
        Ok(Self { file })
    }

    /// Takes the line of a rule out of the file, which is replaced by rename as an editor does.
    /// Returns the line, and what the file says then.
    ///
    /// # Errors
    /// If the file cannot be changed, or says nothing sensible without the line.
    pub(crate) fn remove_rule(&self, model: &Model, rule: RuleId) -> Result<(String, Model)> {
        let number = model
            .groups
            .values()
            .flat_map(|group| group.ingress.iter().chain(&group.egress))
            .find(|candidate| candidate.id == rule)
            .and_then(|found| found.origin.as_ref())
            .with_context(|| format!("{rule} stands nowhere in the definition"))?
            .line as usize;
        let shown = self.file.display();
        let text = fs::read_to_string(&self.file).with_context(|| format!("read {shown}"))?;
        let mut lines: Vec<&str> = text.lines().collect();
        if number == 0 || number > lines.len() {
            bail!("{shown} has no line {number}");
        }
        let removed = lines.remove(number - 1).trim().to_owned();
        let revised = self.file.with_extension("toml.new");
        fs::write(&revised, lines.join("\n") + "\n")
            .with_context(|| format!("write {}", revised.display()))?;
        let model = definition(&revised)?;
        fs::rename(&revised, &self.file).with_context(|| format!("replace {shown}"))?;
        Ok((removed, model))
    }
}
