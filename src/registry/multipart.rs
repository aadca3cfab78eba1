//! Several ranges of a blob in one answer: `multipart/byteranges` (RFC 9110, section 14.6).
//!
//! Stores answer no such request. So the proxy streams from the store all that lies between the first range
//! and the last, and on its way through the filter what is between two ranges is taken out and the parts'
//! headers are put in. Nothing of it is kept in memory, and the proxy's flow control holds as for any
//! other blob.
//!
//! Every range that was asked for is a part of its own, in the same order, even if it is next to another one.
//! The RFC lets a server join them, but podman counts: it takes the answer for broken when it has not as
//! many parts as it asked for (containers/image, `handle206Response`).

use std::collections::VecDeque;
use std::ops::Range;

use http::HeaderValue;

use super::Stamp;

/// How much may lie between the ranges of an answer, in bytes, whatever it has itself: as much as a request for
/// a manifest reads as well.
const GAPS_FREE: u64 = 4 * 1024 * 1024;
/// How much more may lie between them for each byte that the client gets. What is between them is read from
/// the store for nothing, so a client must not get much of that for little.
const GAPS_PER_BYTE: u64 = 16;

/// What separates the parts. Nobody who stores a blob can know it beforehand, so none contains it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Boundary(String);

impl Boundary {
    /// The boundary for the answer to the request with this stamp.
    pub fn new(stamp: &Stamp) -> Self {
        Self(stamp.random.iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

/// An answer of several parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Multipart {
    boundary: Boundary,
    /// The parts in their order, by their offsets in the content. None is empty.
    parts: Vec<Range<u64>>,
    /// The length of the whole content.
    length: u64,
}

impl Multipart {
    /// An answer with these parts of content of this length.
    pub fn new(boundary: Boundary, parts: Vec<Range<u64>>, length: u64) -> Self {
        Self { boundary, parts, length }
    }

    /// Whether it is worth to read `body` of the content for it.
    pub fn is_worth(&self, body: &Range<u64>) -> bool {
        let sent: u64 = self.parts.iter().map(|part| part.end - part.start).sum();
        let gaps = (body.end - body.start).saturating_sub(sent);
        gaps <= sent.saturating_mul(GAPS_PER_BYTE).saturating_add(GAPS_FREE)
    }

    /// The type of the answer.
    pub fn content_type(&self) -> HeaderValue {
        let value = format!("multipart/byteranges; boundary={}", self.boundary.0);
        // Hex digits are what a header may have.
        HeaderValue::try_from(value)
            .unwrap_or(HeaderValue::from_static("multipart/byteranges; boundary=\"\""))
    }

    /// The length of the answer, in bytes.
    pub fn content_length(&self) -> u64 {
        let part = |part: &Range<u64>| self.head(part).len() as u64 + (part.end - part.start);
        self.parts.iter().map(part).sum::<u64>() + self.end().len() as u64
    }

    /// What makes the answer of a body that begins at this offset of the content.
    pub fn cutter(self, start: u64) -> Cutter {
        let parts = self.parts.iter().cloned().collect();
        Cutter { answer: self, parts, at: start }
    }

    /// What stands before a part.
    fn head(&self, part: &Range<u64>) -> String {
        format!(
            "\r\n--{}\r\nContent-Type: application/octet-stream\r\nContent-Range: bytes {}-{}/{}\r\n\r\n",
            self.boundary.0,
            part.start,
            part.end - 1,
            self.length
        )
    }

    /// What stands after the last part.
    fn end(&self) -> String {
        format!("\r\n--{}--\r\n", self.boundary.0)
    }
}

/// Cuts the parts of an answer out of the content as it passes.
#[derive(Debug)]
pub struct Cutter {
    answer: Multipart,
    /// The parts that have not passed whole.
    parts: VecDeque<Range<u64>>,
    /// The offset in the content of what comes next.
    at: u64,
}

/// A piece of the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// This text.
    Text(String),
    /// These of the bytes that pass.
    Bytes(Range<usize>),
}

impl Cutter {
    /// What becomes of the next `size` bytes of the content.
    pub fn cut(&mut self, size: usize) -> Vec<Piece> {
        let from = self.at;
        self.at = from.saturating_add(size as u64);
        let mut pieces = Vec::new();
        while let Some(part) = self.parts.front().filter(|part| part.start < self.at) {
            if part.start >= from {
                pieces.push(Piece::Text(self.answer.head(part)));
            }
            let (first, end) = (part.start.max(from), part.end.min(self.at));
            // Both are within what passes, whose size is a `usize`.
            pieces.push(Piece::Bytes((first - from) as usize..(end - from) as usize));
            if part.end > self.at {
                break;
            }
            self.parts.pop_front();
            if self.parts.is_empty() {
                pieces.push(Piece::Text(self.answer.end()));
            }
        }
        pieces
    }

