//! YAML text → a tree of values that know where they stand.
//!
//! Only what a configuration needs: sections, lists and scalars. Anchors, aliases and tags are refused, so that no small
//! file can stand for a large one; a second document is refused, too. What a scalar means (a number, a time) is for the
//! key to say that it belongs to.

use granit_parser::{Event, Parser, ScalarStyle, ScanError, Span, StrInput};

use super::mistake::{Mistake, Position};

/// Sections and lists inside of each other.
pub(super) const MAX_DEPTH: usize = 16;

/// A value and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Value {
    pub(super) position: Position,
    pub(super) content: Content,
}

/// What stands there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// Nothing, or `null` or `~`.
    Nothing,
    /// A scalar; `plain` if it is written without quotes.
    Text { text: String, plain: bool },
    /// A list.
    List(Vec<Value>),
    /// A section.
    Section(Vec<Entry>),
    /// Something that is told as a mistake already.
    Refused,
}

/// A key with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) position: Position,
    pub(super) value: Value,
}

impl Value {
    /// It as a message shows it; `None` where that would tell nothing.
    pub(super) fn shown(&self) -> Option<&str> {
        match &self.content {
            Content::Nothing | Content::Refused => None,
            Content::Text { text, .. } => Some(text),
            Content::List(_) => Some("[…]"),
            Content::Section(_) => Some("{…}"),
        }
    }
}

/// The tree of `text`. What is no YAML ends the reading with one mistake; mistakes that do not hinder it are added to
/// `mistakes`.
pub(super) fn parse(text: &str, mistakes: &mut Vec<Mistake>) -> Result<Value, Mistake> {
    let mut options = granit_parser::options! {
        disallow_directives: true,
        emit_unresolved_aliases: true,
        flow_nesting_limit: MAX_DEPTH + 1,
        block_nesting_limit: MAX_DEPTH + 1,
    };
    options.set_emit_comments(false);
    let parser = Parser::new_from_str_with_options(text, options);
    let mut builder = Builder { parser, text, mistakes };
    builder.document()
}

struct Builder<'t, 'm> {
    parser: Parser<'t, StrInput<'t>>,
    text: &'t str,
    mistakes: &'m mut Vec<Mistake>,
}

impl<'t> Builder<'t, '_> {
    fn document(&mut self) -> Result<Value, Mistake> {
        let mut value = None;
        while let Some((event, position)) = self.next()? {
            match event {
                Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
                Event::DocumentStart(..) if value.is_some() => {
                    return Err(Mistake::at(position, "a second document: must be one"));
                }
                Event::DocumentStart(..) => {}
                event => value = Some(self.node(event, position, 0)?),
            }
        }
        Ok(value.unwrap_or(Value { position: Position { line: 1, column: 1 }, content: Content::Nothing }))
    }

    fn next(&mut self) -> Result<Option<(Event<'t>, Position)>, Mistake> {
        match self.parser.next_event() {
            None => Ok(None),
            Some(Ok((event, span))) => Ok(Some((event, position(&span)))),
            Some(Err(error)) => Err(no_yaml(&error, self.text)),
        }
    }

    /// The next event inside of a list or section, which the parser always ends.
    fn inner(&mut self, start: Position) -> Result<(Event<'t>, Position), Mistake> {
        self.next()?.ok_or_else(|| Mistake::no_yaml(start, "what begins here has no end"))
    }

    fn node(&mut self, event: Event<'t>, position: Position, depth: usize) -> Result<Value, Mistake> {
        if depth > MAX_DEPTH {
            return Err(Mistake::at(position, format_args!("nested too deep: at most {MAX_DEPTH} levels are read")));
        }
        let content = match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.refuse(anchor, tag.is_some(), position);
                let plain = style == ScalarStyle::Plain;
                match &*text {
                    "" | "~" | "null" | "Null" | "NULL" if plain => Content::Nothing,
                    text => Content::Text { text: text.to_owned(), plain },
                }
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.refuse(anchor, tag.is_some(), position);
                self.list(position, depth)?
            }
            Event::MappingStart(_, anchor, tag) => {
                self.refuse(anchor, tag.is_some(), position);
                self.section(position, depth)?
            }
            Event::Alias(_) | Event::UnresolvedAlias(_) => {
                self.mistakes.push(Mistake::at(position, "an alias (`*…`): must be written out"));
                Content::Refused
            }
            other => return Err(Mistake::no_yaml(position, &format!("{other:?} has no place here"))),
        };
        Ok(Value { position, content })
    }

    fn list(&mut self, start: Position, depth: usize) -> Result<Content, Mistake> {
        let mut values = Vec::new();
        loop {
            match self.inner(start)? {
                (Event::SequenceEnd, _) => return Ok(Content::List(values)),
                (event, position) => values.push(self.node(event, position, depth + 1)?),
            }
        }
    }

    fn section(&mut self, start: Position, depth: usize) -> Result<Content, Mistake> {
        let mut entries: Vec<Entry> = Vec::new();
        loop {
            let (event, position) = self.inner(start)?;
            if event == Event::MappingEnd {
                return Ok(Content::Section(entries));
            }
            let key = self.node(event, position, depth + 1)?;
            let (event, place) = self.inner(start)?;
            let value = self.node(event, place, depth + 1)?;
            match key.content {
                Content::Text { text, .. } => entries.push(Entry { key: text, position, value }),
                _ => self.mistakes.push(Mistake::at(position, "must be a key: a word and a colon")),
            }
        }
    }

    fn refuse(&mut self, anchor: usize, tag: bool, position: Position) {
        if anchor != 0 {
            self.mistakes
                .push(Mistake::at(position, "an anchor (`&…`): must be left out, for nothing may refer to it"));
        }
        if tag {
            self.mistakes.push(Mistake::at(position, "a tag (`!…`): must be left out, each key knows its type"));
        }
    }
}

