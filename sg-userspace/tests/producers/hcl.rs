//! Terraform's language as python-hcl2 reads it, a parser that shares nothing with ours: both find the same blocks,
//! labels, attributes and literals in our samples, and in generated files.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use hcl_edit::expr::{Expression, ObjectKey};
use hcl_edit::structure::{Body, Structure};
use serde_json::{Map, Value, json};

use super::{directory, environment, require, succeeds};

#[test]
fn two_parsers_of_terraforms_language_agree() {
    if !environment().join("installed.txt").is_file() {
        require::skip("needs programs of others: `cargo xtask setup` installs them");
        return;
    }
    let cases = directory("producers-hcl");
    let mut count = 0;
    for sample in samples() {
        let name = format!("sample-{count}.tf");
        fs::copy(&sample, cases.join(name)).expect("a sample can be copied");
        count += 1;
    }
    assert!(count >= 5, "{count} samples");
    for seed in 0..200 {
        let text = Generator(seed).file();
        fs::write(cases.join(format!("generated-{seed}.tf")), text).expect("a case can be written");
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/producers/parse.py");
    let python = environment().join("bin/python");
    let output = succeeds(Command::new(python).arg(script).arg(&cases));
    let found: Map<String, Value> = serde_json::from_slice(&output.stdout).expect("it prints JSON");
    let mut literals = 0;
    for (name, theirs) in &found {
        let text = fs::read_to_string(cases.join(name)).expect("a case can be read");
        let body = hcl_edit::parser::parse_body(&text).unwrap_or_else(|error| panic!("{error}"));
        let ours = blocks(&body);
        compare(&ours, theirs, name, &mut literals);
    }
    assert_eq!(found.len(), count + 200);
    assert!(literals > 2000, "{literals} literals were compared");
}

/// All samples of ours that are valid.
fn samples() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/definition/terraform");
    let mut samples = Vec::new();
    let mut directories = vec![root];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).expect("samples can be listed") {
            let path = entry.expect("samples can be listed").path();
            let kind = path.extension().and_then(|kind| kind.to_str());
            if path.is_dir() {
                directories.push(path);
            } else if matches!(kind, Some("tf" | "tfvars")) && !path.ends_with("syntax.tf") {
                samples.push(path);
            }
        }
    }
    samples.sort_unstable();
    samples
}

/// What stands for an expression that is no literal.
const EXPRESSION: &str = "\u{0}expression";

/// The structure in python-hcl2's form.
fn blocks(body: &Body) -> Value {
    let mut found = Map::new();
    for structure in body {
        match structure {
            Structure::Attribute(attribute) => {
                found.insert(attribute.key.as_str().into(), literal(&attribute.value));
            }
            Structure::Block(block) => {
                let mut inner = blocks(&block.body);
                inner["__is_block__"] = true.into();
                for label in block.labels.iter().rev() {
                    inner = json!({ label.as_str(): inner });
                }
                let of_kind = found
                    .entry(block.ident.as_str())
                    .or_insert_with(|| json!([]));
                of_kind
                    .as_array_mut()
                    .expect("blocks are a list")
                    .push(inner);
            }
        }
    }
    found.into()
}

fn literal(expression: &Expression) -> Value {
    match expression {
        Expression::Null(_) => Value::Null,
        Expression::Bool(value) => (*value.value()).into(),
        Expression::Number(number) => {
            let repr = number.as_repr().map_or("", |repr| &**repr);
            // Those with an exponent it leaves as they are.
            if repr.contains(['e', 'E']) {
                return EXPRESSION.into();
            }
            json!(number.value().as_f64())
        }
        // What would begin a template it leaves escaped.
        Expression::String(text) if text.contains("${") || text.contains("%{") => EXPRESSION.into(),
        Expression::String(text) => text.as_str().into(),
        Expression::Array(array) => array.iter().map(literal).collect(),
        Expression::Object(object) => {
            let mut found = Map::new();
            for (key, value) in object {
                let key = match key {
                    ObjectKey::Ident(name) => name.as_str().to_owned(),
                    ObjectKey::Expression(Expression::String(name)) => name.as_str().to_owned(),
                    ObjectKey::Expression(_) => return EXPRESSION.into(),
                };
                found.insert(key, literal(value.expr()));
            }
            found.into()
        }
        _ => EXPRESSION.into(),
    }
}

