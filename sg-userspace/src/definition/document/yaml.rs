//! YAML to [`Node`]s.
//!
//! Plain scalars mean what YAML 1.1 says, which is what CloudFormation reads. Anchors are copied where aliases name
//! them, with all that they hold counted; a tag such as `!Ref` becomes a map of one key, as its long form is written.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Span, StrInput, Tag};

use super::super::escape::quote;
use super::super::tree::{At, Located};
use super::{MAX_DEPTH, MAX_NODES, Node, SyntaxError, Value};

/// The key that a local tag without its `!` stands for; `None`: there is no such tag.
pub(in super::super) type LongForm = fn(&str) -> Option<String>;

/// Parses a text of one document.
///
/// # Errors
/// What is not YAML, a key that stands twice, several documents, an unknown tag, and what is nested or holds more
/// than is read, with aliases replaced.
pub(in super::super) fn parse(
    file: u32,
    text: &str,
    long_form: LongForm,
) -> Result<Node<'_>, SyntaxError> {
    let body = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut reader = Reader {
        places: Places::new(file, text, body),
        parser: Parser::new_from_str(body),
        long_form,
        nodes: 0,
        anchors: HashMap::new(),
    };
    reader.document()
}

struct Reader<'s> {
    places: Places<'s>,
    parser: Parser<'s, StrInput<'s>>,
    long_form: LongForm,
    nodes: usize,
    anchors: HashMap<usize, Anchored<'s>>,
}

/// What an anchor stands for.
struct Anchored<'s> {
    node: Node<'s>,
    /// Values in it, with itself.
    nodes: usize,
    /// Levels that it is deep.
    depth: usize,
}

