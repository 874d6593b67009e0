//! Cuts a stream of bytes (a file, a socket) into lines without ever holding more than one bounded line.

use std::io::{self, Read};
use std::ops::Range;

const READ_BYTES: usize = 64 << 10;

/// How much of a line that is too long is kept for its dead letter.
const KEPT_BYTES: usize = tidemill_core::DeadLetter::PAYLOAD_MAX;

/// What [`Lines::next`] found; the text is [`Lines::text`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// A line without its end (`\n` or `\r\n`).
    Whole,
    /// A line longer than allowed, of so many bytes; the text is its beginning.
    TooLong {
        /// All its bytes, without the line end.
        bytes: u64,
    },
    /// The stream has no more for now; a line without an end may have begun.
    End,
}

/// Lines of a stream.
pub struct Lines<R> {
    input: R,
    buffer: Vec<u8>,
    /// The bytes in `buffer` not handed out yet; up to `searched` they hold no line end.
    begin: usize,
    searched: usize,
    /// Of a line that is too long: its length so far, and its beginning, while the rest is thrown away.
    discarding: Option<(u64, Vec<u8>)>,
    /// The line found last: a part of `buffer`, or the beginning of one that was too long.
    whole: Range<usize>,
    beginning: Option<Vec<u8>>,
    line_bytes_max: usize,
    delimiter: u8,
    /// Position behind the last line handed out.
    offset: u64,
    number: u64,
}

impl<R: Read> Lines<R> {
    /// Lines of `input`, whose first byte stands at `offset`, behind line `number`.
    pub fn new(input: R, line_bytes_max: usize, offset: u64, number: u64) -> Self {
        Lines {
            input,
            buffer: Vec::new(),
            begin: 0,
            searched: 0,
            discarding: None,
            whole: 0..0,
            beginning: None,
            line_bytes_max,
            delimiter: b'\n',
            offset,
            number,
        }
    }

    /// What ends a line; `\n` by default, and only then a `\r` in front of it belongs to the end.
    pub fn delimiter(mut self, delimiter: u8) -> Self {
        self.delimiter = delimiter;
        self
    }

    /// Whether [`Lines::next`] has a line without reading on.
    pub fn has_line(&self) -> bool {
        memchr::memchr(self.delimiter, &self.buffer[self.searched..]).is_some()
    }

    /// The text of the line found last.
    pub fn text(&self) -> &[u8] {
        self.beginning.as_deref().unwrap_or(&self.buffer[self.whole.clone()])
    }

    /// Bytes from the stream's beginning to behind the last line handed out.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The number of the last line handed out, from 1.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Bytes read from the stream so far.
    pub fn read_to(&self) -> u64 {
        let discarded = self.discarding.as_ref().map_or(0, |(bytes, _)| *bytes);
        self.offset + discarded + (self.buffer.len() - self.begin) as u64
    }

    /// The next line that has an end. After [`Found::End`] it may be asked again: the stream may have grown.
    pub fn next(&mut self) -> io::Result<Found> {
        loop {
            let unsearched = &self.buffer[self.searched..];
            if let Some(at) = memchr::memchr(self.delimiter, unsearched) {
                let end = self.searched + at;
                return Ok(self.hand_out(end, end + 1));
            }
            self.searched = self.buffer.len();
            // One more: it may be the `\r` of the line end.
            if self.buffer.len() - self.begin > self.line_bytes_max + 1 || self.discarding.is_some() {
                self.discard();
            }
            if !self.fill()? {
                return Ok(Found::End);
            }
        }
    }

    /// At the end of the stream: what stands behind the last line end, if anything.
    pub fn rest(&mut self) -> Found {
        let end = self.buffer.len();
        if end == self.begin && self.discarding.is_none() {
            return Found::End;
        }
        self.hand_out(end, end)
    }

    fn hand_out(&mut self, end: usize, next: usize) -> Found {
        let taken = next - self.begin;
        let has_cr = self.delimiter == b'\n' && next > end && end > self.begin && self.buffer[end - 1] == b'\r';
        self.whole = self.begin..if has_cr { end - 1 } else { end };
        self.beginning = None;
        let mut bytes = self.whole.len() as u64;
        if bytes > self.line_bytes_max as u64 || self.discarding.is_some() {
            let (discarded, mut beginning) = self.discarding.take().unwrap_or_default();
            let room = KEPT_BYTES.saturating_sub(beginning.len());
            let text = &self.buffer[self.whole.clone()];
            beginning.extend_from_slice(&text[..text.len().min(room)]);
            self.beginning = Some(beginning);
            self.offset += discarded;
            bytes += discarded;
        }
        self.number += 1;
        self.offset += taken as u64;
        self.begin = next;
        self.searched = next;
        match self.beginning {
            Some(_) => Found::TooLong { bytes },
            None => Found::Whole,
        }
    }