#[track_caller]
fn compare(ours: &Value, theirs: &Value, path: &str, literals: &mut usize) {
    match (ours, theirs) {
        (Value::String(ours), _) if ours == EXPRESSION => {}
        (Value::Object(ours), Value::Object(theirs)) => {
            let keys: Vec<&String> = ours.keys().collect();
            assert_eq!(keys, theirs.keys().collect::<Vec<_>>(), "{path}");
            for (key, ours) in ours {
                compare(ours, &theirs[key], &format!("{path}.{key}"), literals);
            }
        }
        (Value::Array(ours), Value::Array(theirs)) => {
            assert_eq!(ours.len(), theirs.len(), "{path}");
            for (index, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
                compare(ours, theirs, &format!("{path}[{index}]"), literals);
            }
        }
        (Value::Number(ours), Value::Number(theirs)) => {
            assert_eq!(ours.as_f64(), theirs.as_f64(), "{path}");
            *literals += 1;
        }
        _ => {
            assert_eq!(ours, theirs, "{path}");
            *literals += 1;
        }
    }
}

/// Files of random structure; the same of the same seed.
struct Generator(u64);

impl Generator {
    /// xorshift64*, of which the seed is mixed first.
    fn next(&mut self, below: u64) -> u64 {
        if self.0 < 1 << 32 {
            self.0 = (self.0 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1 << 63;
        }
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % below
    }

    fn pick(&mut self, words: &[&'static str]) -> &'static str {
        words[self.next(words.len() as u64) as usize]
    }

    fn file(&mut self) -> String {
        let mut text = String::new();
        for number in 0..1 + self.next(6) {
            let kind = self.pick(&["resource", "data"]);
            let label = self.pick(&["aws_security_group", "aws_vpc", "a-b_c"]);
            let _ = writeln!(text, "{kind} \"{label}\" \"n{number}\" {{");
            self.body(&mut text, 1);
            text.push_str("}\n");
            text.push_str(self.pick(&["", "\n", "# between\n", "/* {\n */\n"]));
        }
        text
    }

    fn body(&mut self, text: &mut String, depth: usize) {
        let indent = "  ".repeat(depth);
        for number in 0..self.next(6) {
            text.push_str(self.pick(&["", "\n", "  # { not a block\n", "// = \"\n"]));
            let space = self.pick(&["", " ", "   "]);
            let value = self.value(0);
            let comment = self.pick(&["", " # }", " // x", " /* y */"]);
            let _ = writeln!(text, "{indent}key_{number}{space}={space}{value}{comment}");
        }
        if depth == 4 {
            return;
        }
        for _ in 0..self.next(3) {
            let kind = self.pick(&["ingress", "egress", "dynamic", "content"]);
            let label = if kind == "dynamic" {
                " \"ingress\""
            } else {
                ""
            };
            let _ = writeln!(text, "{indent}{kind}{label} {{");
            self.body(text, depth + 1);
            let _ = writeln!(text, "{indent}}}");
        }
    }

    fn value(&mut self, depth: u64) -> String {
        match self.next(if depth < 3 { 12 } else { 7 }) {
            0 => self.pick(&["null", "true", "false"]).into(),
            1 => format!("{}", self.next(1 << 31)),
            2 => format!("-{}", self.next(70_000)),
            3 => format!("{}.{}", self.next(1000), 1 + self.next(9)),
            4 => self
                .pick(&[
                    "var.a",
                    "local.b.c[0]",
                    "upper(\"x\")",
                    "1 + 2",
                    "\"${var.a}-x\"",
                    "[for a in var.b : a]",
                    "a ? b : c",
                    "\"$${x}\"",
                    "!true",
                ])
                .into(),
            5 | 6 => self.string(),
            7 | 8 => {
                let items: Vec<String> = (0..self.next(4)).map(|_| self.value(depth + 1)).collect();
                let trailing = if items.is_empty() {
                    ""
                } else {
                    self.pick(&["", ",", ", "])
                };
                format!("[{}{trailing}]", items.join(", "))
            }
            _ => {
                let mut text = String::from("{\n");
                for number in 0..self.next(4) {
                    let quote = self.pick(&["", "\""]);
                    let sign = self.pick(&["=", ":"]);
                    let value = self.value(depth + 1);
                    let end = self.pick(&["", ","]);
                    let _ = writeln!(text, "{quote}k{number}{quote} {sign} {value}{end}");
                }
                text + "}"
            }
        }
    }

    fn string(&mut self) -> String {
        let mut text = String::from("\"");
        for _ in 0..self.next(6) {
            text.push_str(self.pick(&[
                "a",
                "Z9",
                " ",
                "\\\"",
                "\\\\",
                "\\n",
                "\\t",
                "\\u00e9",
                "ü",
                "{",
                "}",
                "#",
                "//",
                "$",
                "%",
                "=",
                "0.0.0.0/0",
                "[",
                "'",
            ]));
            // A sign of money and a brace next to it would begin a template.
            if text.ends_with(['$', '%']) {
                text.push('.');
            }
        }
        text + "\""
    }
}
