//! What came of an attempt: in the log, in the record, in a line for who asks.

use std::{
    collections::BTreeMap,
    time::{SystemTime, UNIX_EPOCH},
};

use log::{debug, error, info, warn};

use crate::{
    apply::{Change, Report},
    definition::{self, Diagnostic, Severity},
    status::chain,
};

use super::{
    super::{observation::Seen, record::RecordError},
    Enforcement, EnforcementError, Failure,
};

impl Enforcement {
    /// What is in force and what is not, on one line.
    pub(in crate::agent) fn summary(&self) -> String {
        // One without its device is not in force, though it is remembered.
        let present = |name| self.seen.get(name).is_none_or(Option::is_some);
        let attached = self.links.iter().filter(|one| present(&one.name));
        let mut text = match attached.count() {
            0 => "nothing is attached".to_owned(),
            1 => format!("generation {} in force on 1 interface", self.generation),
            many => format!(
                "generation {} in force on {many} interfaces",
                self.generation
            ),
        };
        let absent = self.seen.iter().filter(|(_, seen)| seen.is_none());
        let absent: Vec<&str> = absent.map(|(name, _)| name.as_str()).collect();
        if !absent.is_empty() {
            text.push_str(&format!("; no device for {}", absent.join(", ")));
        }
        if let Some(failure) = &self.failure {
            text.push_str(&format!(
                "; what was asked for last is not: {}",
                failure.text
            ));
        }
        text
    }

    pub(super) fn tell(&mut self, report: &Report) {
        for name in &report.gone {
            debug!("{name}: forgotten, its device is gone");
        }
        for name in &report.moved {
            info!("{name}: its device has moved, and its policy with it");
        }
        for name in &report.repaired {
            warn!("{name}: a link that was removed is attached again");
        }
        self.record.repaired += report.repaired.len() as u64;
        for one in &report.interfaces {
            let (name, device) = (&one.name, &one.device);
            if one.change == Change::Attached {
                self.attached.insert(one.id);
                let (hook, adopted) = (one.hook.name(), one.adopted.connections());
                let sources = one.adopted.sources();
                info!("{name} ({device}): attached, ingress by {hook}, {adopted} adopted{sources}");
            }
            for warning in &one.warnings {
                warn!("{name}: {warning}");
            }
        }
        for name in &report.orphans {
            warn!(
                "{name} is attached but the definition does not name it: it keeps its last policy"
            );
        }
        self.generation = report.generation;
        info!("applied generation {}", report.generation);
    }

    pub(super) fn tell_changes(&self, seen: &BTreeMap<String, Option<Seen>>) {
        for (name, now) in seen {
            match (self.seen.get(name).and_then(Option::as_ref), now) {
                (Some(before), Some(now)) if before.addresses != now.addresses => {
                    info!("{name}: addresses changed");
                    debug!("{name}: addresses {:?}", now.addresses);
                }
                (Some(before), Some(now)) if before.stripped_tags != now.stripped_tags => {
                    info!("{name}: VLAN sub-interfaces or the offload of their tags changed");
                }
                (Some(_), None) => warn!("{name}: link lost: there is no such device any more"),
                (None, Some(_)) => info!("{name}: its device has appeared"),
                _ => {}
            }
        }
    }

    pub(super) fn conclude(&mut self, done: Result<(), EnforcementError>) {
        let concluded = match done {
            Ok(()) => self.succeeded(),
            Err(error) => self.failed(&error),
        };
        if let Err(error) = concluded {
            warn!("{}", chain(&error));
        }
    }

    pub(super) fn succeeded(&mut self) -> Result<(), RecordError> {
        self.failure = None;
        self.record.definition_errors = 0;
        self.record.reload_successful = true;
        self.record.reload_success_seconds = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        self.record.write(&self.context.state_dir)
    }

    fn failed(&mut self, failure: &EnforcementError) -> Result<(), RecordError> {
        let mut text = chain(failure);
        self.record.definition_errors = 1;
        if let EnforcementError::Definition { diagnostics } = failure {
            self.record.definition_errors = definition::count(diagnostics, Severity::Error) as u64;
            for diagnostic in diagnostics {
                text.push_str("; ");
                text.push_str(&one_line(diagnostic));
            }
        }
        self.record.reload_successful = false;
        // The same failure, met again and again while waiting, is news only once.
        if self.failure.as_ref().is_some_and(|last| last.text == text) {
            debug!("reload failed again: {text}");
        } else {
            error!("reload failed, what was in force stays: {text}");
        }
        let again = !matches!(
            failure,
            EnforcementError::Definition { .. } | EnforcementError::Source(_)
        );
        self.failure = Some(Failure { text, again });
        self.record.write(&self.context.state_dir)
    }
}

pub(super) fn one_line(diagnostic: &Diagnostic) -> String {
    let mut text = match &diagnostic.place {
        Some(place) => format!("{}:{}:{}: ", place.file, place.line, place.column),
        None => String::new(),
    };
    text.push_str(&diagnostic.message);
    if let Some(help) = &diagnostic.help {
        text.push_str(&format!(" ({help})"));
    }
    text
}
