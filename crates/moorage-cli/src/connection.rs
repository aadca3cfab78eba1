//! Where the bucket is, and how it is reached: the options that all commands have.

use std::path::PathBuf;
use std::rc::Rc;

use clap::Args;
use http::Uri;
use http::uri::Scheme;
use moorage::store::{Addressing, Bucket, BucketOptions, Budget};
use moorage_maintenance::s3_inventory::Location;
use moorage_maintenance::snapshot::Inventory;
use reqwest::Certificate;

use crate::Failure;
use crate::credentials::{self, Environment, Signing};
use crate::signed_http::{self, SignedHttp};

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

    /// The region that requests are signed for; AWS_DEFAULT_REGION or us-east-1 unless set.
    #[arg(long, value_name = "NAME", env = "AWS_REGION")]
    pub region: Option<String>,

    /// Whether requests name the bucket in the path or in the host.
    #[arg(long, value_enum, env = "MOORAGE_ADDRESSING", default_value_t)]
    pub addressing: AddressingOption,

    /// A file of certificates (PEM): authorities to trust beside those that this machine trusts.
    #[arg(long, value_name = "FILE", env = "AWS_CA_BUNDLE")]
    pub ca_bundle: Option<PathBuf>,

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
        let authorities = self.authorities()?;
        let client = || signed_http::client_builder(&authorities);
        let http = SignedHttp::new(scheme, client())?;
        let environment = credentials::environment();
        let region = self.region(&environment);
        let signing = match self.no_sign_request {
            true => Signing::Off,
            false => credentials::signing(environment, client(), &authority, &region).await?,
        };
        let options = self.bucket_options()?;
        Ok(Bucket::new(http.with_signing(signing), &options, Rc::new(Budget::new(MEMORY))))
    }

    /// The bucket's options.
    ///
    /// # Errors
    ///
    /// Options that make no address.
    pub fn bucket_options(&self) -> Result<BucketOptions, Failure> {
        let (_, authority) = self.address()?;
        Ok(BucketOptions {
            authority,
            bucket: self.bucket.clone(),
            addressing: match self.addressing {
                AddressingOption::Path => Addressing::Path,
                AddressingOption::VirtualHost => Addressing::VirtualHost,
            },
            prefix: self.prefix.clone(),
            content_limit: CONTENT_LIMIT,
        })
    }

    /// An inventory of the bucket.
    ///
    /// # Errors
    ///
    /// Options that make no address.
    pub fn inventory(&self, location: &Location) -> Result<Inventory, Failure> {
        Ok(Inventory { location: location.clone(), bucket: self.bucket_options()? })
    }

    fn region(&self, environment: &Environment) -> String {
        let given = self.region.as_ref().filter(|region| !region.is_empty());
        let region = given.or_else(|| environment.get("AWS_DEFAULT_REGION"));
        region.map_or("us-east-1", String::as_str).to_owned()
    }

    fn authorities(&self) -> Result<Vec<Certificate>, Failure> {
        let Some(path) = self.ca_bundle.as_ref().filter(|path| !path.as_os_str().is_empty()) else {
            return Ok(Vec::new());
        };
        let wrong = |why: String| Failure::Usage(format!("--ca-bundle {}: {why}", path.display()));
        let text = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
        match Certificate::from_pem_bundle(&text) {
            Ok(authorities) if !authorities.is_empty() => Ok(authorities),
            _ => Err(wrong("there are no certificates in it, as PEM has them".to_owned())),
        }
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
        // This machine may have a region.
        let options = ConnectionOptions { region: None, ..options("moorage") };
        let address = options.address().expect("an address");
        assert_eq!(address, (Scheme::HTTP, "127.0.0.1:5002".to_owned()));
        assert_eq!((options.bucket.as_str(), options.prefix.as_str()), ("registry", ""));
        assert_eq!(options.region(&Environment::new()), "us-east-1");
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

    #[test]
    fn the_region_is_that_of_amazons_tools() {
        let default = [("AWS_DEFAULT_REGION".to_owned(), "eu-west-1".to_owned())].into();
        let none = ConnectionOptions { region: Some(String::new()), ..options("moorage") };
        assert_eq!(none.region(&default), "eu-west-1");
        let given = options("moorage --region eu-central-1");
        assert_eq!(given.region(&default), "eu-central-1");
    }

    #[test]
    fn a_bundle_without_certificates_is_refused() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(&file, "no certificate").expect("a file");
        for path in [file.path(), std::path::Path::new("/nowhere/authorities.pem")] {
            let options = options(&format!("moorage --ca-bundle {}", path.display()));
            let failure = options.authorities().expect_err("no certificates");
            assert!(matches!(&failure, Failure::Usage(text) if text.contains("--ca-bundle")));
        }
        let none = ConnectionOptions { ca_bundle: None, ..options("moorage") };
        assert!(none.authorities().expect("none is right").is_empty());
    }
}
