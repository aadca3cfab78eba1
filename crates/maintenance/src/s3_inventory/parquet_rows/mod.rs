//! Data files in Parquet: columns named in snake case, times as a number of milliseconds since 1970.
//!
//! The crate `parquet` reads the schema and decodes values, without Arrow; [`pages`] bounds what memory a file can
//! take. A batch of rows is held at a time, and of each column a page and a dictionary.

mod header;
mod pages;

use std::borrow::Cow;
use std::fs::File;
use std::str;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parquet::basic::{ConvertedType, LogicalType, TimeUnit};
use parquet::column::reader::ColumnReaderImpl;
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DataType, Int64Type};
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::{
    FooterTail, ParquetMetaData, ParquetMetaDataReader, RowGroupMetaData,
};
use parquet::file::reader::{ChunkReader, Length};
use parquet::schema::types::{ColumnDescriptor, SchemaDescriptor};

use super::error::Fault;
use super::row::{Columns, Row, is_same_column};
use pages::{Pages, wrong};

/// How many rows are decoded at a time.
const BATCH: usize = 1024;
/// The largest description of a file, in bytes: room for thousands of row groups.
const METADATA_LIMIT: usize = 4 * 1024 * 1024;
/// The size of what comes last in a file: the length of its description, and what it is.
const TAIL: u64 = 8;

/// Gives each row of a file.
pub(super) fn rows(
    file: File,
    each: &mut impl FnMut(Row<'_>) -> std::result::Result<(), String>,
) -> std::result::Result<(), Fault> {
    let file = Arc::new(file);
    let metadata = metadata(&file).map_err(damaged)?;
    let schema = metadata.file_metadata().schema_descr();
    let columns = columns(schema)?;
    let mut row = 0;
    for group in metadata.row_groups() {
        let mut batches = Batches::new(&file, group, &columns).map_err(damaged)?;
        while let Some(batch) = batches.next().map_err(damaged)? {
            for index in 0..batch.keys.len() {
                row += 1;
                let parsed = batch.row(index).map_err(|reason| Fault::at(row, reason))?;
                each(parsed).map_err(Fault::OtherBucket)?;
            }
        }
    }
    let says = metadata.file_metadata().num_rows();
    match u64::try_from(says) == Ok(row) {
        true => Ok(()),
        false => Err(Fault::damaged(format!("it has {row} rows and says that it has {says}"))),
    }
}

fn damaged(error: ParquetError) -> Fault {
    match error {
        // Otherwise it would say that it is a "Parquet error".
        ParquetError::General(reason) => Fault::damaged(reason),
        other => Fault::damaged(other),
    }
}

/// Reads the description at the end of a file.
fn metadata(file: &File) -> Result<ParquetMetaData> {
    let cut_off = || wrong("it is no Parquet file, or is cut off");
    let tail_at = file.len().checked_sub(TAIL).ok_or_else(cut_off)?;
    let tail = FooterTail::try_from(&file.get_bytes(tail_at, TAIL as usize)?[..])?;
    let length = tail.metadata_length();
    if tail.is_encrypted_footer() {
        return Err(wrong("it is encrypted by Parquet's own means"));
    }
    if length > METADATA_LIMIT {
        return Err(wrong(format!("its description is larger than {METADATA_LIMIT} bytes")));
    }
    let start = tail_at.checked_sub(length as u64).ok_or_else(cut_off)?;
    ParquetMetaDataReader::decode_metadata(&file.get_bytes(start, length)?)
}

fn columns(schema: &SchemaDescriptor) -> std::result::Result<Columns<usize>, Fault> {
    // Columns within others have longer paths.
    let is_plain = |column: &ColumnDescriptor| {
        column.max_rep_level() == 0
            && column.max_def_level() <= 1
            && column.path().parts().len() == 1
    };
    Columns::find(|name| {
        let is_it = |column: &Arc<ColumnDescriptor>| {
            is_plain(column) && is_same_column(column.name(), name)
        };
        schema.columns().iter().position(is_it)
    })
    .map_err(Fault::Fields)
}

/// The columns of a row group, read side by side.
struct Batches {
    buckets: Option<Column<ByteArrayType>>,
    keys: Column<ByteArrayType>,
    sizes: Column<Int64Type>,
    modified: Column<Int64Type>,
    unit: Unit,
    is_latest: Option<Column<BoolType>>,
    is_delete_marker: Option<Column<BoolType>>,
    rows_left: usize,
}

impl Batches {
    fn new(file: &Arc<File>, group: &RowGroupMetaData, columns: &Columns<usize>) -> Result<Self> {
        let rows_left = usize::try_from(group.num_rows())?;
        let flag =
            |column: Option<usize>| column.map(|at| Column::new(file, group, at)).transpose();
        Ok(Self {
            buckets: columns.bucket.map(|at| Column::new(file, group, at)).transpose()?,
            keys: Column::new(file, group, columns.key)?,
            sizes: Column::new(file, group, columns.size)?,
            modified: Column::new(file, group, columns.modified)?,
            unit: Unit::of(group.schema_descr().column(columns.modified).as_ref())?,
            is_latest: flag(columns.is_latest)?,
            is_delete_marker: flag(columns.is_delete_marker)?,
            rows_left,
        })
    }

    /// The next rows, if there are more.
    fn next(&mut self) -> Result<Option<Batch>> {
        let rows = self.rows_left.min(BATCH);
        if rows == 0 {
            return Ok(None);
        }
        self.rows_left -= rows;
        let flags = |column: &mut Option<Column<BoolType>>| {
            column.as_mut().map(|column| column.read(rows)).transpose()
        };
        Ok(Some(Batch {
            buckets: self.buckets.as_mut().map(|column| column.read(rows)).transpose()?,
            keys: self.keys.read(rows)?,
            sizes: self.sizes.read(rows)?,
            modified: self.modified.read(rows)?,
            unit: self.unit,
            is_latest: flags(&mut self.is_latest)?,
            is_delete_marker: flags(&mut self.is_delete_marker)?,
        }))
    }
}

/// One column of a row group.
struct Column<T: DataType> {
    reader: ColumnReaderImpl<T>,
    has_nulls: bool,
}

impl<T: DataType> Column<T> {
    fn new(file: &Arc<File>, group: &RowGroupMetaData, at: usize) -> Result<Self> {
        let chunk = group.columns().get(at).ok_or_else(|| wrong("a row group lacks a column"))?;
        let descriptor = group.schema_descr().column(at);
        // Both are read from the file, and the values are decoded by the one and checked by the other.
        let kinds = [descriptor.physical_type(), chunk.column_type()];
        if kinds != [T::get_physical_type(); 2] {
            let (name, kind) = (descriptor.name(), T::get_physical_type());
            return Err(wrong(format!("the column {name} is not of the type {kind}")));
        }
        let has_nulls = descriptor.max_def_level() > 0;
        let pages = Pages::new(Arc::clone(file), chunk)?;
        Ok(Self { reader: ColumnReaderImpl::new(descriptor, Box::new(pages)), has_nulls })
    }

    /// The values of so many rows.
    fn read(&mut self, rows: usize) -> Result<Vec<Option<T::T>>> {
        let (mut levels, mut values) = (Vec::new(), Vec::new());
        let wants_levels = self.has_nulls.then_some(&mut levels);
        let (found, _, _) = self.reader.read_records(rows, wants_levels, None, &mut values)?;
        if found != rows {
            return Err(wrong("a column has fewer values than rows"));
        }
        if !self.has_nulls {
            return Ok(values.into_iter().map(Some).collect());
        }
        let mut values = values.into_iter();
        let values = levels.iter().map(|level| if *level > 0 { values.next() } else { None });
        Ok(values.collect())
    }
}

/// Some rows, column by column. What is null is `None`.
struct Batch {
    buckets: Option<Vec<Option<ByteArray>>>,
    keys: Vec<Option<ByteArray>>,
    sizes: Vec<Option<i64>>,
    modified: Vec<Option<i64>>,
    unit: Unit,
    is_latest: Option<Vec<Option<bool>>>,
    is_delete_marker: Option<Vec<Option<bool>>>,
}

impl Batch {
    fn row(&self, index: usize) -> std::result::Result<Row<'_>, String> {
        let flag = |column: &Option<Vec<Option<bool>>>, name: &str, without: bool| match column {
            Some(column) => column[index].ok_or_else(|| format!("it has no {name}")),
            None => Ok(without),
        };
        if !flag(&self.is_latest, "is_latest", true)?
            || flag(&self.is_delete_marker, "is_delete_marker", false)?
        {
            return Ok(Row::NotCurrent);
        }
        let size = self.sizes[index].ok_or("it has no size")?;
        let size = u64::try_from(size).map_err(|_| "its size is negative")?;
        let modified = self.modified[index].ok_or("it has no last_modified_date")?;
        let modified = self.unit.time(modified).ok_or("its last_modified_date is before 1970")?;
        let bucket =
            self.buckets.as_ref().map(|column| text(&column[index], "bucket")).transpose()?;
        let key = Cow::Borrowed(text(&self.keys[index], "key")?);
        Ok(Row::Current { bucket, key, size, modified })
    }
}

