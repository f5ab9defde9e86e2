//! Comments that say what a rule is for.

use hcl_edit::Decorate as _;
use hcl_edit::structure::Block;

use super::super::super::text;

/// The comment that stands directly above a block or behind it, as a description of a rule can say it.
pub(super) fn of(block: &Block) -> Option<String> {
    let decor = block.decor();
    let above = decor.prefix().map_or("", |prefix| &**prefix);
    let opening = block.body.decor().prefix().map_or("", |prefix| &**prefix);
    let behind = decor.suffix().map_or("", |suffix| &**suffix);
    [directly_above(above), words(opening), words(behind)]
        .iter()
        .find_map(|comment| text::rule_comment(comment))
}

/// The comment whose last line is directly above.
fn directly_above(text: &str) -> String {
    // What stands behind the last line's end is the block's indent.
    let Some((lines, _)) = text.rsplit_once('\n') else {
        return String::new();
    };
    let mut own: Vec<&str> = Vec::new();
    for line in lines.rsplit('\n') {
        if line.trim().is_empty() {
            break;
        }
        own.push(line);
    }
    own.reverse();
    words(&own.join("\n"))
}

/// A comment without what marks it as one.
fn words(text: &str) -> String {
    let mark = |c: char| c.is_whitespace() || "#/*-=".contains(c);
    let lines = text.lines().map(|line| line.trim_matches(mark));
    let lines: Vec<&str> = lines.filter(|line| !line.is_empty()).collect();
    lines.join(" ")
}

#[cfg(test)]
mod tests {
    use hcl_edit::structure::Body;

    use super::*;

    fn comment(text: &str) -> Option<String> {
        let body: Body = text.parse().unwrap();
        of(body.blocks().last().unwrap())
    }

    #[test]
    fn the_nearest_comment_describes() {
        for (text, expected) in [
            ("ingress {\n}\n", None),
            ("# the web\ningress {\n}\n", Some("the web")),
            (
                "a = 1\n\n  // one,\n  // two\n  ingress {\n  }\n",
                Some("one, two"),
            ),
            ("# far\n\ningress {\n}\n", None),
            ("# far\n\n# near\ningress {\n}\n", Some("near")),
            ("/* --- the\n   web --- */\ningress {\n}\n", Some("the web")),
            ("ingress { # opening\n}\n", Some("opening")),
            ("ingress {\n} # closing\n", Some("closing")),
            ("a = 1 # of a\ningress {\n}\n", None),
            ("# ----\ningress {\n}\n", None),
            (
                "# \"quoted\" für alle\ningress {\n}\n",
                Some("_quoted_ f_r alle"),
            ),
        ] {
            assert_eq!(comment(text).as_deref(), expected, "{text}");
        }
    }
}
