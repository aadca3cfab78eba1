//! The header of a page, in Thrift's compact protocol.
//!
//! The crate `parquet` reads these as well, but keeps them to itself and reserves whatever memory they say. Here they
//! are looked at first. Statistics, and whatever else reading does not need, are passed over.

/// What a page has, as its header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PageHeader {
    /// The size of the page as it lies in the file, without its header, in bytes.
    pub(super) compressed: u32,
    /// Its size once it is decompressed, in bytes.
    pub(super) uncompressed: u32,
    pub(super) kind: PageKind,
}

/// The kinds of page. Encodings are Parquet's numbers for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PageKind {
    Data { values: u32, encoding: u32, level_encoding: u32 },
    Dictionary { values: u32, encoding: u32 },
    DataV2(DataV2),
    Index,
}

/// A data page of version 2: levels lie before the values, and are not compressed with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DataV2 {
    pub(super) values: u32,
    pub(super) nulls: u32,
    pub(super) rows: u32,
    pub(super) encoding: u32,
    pub(super) definition_bytes: u32,
    pub(super) repetition_bytes: u32,
    pub(super) is_compressed: bool,
}

impl PageHeader {
    /// Reads a header from the beginning of some bytes, and tells how long it is. `None` if there is none.
    pub(super) fn parse(bytes: &[u8]) -> Option<(Self, usize)> {
        let mut thrift = Thrift { rest: bytes };
        let mut parts: [Option<Numbers>; 3] = [None; 3];
        let header = thrift.numbers(&mut |thrift, field| {
            let part = match field {
                DATA => &mut parts[0],
                DICTIONARY => &mut parts[1],
                DATA_V2 => &mut parts[2],
                _ => return Some(false),
            };
            *part = Some(thrift.numbers(&mut |_, _| Some(false))?);
            Some(true)
        })?;
        let [data, dictionary, data_v2] = parts;
        let kind = match header.get(1)? {
            0 => data?.data()?,
            1 => PageKind::Index,
            2 => dictionary?.dictionary()?,
            3 => data_v2?.data_v2()?,
            _ => return None,
        };
        let page = Self { uncompressed: header.get(2)?, compressed: header.get(3)?, kind };
        Some((page, bytes.len() - thrift.rest.len()))
    }
}

/// Fields of a header that are structures: one of them says what the page has.
const DATA: usize = 5;
const DICTIONARY: usize = 7;
const DATA_V2: usize = 8;

/// The numbers and truth values among a structure's fields, by the field's number.
#[derive(Debug, Clone, Copy, Default)]
struct Numbers([Option<u32>; 9]);

impl Numbers {
    fn get(&self, field: usize) -> Option<u32> {
        self.0.get(field).copied().flatten()
    }

    fn data(&self) -> Option<PageKind> {
        let (values, encoding, level_encoding) = (self.get(1)?, self.get(2)?, self.get(3)?);
        Some(PageKind::Data { values, encoding, level_encoding })
    }

    fn dictionary(&self) -> Option<PageKind> {
        Some(PageKind::Dictionary { values: self.get(1)?, encoding: self.get(2)? })
    }

    fn data_v2(&self) -> Option<PageKind> {
        Some(PageKind::DataV2(DataV2 {
            values: self.get(1)?,
            nulls: self.get(2)?,
            rows: self.get(3)?,
            encoding: self.get(4)?,
            definition_bytes: self.get(5)?,
            repetition_bytes: self.get(6)?,
            is_compressed: self.get(7).is_none_or(|compressed| compressed == 1),
        }))
    }
}

/// How deep structures may lie in each other where they are passed over.
const DEPTH: u32 = 8;

/// What is left to read. Every method is `None` where the bytes are no Thrift.
struct Thrift<'a> {
    rest: &'a [u8],
}

