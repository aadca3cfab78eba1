//! Data files in CSV, mostly compressed with gzip: no header, each field in quotes, keys percent-encoded.
//!
//! A row is held at a time, in a buffer that does not grow, so that no file can take more memory than another.

use std::borrow::Cow;
use std::io::{BufRead, BufReader, Read};
use std::str;
use std::time::SystemTime;

use csv_core::{ReadRecordResult, Reader};
use flate2::bufread::MultiGzDecoder;
use percent_encoding::percent_decode_str;

use super::error::Fault;
use super::row::{Columns, Row};

/// The longest row, in bytes without quotes. A key has 3 KiB encoded at most; a list of grants, the longest field
/// there is, some 20 KiB.
const ROW_LIMIT: usize = 256 * 1024;
/// How much is read at a time, in bytes.
const READ_SIZE: usize = 64 * 1024;
/// What a gzip file begins with.
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// Gives each row of a file whose rows have so many fields.
pub(super) fn rows(
    file: impl Read,
    fields: usize,
    columns: &Columns<usize>,
    each: &mut impl FnMut(Row<'_>) -> Result<(), String>,
) -> Result<(), Fault> {
    let mut file = BufReader::with_capacity(READ_SIZE, file);
    let is_gzip = file.fill_buf().map_err(Fault::damaged)?.starts_with(&GZIP);
    if is_gzip {
        let plain = BufReader::with_capacity(READ_SIZE, MultiGzDecoder::new(file));
        plain_rows(plain, fields, columns, each)
    } else {
        plain_rows(file, fields, columns, each)
    }
}

fn plain_rows(
    mut text: impl BufRead,
    fields: usize,
    columns: &Columns<usize>,
    each: &mut impl FnMut(Row<'_>) -> Result<(), String>,
) -> Result<(), Fault> {
    let mut record = Record::new(fields);
    let mut row = 1;
    while record.read(&mut text).map_err(|reason| Fault::at(row, reason))? {
        let parsed = parse(&record, columns).map_err(|reason| Fault::at(row, reason))?;
        each(parsed).map_err(Fault::OtherBucket)?;
        row += 1;
    }
    Ok(())
}

/// The row that is read, and room for the next.
struct Record {
    reader: Reader,
    text: Vec<u8>,
    /// Where in the text each field ends. There is room for one more than there should be.
    ends: Vec<usize>,
    fields: usize,
}

impl Record {
    fn new(fields: usize) -> Self {
        let (text, ends) = (vec![0; ROW_LIMIT], vec![0; fields + 1]);
        Self { reader: Reader::new(), text, ends, fields }
    }

    /// Reads the next row; `false` at the end.
    fn read(&mut self, input: &mut impl BufRead) -> Result<bool, String> {
        let (mut text, mut ends) = (0, 0);
        loop {
            let bytes = input.fill_buf().map_err(|error| error.to_string())?;
            let (result, read, written, ended) =
                self.reader.read_record(bytes, &mut self.text[text..], &mut self.ends[ends..]);
            input.consume(read);
            text += written;
            ends += ended;
            match result {
                ReadRecordResult::InputEmpty => {}
                ReadRecordResult::OutputFull => {
                    return Err(format!("it is longer than {ROW_LIMIT} bytes"));
                }
                ReadRecordResult::OutputEndsFull => return Err(self.fields_wrong(ends)),
                ReadRecordResult::Record if ends == self.fields => return Ok(true),
                ReadRecordResult::Record => return Err(self.fields_wrong(ends)),
                ReadRecordResult::End => return Ok(false),
            }
        }
    }

    fn fields_wrong(&self, found: usize) -> String {
        let more = if found > self.fields { " or more" } else { "" };
        format!("it has {found}{more} fields, and the manifest's fileSchema has {}", self.fields)
    }

    fn field(&self, index: usize) -> Result<&str, String> {
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        let field = &self.text[start..self.ends[index]];
        str::from_utf8(field).map_err(|_| "it is not UTF-8".to_owned())
    }
}

fn parse<'a>(record: &'a Record, columns: &Columns<usize>) -> Result<Row<'a>, String> {
    let flag = |column: Option<usize>, without: bool| match column {
        Some(column) => parse_flag(record.field(column)?),
        None => Ok(without),
    };
    if !flag(columns.is_latest, true)? || flag(columns.is_delete_marker, false)? {
        return Ok(Row::NotCurrent);
    }
    let bucket = columns.bucket.map(|column| record.field(column)).transpose()?;
    let size = record.field(columns.size)?;
    let size = size.parse().map_err(|_| format!("the size {size:?} is no number"))?;
    let modified = parse_time(record.field(columns.modified)?)?;
    let key = decode(record.field(columns.key)?)?;
    Ok(Row::Current { bucket, key, size, modified })
}

fn parse_flag(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(format!("{text:?} is neither true nor false")),
    }
}

fn parse_time(text: &str) -> Result<SystemTime, String> {
    humantime::parse_rfc3339(text)
        .map_err(|_| format!("LastModifiedDate is {text:?}, which is no time"))
}

/// Decodes a key. S3 encodes it as a form does: a space is `+`, and `+` is `%2B`.
fn decode(key: &str) -> Result<Cow<'_, str>, String> {
    if !key.contains(['%', '+']) {
        return Ok(Cow::Borrowed(key));
    }
    let wrong = || format!("the key {key:?} is not percent-encoded UTF-8");
    let is_hex = |escape: &str| {
        escape.as_bytes().get(..2).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit))
    };
    if !key.split('%').skip(1).all(is_hex) {
        return Err(wrong());
    }
    let spaced = key.replace('+', " ");
    let decoded = percent_decode_str(&spaced).decode_utf8().map_err(|_| wrong())?;
    Ok(Cow::Owned(decoded.into_owned()))
}
