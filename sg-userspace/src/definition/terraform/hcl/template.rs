//! Text with interpolations and directives.

use std::borrow::Cow;
use std::rc::Rc;

use hcl_edit::template::{
    Directive, Element, ForDirective, HeredocTemplate, IfDirective, Strip, Template,
};

use super::super::super::tree::At;
use super::convert::{self, Text};
use super::evaluator::{Binding, Env, Evaluator};
use super::value::{Eval, Val};

/// Text, and the first part of it that is not known.
#[derive(Default)]
struct Parts {
    text: String,
    /// Columns that lines of what directives hold lose, as those around them did.
    indent: usize,
    unknown: Option<Rc<str>>,
}

impl<'a> Evaluator<'a, '_> {
    /// A template; what is a single interpolation is its value, of whatever type.
    pub(super) fn template(&mut self, template: &'a Template, at: At, env: &Env<'_>) -> Eval {
        if let Some(Element::Interpolation(only)) = template.as_single_element() {
            return self.evaluate(&only.expr, env);
        }
        self.text(template, 0, at, env)
    }

    /// A text in lines.
    pub(super) fn heredoc(&mut self, heredoc: &'a HeredocTemplate, at: At, env: &Env<'_>) -> Eval {
        self.text(&heredoc.template, heredoc.indent().unwrap_or(0), at, env)
    }

    fn text(&mut self, template: &'a Template, indent: usize, at: At, env: &Env<'_>) -> Eval {
        let mut parts = Parts {
            indent,
            ..Parts::default()
        };
        self.elements(template, None, &mut parts, at, env)?;
        self.charge(parts.text.len() / 16, at)?;
        match parts.unknown {
            Some(what) => Ok(Val::unknown(&what, at)),
            None => Val::string(parts.text, at),
        }
    }

    /// `within`, of what a directive holds: whether that has its first and last text stripped.
    fn elements(
        &mut self,
        template: &'a Template,
        within: Option<(bool, bool)>,
        parts: &mut Parts,
        at: At,
        env: &Env<'_>,
    ) -> Eval<()> {
        let strip = within.unwrap_or_default();
        let indent = if within.is_some() { parts.indent } else { 0 };
        let elements: Vec<&Element> = template.iter().collect();
        for (index, element) in elements.iter().enumerate() {
            self.charge(1, at)?;
            match element {
                Element::Literal(literal) => {
                    let before = index.checked_sub(1).map(|index| elements[index]);
                    let after = elements.get(index + 1);
                    let start = before.map_or(strip.0, |element| markers(element).1);
                    let end = after.map_or(strip.1, |element| markers(element).0);
                    let literal = dedented(literal, indent);
                    convert::push(&mut parts.text, stripped(&literal, start, end), at)?;
                }
                Element::Interpolation(interpolation) => {
                    let value = self.evaluate(&interpolation.expr, env)?;
                    match convert::text(&value, "what stands in a text", value.at)? {
                        Text::Known(text) => convert::push(&mut parts.text, &text, at)?,
                        Text::Unknown(what) => {
                            parts.unknown.get_or_insert(what);
                        }
                    }
                }
                Element::Directive(directive) => match &**directive {
                    Directive::If(directive) => self.if_directive(directive, parts, at, env)?,
                    Directive::For(directive) => self.for_directive(directive, parts, at, env)?,
                },
            }
        }
        Ok(())
    }

    fn if_directive(
        &mut self,
        directive: &'a IfDirective,
        parts: &mut Parts,
        at: At,
        env: &Env<'_>,
    ) -> Eval<()> {
        let condition = self.evaluate(&directive.if_expr.cond_expr, env)?;
        if let Some(what) = condition.unknown_name() {
            parts.unknown.get_or_insert_with(|| what.clone());
            return Ok(());
        }
        let (opening, otherwise) = (&directive.if_expr, &directive.else_expr);
        let end = directive.endif_expr.strip;
        if convert::boolean(&condition, "the condition of `if`", condition.at)? {
            let behind = otherwise.as_ref().map_or(end, |otherwise| otherwise.strip);
            let strip = (opening.strip.strip_end(), behind.strip_start());
            self.elements(&opening.template, Some(strip), parts, at, env)
        } else if let Some(otherwise) = otherwise {
            let strip = (otherwise.strip.strip_end(), end.strip_start());
            self.elements(&otherwise.template, Some(strip), parts, at, env)
        } else {
            Ok(())
        }
    }

    fn for_directive(
        &mut self,
        directive: &'a ForDirective,
        parts: &mut Parts,
        at: At,
        env: &Env<'_>,
    ) -> Eval<()> {
        let opening = &directive.for_expr;
        let collection = self.evaluate(&opening.collection_expr, env)?;
        let pairs = match convert::pairs(&collection, "what `for` goes through")? {
            Ok(pairs) => pairs,
            Err(what) => {
                parts.unknown.get_or_insert(what);
                return Ok(());
            }
        };
        let strip = (
            opening.strip.strip_end(),
            directive.endfor_expr.strip.strip_start(),
        );
        for (key, value) in pairs {
            let outer = Binding {
                name: opening.key_var.as_ref().map_or("", |name| name.as_str()),
                value: key,
                outer: env.bindings,
            };
            let binding = Binding {
                name: opening.value_var.as_str(),
                value,
                outer: Some(&outer),
            };
            self.elements(
                &opening.template,
                Some(strip),
                parts,
                at,
                &env.with(&binding),
            )?;
        }
        Ok(())
    }
}

/// Whether an element strips the text before it, and that behind it.
fn markers(element: &Element) -> (bool, bool) {
    let both = |start: Strip, end: Strip| (start.strip_start(), end.strip_end());
    match element {
        Element::Literal(_) => (false, false),
        Element::Interpolation(interpolation) => both(interpolation.strip, interpolation.strip),
        Element::Directive(directive) => match &**directive {
            Directive::If(directive) => both(directive.if_expr.strip, directive.endif_expr.strip),
            Directive::For(directive) => {
                both(directive.for_expr.strip, directive.endfor_expr.strip)
            }
        },
    }
}

/// Text without the space next to a `~`, up to and with one line's end.
fn stripped(text: &str, start: bool, end: bool) -> &str {
    let mut text = text;
    if start {
        text = text.trim_start_matches([' ', '\t']);
        let rest = text.strip_prefix("\r\n").or(text.strip_prefix('\n'));
        text = rest.unwrap_or(text);
    }
    if end {
        let cut = text.trim_end_matches([' ', '\t']);
        // Spaces that begin a line are all that stands before what strips them.
        text = match cut.strip_suffix('\n') {
            Some(line) if cut.len() == text.len() => line.trim_end_matches([' ', '\t', '\r']),
            _ => cut,
        };
    }
    text
}

/// Text whose lines but the first lose so many columns, if they are empty there.
fn dedented(text: &str, columns: usize) -> Cow<'_, str> {
    if columns == 0 {
        return Cow::Borrowed(text);
    }
    let mut dedented = String::with_capacity(text.len());
    for (index, line) in text.split_inclusive('\n').enumerate() {
        let blank = line.len() - line.trim_start_matches([' ', '\t']).len();
        let cut = if index == 0 { 0 } else { blank.min(columns) };
        dedented.push_str(&line[cut..]);
    }
    Cow::Owned(dedented)
}