impl<'s> Reader<'s> {
    fn document(&mut self) -> Result<Node<'s>, SyntaxError> {
        let mut root = None;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamEnd => break,
                Event::StreamStart
                | Event::DocumentStart(_)
                | Event::DocumentEnd
                | Event::Nothing => {}
                _ if root.is_some() => {
                    return Err(self.error(span, "a second document: one file holds one"));
                }
                event => root = Some(self.node(event, span, 0)?.0),
            }
        }
        let at = self.places.at(Span::default());
        Ok(root.unwrap_or(Node {
            at,
            value: Value::Null,
        }))
    }

    fn next(&mut self) -> Result<(Event<'s>, Span), SyntaxError> {
        match self.parser.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => Err(self.scan_error(&error)),
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    fn scan_error(&self, error: &ScanError) -> SyntaxError {
        self.error(
            Span::empty(*error.marker()),
            format!("this is not YAML: {}", error.info()),
        )
    }

    fn error(&self, span: Span, message: impl Into<String>) -> SyntaxError {
        let at = self.places.at(span);
        SyntaxError {
            // Of what is long its beginning.
            at: At {
                end: at.start.saturating_add(1).min(self.places.end()),
                ..at
            },
            message: message.into(),
        }
    }

    fn count(&mut self, nodes: usize, span: Span) -> Result<(), SyntaxError> {
        self.nodes = self.nodes.saturating_add(nodes);
        if self.nodes > MAX_NODES {
            return Err(self.error(span, format!("more than {MAX_NODES} values")));
        }
        Ok(())
    }

    /// The node that begins with an event, and the levels that it is deep.
    fn node(
        &mut self,
        event: Event<'s>,
        span: Span,
        depth: usize,
    ) -> Result<(Node<'s>, usize), SyntaxError> {
        let deep = || format!("nested deeper than {MAX_DEPTH} levels");
        if depth > MAX_DEPTH {
            return Err(self.error(span, deep()));
        }
        let before = self.nodes;
        self.count(1, span)?;
        let (anchor, tag, node, levels) = match event {
            Event::Alias(anchor) => {
                let Some(known) = self.anchors.get(&anchor) else {
                    return Err(self.error(span, "an alias of what it stands in"));
                };
                let (nodes, levels) = (known.nodes, known.depth);
                if depth + levels > MAX_DEPTH {
                    return Err(self.error(span, deep()));
                }
                self.count(nodes, span)?;
                return Ok((self.anchors[&anchor].node.clone(), levels));
            }
            Event::Scalar(text, style, anchor, tag) => {
                let value = self.scalar(text, style, tag.as_deref());
                let at = self.places.at(span);
                (anchor, tag, Node { at, value }, 0)
            }
            Event::SequenceStart(anchor, tag) => {
                let (node, levels) = self.sequence(span, depth)?;
                (anchor, tag, node, levels)
            }
            Event::MappingStart(anchor, tag) => {
                let (node, levels) = self.mapping(span, depth)?;
                (anchor, tag, node, levels)
            }
            _ => return Err(self.error(span, "this is not YAML: a value is missing")),
        };
        let (node, levels) = self.tagged(tag.as_deref(), node, levels, span)?;
        if anchor > 0 {
            let nodes = self.nodes - before;
            self.count(nodes, span)?;
            let known = Anchored {
                node: node.clone(),
                nodes,
                depth: levels,
            };
            self.anchors.insert(anchor, known);
        }
        Ok((node, levels))
    }

    /// A local tag around a value.
    fn tagged(
        &mut self,
        tag: Option<&Tag>,
        node: Node<'s>,
        levels: usize,
        span: Span,
    ) -> Result<(Node<'s>, usize), SyntaxError> {
        let Some(tag) = tag.filter(|tag| !tag.is_yaml_core_schema()) else {
            return Ok((node, levels));
        };
        // `!` alone says that a scalar is a string.
        if tag.handle.is_empty() {
            return Ok((node, levels));
        }
        let Some(key) = (self.long_form)(&tag.suffix).filter(|_| tag.handle == "!") else {
            return Err(self.error(
                span,
                format!("the tag {} is not known", quote(&tag.to_string())),
            ));
        };
        self.count(1, span)?;
        let at = node.at;
        let key = Located {
            value: Cow::Owned(key),
            at,
        };
        let value = Value::Map(vec![(key, node)]);
        Ok((Node { at, value }, levels + 1))
    }

    fn sequence(&mut self, span: Span, depth: usize) -> Result<(Node<'s>, usize), SyntaxError> {
        let mut nodes = Vec::new();
        let mut levels = 0;
        loop {
            let (event, own) = self.next()?;
            if event == Event::SequenceEnd {
                let at = self.around(span, own, nodes.last());
                let value = Value::List(nodes);
                return Ok((Node { at, value }, levels));
            }
            let (node, below) = self.node(event, own, depth + 1)?;
            levels = levels.max(below + 1);
            nodes.push(node);
        }
    }

    fn mapping(&mut self, span: Span, depth: usize) -> Result<(Node<'s>, usize), SyntaxError> {
        let mut entries = Vec::new();
        let mut merged = Vec::new();
        let mut seen = HashSet::new();
        let mut levels = 0;
        loop {
            let (event, own) = self.next()?;
            if event == Event::MappingEnd {
                break;
            }
            let Event::Scalar(key, style, _, tag) = event else {
                let kind = match event {
                    Event::MappingStart(..) | Event::SequenceStart(..) => "a list or an object",
                    _ => "something else",
                };
                return Err(self.error(own, format!("a key must be text, not {kind}")));
            };
            let is_merge = style == ScalarStyle::Plain && tag.is_none() && key == "<<";
            let at = self.places.at(own);
            let (event, own_value) = self.next()?;
            let (node, below) = self.node(event, own_value, depth + 1)?;
            levels = levels.max(below + 1);
            if is_merge {
                merged.push((own, node));
                continue;
            }
            if !seen.insert(key.clone()) {
                return Err(self.error(own, format!("the key {} stands twice", quote(&key))));
            }
            entries.push((Located { value: key, at }, node));
        }
        for (own, node) in merged {
            self.merge(node, own, &mut entries, &mut seen)?;
        }
        let start = self.places.at(span);
        let end = entries.last().map_or(start.end, |(_, node)| node.at.end);
        let at = At {
            end: end.max(start.end),
            ..start
        };
        let value = Value::Map(entries);
        Ok((Node { at, value }, levels))
    }

    /// `<<`: entries of other maps, where there is none of the key.
    fn merge(
        &mut self,
        node: Node<'s>,
        span: Span,
        entries: &mut Vec<(Located<Cow<'s, str>>, Node<'s>)>,
        seen: &mut HashSet<Cow<'s, str>>,
    ) -> Result<(), SyntaxError> {
        let maps = match node.value {
            Value::List(nodes) => nodes,
            _ => vec![node],
        };
        for map in maps {
            let Value::Map(more) = map.value else {
                return Err(self.error(span, "`<<` merges objects only"));
            };
            for (key, node) in more {
                if seen.insert(key.value.clone()) {
                    entries.push((key, node));
                }
            }
        }
        Ok(())
    }

    fn around(&self, begin: Span, end: Span, last: Option<&Node<'_>>) -> At {
        let start = self.places.at(begin);
        // The end of a block stands where what follows it begins.
        let end = match end.is_empty() {
            true => last.map_or(start.end, |node| node.at.end),
            false => self.places.at(end).end,
        };
        At {
            end: end.max(start.end),
            ..start
        }
    }

    fn scalar(&self, text: Cow<'s, str>, style: ScalarStyle, tag: Option<&Tag>) -> Value<'s> {
        // Of a tag such as `!Ref` the value is resolved as if it had none.
        let is_text = tag.is_some_and(|tag| {
            tag.handle.is_empty() || tag.is_yaml_core_schema() && tag.suffix == "str"
        });
        if style != ScalarStyle::Plain || is_text {
            return Value::String(text);
        }
        match &*text {
            "" | "~" | "null" | "Null" | "NULL" => Value::Null,
            "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => {
                Value::Bool(true)
            }
            "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => {
                Value::Bool(false)
            }
            _ => match number(&text) {
                Some(number) => Value::Number(number.into()),
                None => Value::String(text),
            },
        }
    }
}

