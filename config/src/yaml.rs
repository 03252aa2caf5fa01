//! Reads YAML text into a [`Node`] tree, within bounds that no file can push.
//!
//! One document; anchors and aliases by copying; tags and mappings or lists as keys refused. The bounds are on the
//! nodes and bytes after copying and on depth, so that a few lines of aliases of aliases cost a message and no memory.
//! A syntax error ends the reading; repeated keys and tags do not.

use std::collections::{HashMap, HashSet};

use saphyr_parser::{Event, Marker, Parser, ScalarStyle};

use crate::report::Problem;
use crate::scalar;
use crate::tree::{Entry, Kind, Mark, Node};

/// Values in one file, copies by alias included.
const NODES: usize = 100_000;
/// Bytes of text in one file, copies by alias included.
const BYTES: usize = 8 << 20;
/// Lists and mappings inside each other.
const DEPTH: usize = 64;

/// The document (`None`: empty, or unreadable) and every problem met.
pub(crate) fn read(text: &str) -> (Option<Node>, Vec<Problem>) {
    let mut builder = Builder::default();
    if let Err(problem) = builder.run(text) {
        builder.problems.push(problem);
        return (None, builder.problems);
    }
    (builder.root, builder.problems)
}

#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    anchors: HashMap<usize, (Node, Size)>,
    root: Option<Node>,
    documents: usize,
    spent: Size,
    problems: Vec<Problem>,
}

/// A list or mapping whose end has not come yet.
struct Open {
    mark: Mark,
    anchor: usize,
    body: Body,
}

enum Body {
    List(Vec<Node>),
    Map { entries: Vec<Entry>, names: HashSet<String>, key: Option<(String, Mark)> },
}

#[derive(Default, Clone, Copy)]
struct Size {
    nodes: usize,
    bytes: usize,
    depth: usize,
}

impl Builder {
    fn run(&mut self, text: &str) -> Result<(), Problem> {
        refuse_control_characters(text)?;
        for step in Parser::new_from_str(text) {
            let (event, span) = step.map_err(|error| {
                let message = format!("this is not YAML: {}", error.info());
                Problem::new(mark(*error.marker()), self.path(), message)
            })?;
            let mark = mark(span.start);
            match event {
                Event::DocumentStart(_) => {
                    self.documents += 1;
                    if self.documents > 1 {
                        return Err(Problem::new(
                            mark,
                            "",
                            "a second document starts here; the file holds one, without a second ---",
                        ));
                    }
                }
                Event::Scalar(text, style, anchor, tag) => {
                    self.refuse_tag(tag.is_some(), mark);
                    self.scalar(&text, style, anchor, mark)?;
                }
                Event::SequenceStart(anchor, tag) => {
                    self.refuse_tag(tag.is_some(), mark);
                    self.begin(anchor, Body::List(Vec::new()), mark)?;
                }
                Event::MappingStart(anchor, tag) => {
                    self.refuse_tag(tag.is_some(), mark);
                    self.begin(
                        anchor,
                        Body::Map { entries: Vec::new(), names: HashSet::new(), key: None },
                        mark,
                    )?;
                }
                Event::SequenceEnd | Event::MappingEnd => self.end()?,
                Event::Alias(anchor) => self.alias(anchor, mark)?,
                Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
            }
        }
        Ok(())
    }

    fn refuse_tag(&mut self, tagged: bool, mark: Mark) {
        if tagged {
            let message = "tags such as !!str have no use here; remove it (quotes make a value text)";
            self.problems.push(Problem::new(mark, self.path(), message));
        }
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle, anchor: usize, mark: Mark) -> Result<(), Problem> {
        if self.wants_key() {
            // A key is its text, whatever that would mean as a value.
            return self.key(text, mark);
        }
        let kind =
            if style == ScalarStyle::Plain { scalar::plain(text) } else { Kind::Text(text.to_owned()) };
        // An absent value has its place on some later line, where nobody would look for it.
        let mark = match (&kind, self.open.last()) {
            (Kind::Null, Some(Open { body: Body::Map { key: Some((_, key)), .. }, .. })) => *key,
            _ => mark,
        };
        let size = Size { nodes: 1, bytes: text.len(), depth: 0 };
        self.place(Node { mark, kind }, size, anchor)
    }

    fn begin(&mut self, anchor: usize, body: Body, mark: Mark) -> Result<(), Problem> {
        if self.wants_key() {
            return Err(Problem::new(
                mark,
                self.path(),
                "a key is a list or a mapping here; a key must be text",
            ));
        }
        if self.open.len() >= DEPTH {
            return Err(Self::too_deep(mark));
        }
        self.open.push(Open { mark, anchor, body });
        Ok(())
    }

    fn end(&mut self) -> Result<(), Problem> {
        let Some(Open { mark, anchor, body }) = self.open.pop() else { return Ok(()) };
        let kind = match body {
            Body::List(items) => Kind::List(items),
            Body::Map { entries, .. } => Kind::Map(entries),
        };
        self.place(Node { mark, kind }, Size { nodes: 1, bytes: 0, depth: 0 }, anchor)
    }

