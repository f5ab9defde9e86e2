//! The steps of a change, each safe to be done again.

use std::collections::BTreeMap;

use sg_common::abi::{MAX_INTERFACES, map};

use super::{
    Journal, Step, UpgradeError, ids,
    predecessor::{Known, PEAK, Predecessor},
};
use crate::{
    attach, bank,
    compile::{Compiled, compile},
    control::{Addition, Control, Inserted},
    hits::Book,
    model::RuleId,
    pin::Pins,
    session::{Context, Session},
    state::Lock,
};

/// A change under way.
pub(super) struct Change<'a> {
    lock: &'a Lock,
    old: &'a Pins,
    predecessor: &'a Predecessor,
    journal: &'a mut Journal,
    session: Session,
    compiled: Compiled,
    /// RESTORE and ADD.
    restore: Control,
    known: Known,
}

impl<'a> Change<'a> {
    pub(super) fn open(
        context: &Context,
        lock: &'a Lock,
        own: &Pins,
        old: &'a Pins,
        predecessor: &'a Predecessor,
        journal: &'a mut Journal,
    ) -> Result<Self, UpgradeError> {
        let strange = || UpgradeError::Strange {
            pins: own.root().to_owned(),
            state: context.state_dir.clone(),
        };
        let session = Session::of_state(own, journal.state.clone())?.ok_or_else(strange)?;
        let resolved = lock.read_policy(&journal.state)?.resolved;
        let compiled = compile(&resolved)?;
        let restore = Control::open(&session.programs(0).ct_restore()?)?;
        Ok(Self {
            lock,
            old,
            predecessor,
            journal,
            session,
            compiled,
            restore,
            known: Known::new(),
        })
    }

    /// Puts the new programs behind all links.
    pub(super) fn switch(&mut self) -> Result<(), UpgradeError> {
        for pin in self.old.links()? {
            let Some(one) = self.journal.state.of_pin(&pin) else {
                // Of an apply that was cut short: it belongs to nobody.
                attach::abandon(&pin, None)?;
                continue;
            };
            let place = self.journal.state.place(one);
            let place = place.unwrap_or(attach::Place::here(one.ifindex));
            let name = pin.file_name().unwrap_or_default();
            let new = self.session.pins.root().join("links").join(name);
            let set = self.session.programs(one.namespace);
            attach::take_over(&pin, &set, &new, place)?;
        }
        Ok(())
    }

    /// Puts the policy in force in the new maps, and in the state.
    pub(super) fn flip(&mut self) -> Result<(), UpgradeError> {
        let generation = self.journal.generation;
        let resolved = self.lock.read_policy(&self.journal.state)?.resolved;
        let sets = self.compiled.rule_sets.len();
        self.lock.write_rule_sets(generation, &self.compiled)?;
        let book = Book::inheriting(
            self.session.tables.runtime.id(),
            generation,
            sets,
            self.counted()?,
        );
        self.lock.write_book(&book)?;
        self.session.set_limits(&self.compiled);
        if self.session.tables.generation()? != generation {
            let Self {
                session, compiled, ..
            } = self;
            let now = session.control()?.now()?;
            let state = &self.journal.state;
            let id_of = |name: &str| {
                let found = state.interfaces.iter().find(|one| one.name == name);
                found.map(|one| one.id)
            };
            let (tables, runtime) = (&session.tables, &mut session.runtime);
            // Flows are asked again no more than they would have been without this.
            let place = |id: u32| (generation & 1) * MAX_INTERFACES + id;
            let mut asked = Vec::new();
            for one in &state.interfaces {
                // Not from the bank, which an attempt that was cut short may have written.
                asked.push((one.id, self.predecessor.reevaluate_from(one.id)?));
            }
            let vacant = bank::vacate(tables, &session.object, compiled, runtime)?;
            bank::occupy(tables, &session.object, compiled, vacant, runtime.hz, id_of)?;
            for (id, from) in asked {
                if let Some(mut record) = tables.interfaces.get(&place(id))? {
                    record.reevaluate_from = from;
                    tables.interfaces.set(&place(id), &record)?;
                }
            }
            bank::flip(tables, runtime, generation, now)?;
        }
        self.session.remember(self.lock, generation, resolved)?;
        Ok(())
    }

