//! What evaluation knows and spends: the module, what was evaluated before, and how much may still be.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::rc::Rc;

use hcl_edit::expr::Expression;

use super::super::super::findings::Findings;
use super::super::super::tree::At;
use super::instances::{Expansion, Instance};
use super::module::Module;
use super::value::{Eval, Fault, Val};

/// Expressions and elements that are evaluated of one module: some seconds.
const MAX_STEPS: usize = 10_000_000;
/// Levels of expressions that are being evaluated, those of the locals that they refer to included.
const MAX_LEVELS: usize = 1000;

/// Evaluates the expressions of a module, each thing that has a name once.
pub(super) struct Evaluator<'a, 'f> {
    pub(super) module: &'a Module<'a>,
    findings: &'f mut Findings,
    steps: usize,
    levels: usize,
    /// Locals, variables and attributes of instances.
    cache: HashMap<Name<'a>, State>,
    /// What each resource was found to stand for.
    pub(super) expansions: HashMap<usize, Option<Eval<Rc<Expansion>>>>,
    pub(super) instances: Vec<Instance>,
    /// What was reported.
    reported: HashSet<(u32, u32, String)>,
}

/// Something that is evaluated once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Name<'a> {
    Variable(&'a str),
    Local(&'a str),
    Attribute(usize, &'a str),
}

enum State {
    /// It is on the way: what refers to it now goes round in a circle.
    Begun,
    Done(Eval),
}

/// Where an expression stands: in which file, and among which names.
#[derive(Clone, Copy)]
pub(super) struct Env<'e> {
    pub(super) place: Place,
    pub(super) bindings: Option<&'e Binding<'e>>,
}

/// A name that is bound, and those outside it.
pub(super) struct Binding<'e> {
    pub(super) name: &'e str,
    pub(super) value: Val,
    pub(super) outer: Option<&'e Binding<'e>>,
}

/// A file that is parsed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) file: u32,
    /// Bytes before what was parsed: a byte order mark.
    pub(super) shift: u32,
}

impl Place {
    /// Where a part stands; what the parser does not place stands at the beginning.
    pub(super) fn at(self, span: Option<Range<usize>>) -> At {
        let span = span.unwrap_or(0..0);
        At {
            file: self.file,
            start: span.start as u32 + self.shift,
            end: span.end as u32 + self.shift,
        }
    }
}

impl<'e> Env<'e> {
    pub(super) fn new(place: Place) -> Self {
        let bindings = None;
        Self { place, bindings }
    }

    /// The same with the names that are bound.
    pub(super) fn with(self, bindings: &'e Binding<'e>) -> Self {
        Self {
            bindings: Some(bindings),
            ..self
        }
    }

    pub(super) fn get(&self, name: &str) -> Option<&'e Val> {
        let mut binding = self.bindings;
        while let Some(found) = binding {
            if found.name == name {
                return Some(&found.value);
            }
            binding = found.outer;
        }
        None
    }
}

impl<'a, 'f> Evaluator<'a, 'f> {
    pub(super) fn new(module: &'a Module<'a>, findings: &'f mut Findings) -> Self {
        Self {
            module,
            findings,
            steps: 0,
            levels: 0,
            cache: HashMap::new(),
            expansions: HashMap::new(),
            instances: Vec::new(),
            reported: HashSet::new(),
        }
    }

    /// Takes steps from those that may be taken.
    pub(super) fn charge(&mut self, steps: usize, at: At) -> Eval<()> {
        self.steps = self.steps.saturating_add(steps);
        if self.steps > MAX_STEPS {
            return Err(Fault::too_large(
                at,
                format!("evaluation takes more than {MAX_STEPS} steps"),
            ));
        }
        Ok(())
    }

    /// Evaluates an expression.
    pub(super) fn evaluate(&mut self, expression: &'a Expression, env: &Env<'_>) -> Eval {
        use hcl_edit::Span as _;
        let at = env.place.at(expression.span());
        self.charge(1, at)?;
        if self.levels >= MAX_LEVELS {
            return Err(Fault::too_large(
                at,
                format!("expressions refer to each other over more than {MAX_LEVELS} levels"),
            ));
        }
        self.levels += 1;
        let value = self.expression(expression, at, env);
        self.levels -= 1;
        value
    }

    /// Evaluates something that has a name, unless that was done.
    pub(super) fn once(
        &mut self,
        name: Name<'a>,
        at: At,
        evaluate: impl FnOnce(&mut Self) -> Eval,
    ) -> Eval {
        match self.cache.get(&name) {
            Some(State::Done(value)) => return value.clone(),
            Some(State::Begun) => {
                let message = match name {
                    Name::Variable(name) => format!("`var.{name}` refers to itself"),
                    Name::Local(name) => format!("`local.{name}` refers to itself"),
                    Name::Attribute(_, name) => format!("`{name}` refers to itself"),
                };
                let help = "directly, or by what it refers to: Terraform refuses such a cycle";
                return Err(Fault::new(at, "cycle", message).help(help));
            }
            None => {}
        }
        self.cache.insert(name, State::Begun);
        let value = evaluate(self);
        self.cache.insert(name, State::Done(value.clone()));
        value
    }

    /// Reports why something has no value, once.
    pub(super) fn report(&mut self, fault: &Fault) {
        // Beyond what is shown there is nothing to keep apart.
        if self.reported.len() > 10_000 {
            return;
        }
        let place = (fault.at.file, fault.at.start, fault.message.clone());
        if !self.reported.insert(place) {
            return;
        }
        let finding = self
            .findings
            .error(fault.code, fault.at, fault.message.clone());
        if let Some(help) = fault.help {
            finding.help(help);
        }
    }

    /// The value, or what stands for one that there is not, which is reported.
    ///
    /// # Errors
    /// Nothing more is to be evaluated.
    pub(super) fn settle(&mut self, value: Eval) -> Eval {
        value.or_else(|fault| {
            self.report(&fault);
            if fault.fatal {
                return Err(fault);
            }
            Ok(Val::unknown(super::FAULTY, fault.at))
        })
    }
}
