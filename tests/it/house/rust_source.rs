//! Just enough of Rust's grammar to tell code from comments and texts, and the program from its tests.

/// A source file with comments and the insides of texts blanked out; lines and columns stay where they are.
pub struct Code {
    blanked: String,
    /// Byte ranges that belong to items under `#[cfg(test)]`.
    tests: Vec<(usize, usize)>,
}

impl Code {
    pub fn of(source: &str) -> Code {
        let blanked = blank(source);
        let tests = test_items(&blanked);
        Code { blanked, tests }
    }

    fn in_tests(&self, at: usize) -> bool {
        self.tests.iter().any(|&(from, to)| (from..to).contains(&at))
    }

    /// The lines, from 1, where `needle` stands in code; with `program_only` not inside `#[cfg(test)]` items.
    pub fn lines_with(&self, needle: &str, program_only: bool) -> Vec<usize> {
        let places = self.blanked.match_indices(needle).map(|(at, _)| at);
        places.filter(|&at| !(program_only && self.in_tests(at))).map(|at| self.line(at)).collect()
    }

    /// The lines, from 1, where a `matches!(…);` stands as a statement, its answer dropped.
    pub fn dropped_matches(&self) -> Vec<usize> {
        let is_statement = |&at: &usize| {
            let before = self.blanked[..at].trim_end().chars().next_back();
            let end = closing(&self.blanked, at + "matches!".len());
            matches!(before, Some(';' | '{' | '}')) && self.blanked[end..].trim_start().starts_with(';')
        };
        self.blanked.match_indices("matches!(").map(|(at, _)| at).filter(is_statement).map(|at| self.line(at)).collect()
    }

    /// How many lines are not in `#[cfg(test)]` items.
    pub fn program_lines(&self) -> usize {
        let tested: usize = self.tests.iter().map(|&(from, to)| self.blanked[from..to].matches('\n').count()).sum();
        self.blanked.lines().count() - tested
    }

    fn line(&self, at: usize) -> usize {
        self.blanked[..at].matches('\n').count() + 1
    }
}

/// Blanks comments and the insides of texts and characters.
fn blank(source: &str) -> String {
    let bytes = source.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let word_before = at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_');
        let (from, to) = if rest.starts_with(b"//") {
            (at, at + rest.iter().position(|&byte| byte == b'\n').unwrap_or(rest.len()))
        } else if rest.starts_with(b"/*") {
            (at, at + comment(rest))
        } else if let Some((open, length)) = raw_text(rest).filter(|_| !word_before) {
            (at + open, at + length)
        } else if rest[0] == b'"' {
            (at + 1, at + quoted(rest, b'"'))
        } else if rest[0] == b'\'' && is_character(rest) {
            (at + 1, at + quoted(rest, b'\''))
        } else {
            at += 1;
            continue;
        };
        out[from..to].iter_mut().filter(|byte| **byte != b'\n').for_each(|byte| *byte = b' ');
        at = to.max(at + 1);
    }
    String::from_utf8(out).unwrap_or_default()
}

/// The length of a block comment, nested ones included.
fn comment(rest: &[u8]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        if rest[at..].starts_with(b"/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if rest[at..].starts_with(b"*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    at
}

/// For `r"…"`, `r#"…"#`, `br"…"`: where its inside begins and where the whole ends.
fn raw_text(rest: &[u8]) -> Option<(usize, usize)> {
    let prefix = [&b"br"[..], b"cr", b"r"].into_iter().find(|prefix| rest.starts_with(prefix))?.len();
    let hashes = rest[prefix..].iter().take_while(|&&byte| byte == b'#').count();
    let open = prefix + hashes + 1;
    (rest.get(open - 1) == Some(&b'"')).then_some(())?;
    let end: Vec<u8> = std::iter::once(b'"').chain(std::iter::repeat_n(b'#', hashes)).collect();
    let inside = rest[open..].windows(end.len()).position(|window| window == end).unwrap_or(rest.len() - open);
    Some((open, (open + inside + end.len()).min(rest.len())))
}

/// The length of a text or character with escapes, its quotes included.
fn quoted(rest: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != quote {
        at += if rest[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(rest.len())
}

/// Whether a `'` begins a character and not a lifetime or label.
fn is_character(rest: &[u8]) -> bool {
    let text = std::str::from_utf8(&rest[1..rest.len().min(8)]);
    let valid = text.unwrap_or_else(|e| std::str::from_utf8(&rest[1..1 + e.valid_up_to()]).unwrap_or_default());
    let mut chars = valid.chars();
    match chars.next() {
        Some('\\') => true,
        Some(_) => chars.next() == Some('\''),
        None => false,
    }
}

/// The place behind the bracket that closes the one at `open`.
fn closing(code: &str, open: usize) -> usize {
    let mut depth = 0i32;
    for (at, byte) in code.bytes().enumerate().skip(open) {
        match byte {
            b'(' | b'{' | b'[' => depth += 1,
            b')' | b'}' | b']' => depth -= 1,
            _ => continue,
        }
        if depth == 0 {
            return at + 1;
        }
    }
    code.len()
}

/// The items behind each `#[cfg(test)]`, to their closing brace or semicolon.
fn test_items(code: &str) -> Vec<(usize, usize)> {
    let item = |(from, attribute): (usize, &str)| {
        let behind = from + attribute.len();
        let end = code[behind..].find(['{', ';']).map_or(code.len(), |found| behind + found);
        (from, if code[end..].starts_with('{') { closing(code, end) } else { (end + 1).min(code.len()) })
    };
    code.match_indices("#[cfg(test)]").map(item).collect()
}

#[test]
fn code_is_told_from_comments_texts_and_tests() {
    let code = Code::of(concat!(
        "//! x.unwrap()\nfn a<'a>(c: &'a str) -> char { /* .unwrap() /* */ */ let _ = r#\"\"x.unwrap()\"#; '\"' }\n",
        "fn b() { \"\\\".unwrap()\"; y.unwrap() }\n#[cfg(test)]\nmod tests {\n  fn c() { z.unwrap(); matches!(1, 1); }\n}\n",
        "fn d() -> bool {\n  matches!(1, 1)\n}\n",
    ));
    assert_eq!(code.lines_with(".unwrap()", false), [3, 6]);
    assert_eq!(code.lines_with(".unwrap()", true), [3]);
    assert_eq!(code.dropped_matches(), [6]);
    assert_eq!(code.program_lines(), 7);
}