    fn alias(&mut self, anchor: usize, mark: Mark) -> Result<(), Problem> {
        if self.wants_key() {
            return Err(Problem::new(mark, self.path(), "an alias cannot be a key; write the key out"));
        }
        let Some(size) = self.anchors.get(&anchor).map(|(_, size)| *size) else {
            return Err(Problem::new(mark, self.path(), "this alias is inside the value that it stands for"));
        };
        if self.open.len() + size.depth > DEPTH {
            return Err(Self::too_deep(mark));
        }
        // Charged before copying: the copy is what the bound is there to prevent.
        self.spend(size, mark)?;
        let kind = self.anchors.get(&anchor).map_or(Kind::Null, |(node, _)| node.kind.clone());
        self.place(Node { mark, kind }, Size::default(), 0)
    }

    /// Puts a finished value where it belongs, and keeps a copy if it has an anchor.
    fn place(&mut self, node: Node, size: Size, anchor: usize) -> Result<(), Problem> {
        self.spend(size, node.mark)?;
        if anchor != 0 {
            let whole = measure(&node);
            self.spend(whole, node.mark)?;
            self.anchors.insert(anchor, (node.clone(), whole));
        }
        match self.open.last_mut().map(|open| &mut open.body) {
            None => self.root = Some(node),
            Some(Body::List(items)) => items.push(node),
            Some(Body::Map { entries, key, .. }) => {
                if let Some((name, mark)) = key.take() {
                    entries.push(Entry { name, mark, value: node });
                }
            }
        }
        Ok(())
    }

    /// Whether a mapping is open and the next event is a key of it.
    fn wants_key(&self) -> bool {
        matches!(self.open.last(), Some(Open { body: Body::Map { key: None, .. }, .. }))
    }

    fn key(&mut self, text: &str, mark: Mark) -> Result<(), Problem> {
        self.spend(Size { nodes: 0, bytes: text.len(), depth: 0 }, mark)?;
        let mut repeated = false;
        if let Some(Open { body: Body::Map { names, key, .. }, .. }) = self.open.last_mut() {
            repeated = !names.insert(text.to_owned());
            *key = Some((text.to_owned(), mark));
        }
        if repeated {
            let message = "this key is here twice; keep one of them";
            self.problems.push(Problem::new(mark, self.path(), message));
        }
        Ok(())
    }

    fn spend(&mut self, size: Size, mark: Mark) -> Result<(), Problem> {
        self.spent.nodes += size.nodes;
        self.spent.bytes += size.bytes;
        if self.spent.nodes > NODES || self.spent.bytes > BYTES {
            let message = format!(
                "more than {NODES} values or {BYTES} bytes, copies by alias included; no configuration is that large"
            );
            return Err(Problem::new(mark, self.path(), message));
        }
        Ok(())
    }

    fn too_deep(mark: Mark) -> Problem {
        // The path would be as long as the nesting is deep.
        Problem::new(mark, "", format!("more than {DEPTH} lists and mappings inside each other"))
    }

    /// The dotted path of the value that comes next.
    fn path(&self) -> String {
        self.open.iter().fold(String::new(), |path, open| match &open.body {
            Body::List(items) => format!("{path}[{}]", items.len()),
            Body::Map { key: Some((name, _)), .. } => crate::words::join(&path, name),
            Body::Map { key: None, .. } => path,
        })
    }
}

fn mark(marker: Marker) -> Mark {
    Mark { line: marker.line().max(1), column: marker.col() + 1 }
}

/// Depth is bounded by [`DEPTH`], so the recursion is too.
fn measure(node: &Node) -> Size {
    let (own, inside): (usize, Vec<Size>) = match &node.kind {
        Kind::Text(text) => return Size { nodes: 1, bytes: text.len(), depth: 0 },
        Kind::List(items) => (0, items.iter().map(measure).collect()),
        Kind::Map(entries) => (
            entries.iter().map(|entry| entry.name.len()).sum(),
            entries.iter().map(|entry| measure(&entry.value)).collect(),
        ),
        _ => return Size { nodes: 1, bytes: 0, depth: 0 },
    };
    inside.iter().fold(Size { nodes: 1, bytes: own, depth: 1 }, |sum, size| Size {
        nodes: sum.nodes + size.nodes,
        bytes: sum.bytes + size.bytes,
        depth: sum.depth.max(size.depth + 1),
    })
}

/// The parser takes NUL for the end of the file, so that the rest would be ignored in silence.
fn refuse_control_characters(text: &str) -> Result<(), Problem> {
    let mut mark = Mark::START;
    for c in text.chars() {
        if c.is_control() && !matches!(c, '\t' | '\n' | '\r' | '\u{85}') {
            let message = format!("the character U+{:04X} has no place in a text file", u32::from(c));
            return Err(Problem::new(mark, "", message));
        }
        mark = if c == '\n' {
            Mark { line: mark.line + 1, column: 1 }
        } else {
            Mark { column: mark.column + 1, ..mark }
        };
    }
    Ok(())
}

#[cfg(test)]
mod tests;