    /// Packets by rule under the layout before.
    fn counted(&self) -> Result<BTreeMap<RuleId, u64>, UpgradeError> {
        let Some(book) = &self.journal.book else {
            return Ok(BTreeMap::new());
        };
        let (now, before) = (self.predecessor.hits(0)?, self.predecessor.hits(1)?);
        let [sets, sets_before] = &self.journal.sets;
        Ok(book.sum([(sets, &now), (sets_before, &before)]))
    }

    /// Waits until every packet that is being judged now is judged.
    fn wait(&self) -> Result<(), UpgradeError> {
        let bank = self.journal.generation & 1;
        Ok(bank::wait_for_readers(&self.session.tables, bank)?)
    }

    /// Moves the flows, and releases the programs before when all have moved.
    pub(super) fn move_flows(&mut self, again: bool) -> Result<(), UpgradeError> {
        self.wait()?;
        self.set_allowances(|_| LOOSE)?;
        self.session.runtime.shared = LOOSE;
        self.session.runtime.unassured = LOOSE;
        self.session.tables.runtime.set(&0, &self.session.runtime)?;
        self.look(again)?;
        self.wait()?;
        self.look(again)?;
        self.session.runtime.predecessor = 0;
        self.session.set_limits(&self.compiled);
        self.session.tables.runtime.set(&0, &self.session.runtime)?;
        self.wait()?;
        self.look(again)?;
        self.set_allowances(|allowance| allowance)
    }

    /// What moves over has been allowed; meanwhile new flows may be more than the allowance.
    fn set_allowances(&self, of: impl Fn(u32) -> u32) -> Result<(), UpgradeError> {
        let records = &self.session.tables.interfaces;
        for interface in &self.compiled.interfaces {
            let mut attached = self.journal.state.interfaces.iter();
            let Some(one) = attached.find(|one| one.name == interface.name) else {
                continue;
            };
            let place = (self.journal.generation & 1) * MAX_INTERFACES + one.id;
            if let Some(mut record) = records.get(&place)? {
                record.allowance = of(interface.allowance);
                records.set(&place, &record)?;
            }
        }
        Ok(())
    }

    /// Restores every flow that is not yet known as it is now.
    fn look(&mut self, again: bool) -> Result<(), UpgradeError> {
        let (control, done) = (&self.restore, &mut self.journal.done);
        let interfaces = &self.journal.state.interfaces;
        self.predecessor.flows(&mut self.known, again, |flow| {
            if interfaces.iter().all(|one| one.id != flow.owner >> 8) {
                // Of an interface whose first policy was taken back.
                return Ok(());
            }
            match control.restore(flow)? {
                Inserted::Added => done.flows += 1,
                Inserted::Full => done.refused += 1,
                Inserted::Known | Inserted::Impossible => {}
            }
            Ok::<_, UpgradeError>(())
        })
    }

    /// Adds what was counted in the old maps, which stand still now.
    pub(super) fn settle(&mut self) -> Result<(), UpgradeError> {
        for namespace in &self.journal.state.namespaces {
            let set = self.session.programs(namespace.number);
            set.set_predecessor(map::PREDECESSOR_XDP, 0, None)?;
            set.set_predecessor(map::PREDECESSOR_TC, 0, None)?;
            set.set_predecessor(map::PREDECESSOR_TC, 1, None)?;
        }
        let figures = self.predecessor.figures(ids(&self.journal.state))?;
        let mut number = 0;
        for (interface, counted) in figures {
            let before = self.journal.figures.get(&interface);
            for (counter, (first, second)) in counted {
                number += 1;
                if counter == PEAK {
                    continue;
                }
                let known = before.and_then(|before| before.get(&counter).copied());
                let known = known.unwrap_or_default();
                let what = (first.wrapping_sub(known.0), second.wrapping_sub(known.1));
                if what != (0, 0) {
                    let addition = Addition {
                        interface,
                        counter,
                        what,
                    };
                    self.restore.add(number, &addition)?;
                }
            }
        }
        let generation = self.journal.generation;
        let (runtime, sets) = (
            self.session.tables.runtime.id(),
            self.compiled.rule_sets.len(),
        );
        let book = Book::inheriting(runtime, generation, sets, self.counted()?);
        self.lock.write_book(&book)?;
        Pins::remove(&self.session.programs(0).ct_restore()?)?;
        self.journal.step = Step::Remove;
        Ok(self.lock.write_upgrade(&self.journal)?)
    }
}

/// More flows than a table holds.
const LOOSE: u32 = i32::MAX as u32;
