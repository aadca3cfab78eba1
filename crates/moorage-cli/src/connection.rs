//! Where the bucket is, and how it is reached: the options that all commands have.

use std::rc::Rc;

use clap::Args;
use http::Uri;
use http::uri::Scheme;
use moorage::store::{Addressing, Bucket, BucketOptions, Budget};

use crate::Failure;
use crate::credentials::{self, Signing};
use crate::signed_http::SignedHttp;

/// The largest manifest that is read, in bytes, which is what the filter takes at most.
const CONTENT_LIMIT: u64 = 256 * 1024 * 1024;

/// How much may be read at a time, in bytes. Each command reads little by little; this is only so that a store
/// that sends nonsense can't take all memory.
const MEMORY: usize = 4 * 1024 * 1024 * 1024;

/// The bucket.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Bucket")]
pub struct ConnectionOptions {
    /// The store, as an http or https URL without a path.
    #[arg(
        long,
        value_name = "URL",
        env = "MOORAGE_ENDPOINT",
        default_value = "http://127.0.0.1:5002"
    )]
    pub endpoint: String,

    /// The bucket.
    #[arg(long, value_name = "NAME", env = "MOORAGE_BUCKET", default_value = "registry")]
    pub bucket: String,

    /// The folder of the bucket that holds the registry, as `store.prefix` of the filter.
    #[arg(long, value_name = "FOLDER", env = "MOORAGE_PREFIX", default_value = "")]
    pub prefix: String,

    /// The region that requests are signed for.
    #[arg(long, value_name = "NAME", env = "AWS_REGION", default_value = "us-east-1")]
    pub region: String,

    /// Whether requests name the bucket in the path or in the host.
    #[arg(long, value_enum, env = "MOORAGE_ADDRESSING", default_value_t)]
    pub addressing: AddressingOption,

    /// Sign no requests, whatever keys there are.
    #[arg(long, env = "MOORAGE_NO_SIGN_REQUEST")]
    pub no_sign_request: bool,
}

/// How requests name the bucket.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum AddressingOption {
    /// `https://host/bucket/key`
    #[default]
    Path,
    /// `https://bucket.host/key`
    VirtualHost,
}

impl ConnectionOptions {
    /// The bucket, reached by requests that are signed if there are keys.
    ///
    /// # Errors
    ///
    /// Options that make no address, and keys that can't be had.
    pub async fn connect(&self) -> Result<Bucket<SignedHttp>, Failure> {
        let (scheme, authority) = self.address()?;
        let http = SignedHttp::new(scheme)?;
        let signing = match self.no_sign_request {
            true => Signing::Off,
            false => credentials::signing(http.client(), &authority, &self.region).await?,
        };
        let options = BucketOptions {
            authority,
            bucket: self.bucket.clone(),
            addressing: match self.addressing {
                AddressingOption::Path => Addressing::Path,
                AddressingOption::VirtualHost => Addressing::VirtualHost,
            },
            prefix: self.prefix.clone(),
            content_limit: CONTENT_LIMIT,
        };
        Ok(Bucket::new(http.with_signing(signing), &options, Rc::new(Budget::new(MEMORY))))
    }

    fn address(&self) -> Result<(Scheme, String), Failure> {
        let wrong = || {
            let endpoint = &self.endpoint;
            Failure::Usage(format!(
                "--endpoint must be an http or https URL without a path, got {endpoint:?}"
            ))
        };
        let url: Uri = self.endpoint.parse().map_err(|_| wrong())?;
        let scheme = url.scheme().filter(|s| **s == Scheme::HTTP || **s == Scheme::HTTPS);
        let is_bare = url.path() == "/" && url.query().is_none();
        match (scheme, url.authority()) {
            (Some(scheme), Some(authority)) if is_bare && !authority.as_str().contains('@') => {
                Ok((scheme.clone(), authority.to_string()))
            }
            _ => Err(wrong()),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        connection: ConnectionOptions,
    }

    fn options(line: &str) -> ConnectionOptions {
        Line::try_parse_from(line.split_whitespace()).expect("valid options").connection
    }

    #[test]
    fn defaults_are_those_of_the_local_store() {
        let options = options("moorage");
        let address = options.address().expect("an address");
        assert_eq!(address, (Scheme::HTTP, "127.0.0.1:5002".to_owned()));
        assert_eq!((options.bucket.as_str(), options.prefix.as_str()), ("registry", ""));
        assert_eq!(options.region, "us-east-1");
        assert_eq!(options.addressing, AddressingOption::Path);
    }

    #[test]
    fn what_is_no_address_is_named() {
        for endpoint in
            ["ftp://a", "http://a/b", "127.0.0.1:5002", "http://", "http://k:s@a", "http://a?b"]
        {
            let options = options(&format!("moorage --endpoint {endpoint}"));
            let failure = options.address().expect_err(endpoint);
            assert!(matches!(&failure, Failure::Usage(text) if text.contains(endpoint)));
        }
        let line = "moorage --addressing dns".split_whitespace();
        assert!(Line::try_parse_from(line).is_err());
    }
}