fn text<'a>(value: &'a Option<ByteArray>, name: &str) -> std::result::Result<&'a str, String> {
    let value = value.as_ref().ok_or_else(|| format!("it has no {name}"))?;
    str::from_utf8(value.data()).map_err(|_| format!("its {name} is not UTF-8"))
}

/// What a time is counted in.
#[derive(Debug, Clone, Copy)]
enum Unit {
    Milliseconds,
    Microseconds,
    Nanoseconds,
}

impl Unit {
    fn of(column: &ColumnDescriptor) -> Result<Self> {
        match (column.logical_type_ref(), column.converted_type()) {
            (Some(LogicalType::Timestamp(time)), _) => Ok(match time.unit {
                TimeUnit::MILLIS => Self::Milliseconds,
                TimeUnit::MICROS => Self::Microseconds,
                TimeUnit::NANOS => Self::Nanoseconds,
            }),
            (_, ConvertedType::TIMESTAMP_MILLIS) => Ok(Self::Milliseconds),
            (_, ConvertedType::TIMESTAMP_MICROS) => Ok(Self::Microseconds),
            _ => Err(wrong("the column last_modified_date has no times")),
        }
    }

    /// The time at so many units after 1970, if it is not before.
    fn time(self, count: i64) -> Option<SystemTime> {
        let count = u64::try_from(count).ok()?;
        UNIX_EPOCH.checked_add(match self {
            Self::Milliseconds => Duration::from_millis(count),
            Self::Microseconds => Duration::from_micros(count),
            Self::Nanoseconds => Duration::from_nanos(count),
        })
    }
}
