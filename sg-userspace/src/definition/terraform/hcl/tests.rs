use crate::definition::diagnostic::{Diagnostic, Severity};
use crate::definition::document::{Node, Value};
use crate::definition::findings::Findings;
use crate::definition::read::Input;
use crate::definition::source::Source;
use crate::definition::terraform::Resource;

mod bounds;
mod documented;
mod files;
mod language;
mod references;

/// Resources of files, and what was found.
fn read(files: &[(&str, &str)]) -> (Vec<Resource<'static>>, Vec<Diagnostic>) {
    let source = |(name, text): &(&str, &str)| {
        let mut source = Source::new(name.trim_start_matches("given/"), (*text).into());
        // In a directory unless it is named.
        source.found = !name.starts_with("given/");
        source
    };
    let sources: Vec<Source> = files.iter().map(source).collect();
    let input = |(file, source)| Input {
        file,
        source,
        document: super::super::super::format::document(file, source).map(Result::unwrap),
    };
    let inputs: Vec<Input<'_>> = (0..).zip(&sources).map(input).collect();
    let mut findings = Findings::default();
    let resources = super::read(&inputs, &mut findings);
    (resources, findings.into_diagnostics(&sources))
}

/// One line for each resource, and one for each thing found.
fn lines(files: &[(&str, &str)]) -> Vec<String> {
    let (resources, diagnostics) = read(files);
    let resource =
        |resource: &Resource<'_>| format!("{} {}", resource.address, shown(&resource.attributes));
    let diagnostic = |found: &Diagnostic| {
        let kind = match found.severity {
            Severity::Error => "error",
            _ => "warning",
        };
        let place = found.place.as_ref().expect("it stands somewhere");
        format!(
            "{kind}[{}] {}:{}:{} {}",
            found.code, place.file, place.line, place.column, found.message
        )
    };
    let resources = resources.iter().map(resource);
    resources
        .chain(diagnostics.iter().map(diagnostic))
        .collect()
}

fn shown(node: &Node<'_>) -> String {
    match &node.value {
        Value::Null => "null".into(),
        Value::Bool(value) => value.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => format!("{text:?}"),
        Value::List(nodes) => {
            let nodes: Vec<String> = nodes.iter().map(shown).collect();
            format!("[{}]", nodes.join(" "))
        }
        Value::Map(entries) => {
            let entry = |(key, node): &(_, Node<'_>)| {
                let key: &crate::definition::tree::Located<std::borrow::Cow<'_, str>> = key;
                format!("{}={}", key.value, shown(node))
            };
            let entries: Vec<String> = entries.iter().map(entry).collect();
            format!("{{{}}}", entries.join(" "))
        }
        Value::Unknown(what) => format!("?{what}"),
    }
}

/// What an expression is, among some variables, locals and resources; or what is wrong with it.
fn value(expression: &str) -> String {
    let text = format!(
        r#"resource "aws_security_group" "t" {{
  name = {expression}
}}
locals {{
  ports = [80, 443]
  names = {{ b = "two", a = "one" }}
  nested = [["a", "b"], [], ["c"]]
  deep = {{ x = {{ y = [{{ z = 1 }}, {{ z = 2 }}] }} }}
}}
"#
    );
    let lines = lines(&[("main.tf", &text)]);
    let own = lines.iter().find(|line| line.contains("error["));
    if let Some(error) = own {
        return error.clone();
    }
    let own = lines[0].strip_prefix("aws_security_group.t {name=");
    own.and_then(|own| own.strip_suffix('}'))
        .unwrap_or("?")
        .into()
}

/// Each expression has the value.
pub(super) fn values(cases: &[(&str, &str)]) {
    for (expression, expected) in cases {
        assert_eq!(value(expression), *expected, "{expression}");
    }
}
