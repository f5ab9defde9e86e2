use super::super::json;
use super::*;

fn long_form(tag: &str) -> Option<String> {
    (tag == "Ref").then(|| tag.to_owned())
}

fn yaml(text: &str) -> Result<Node<'_>, SyntaxError> {
    parse(0, text, long_form)
}

/// The value as JSON, to compare with.
fn plain(node: &Node<'_>) -> serde_json::Value {
    match &node.value {
        Value::Null => serde_json::Value::Null,
        Value::Bool(value) => (*value).into(),
        Value::Number(text) => serde_json::from_str(text).unwrap(),
        Value::String(text) => text.clone().into_owned().into(),
        Value::List(nodes) => nodes.iter().map(plain).collect(),
        Value::Map(entries) => entries
            .iter()
            .map(|(key, node)| (key.value.clone().into_owned(), plain(node)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
        Value::Unknown(_) => panic!("YAML knows everything"),
    }
}

#[test]
fn yaml_is_what_json_would_be() {
    for (text, expected) in [
        ("", "null"),
        (
            "a: 1\nb:\n  - x\n  - {c: ~, d: [1, '2']}\n",
            r#"{"a":1,"b":["x",{"c":null,"d":[1,"2"]}]}"#,
        ),
        (
            "[010, 0x1F, +3, 1_000, -1, 1.5, '010', 08, 1:30]",
            r#"[8,31,3,1000,-1,1.5,"010","08","1:30"]"#,
        ),
        (
            "[yes, No, on, 'on', !!str yes, ! 7, true]",
            r#"[true,false,true,"on","yes","7",true]"#,
        ),
        (
            "a: !Ref B\nc: !Ref {d: 1}\n",
            r#"{"a":{"Ref":"B"},"c":{"Ref":{"d":1}}}"#,
        ),
        (
            "a: &x {p: 1, q: 2}\nb: {<<: *x, q: 3}\nc: {<<: [{q: 4}, *x]}\n",
            r#"{"a":{"p":1,"q":2},"b":{"q":3,"p":1},"c":{"q":4,"p":1}}"#,
        ),
        (
            "a: |\n  x\n  y\nb: >-\n  x\n  y\n",
            r#"{"a":"x\ny\n","b":"x y"}"#,
        ),
        ("\"a\": {\"b\": \"\\u0041\"}", r#"{"a":{"b":"A"}}"#),
    ] {
        let expected: serde_json::Value = serde_json::from_str(expected).unwrap();
        assert_eq!(plain(&yaml(text).unwrap()), expected, "{text}");
    }
}

#[test]
fn values_know_where_they_stand() {
    let text = "\u{feff}ü: é\nlist:\n  - a: 'ö'\n    b: 22\n  - !Ref X\nend: {x: 1}\n";
    let node = yaml(text).unwrap();
    let own = |node: &Node<'_>| &text[node.at.start as usize..node.at.end as usize];
    assert_eq!(own(node.get("ü").unwrap()), "é");
    let list = node.get("list").unwrap().list().unwrap();
    assert_eq!(own(list[0].get("a").unwrap()), "'ö'");
    assert_eq!(own(list[0].get("b").unwrap()), "22");
    assert_eq!(own(&list[1]), "!Ref X");
    assert!(own(&list[0]).starts_with("a: 'ö'"), "{}", own(&list[0]));
    let (key, _) = &node.map().unwrap()[2];
    assert_eq!(&text[key.at.start as usize..key.at.end as usize], "end");
}

#[test]
fn what_cannot_be_read_is_located() {
    for (text, line, message) in [
        ("a: 1\nb: [1, 2\n", 3, "not YAML"),
        ("a: 1\na: 2\n", 2, "stands twice"),
        ("a: 1\n---\nb: 1\n", 3, "second document"),
        ("a: !Nope x\n", 1, "tag `!Nope`"),
        ("a: &a [*a]\n", 1, "stands in"),
        ("a: *nope\n", 1, "unknown anchor"),
        ("? [1]\n: 2\n", 1, "must be text"),
        ("a: {<<: 3}\n", 1, "merges objects"),
        ("a: 1\n\tb: 2\n", 1, "found a tab"),
    ] {
        let error = yaml(text).unwrap_err();
        assert!(error.message.contains(message), "{text}: {}", error.message);
        let found = text[..error.at.start as usize].matches('\n').count() + 1;
        assert_eq!(found, line, "{text}: {}", error.message);
    }
}

#[test]
fn bombs_and_towers_end_in_an_error() {
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
    for level in 1..30 {
        let below = format!("*a{}, ", level - 1).repeat(9);
        bomb += &format!("a{level}: &a{level} [{below}]\n");
    }
    let error = yaml(&bomb).unwrap_err();
    assert!(error.message.contains("more than"), "{}", error.message);
    let mut tower = String::from("a0: &a0 [x]\n");
    for level in 1..1000 {
        tower += &format!("a{level}: &a{level} [*a{}]\n", level - 1);
    }
    let error = yaml(&tower).unwrap_err();
    assert!(error.message.contains("deeper"), "{}", error.message);
    for deep in [
        "[".repeat(200),
        "- ".repeat(5000),
        "{a: ".repeat(200),
        (0..200).map(|n| " ".repeat(n) + "a:\n").collect::<String>(),
    ] {
        let error = yaml(&deep).unwrap_err();
        assert!(error.message.contains("deeper"), "{}", error.message);
    }
}

#[test]
fn json_is_yaml() {
    let text = r#"{"a": [1, -2.5, "x", null, true], "b": {"c": "d: e"}}"#;
    let (yaml, json) = (yaml(text).unwrap(), json::parse(0, text).unwrap());
    assert_eq!(plain(&yaml), plain(&json));
}