    /// Whether the whole answer has passed.
    pub fn is_done(&self) -> bool {
        self.parts.is_empty()
    }
}

#[cfg(test)]
mod tests {
    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    const CONTENT: &[u8] = b"0123456789abcdef";

    fn answer(parts: &[Range<u64>]) -> Multipart {
        let boundary = Boundary("limit".to_owned());
        Multipart::new(boundary, parts.to_vec(), CONTENT.len() as u64)
    }

    /// The answer, made of a body that comes in pieces of this size.
    fn cut(answer: &Multipart, body: &Range<usize>, size: usize) -> String {
        let mut cutter = answer.clone().cutter(body.start as u64);
        let mut made = Vec::new();
        for bytes in CONTENT[body.clone()].chunks(size) {
            for piece in cutter.cut(bytes.len()) {
                match piece {
                    Piece::Text(text) => made.extend_from_slice(text.as_bytes()),
                    Piece::Bytes(range) => made.extend_from_slice(&bytes[range]),
                }
            }
        }
        assert!(cutter.is_done());
        assert_eq!(made.len() as u64, answer.content_length());
        String::from_utf8(made).expect("text")
    }

    #[test]
    fn the_parts_are_cut_out_of_whatever_passes() {
        let answer = answer(&[2..4, 4..5, 9..13]);
        let part = |range: &str, bytes: &str| {
            format!(
                "\r\n--limit\r\nContent-Type: application/octet-stream\r\n\
                 Content-Range: bytes {range}/16\r\n\r\n{bytes}"
            )
        };
        let expected = [
            part("2-3", "23"),
            part("4-4", "4"),
            part("9-12", "9abc"),
            "\r\n--limit--\r\n".to_owned(),
        ];
        for body in [0..16, 0..13, 2..13, 1..16] {
            for size in 1..17 {
                assert_eq!(cut(&answer, &body, size), expected.concat(), "{body:?} by {size}");
            }
        }
        assert_eq!(answer.content_type(), "multipart/byteranges; boundary=limit");
    }

    #[test]
    fn what_passes_untouched_or_not_at_all_is_told_apart() {
        let mut cutter = answer(&[1..2, 4..10]).cutter(0);
        assert_eq!(cutter.cut(1), []);
        assert_eq!(cutter.cut(1).len(), 2);
        assert_eq!(cutter.cut(2), []);
        assert_eq!(cutter.cut(2).len(), 2);
        assert_eq!(cutter.cut(2), [Piece::Bytes(0..2)]);
        assert!(!cutter.is_done());
        assert_eq!(cutter.cut(2).len(), 2);
        assert_eq!((cutter.cut(6), cutter.is_done()), (vec![], true));
    }

    #[test]
    fn little_is_not_sent_of_much() {
        const MIB: u64 = 1024 * 1024;
        let answer = |parts: &[Range<u64>]| {
            Multipart::new(Boundary(String::new()), parts.to_vec(), 1000 * MIB)
        };
        for (parts, worth) in [
            (vec![0..1, 4 * MIB + 1..4 * MIB + 2], true),
            (vec![0..1, 4 * MIB + 40..4 * MIB + 41], false),
            (vec![0..MIB, 20 * MIB..21 * MIB], true),
            (vec![0..MIB, 60 * MIB..61 * MIB], false),
            (vec![0..MIB, 60 * MIB..70 * MIB], true),
        ] {
            let body = 0..parts.last().expect("a part").end;
            assert_eq!(answer(&parts).is_worth(&body), worth, "{parts:?}");
        }
    }

    #[test]
    fn every_answer_has_a_boundary_of_its_own() {
        let stamp = |byte| Stamp { random: [byte; 32], ..Stamp::default() };
        let boundary = Boundary::new(&stamp(0xab));
        assert_eq!(boundary.0, "ab".repeat(32));
        assert_ne!(boundary, Boundary::new(&stamp(1)));
    }
}
