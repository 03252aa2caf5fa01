//! Facts about the reader: places, bounds, and what it refuses.

use std::fmt::Write as _;

use super::*;

fn problems(text: &str) -> Vec<String> {
    let (_, problems) = read(text);
    problems.iter().map(|p| format!("{}:{}: {p}", p.line, p.column)).collect()
}

fn tree(text: &str) -> Node {
    let (root, problems) = read(text);
    assert_eq!(problems, []);
    root.expect("the document has a root")
}

#[test]
fn keys_and_values_know_their_places() {
    let root = tree("listen: x\nprobes:\n  - tcp\n  - name: udp\n    args: {a: 1}\n");
    let probes = root.entry("probes").expect("probes is there");
    assert_eq!(probes.mark, Mark { line: 2, column: 1 });
    let items = probes.value.items();
    assert_eq!(items[0].mark, Mark { line: 3, column: 5 });
    assert_eq!(items[1].mark, Mark { line: 4, column: 5 });
    assert_eq!(items[1].at(&["args", "a"]).map(|n| n.mark), Some(Mark { line: 5, column: 15 }));
}

#[test]
fn an_absent_value_is_placed_at_its_key() {
    let root = tree("a:\n\n\nb: 1\n");
    assert_eq!(root.at(&["a"]), Some(&Node { mark: Mark::START, kind: Kind::Null }));
}

#[test]
fn aliases_are_copies() {
    let root = tree("a: &x {k: [1, 2]}\nb: *x\n");
    assert_eq!(root.at(&["a", "k"]), root.at(&["b", "k"]));
}

#[test]
fn quoted_scalars_are_text() {
    let root = tree("a: '1'\nb: \"~\"\nc: |\n  7\n");
    assert_eq!(root.at(&["a"]).and_then(Node::text), Some("1"));
    assert_eq!(root.at(&["b"]).and_then(Node::text), Some("~"));
    assert_eq!(root.at(&["c"]).and_then(Node::text), Some("7\n"));
}

#[test]
fn repeated_keys_are_each_reported() {
    let found = problems("a: 1\nb:\n  c: 1\n  c: 2\na: 2\n");
    assert_eq!(found.len(), 2);
    assert!(found[0].starts_with("4:3: b.c: this key is here twice"));
    assert!(found[1].starts_with("5:1: a: this key is here twice"));
}

#[test]
fn what_is_not_supported_says_so() {
    for (text, wanted) in [
        ("a: 1\n---\nb: 2\n", "2:1: a second document"),
        ("a: !!str 1\n", "1:4: a: tags such as"),
        ("? [a]\n: 1\n", "a key must be text"),
        ("a: &x [*x]\n", "1:8: a[0]: this alias is inside"),
        ("a: *nowhere\n", "this is not YAML"),
        ("a: \u{0}b\n", "1:4: the character U+0000"),
        ("a: [1, 2\nb: 3\n", "this is not YAML"),
        ("a:\n\t- 1\n", "this is not YAML"),
    ] {
        let found = problems(text);
        assert!(found.len() == 1 && found[0].contains(wanted), "{text:?}: {found:?}");
    }
}

#[test]
fn alias_bomb_is_stopped_by_the_bound() {
    let mut text = String::from("a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol, lol]\n");
    for n in 1..12 {
        let inner = vec![format!("*a{}", n - 1); 10].join(", ");
        let _ = writeln!(text, "a{n}: &a{n} [{inner}]");
    }
    let found = problems(&text);
    assert!(found.len() == 1 && found[0].contains("copies by alias included"), "{found:?}");
}

#[test]
fn aliases_of_long_text_are_stopped_by_the_bound() {
    let text = format!("a: &a {}\nb: [{}]\n", "x".repeat(500_000), vec!["*a"; 1000].join(", "));
    assert!(problems(&text)[0].contains("bytes, copies by alias included"));
}

#[test]
fn deep_nesting_is_stopped_by_the_bound() {
    for text in ["[".repeat(100_000), "- ".repeat(100_000), "{a: ".repeat(1000)] {
        let found = problems(&text);
        assert!(
            found.len() == 1
                && ["inside each other", "recursion limit"].iter().any(|words| found[0].contains(words)),
            "{found:?}"
        );
    }
    let mut text = String::from("a0: &a0 1\n");
    for n in 1..70 {
        let _ = writeln!(text, "a{n}: &a{n} [*a{}]", n - 1);
    }
    assert!(problems(&text)[0].contains("inside each other"));
}