impl Thrift<'_> {
    /// Reads a structure's fields up to its end. `structure` is asked to read those that are structures, and says whether
    /// it did.
    fn numbers(
        &mut self,
        structure: &mut dyn FnMut(&mut Self, usize) -> Option<bool>,
    ) -> Option<Numbers> {
        let mut numbers = Numbers::default();
        let mut field = 0;
        while let Some(kind) = self.field(&mut field)? {
            let number = match kind {
                1 | 2 => u32::from(kind == 1),
                4..=6 => {
                    // Numbers that are too large or negative are as good as none.
                    let Ok(number) = u32::try_from(self.zigzag()?) else { continue };
                    number
                }
                12 if structure(self, field)? => continue,
                _ => {
                    self.skip(kind, DEPTH)?;
                    continue;
                }
            };
            if let Some(place) = numbers.0.get_mut(field) {
                *place = Some(number);
            }
        }
        Some(numbers)
    }

    /// Reads a field's number and type; no type at the end of the structure.
    fn field(&mut self, number: &mut usize) -> Option<Option<u8>> {
        let byte = self.byte()?;
        if byte == 0 {
            return Some(None);
        }
        *number = match byte >> 4 {
            0 => usize::try_from(self.zigzag()?).ok()?,
            more => number.checked_add(more.into())?,
        };
        Some(Some(byte & 15))
    }

    fn skip(&mut self, kind: u8, depth: u32) -> Option<()> {
        match kind {
            1 | 2 => Some(()),
            3 => self.take(1),
            4..=6 => self.varint().map(drop),
            7 => self.take(8),
            8 => {
                let length = self.varint()?;
                self.take(length)
            }
            9 | 10 => {
                let header = self.byte()?;
                let length = match header >> 4 {
                    15 => self.varint()?,
                    length => length.into(),
                };
                self.skip_elements(length, &[header & 15], depth)
            }
            11 => match self.varint()? {
                0 => Some(()),
                length => {
                    let kinds = self.byte()?;
                    self.skip_elements(length, &[kinds >> 4, kinds & 15], depth)
                }
            },
            12 => {
                let depth = depth.checked_sub(1)?;
                let mut field = 0;
                while let Some(kind) = self.field(&mut field)? {
                    self.skip(kind, depth)?;
                }
                Some(())
            }
            _ => None,
        }
    }

    fn skip_elements(&mut self, count: u64, kinds: &[u8], depth: u32) -> Option<()> {
        let depth = depth.checked_sub(1)?;
        for _ in 0..count {
            for kind in kinds {
                match kind {
                    // Here a truth value is a byte of its own, so that each element takes one at least.
                    1 | 2 => self.take(1)?,
                    kind => self.skip(*kind, depth)?,
                }
            }
        }
        Some(())
    }

    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    fn take(&mut self, length: u64) -> Option<()> {
        self.rest = self.rest.get(usize::try_from(length).ok()?..)?;
        Some(())
    }

    fn varint(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }

    fn zigzag(&mut self) -> Option<i64> {
        let number = self.varint()?;
        Some((number >> 1).cast_signed() ^ -(number & 1).cast_signed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A data page as pyarrow writes it: statistics with texts, which are passed over.
    const DATA_PAGE: &[u8] = &[
        0x15, 0x00, // type: data
        0x15, 0x50, // uncompressed: 40
        0x15, 0x54, // compressed: 42
        0x2c, // field 5: the data page
        0x15, 0x06, // values: 3
        0x15, 0x10, // encoding: 8
        0x15, 0x06, 0x15, 0x06, // levels: 3 and 3
        0x1c, // statistics
        0x36, 0x00, // nulls: 0
        0x28, 0x01, b'c', 0x18, 0x01, b'a', // largest and smallest
        0x00, 0x00, 0x00,
    ];

    #[test]
    fn a_data_page_is_read_and_its_statistics_are_passed_over() {
        let kind = PageKind::Data { values: 3, encoding: 8, level_encoding: 3 };
        let header = PageHeader { compressed: 42, uncompressed: 40, kind };
        let mut bytes = DATA_PAGE.to_vec();
        bytes.extend(b"the page itself");
        assert_eq!(PageHeader::parse(&bytes), Some((header, DATA_PAGE.len())));
    }

    #[test]
    fn a_dictionary_page_is_read() {
        let bytes =
            [0x15, 0x04, 0x15, 0x02, 0x15, 0x04, 0x4c, 0x15, 0x0a, 0x15, 0x00, 0x11, 0x00, 0x00];
        let kind = PageKind::Dictionary { values: 5, encoding: 0 };
        let header = PageHeader { compressed: 2, uncompressed: 1, kind };
        assert_eq!(PageHeader::parse(&bytes), Some((header, bytes.len())));
    }

    #[test]
    fn what_is_cut_off_is_no_header() {
        for length in 0..DATA_PAGE.len() {
            assert_eq!(PageHeader::parse(&DATA_PAGE[..length]), None, "{length} bytes");
        }
    }

    #[test]
    fn what_is_no_header_is_refused() {
        let cases: &[(&str, &[u8])] = &[
            ("a negative size", &[0x15, 0x02, 0x15, 0x01, 0x15, 0x02, 0x00]),
            ("a size beyond 32 bits", &[0x15, 2, 0x16, 0x80, 0x80, 0x80, 0x80, 0x20, 0x15, 2, 0]),
            ("an unknown kind of page", &[0x15, 0x0a, 0x15, 0x02, 0x15, 0x02, 0x00]),
            ("a data page without its fields", &[0x15, 0x00, 0x15, 0x02, 0x15, 0x02, 0x00]),
            ("a number without end", &[0xff; 32]),
            ("a text longer than all there is", &[0x18, 0xff, 0xff, 0xff, 0xff, 0x0f, 0x00]),
            ("a list of billions", &[0x19, 0xf3, 0xff, 0xff, 0xff, 0xff, 0x0f, 0x00]),
            ("structures in structures", &[0x1c; 64]),
            ("lists in lists", &[0x19; 64]),
        ];
        for (what, bytes) in cases {
            assert_eq!(PageHeader::parse(bytes), None, "{what}");
        }
    }
}
