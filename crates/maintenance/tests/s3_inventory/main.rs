//! Inventories of a bucket in the forms that S3 and others write, and what is said of each that is damaged.

mod csv;
mod http_store;
mod inventory;
mod manifest;
mod parquet;
mod source;
