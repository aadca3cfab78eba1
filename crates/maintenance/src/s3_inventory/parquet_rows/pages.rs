//! The pages of one column in a row group, each checked before memory is given to it.
//!
//! The crate `parquet` trusts a file's numbers: a page of a few bytes may claim gigabytes, or hold them if it is
//! compressed. So pages are cut out, bounded and decompressed here, and only their values are decoded by the crate.

use std::fs::File;
use std::io::Read;
use std::sync::Arc;

use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use parquet::basic::{CompressionCodec, Encoding, Type};
use parquet::column::page::{Page, PageMetadata, PageReader};
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::reader::{ChunkReader, Length};

use super::header::{DataV2, PageHeader, PageKind};

/// The largest page, in bytes. Most writers aim at one mebibyte.
const PAGE_LIMIT: u32 = 32 * 1024 * 1024;
/// The most values of a dictionary. Writers give it up at a mebibyte.
const DICTIONARY_LIMIT: u32 = 1024 * 1024;
/// The longest header of a page, in bytes. It may name the smallest and the largest key, each twice.
const HEADER_LIMIT: u64 = 16 * 1024;

/// The pages of one column in a row group.
pub(super) struct Pages {
    file: Arc<File>,
    /// Where the next page begins.
    at: u64,
    /// How many bytes of the column are left.
    left: u64,
    /// How many values are left, nulls included.
    values_left: u64,
    compression: CompressionCodec,
    kind: Type,
    has_nulls: bool,
    has_dictionary: bool,
}

impl Pages {
    pub(super) fn new(file: Arc<File>, column: &ColumnChunkMetaData) -> Result<Self> {
        let start = match column.dictionary_page_offset() {
            Some(dictionary) if dictionary > 0 => dictionary.min(column.data_page_offset()),
            _ => column.data_page_offset(),
        };
        let (at, left) = (u64::try_from(start), u64::try_from(column.compressed_size()));
        let (Ok(at), Ok(left)) = (at, left) else {
            return Err(wrong("a column has a negative position"));
        };
        if at.checked_add(left).is_none_or(|end| end > file.len()) || column.file_path().is_some() {
            return Err(wrong("a column lies outside the file"));
        }
        let values_left = u64::try_from(column.num_values()).unwrap_or(0);
        let (compression, kind) = (column.compression_codec(), column.column_type());
        let has_nulls = column.column_descr().max_def_level() > 0;
        Ok(Self {
            file,
            at,
            left,
            values_left,
            compression,
            kind,
            has_nulls,
            has_dictionary: false,
        })
    }

    /// Cuts out the next page, without decompressing it.
    fn cut(&mut self) -> Result<Option<(PageHeader, Bytes)>> {
        if self.left == 0 {
            return Ok(None);
        }
        // At most `HEADER_LIMIT`, which fits.
        let head = self.file.get_bytes(self.at, self.left.min(HEADER_LIMIT) as usize)?;
        let (header, length) =
            PageHeader::parse(&head).ok_or_else(|| wrong("a page has no header"))?;
        self.skip(length as u64)?;
        if header.compressed.max(header.uncompressed) > PAGE_LIMIT {
            return Err(wrong(format!("a page is larger than {PAGE_LIMIT} bytes")));
        }
        let at = self.at;
        self.skip(header.compressed.into())?;
        Ok(Some((header, self.file.get_bytes(at, header.compressed as usize)?)))
    }

    fn skip(&mut self, length: u64) -> Result<()> {
        self.left = self.left.checked_sub(length).ok_or_else(|| wrong("a page is cut off"))?;
        self.at += length;
        Ok(())
    }

    fn decompress(&self, bytes: &[u8], size: usize) -> Result<Bytes> {
        let plain = match self.compression {
            CompressionCodec::UNCOMPRESSED => bytes.to_vec(),
            CompressionCodec::SNAPPY => snappy(bytes, size)?,
            CompressionCodec::GZIP => {
                let mut plain = Vec::new();
                let one_more = size as u64 + 1;
                MultiGzDecoder::new(bytes).take(one_more).read_to_end(&mut plain)?;
                plain
            }
            other => {
                return Err(wrong(format!(
                    "its pages are compressed with {other}, and only snappy and gzip are read here; \
                     take an inventory in CSV"
                )));
            }
        };
        match plain.len() == size {
            true => Ok(plain.into()),
            false => Err(wrong("a page does not have the size that its header says")),
        }
    }

    fn dictionary(&mut self, page: Bytes, values: u32, encoding: u32) -> Result<Page> {
        let encoding = plain_or_dictionary(encoding)?;
        let is_whole = match self.kind {
            Type::BYTE_ARRAY => has_texts(&page, values),
            Type::INT64 => page.len() as u64 >= u64::from(values) * 8,
            _ => false,
        };
        if self.has_dictionary
            || values > DICTIONARY_LIMIT
            || !is_whole
            || encoding == Encoding::RLE
        {
            return Err(wrong("a dictionary is not what its header says"));
        }
        self.has_dictionary = true;
        Ok(Page::DictionaryPage { buf: page, num_values: values, encoding, is_sorted: false })
    }

