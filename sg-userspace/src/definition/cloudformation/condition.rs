//! Conditions, as far as the template tells whether they hold.

use super::super::document::{Node, Value};
use super::evaluate::{Evaluator, Unknown, text_of};

impl<'s> Evaluator<'_, 's> {
    /// Whether a condition holds.
    pub(super) fn condition(&mut self, name: &str) -> Result<bool, Unknown> {
        match self.conditions.get(name) {
            Some(Some(known)) => return known.clone(),
            Some(None) => return Err(format!("the condition {name}, which refers to itself")),
            None => {}
        }
        let Some(&condition) = self.definitions.get(name) else {
            return Err(format!("the condition {name}, which is not defined"));
        };
        self.conditions.insert(name.to_owned(), None);
        let holds = self.holds(condition);
        self.conditions.insert(name.to_owned(), Some(holds.clone()));
        holds
    }

    fn holds(&mut self, node: &Node<'s>) -> Result<bool, Unknown> {
        let holds = self.deeper(|evaluator| evaluator.holds_node(node));
        holds.unwrap_or_else(|| Err("conditions in one another without end".into()))
    }

    fn holds_node(&mut self, node: &Node<'s>) -> Result<bool, Unknown> {
        let Some([(name, argument)]) = node.map() else {
            return Err("a condition that is no function".into());
        };
        match &*name.value {
            "Condition" => match &argument.value {
                Value::String(name) => self.condition(name),
                _ => Err("Condition".into()),
            },
            "Fn::Equals" => {
                let [one, other] = self.arguments(argument, "Fn::Equals")?;
                Ok(text_of(&one)? == text_of(&other)?)
            }
            "Fn::Not" => match argument.list() {
                Some([only]) => Ok(!self.holds(only)?),
                _ => Err("Fn::Not".into()),
            },
            "Fn::And" => self.all(argument, true),
            "Fn::Or" => self.all(argument, false),
            other => Err(other.to_owned()),
        }
    }

    /// Whether all are `wanted`; one that is not settles it, whatever is not known of others.
    fn all(&mut self, argument: &Node<'s>, wanted: bool) -> Result<bool, Unknown> {
        let mut result = Ok(wanted);
        for node in argument.list().unwrap_or_default() {
            match self.holds(node) {
                Ok(holds) if holds != wanted => return Ok(!wanted),
                Ok(_) => {}
                Err(what) => result = Err(what),
            }
        }
        result
    }
}
