use crate::definition::terraform::hcl::tests::values;

#[test]
fn lists_and_maps() {
    values(&[
        ("length([1, 2])", "2"),
        ("length(\"aü\")", "2"),
        ("length({})", "0"),
        ("keys(local.names)", "[\"a\" \"b\"]"),
        ("values(local.names)", "[\"one\" \"two\"]"),
        ("lookup(local.names, \"a\", 1)", "\"one\""),
        ("lookup(local.names, \"z\", 1)", "1"),
        ("element([1, 2, 3], 4)", "2"),
        ("index([\"a\", \"b\"], \"b\")", "1"),
        ("concat([1], [], [2, 3])", "[1 2 3]"),
        ("flatten(local.nested)", "[\"a\" \"b\" \"c\"]"),
        ("flatten([[1, [2]], [var.x]])", "[1 2 ?var.x]"),
        ("compact([\"a\", \"\", null, \"b\"])", "[\"a\" \"b\"]"),
        ("coalesce(null, \"\", \"b\")", "\"b\""),
        ("coalesce(var.x, \"b\")", "?var.x"),
        ("coalescelist([], [1])", "[1]"),
        ("merge({ a = 1 }, null, { a = 2, b = 3 })", "{a=2 b=3}"),
        ("merge([{ a = 1 }, { b = 2 }]...)", "{a=1 b=2}"),
        ("zipmap([\"b\", \"a\"], [1, 2])", "{a=2 b=1}"),
        ("slice([1, 2, 3], 1, 3)", "[2 3]"),
        ("chunklist([1, 2, 3], 2)", "[[1 2] [3]]"),
        ("reverse([1, 2])", "[2 1]"),
        ("sort([\"b\", \"a\", 1])", "[\"1\" \"a\" \"b\"]"),
        ("range(3)", "[0 1 2]"),
        ("range(1, 8, 3)", "[1 4 7]"),
        ("range(2, 0)", "[2 1]"),
        ("one([])", "null"),
        ("one([7])", "7"),
        (
            "transpose({ a = [\"x\", \"y\"], b = [\"x\"] })",
            "{x=[\"a\" \"b\"] y=[\"a\"]}",
        ),
        ("matchkeys([1, 2], [\"a\", \"b\"], [\"b\"])", "[2]"),
    ]);
}

#[test]
fn sets() {
    values(&[
        ("toset([\"b\", \"a\", \"b\"])", "[\"a\" \"b\"]"),
        ("toset([10, 9])", "[9 10]"),
        ("toset([\"a\", 1])", "[\"1\" \"a\"]"),
        ("tolist(toset([2, 1]))", "[1 2]"),
        ("tomap({ a = 1 })", "{a=1}"),
        ("distinct([2, 1, 2])", "[2 1]"),
        ("contains([1, 2], 2)", "true"),
        ("contains([1, var.x], 1)", "true"),
        ("contains([1, var.x], 2)", "?contains(…)"),
        ("setunion([\"a\"], [\"b\", \"a\"])", "[\"a\" \"b\"]"),
        ("setintersection([1, 2], [2, 3])", "[2]"),
        ("setsubtract([1, 2], [2, 3])", "[1]"),
        ("setproduct([\"a\", \"b\"], [1])", "[[\"a\" 1] [\"b\" 1]]"),
        ("alltrue([true, \"true\"])", "true"),
        ("anytrue([false, var.x, true])", "true"),
    ]);
}

#[test]
fn text() {
    values(&[
        ("join(\",\", [\"a\", 1], [\"b\"])", "\"a,1,b\""),
        ("split(\",\", \"a,b\")", "[\"a\" \"b\"]"),
        (
            "format(\"%s-%03d %5.1f%% %v %q %t\", \"a\", 7, 1.25, [1], \"q\", true)",
            "\"a-007   1.2% [1] \\\"q\\\" true\"",
        ),
        (
            "format(\"%-4s|%4s|%x\", \"a\", \"b\", 255)",
            "\"a   |   b|ff\"",
        ),
        (
            "formatlist(\"%s:%d\", [\"a\", \"b\"], 80)",
            "[\"a:80\" \"b:80\"]",
        ),
        ("lower(\"ÄB\")", "\"äb\""),
        ("upper(\"äb\")", "\"ÄB\""),
        ("title(\"one two\")", "\"One Two\""),
        ("trimspace(\" a \")", "\"a\""),
        ("trim(\"xxaxx\", \"x\")", "\"a\""),
        ("trimprefix(\"a-b\", \"a-\")", "\"b\""),
        ("trimsuffix(\"a-b\", \"-b\")", "\"a\""),
        ("chomp(\"a\\n\")", "\"a\""),
        ("replace(\"a.b.c\", \".\", \"-\")", "\"a-b-c\""),
        (
            "replace(\"a1\", \"/[0-9]/\", \"\")",
            "?a replacement by a regular expression",
        ),
        ("substr(\"hello\", 1, 3)", "\"ell\""),
        ("substr(\"hello\", -3, -1)", "\"llo\""),
        ("startswith(\"abc\", \"ab\")", "true"),
        ("endswith(\"abc\", \"ab\")", "false"),
        ("strcontains(\"abc\", \"b\")", "true"),
    ]);
}

