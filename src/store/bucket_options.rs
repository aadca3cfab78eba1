//! Where a bucket is, and where in it the registry lies.

use std::str::FromStr;

use thiserror::Error;

/// Where a bucket is, and how it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketOptions {
    /// The store's host, and its port unless that is the scheme's.
    pub authority: String,
    /// The bucket's name.
    pub bucket: String,
    /// How requests name the bucket.
    pub addressing: Addressing,
    /// The folder of the bucket that holds the registry, `rootdirectory` in `distribution`; empty for the whole
    /// bucket. Slashes at its ends mean nothing.
    pub prefix: String,
    /// The largest content that is read into memory, in bytes.
    pub content_limit: u64,
}

/// How an S3 request names its bucket.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Addressing {
    /// `https://<authority>/<bucket>/<key>`
    #[default]
    Path,
    /// `https://<bucket>.<authority>/<key>`
    VirtualHost,
}

/// A text that is no [`Addressing`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("must be path or virtual-host")]
pub struct AddressingError;

impl FromStr for Addressing {
    type Err = AddressingError;

    fn from_str(text: &str) -> Result<Self, AddressingError> {
        match text {
            "path" => Ok(Self::Path),
            "virtual-host" => Ok(Self::VirtualHost),
            _ => Err(AddressingError),
        }
    }
}

impl BucketOptions {
    /// The `Host` of requests to the store.
    pub fn request_authority(&self) -> String {
        match self.addressing {
            Addressing::Path => self.authority.clone(),
            Addressing::VirtualHost => format!("{}.{}", self.bucket, self.authority),
        }
    }

    /// The path of the bucket in a request, with a slash at its end.
    pub fn bucket_path(&self) -> String {
        match self.addressing {
            Addressing::Path => format!("/{}/", self.bucket),
            Addressing::VirtualHost => "/".to_owned(),
        }
    }

    /// The prefix of all keys within the bucket: nothing, or folders with a slash at their end.
    pub fn key_prefix(&self) -> String {
        match self.prefix.trim_matches('/') {
            "" => String::new(),
            prefix => format!("{prefix}/"),
        }
    }
}