    /// Throws away what was read of a line that is too long, all but its beginning.
    fn discard(&mut self) {
        let read = &self.buffer[self.begin..];
        let (bytes, beginning) = self.discarding.get_or_insert_default();
        let room = KEPT_BYTES.saturating_sub(beginning.len());
        beginning.extend_from_slice(&read[..read.len().min(room)]);
        *bytes += read.len() as u64;
        self.buffer.clear();
        self.begin = 0;
        self.searched = 0;
    }

    /// Reads on; `false` when there is no more for now.
    fn fill(&mut self) -> io::Result<bool> {
        self.whole = 0..0;
        self.beginning = None;
        if self.begin > 0 {
            self.buffer.drain(..self.begin);
            self.searched -= self.begin;
            self.begin = 0;
        }
        let filled = self.buffer.len();
        self.buffer.resize(filled + READ_BYTES, 0);
        let read = loop {
            match self.input.read(&mut self.buffer[filled..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read,
            }
        };
        self.buffer.truncate(filled + *read.as_ref().unwrap_or(&0));
        Ok(read? > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives its bytes a part at a time; an empty part is an end for now.
    struct Drip(Vec<Vec<u8>>);

    impl Drip {
        fn new(parts: &[&str]) -> Self {
            Drip(parts.iter().map(|part| part.as_bytes().to_vec()).collect())
        }
    }

    impl Read for Drip {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            if self.0.is_empty() {
                return Ok(0);
            }
            let part = self.0.remove(0);
            out[..part.len()].copy_from_slice(&part);
            Ok(part.len())
        }
    }

    /// Each line with the position behind it; a line that is too long as its beginning, `…` and its length.
    fn all(parts: &[&str], line_bytes_max: usize) -> Vec<(String, u64, u64)> {
        let mut lines = Lines::new(Drip::new(parts), line_bytes_max, 0, 0);
        let mut found = Vec::new();
        loop {
            let mut line = lines.next().expect("reads");
            if line == Found::End && !lines.input.0.is_empty() {
                continue;
            }
            let at_end = line == Found::End;
            if at_end {
                line = lines.rest();
            }
            let text = String::from_utf8_lossy(lines.text()).into_owned();
            match line {
                Found::Whole => found.push((text, lines.offset(), lines.number())),
                Found::TooLong { bytes } => found.push((format!("{text}…{bytes}"), lines.offset(), lines.number())),
                Found::End => {}
            }
            if at_end {
                assert_eq!(lines.read_to(), lines.offset());
                return found;
            }
        }
    }

    #[test]
    fn lines_are_cut_wherever_the_parts_end() {
        let expected = [("a", 2, 1), ("", 3, 2), ("bc", 7, 3), ("d\re", 11, 4), ("f", 12, 5)]
            .map(|(text, offset, number)| (text.to_string(), offset, number));
        let text = "a\n\nbc\r\nd\re\nf";
        assert_eq!(all(&[text], 100), expected);
        for cut in 1..text.len() {
            assert_eq!(all(&[&text[..cut], "", &text[cut..]], 100), expected, "cut at {cut}");
        }
        let each: Vec<&str> = text.split("").filter(|part| !part.is_empty()).collect();
        assert_eq!(all(&each, 100), expected);
        assert_eq!(all(&[""], 100), []);
        assert_eq!(all(&["x\n"], 100), [("x".to_string(), 2, 1)]);
    }

    #[test]
    fn a_line_that_is_too_long_is_not_kept_and_the_next_is_read() {
        let long = "x".repeat(500_000);
        let text = format!("short\n{long}\r\nnext\n{long}");
        let bytes = text.as_bytes().chunks(10_000).map(<[u8]>::to_vec).collect();
        let mut lines = Lines::new(Drip(bytes), 1000, 0, 0);
        assert_eq!((lines.next().unwrap(), lines.text()), (Found::Whole, b"short".as_slice()));
        assert!(matches!(lines.next().unwrap(), Found::TooLong { bytes: 500_000..=500_001 }));
        assert_eq!(lines.text().len(), KEPT_BYTES);
        assert!(lines.buffer.capacity() < 200_000 + READ_BYTES);
        assert_eq!(lines.offset(), 6 + 500_002);
        assert_eq!((lines.next().unwrap(), lines.text()), (Found::Whole, b"next".as_slice()));
        assert_eq!(lines.next().unwrap(), Found::End);
        assert!(matches!(lines.rest(), Found::TooLong { bytes: 500_000 }));
        assert_eq!((lines.number(), lines.offset()), (4, text.len() as u64));
    }

    #[test]
    fn the_longest_line_allowed_is_whole() {
        let texts = |parts: &[&str]| all(parts, 5).into_iter().map(|line| line.0).collect::<Vec<_>>();
        assert_eq!(texts(&["abcde\nabcdef\nabcde"]), ["abcde", "abcdef…6", "abcde"]);
        assert_eq!(texts(&["abcde\r", "\nx\n"]), ["abcde", "x"]);
        assert_eq!(texts(&["abcdef", "g\r\nx\n"]), ["abcdefg…7", "x"]);
    }
}