/// A number of YAML 1.1 in decimal; sexagesimal ones are left as text.
fn number(text: &str) -> Option<String> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", text.strip_prefix('+').unwrap_or(text)),
    };
    if !digits.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let digits = digits.replace('_', "");
    let radix = |digits: &str, radix| {
        let number = i64::from_str_radix(digits, radix).ok()?;
        Some(format!("{sign}{number}"))
    };
    if let Some(hexadecimal) = digits.strip_prefix("0x") {
        return radix(hexadecimal, 16);
    }
    if let Some(binary) = digits.strip_prefix("0b") {
        return radix(binary, 2);
    }
    let is_whole = digits.bytes().all(|byte| byte.is_ascii_digit());
    if is_whole && digits.len() > 1 && digits.starts_with('0') {
        return radix(&digits, 8);
    }
    let is_decimal = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let is_fraction = digits
        .split_once('.')
        .is_some_and(|(whole, rest)| is_decimal(whole) && is_decimal(rest));
    (is_whole || is_fraction).then(|| format!("{sign}{digits}"))
}

/// Bytes by characters, which is what the parser counts.
struct Places<'s> {
    file: u32,
    body: &'s str,
    /// Bytes before the body.
    before: usize,
    /// Where every [`STRIDE`]th character begins; empty if all are of one byte.
    marks: Vec<u32>,
}

const STRIDE: usize = 64;

impl<'s> Places<'s> {
    fn new(file: u32, text: &str, body: &'s str) -> Self {
        let marks = match body.is_ascii() {
            true => Vec::new(),
            false => {
                let starts = body.char_indices().step_by(STRIDE);
                starts.map(|(start, _)| start as u32).collect()
            }
        };
        Self {
            file,
            body,
            before: text.len() - body.len(),
            marks,
        }
    }

    fn end(&self) -> u32 {
        (self.before + self.body.len()) as u32
    }

    fn at(&self, span: Span) -> At {
        let (start, end) = (self.byte(span.start), self.byte(span.end));
        At {
            file: self.file,
            start,
            end: end.max(start),
        }
    }

    fn byte(&self, marker: Marker) -> u32 {
        let index = marker.index();
        let byte = if self.marks.is_empty() {
            index
        } else {
            match self.marks.get(index / STRIDE) {
                None => self.body.len(),
                Some(&mark) => {
                    let mark = mark as usize;
                    let mut rest = self.body[mark..].char_indices();
                    rest.nth(index % STRIDE)
                        .map_or(self.body.len(), |(place, _)| mark + place)
                }
            }
        };
        (self.before + byte.min(self.body.len())) as u32
    }
}

#[cfg(test)]
mod tests;
