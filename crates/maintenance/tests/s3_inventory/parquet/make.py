"""Writes the Parquet files beside this script, as two writers do (pyarrow 26, fastparquet): `python3 make.py`.

Columns, names and times are those of S3 Inventory; the variants are what other writers choose.
"""

import datetime
import pathlib

import fastparquet
import pyarrow as pa
import pyarrow.parquet as pq

HERE = pathlib.Path(__file__).parent
START = datetime.datetime(2024, 1, 2, 3, 4, 5, 6000, tzinfo=datetime.timezone.utc)


def schema(required: bool = False, unit: str = "ms") -> pa.Schema:
    return pa.schema([
        pa.field("bucket", pa.string(), not required),
        pa.field("key", pa.string(), not required),
        pa.field("size", pa.int64()),
        pa.field("last_modified_date", pa.timestamp(unit, tz="UTC")),
        pa.field("e_tag", pa.string()),
    ])


def versions_schema() -> pa.Schema:
    fields = list(schema())
    version = [
        pa.field("version_id", pa.string()),
        pa.field("is_latest", pa.bool_()),
        pa.field("is_delete_marker", pa.bool_()),
    ]
    return pa.schema(fields[:2] + version + fields[2:])


def row(number: int) -> dict:
    return {
        "bucket": "images",
        "key": f"registry/folder {number % 7}/{number:05}+é",
        "size": number * 3,
        "last_modified_date": START + datetime.timedelta(seconds=number),
        "e_tag": f"{number:032x}",
    }


def write(name: str, rows: list, of: pa.Schema, **options) -> None:
    table = pa.Table.from_pylist(rows, schema=of)
    pq.write_table(table, HERE / f"{name}.parquet", **options)


rows = [row(number) for number in range(2500)]
few = rows[:5]
# Row groups, pages and dictionaries that end before all rows are written.
write("snappy", rows, schema(), compression="snappy", row_group_size=1000, data_page_size=2048,
      dictionary_pagesize_limit=4096, write_batch_size=64)
write("gzip-v2", rows, schema(), compression="gzip", data_page_version="2.0", row_group_size=1100,
      data_page_size=2048, use_dictionary=["bucket", "key", "size"], write_batch_size=64)
write("plain-required", few, schema(required=True), compression="none", use_dictionary=False)
write("microseconds", few, schema(unit="us"), compression="none")
# Another writer, which leaves zeros behind the values of a page.
fastparquet.write(HERE / "fastparquet.parquet", pa.Table.from_pylist(few, schema=schema()).to_pandas(),
                  compression="GZIP")
write("empty", [], schema())
old = {"version_id": "v1", "is_latest": False, "is_delete_marker": False}
new = {"version_id": "v2", "is_latest": True, "is_delete_marker": False}
marker = {"version_id": "v3", "is_latest": True, "is_delete_marker": True, "size": None}
versions = [row(0) | old, row(0) | new, row(1) | old, row(1) | marker]
write("versions", versions, versions_schema(), compression="snappy")
write("versions-v2", versions, versions_schema(), compression="snappy", data_page_version="2.0")

# What is refused.
write("zstd", few, schema(), compression="zstd")
write("delta", few, schema(), use_dictionary=False,
      column_encoding={"key": "DELTA_BYTE_ARRAY"}, compression="none")
write("no-key", [row(0), row(1) | {"key": None}], schema(), compression="none")
write("no-size", [row(0), row(1) | {"size": None}], schema(), compression="none")
write("negative-size", [row(0) | {"size": -1}], schema(), compression="none")
write("before-1970", [row(0) | {"last_modified_date": datetime.datetime(1969, 1, 1)}], schema(),
      compression="none")
write("without-dates", few, pa.schema([f for f in schema() if f.name != "last_modified_date"]))
write("without-latest", versions, pa.schema([f for f in versions_schema() if f.name != "is_latest"]))
write("text-size", [row(0) | {"size": "1"}],
      pa.schema([pa.field("size", pa.string()) if f.name == "size" else f for f in schema()]))
write("number-date", [row(0) | {"last_modified_date": 1}],
      pa.schema([pa.field("last_modified_date", pa.int64()) if f.name == "last_modified_date" else f
                 for f in schema()]))
write("other-bucket", [row(0), row(1) | {"bucket": "secrets"}], schema())
# A page of 40 MiB in some 40 KiB.
write("huge-key", [row(0) | {"key": "registry/" + "a" * (40 << 20)}], schema(), compression="gzip",
      use_dictionary=False, write_statistics=False)
