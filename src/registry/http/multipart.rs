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

use std::cell::Cell;
use std::collections::VecDeque;
use std::ops::Range;
use std::time::SystemTime;

use http::HeaderValue;

use crate::registry::Nonce;

/// How much may lie between the ranges of an answer, in bytes, whatever it has itself: as much as a request for
/// a manifest reads as well.
const GAPS_FREE: u64 = 4 * 1024 * 1024;
/// How much more may lie between them for each byte that the client gets.
const GAPS_PER_BYTE: u64 = 16;
/// The most that may lie between them beyond that, of all answers of a worker together, in bytes.
const ALLOWANCE: u64 = 1024 * 1024 * 1024;
/// How much of [`ALLOWANCE`] comes back each second: what costs Envoy about a hundredth of one.
const ALLOWANCE_PER_SECOND: u64 = 32 * 1024 * 1024;

/// How much may be read from the store and thrown away. The bytes between two ranges are read and given to nobody,
/// at the speed of the store, not of the client. So whoever asks for little of much could keep the store and
/// the worker busy with few requests; those who pull images ask so now and then.
#[derive(Debug)]
pub struct Allowance {
    left: Cell<u64>,
    since: Cell<SystemTime>,
}

impl Default for Allowance {
    /// All of it.
    fn default() -> Self {
        Self { left: Cell::new(ALLOWANCE), since: Cell::new(SystemTime::UNIX_EPOCH) }
    }
}

impl Allowance {
    /// Takes so many bytes off what is left now; `false` if there are not as many.
    fn take(&self, bytes: u64, now: SystemTime) -> bool {
        // A clock that was set back begins anew.
        let elapsed = now.duration_since(self.since.replace(now)).unwrap_or_default();
        let back = elapsed.as_millis().saturating_mul(u128::from(ALLOWANCE_PER_SECOND)) / 1000;
        let back = u64::try_from(back).unwrap_or(u64::MAX);
        let left = self.left.get().saturating_add(back).min(ALLOWANCE);
        let rest = left.checked_sub(bytes);
        self.left.set(rest.unwrap_or(left));
        rest.is_some()
    }
}

/// The boundary between the parts. Nobody who stores a blob can know it beforehand, so none contains it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Boundary(String);

impl Boundary {
    /// A boundary made of a random value, which no other answer has.
    pub fn new(nonce: Nonce) -> Self {
        Self(base16ct::lower::encode_string(&nonce.0))
    }
}

/// An answer of several parts.
#[derive(Debug, PartialEq, Eq)]
pub struct Multipart {
    frame: Frame,
    /// The parts in their order, by their offsets in the content. None is empty.
    parts: VecDeque<Range<u64>>,
}

impl Multipart {
    /// An answer with these parts of content of this length.
    pub fn new(boundary: Boundary, parts: Vec<Range<u64>>, length: u64) -> Self {
        Self { frame: Frame { boundary, length }, parts: parts.into() }
    }

    /// Whether `body` of the content may be read for it.
    pub fn may_read(&self, body: &Range<u64>, allowance: &Allowance, now: SystemTime) -> bool {
        let sent: u64 = self.parts.iter().map(|part| part.end - part.start).sum();
        let gaps = (body.end - body.start).saturating_sub(sent);
        let free = sent.saturating_mul(GAPS_PER_BYTE).saturating_add(GAPS_FREE);
        gaps <= free || allowance.take(gaps - free, now)
    }

    /// The type of the answer.
    pub fn content_type(&self) -> HeaderValue {
        let value = format!("multipart/byteranges; boundary={}", self.frame.boundary.0);
        // Hex digits are what a header may have.
        HeaderValue::try_from(value)
            .unwrap_or(HeaderValue::from_static("multipart/byteranges; boundary=\"\""))
    }

    /// The length of the answer, in bytes.
    pub fn content_length(&self) -> u64 {
        let part = |part: &Range<u64>| self.frame.head(part).len() as u64 + (part.end - part.start);
        let end = self.frame.end().len() as u64;
        self.parts.iter().map(part).fold(end, u64::saturating_add)
    }

    /// The cutter that makes the answer of a body that begins at this offset of the content.
    pub fn cutter(self, start: u64) -> Cutter {
        Cutter { frame: self.frame, parts: self.parts, at: start }
    }
}