    fn data(
        &mut self,
        page: Bytes,
        values: u32,
        encoding: u32,
        level_encoding: u32,
    ) -> Result<Page> {
        let encoding = plain_or_dictionary(encoding)?;
        if self.has_nulls && level_encoding != RLE {
            return Err(wrong("the levels of a page are in an encoding that is not read here"));
        }
        let levels = match (self.has_nulls, page.first_chunk()) {
            (true, Some(length)) => 4 + u64::from(u32::from_le_bytes(*length)),
            _ => 0,
        };
        self.check_values(&page, levels, values, encoding)?;
        Ok(Page::DataPage {
            buf: page,
            num_values: values,
            encoding,
            def_level_encoding: Encoding::RLE,
            rep_level_encoding: Encoding::RLE,
            statistics: None,
        })
    }

    fn data_v2(&mut self, header: PageHeader, v2: DataV2, page: &Bytes) -> Result<Page> {
        let encoding = plain_or_dictionary(v2.encoding)?;
        let levels = u64::from(v2.definition_bytes) + u64::from(v2.repetition_bytes);
        let size = u64::from(header.uncompressed).checked_sub(levels);
        let (Some(size), true) = (size, levels <= page.len() as u64) else {
            return Err(wrong("the levels of a page are longer than it is"));
        };
        // Both lie within a page, which is small.
        let (levels_end, size) = (levels as usize, size as usize);
        let page = if v2.is_compressed && size > 0 {
            let values = self.decompress(&page[levels_end..], size)?;
            Bytes::from([&page[..levels_end], &values].concat())
        } else {
            page.clone()
        };
        self.check_values(&page, levels, v2.values, encoding)?;
        Ok(Page::DataPageV2 {
            buf: page,
            num_values: v2.values,
            encoding,
            num_nulls: v2.nulls,
            num_rows: v2.rows,
            def_levels_byte_len: v2.definition_bytes,
            rep_levels_byte_len: v2.repetition_bytes,
            is_compressed: false,
            statistics: None,
        })
    }

    /// Looks at what the decoders of the crate rely on.
    fn check_values(
        &mut self,
        page: &Bytes,
        levels: u64,
        values: u32,
        encoding: Encoding,
    ) -> Result<()> {
        let left = self.values_left.checked_sub(values.into());
        self.values_left = left.ok_or_else(|| wrong("a column has more values than rows"))?;
        let start = usize::try_from(levels).unwrap_or(usize::MAX);
        let bytes = page.get(start..).ok_or_else(|| wrong("the levels of a page are cut off"))?;
        let is_sound = match (encoding, self.kind) {
            (Encoding::RLE_DICTIONARY, _) => self.has_dictionary,
            // Only keys and the like are texts, and there is no row without.
            (Encoding::PLAIN, Type::BYTE_ARRAY) => has_texts(bytes, values),
            (Encoding::RLE, kind) => kind == Type::BOOLEAN,
            _ => true,
        };
        match is_sound {
            true => Ok(()),
            false => Err(wrong("a page does not have the values that its header says")),
        }
    }
}

/// Parquet's numbers of encodings.
const RLE: u32 = 3;

/// The encodings of S3's writer and most others. Version 2 has more, which S3 does not use.
fn plain_or_dictionary(encoding: u32) -> Result<Encoding> {
    match encoding {
        0 => Ok(Encoding::PLAIN),
        2 | 8 => Ok(Encoding::RLE_DICTIONARY),
        RLE => Ok(Encoding::RLE),
        other => Err(wrong(format!(
            "its values are in encoding {other} of Parquet, and only plain ones, dictionaries and run lengths are \
             read here; take an inventory in CSV"
        ))),
    }
}

/// Whether these bytes begin with so many texts, each with its length before it. Some writers leave zeros behind them.
fn has_texts(mut bytes: &[u8], count: u32) -> bool {
    (0..count).all(|_| {
        let text = bytes
            .split_first_chunk()
            .and_then(|(length, rest)| rest.get(u32::from_le_bytes(*length) as usize..));
        bytes = text.unwrap_or_default();
        text.is_some()
    })
}

fn snappy(bytes: &[u8], size: usize) -> Result<Vec<u8>> {
    let says = snap::raw::decompress_len(bytes).map_err(|error| wrong(error.to_string()))?;
    if says != size {
        return Err(wrong("a page does not have the size that its header says"));
    }
    snap::raw::Decoder::new().decompress_vec(bytes).map_err(|error| wrong(error.to_string()))
}

pub(super) fn wrong(what: impl Into<String>) -> ParquetError {
    ParquetError::General(what.into())
}

impl PageReader for Pages {
    fn get_next_page(&mut self) -> Result<Option<Page>> {
        while let Some((header, bytes)) = self.cut()? {
            let size = header.uncompressed as usize;
            let page = match header.kind {
                PageKind::Index => continue,
                PageKind::Dictionary { values, encoding } => {
                    let page = self.decompress(&bytes, size)?;
                    self.dictionary(page, values, encoding)
                }
                PageKind::Data { values, encoding, level_encoding } => {
                    let page = self.decompress(&bytes, size)?;
                    self.data(page, values, encoding, level_encoding)
                }
                PageKind::DataV2(v2) => self.data_v2(header, v2, &bytes),
            };
            return page.map(Some);
        }
        Ok(None)
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>> {
        Err(wrong("pages are read only in their order"))
    }

    fn skip_next_page(&mut self) -> Result<()> {
        Err(wrong("pages are read only in their order"))
    }
}

impl Iterator for Pages {
    type Item = Result<Page>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}