/// Lines count from 1 and columns from 0 there.
fn position(span: &Span) -> Position {
    Position { line: span.start.line(), column: span.start.col() + 1 }
}

fn no_yaml(error: &ScanError, text: &str) -> Mistake {
    let mark = error.marker();
    let position = Position { line: mark.line().max(1), column: mark.col() + 1 };
    let line = text.lines().nth(position.line - 1).unwrap_or_default();
    let hint = if line.contains(": [::") { "; an IPv6 address needs quotes" } else { "" };
    Mistake::no_yaml(position, &format!("{}{hint}", error.info()))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn tree(text: &str) -> Value {
        let mut mistakes = Vec::new();
        let value = parse(text, &mut mistakes).expect("YAML");
        assert_eq!(mistakes, []);
        value
    }

    fn refused(text: &str) -> Vec<String> {
        let mut mistakes = Vec::new();
        let end = parse(text, &mut mistakes).err();
        mistakes.iter().chain(&end).map(ToString::to_string).collect()
    }

    #[rstest]
    fn a_file_without_values_is_nothing(
        #[values("", "\n", "# only a comment\n", "---\n", "---\n...\n", "~")] text: &str,
    ) {
        assert_eq!(tree(text).content, Content::Nothing);
    }

    #[test]
    fn each_value_knows_where_it_stands() {
        let value = tree("a:\n  b: [x, \"y\"]\n");
        let Content::Section(entries) = value.content else { panic!("a section") };
        assert_eq!(entries[0].position, Position { line: 1, column: 1 });
        let Content::Section(inner) = &entries[0].value.content else { panic!("a section") };
        assert_eq!((inner[0].key.as_str(), inner[0].position), ("b", Position { line: 2, column: 3 }));
        let text = |text: &str, column, plain| Value {
            position: Position { line: 2, column },
            content: Content::Text { text: text.to_owned(), plain },
        };
        assert_eq!(inner[0].value.content, Content::List(vec![text("x", 7, true), text("y", 10, false)]));
    }

    #[test]
    fn a_key_may_be_anything_that_is_one_scalar() {
        assert_eq!(
            refused("? [a]\n: 1\n{b: 1}: 2\n"),
            ["1:3: must be a key: a word and a colon", "3:1: must be a key: a word and a colon",]
        );
    }

    #[test]
    fn what_could_grow_is_refused_before_it_does() {
        assert_eq!(
            refused("a: &x [1]\nb: *x\n"),
            [
                "1:7: an anchor (`&…`): must be left out, for nothing may refer to it",
                "2:4: an alias (`*…`): must be written out",
            ]
        );
        assert_eq!(refused("a: *nobody\nb: [*nobody]\n").len(), 2);
        assert_eq!(refused("a: !!str 1\n").len(), 1);
        assert_eq!(refused("a: 1\n---\nb: 1\n"), ["2:1: a second document: must be one"]);
    }

    #[rstest]
    #[case("[".repeat(100_000))]
    #[case("- ".repeat(10_000))]
    #[case((0..200).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect::<String>())]
    fn nesting_is_bounded(#[case] text: String) {
        assert_eq!(refused(&text).len(), 1);
    }

    #[test]
    fn what_is_no_yaml_is_told_with_its_place() {
        let told = refused("a: 1\nb: [1\nc: 2\n");
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].contains(": no YAML: "), "{told:?}");
        let told = refused("a:\n  listen: [::]:80\n");
        assert!(told[0].starts_with("2:") && told[0].ends_with("; an IPv6 address needs quotes"), "{told:?}");
    }
}
