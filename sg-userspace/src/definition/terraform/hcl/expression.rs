//! Expressions: literals, collections, operators, conditions, `for`, calls.

use std::collections::BTreeMap;
use std::rc::Rc;

use hcl_edit::Span as _;
use hcl_edit::expr::{
    BinaryOp, BinaryOperator, Conditional, Expression, ForExpr, FuncCall, Object, ObjectKey,
    UnaryOp, UnaryOperator,
};

use super::super::super::tree::At;
use super::convert::{self, Text};
use super::evaluator::{Binding, Env, Evaluator};
use super::functions;
use super::value::{Data, Eval, Fault, Val};

impl<'a> Evaluator<'a, '_> {
    /// An expression that stands at `at`.
    pub(super) fn expression(&mut self, expression: &'a Expression, at: At, env: &Env<'_>) -> Eval {
        match expression {
            Expression::Null(_) => Ok(Val::null(at)),
            Expression::Bool(value) => Ok(Val::bool(*value.value(), at)),
            Expression::Number(number) => {
                let value = number.value().as_f64().unwrap_or_default();
                Ok(Val::number(value, at))
            }
            Expression::String(text) => {
                self.charge(text.len() / 16, at)?;
                Val::string(text.as_str(), at)
            }
            Expression::Array(array) => {
                let items = array.iter().map(|item| self.evaluate(item, env));
                Val::list(items.collect::<Eval<_>>()?, at)
            }
            Expression::Object(object) => self.object(object, at, env),
            Expression::StringTemplate(template) => self.template(template, at, env),
            Expression::HeredocTemplate(heredoc) => self.heredoc(heredoc, at, env),
            Expression::Parenthesis(inner) => self.evaluate(inner.inner(), env),
            Expression::Variable(name) => self.name(name.as_str(), at, env),
            Expression::Conditional(conditional) => self.conditional(conditional, at, env),
            Expression::FuncCall(call) => self.call(call, at, env),
            Expression::Traversal(traversal) => self.traversal(traversal, at, env),
            Expression::UnaryOp(operation) => self.unary(operation, at, env),
            Expression::BinaryOp(operation) => self.binary(operation, at, env),
            Expression::ForExpr(expression) => self.for_expression(expression, at, env),
        }
    }

    fn object(&mut self, object: &'a Object, at: At, env: &Env<'_>) -> Eval {
        let mut entries = BTreeMap::new();
        let mut unknown = None;
        for (key, value) in object {
            let key_at = env.place.at(key.span());
            let key = match key {
                ObjectKey::Ident(name) => Text::Known(name.as_str().into()),
                ObjectKey::Expression(expression) => {
                    let key = self.evaluate(expression, env)?;
                    convert::text(&key, "a key", key_at)?
                }
            };
            let value = self.evaluate(value.expr(), env)?;
            match key {
                Text::Known(key) => {
                    entries.insert(key, (key_at, value));
                }
                Text::Unknown(what) => unknown = Some(what),
            }
        }
        match unknown {
            Some(what) => Ok(Val::unknown(&what, at)),
            None => Val::map(entries, at),
        }
    }

    fn conditional(&mut self, conditional: &'a Conditional, at: At, env: &Env<'_>) -> Eval {
        let condition = self.evaluate(&conditional.cond_expr, env)?;
        if let Some(what) = condition.unknown_name() {
            return Ok(Val::unknown(what, at));
        }
        let condition = convert::boolean(&condition, "a condition", condition.at)?;
        if condition {
            self.evaluate(&conditional.true_expr, env)
        } else {
            self.evaluate(&conditional.false_expr, env)
        }
    }

    fn unary(&mut self, operation: &'a UnaryOp, at: At, env: &Env<'_>) -> Eval {
        let operand = self.evaluate(&operation.expr, env)?;
        if let Some(what) = operand.unknown_name() {
            return Ok(Val::unknown(what, at));
        }
        match *operation.operator.value() {
            UnaryOperator::Not => {
                let value = convert::boolean(&operand, "what `!` turns round", at)?;
                Ok(Val::bool(!value, at))
            }
            UnaryOperator::Neg => match convert::number(&operand, "what `-` negates", at)? {
                Ok(value) => Ok(Val::number(-value, at)),
                Err(what) => Ok(Val::unknown(&what, at)),
            },
        }
    }

    fn binary(&mut self, operation: &'a BinaryOp, at: At, env: &Env<'_>) -> Eval {
        let operator = *operation.operator.value();
        let left = self.evaluate(&operation.lhs_expr, env)?;
        if let BinaryOperator::And | BinaryOperator::Or = operator {
            return self.logic(operator, &left, operation, at, env);
        }
        let right = self.evaluate(&operation.rhs_expr, env)?;
        if let BinaryOperator::Eq | BinaryOperator::NotEq = operator {
            self.charge(left.size().min(right.size()), at)?;
            return Ok(match left.equals(&right) {
                Some(equal) => Val::bool(equal == (operator == BinaryOperator::Eq), at),
                None => {
                    let what = [&left, &right]
                        .into_iter()
                        .find_map(|side| match &side.data {
                            Data::Unknown(what) | Data::Reference(what) => Some(what.clone()),
                            _ => None,
                        });
                    Val::unknown(what.as_deref().unwrap_or("a comparison"), at)
                }
            });
        }
        if let Some(what) = left.unknown_name().or(right.unknown_name()) {
            return Ok(Val::unknown(what, at));
        }
        let side = format!("a side of `{}`", operator.as_str());
        let (a, b) = match (
            convert::number(&left, &side, left.at)?,
            convert::number(&right, &side, right.at)?,
        ) {
            (Ok(a), Ok(b)) => (a, b),
            (Err(what), _) | (_, Err(what)) => return Ok(Val::unknown(&what, at)),
        };
        let number = match operator {
            BinaryOperator::Plus => a + b,
            BinaryOperator::Minus => a - b,
            BinaryOperator::Mul => a * b,
            BinaryOperator::Div => a / b,
            BinaryOperator::Mod => a % b,
            BinaryOperator::Less => return Ok(Val::bool(a < b, at)),
            BinaryOperator::LessEq => return Ok(Val::bool(a <= b, at)),
            BinaryOperator::Greater => return Ok(Val::bool(a > b, at)),
            BinaryOperator::GreaterEq => return Ok(Val::bool(a >= b, at)),
            BinaryOperator::Eq
            | BinaryOperator::NotEq
            | BinaryOperator::And
            | BinaryOperator::Or => unreachable!("these were looked at before"),
        };
        if !number.is_finite() {
            return Err(Fault::new(at, "evaluation", "this has no finite value"));
        }
        Ok(Val::number(number, at))
    }

    /// `&&` and `||`: the right side is not looked at where the left one decides.
    fn logic(
        &mut self,
        operator: BinaryOperator,
        left: &Val,
        operation: &'a BinaryOp,
        at: At,
        env: &Env<'_>,
    ) -> Eval {
        let deciding = operator == BinaryOperator::Or;
        let side = format!("a side of `{}`", operator.as_str());
        let mut unknown = None;
        if let Some(what) = left.unknown_name() {
            unknown = Some(what.clone());
        } else if convert::boolean(left, &side, left.at)? == deciding {
            return Ok(Val::bool(deciding, at));
        }
        let right = self.evaluate(&operation.rhs_expr, env)?;
        if let Some(what) = right.unknown_name() {
            unknown.get_or_insert_with(|| what.clone());
        } else if convert::boolean(&right, &side, right.at)? == deciding {
            return Ok(Val::bool(deciding, at));
        }
        Ok(match unknown {
            Some(what) => Val::unknown(&what, at),
            None => Val::bool(!deciding, at),
        })
    }

    fn for_expression(&mut self, expression: &'a ForExpr, at: At, env: &Env<'_>) -> Eval {
        let intro = &expression.intro;
        let collection = self.evaluate(&intro.collection_expr, env)?;
        let pairs = match convert::pairs(&collection, "what `for` goes through")? {
            Ok(pairs) => pairs,
            Err(what) => return Ok(Val::unknown(&what, at)),
        };
        self.charge(pairs.len(), at)?;
        let mut items = Vec::new();
        let mut groups: BTreeMap<Rc<str>, (At, Vec<Val>)> = BTreeMap::new();
        let mut size = 0;
        for (key, value) in pairs {
            let outer = match &intro.key_var {
                Some(name) => &Binding {
                    name: name.as_str(),
                    value: key,
                    outer: env.bindings,
                },
                None => &Binding {
                    name: "",
                    value: key,
                    outer: env.bindings,
                },
            };
            let binding = Binding {
                name: intro.value_var.as_str(),
                value,
                outer: Some(outer),
            };
            let env = env.with(&binding);
            if let Some(condition) = &expression.cond {
                let condition = self.evaluate(&condition.expr, &env)?;
                if let Some(what) = condition.unknown_name() {
                    return Ok(Val::unknown(what, at));
                }
                if !convert::boolean(&condition, "the condition of `for`", condition.at)? {
                    continue;
                }
            }
            let key = match &expression.key_expr {
                None => None,
                Some(key) => {
                    let key_at = env.place.at(key.span());
                    let key = self.evaluate(key, &env)?;
                    match convert::text(&key, "a key", key_at)? {
                        Text::Known(key) => Some((key, key_at)),
                        Text::Unknown(what) => return Ok(Val::unknown(&what, at)),
                    }
                }
            };
            let value = self.evaluate(&expression.value_expr, &env)?;
            size += value.size();
            convert::bounded(size, at)?;
            let Some((key, key_at)) = key else {
                items.push(value);
                continue;
            };
            let (_, group) = groups
                .entry(key.clone())
                .or_insert_with(|| (key_at, Vec::new()));
            if !group.is_empty() && !expression.grouping {
                let message = format!("the key `{key}` comes twice");
                let help = "`...` behind the value makes a list of all values of a key";
                return Err(Fault::new(key_at, "evaluation", message).help(help));
            }
            group.push(value);
        }
        if expression.key_expr.is_none() {
            return Val::list(items, at);
        }
        let mut entries = BTreeMap::new();
        for (key, (key_at, mut values)) in groups {
            let value = if expression.grouping {
                Val::list(values, at)?
            } else {
                values.remove(0)
            };
            entries.insert(key, (key_at, value));
        }
        Val::map(entries, at)
    }

    fn call(&mut self, call: &'a FuncCall, at: At, env: &Env<'_>) -> Eval {
        let name = call.name.name.as_str();
        if call.name.is_namespaced() && call.name.namespace[0].as_str() != "core" {
            return Ok(Val::unknown(
                &format!("{}::…", call.name.namespace[0].as_str()),
                at,
            ));
        }
        match name {
            // The only ones that look at what cannot be evaluated.
            "try" => {
                let mut last = Fault::new(at, "evaluation", "`try` has no arguments");
                for argument in call.args.iter() {
                    match self.evaluate(argument, env) {
                        Err(fault) if !fault.fatal => last = fault,
                        value => return value,
                    }
                }
                return Err(last);
            }
            "can" => {
                let Some(argument) = call.args.iter().next() else {
                    return Err(Fault::new(at, "evaluation", "`can` has no argument"));
                };
                return match self.evaluate(argument, env) {
                    Err(fault) if !fault.fatal => Ok(Val::bool(false, at)),
                    Ok(value) => Ok(match value.unknown_name() {
                        Some(what) => Val::unknown(what, at),
                        None => Val::bool(true, at),
                    }),
                    fault => fault,
                };
            }
            _ => {}
        }
        let arguments = call
            .args
            .iter()
            .map(|argument| self.evaluate(argument, env));
        let mut arguments: Vec<Val> = arguments.collect::<Eval<_>>()?;
        if call.args.expand_final()
            && let Some(last) = arguments.pop()
        {
            match &last.data {
                Data::Unknown(what) => return Ok(Val::unknown(what, at)),
                Data::List(items) | Data::Set(items) => {
                    arguments.extend(items.items.iter().cloned())
                }
                _ => {
                    let message = format!("`...` must stand behind a list, not {}", last.kind());
                    return Err(Fault::new(last.at, "wrong-type", message));
                }
            }
        }
        self.charge(functions::cost(name, &arguments), at)?;
        let value = functions::call(name, &arguments, at)?;
        self.charge(value.width(), at)?;
        Ok(value)
    }
}