/// The lines around the parts.
#[derive(Debug, PartialEq, Eq)]
struct Frame {
    boundary: Boundary,
    /// The length of the whole content.
    length: u64,
}

impl Frame {
    /// The lines before a part.
    fn head(&self, part: &Range<u64>) -> String {
        format!(
            "\r\n--{}\r\nContent-Type: application/octet-stream\r\nContent-Range: bytes {}-{}/{}\r\n\r\n",
            self.boundary.0,
            part.start,
            part.end - 1,
            self.length
        )
    }

    /// The line after the last part.
    fn end(&self) -> String {
        format!("\r\n--{}--\r\n", self.boundary.0)
    }
}

/// Cuts the parts of an answer out of the content as it passes.
#[derive(Debug)]
pub struct Cutter {
    frame: Frame,
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
    /// The pieces of the answer that the next `size` bytes of the content make.
    pub fn cut(&mut self, size: usize) -> Vec<Piece> {
        let from = self.at;
        self.at = from.saturating_add(size as u64);
        let mut pieces = Vec::new();
        while let Some(part) = self.parts.front().filter(|part| part.start < self.at) {
            if part.start >= from {
                pieces.push(Piece::Text(self.frame.head(part)));
            }
            let (first, end) = (part.start.max(from), part.end.min(self.at));
            // Both are within what passes, whose size is a `usize`.
            pieces.push(Piece::Bytes((first - from) as usize..(end - from) as usize));
            if part.end > self.at {
                break;
            }
            self.parts.pop_front();
            if self.parts.is_empty() {
                pieces.push(Piece::Text(self.frame.end()));
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
    use std::time::Duration;

    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    const CONTENT: &[u8] = b"0123456789abcdef";

    fn answer(parts: &[Range<u64>]) -> Multipart {
        let boundary = Boundary("limit".to_owned());
        Multipart::new(boundary, parts.to_vec(), CONTENT.len() as u64)
    }

    /// The answer, made of a body that comes in pieces of this size.
    fn cut(parts: &[Range<u64>], body: &Range<usize>, size: usize) -> String {
        let answer = answer(parts);
        let announced = answer.content_length();
        let mut cutter = answer.cutter(body.start as u64);
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
        assert_eq!(made.len() as u64, announced);
        String::from_utf8(made).expect("text")
    }

    #[test]
    fn the_parts_are_cut_out_of_whatever_passes() {
        let parts = [2..4, 4..5, 9..13];
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
                assert_eq!(cut(&parts, &body, size), expected.concat(), "{body:?} by {size}");
            }
        }
        assert_eq!(answer(&parts).content_type(), "multipart/byteranges; boundary=limit");
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
    fn little_is_sent_of_much_only_now_and_then() {
        const MIB: u64 = 1024 * 1024;
        // Whether an answer with parts of the first and the last so many bytes may read all between them.
        let may_read = |size: u64, length: u64, allowance: &Allowance, seconds| {
            let parts = vec![0..size, length - size..length];
            let answer = Multipart::new(Boundary(String::new()), parts, length);
            let now = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
            answer.may_read(&(0..length), allowance, now)
        };
        let spent = Allowance { left: Cell::new(0), ..Allowance::default() };
        for (size, length, expected) in [
            (1, 4 * MIB, true),
            (1, 4 * MIB + 40, false),
            (MIB, 38 * MIB, true),
            (MIB, 39 * MIB, false),
        ] {
            assert_eq!(may_read(size, length, &spent, 0), expected, "{size} of {length}");
        }
        let full = Allowance::default();
        for (length, seconds, expected) in [
            (1029 * MIB, 100, false),
            (1028 * MIB, 100, true),
            (36 * MIB, 100, false),
            (36 * MIB, 101, true),
            (36 * MIB, 101, false),
            // A clock that is set back gives nothing, and goes on from there.
            (36 * MIB, 1, false),
            (36 * MIB, 2, true),
            (1028 * MIB, 1_000_000, true),
        ] {
            assert_eq!(may_read(1, length, &full, seconds), expected, "{length} at {seconds} s");
        }
    }

    #[test]
    fn every_answer_has_a_boundary_of_its_own() {
        let boundary = Boundary::new(Nonce([0xab; 32]));
        assert_eq!(boundary.0, "ab".repeat(32));
        assert_ne!(boundary, Boundary::new(Nonce([1; 32])));
    }
}