#[test]
fn numbers_and_types() {
    values(&[
        ("min(3, 1, 2)", "1"),
        ("max(3, 1, \"4\")", "4"),
        ("ceil(1.2)", "2"),
        ("floor(-1.2)", "-2"),
        ("abs(-3)", "3"),
        ("pow(2, 10)", "1024"),
        ("sum([1, 2.5])", "3.5"),
        ("parseint(\"ff\", 16)", "255"),
        ("tostring(80)", "\"80\""),
        ("tonumber(\"80\")", "80"),
        ("tobool(\"true\")", "true"),
        ("tostring(null)", "null"),
        ("sensitive(\"a\")", "\"a\""),
        (
            "jsonencode({ b = [1, \"<\"], a = null })",
            "\"{\\\"a\\\":null,\\\"b\\\":[1,\\\"\\\\u003c\\\"]}\"",
        ),
        ("jsondecode(\"{\\\"a\\\": [1, true]}\").a", "[1 true]"),
        ("file(\"x\")", "?file(…)"),
        ("provider::aws::arn_parse(\"x\")", "?provider::…"),
        ("1e3", "1000"),
        ("12345678901", "12345678901"),
    ]);
}

#[test]
fn addresses() {
    values(&[
        ("cidrsubnet(\"10.0.0.0/8\", 8, 2)", "\"10.2.0.0/16\""),
        ("cidrsubnet(\"172.16.0.0/12\", 4, 15)", "\"172.31.0.0/16\""),
        (
            "cidrsubnet(\"fd00:1234::/56\", 16, 162)",
            "\"fd00:1234:0:0:a200::/72\"",
        ),
        ("cidrsubnet(\"0.0.0.0/0\", 0, 0)", "\"0.0.0.0/0\""),
        ("cidrsubnet(\"::/0\", 0, 0)", "\"::/0\""),
        ("cidrhost(\"10.12.112.0/20\", 16)", "\"10.12.112.16\""),
        ("cidrhost(\"10.12.112.0/20\", -1)", "\"10.12.127.255\""),
        ("cidrhost(\"fd00::/64\", 34)", "\"fd00::22\""),
        (
            "cidrhost(\"::/0\", -1)",
            "\"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff\"",
        ),
        ("cidrnetmask(\"172.16.0.0/12\")", "\"255.240.0.0\""),
        ("cidrnetmask(\"0.0.0.0/0\")", "\"0.0.0.0\""),
        (
            "cidrsubnets(\"10.1.0.0/16\", 4, 4, 8, 4)",
            "[\"10.1.0.0/20\" \"10.1.16.0/20\" \"10.1.32.0/24\" \"10.1.48.0/20\"]",
        ),
        (
            "cidrsubnets(\"fd00:1234::/56\", 16)",
            "[\"fd00:1234::/72\"]",
        ),
        ("cidrsubnets(\"::/0\", 0)", "[\"::/0\"]"),
        (
            "cidrsubnets(\"0.0.0.0/0\", 1, 1)",
            "[\"0.0.0.0/1\" \"128.0.0.0/1\"]",
        ),
        (
            "cidrsubnets(\"10.0.0.0/24\", 1, 1, 1)",
            "error[evaluation] main.tf:2:10 `cidrsubnets`: there is not enough room for all subnets",
        ),
        (
            "cidrsubnet(\"10.0.0.0/8\", 25, 0)",
            "error[evaluation] main.tf:2:10 `cidrsubnet`: a /8 has no subnets of 25 bits more",
        ),
        (
            "cidrsubnet(\"10.0.0.0/8\", 1, 2)",
            "error[evaluation] main.tf:2:10 `cidrsubnet`: 1 bits do not hold the number 2",
        ),
        (
            "cidrhost(\"10.0.0.0/30\", 4)",
            "error[evaluation] main.tf:2:10 `cidrhost`: a /30 has no host 4",
        ),
        (
            "cidrhost(\"10.0.0.0\", 4)",
            "error[evaluation] main.tf:2:10 `cidrhost`: \"10.0.0.0\" is not a prefix such as 10.0.0.0/8",
        ),
    ]);
}
