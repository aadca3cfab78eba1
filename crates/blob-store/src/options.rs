//! The command line.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use lexopt::prelude::*;

use crate::Failure;

const USAGE: &str = "usage: blob-store [--listen ADDR:PORT] --root DIR [--bucket NAME] \
                     [--access-key KEY --secret-key SECRET] [--require-length]";

/// What to serve, and where.
pub struct Options {
    pub listen: SocketAddr,
    pub root: PathBuf,
    pub bucket: String,
    pub keys: Option<Keys>,
    pub requires_length: bool,
}

/// The keys that requests must be signed with.
pub struct Keys {
    pub access: String,
    pub secret: String,
}

fn wrong(error: lexopt::Error) -> Failure {
    format!("{error}; {USAGE}")
}

fn text(parser: &mut lexopt::Parser) -> Result<String, Failure> {
    parser.value().and_then(|value| value.string()).map_err(wrong)
}

impl Options {
    /// Reads the arguments, without the program's name.
    ///
    /// # Errors
    ///
    /// What is wrong with them, in one line.
    pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, Failure> {
        let mut listen = SocketAddr::from(([127, 0, 0, 1], 5002));
        let mut root = None;
        let mut bucket = "registry".to_owned();
        let (mut access, mut secret) = (None, None);
        let mut requires_length = false;

        let mut parser = lexopt::Parser::from_args(arguments);
        while let Some(argument) = parser.next().map_err(wrong)? {
            let Long(name) = argument else {
                return Err(wrong(argument.unexpected()));
            };
            match name.to_owned().as_str() {
                "listen" => listen = parse_listen(&text(&mut parser)?)?,
                // Only a path may be other than UTF-8.
                "root" => root = Some(PathBuf::from(parser.value().map_err(wrong)?)),
                "bucket" => bucket = parse_bucket(text(&mut parser)?)?,
                "access-key" => access = Some(text(&mut parser)?),
                "secret-key" => secret = Some(text(&mut parser)?),
                "require-length" => requires_length = true,
                unknown => return Err(format!("unknown argument \"--{unknown}\"; {USAGE}")),
            }
        }

        let keys = match (access, secret) {
            (Some(access), Some(secret)) => Some(Keys { access, secret }),
            (None, None) => None,
            _ => return Err("--access-key and --secret-key go together".to_owned()),
        };
        let root = root.ok_or_else(|| format!("--root is missing; {USAGE}"))?;
        Ok(Self { listen, root, bucket, keys, requires_length })
    }
}

fn parse_listen(value: &str) -> Result<SocketAddr, Failure> {
    value
        .parse()
        .map_err(|_| format!("--listen must be ADDR:PORT with a numeric address, got {value:?}"))
}

/// S3's characters for a bucket. They also keep the name a single folder below the root.
fn parse_bucket(value: String) -> Result<String, Failure> {
    let allowed = |byte: u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'.'
    };
    let valid = (3..=63).contains(&value.len())
        && value.bytes().all(allowed)
        && value.as_bytes()[0].is_ascii_alphanumeric();
    if valid {
        Ok(value)
    } else {
        Err(format!(
            "--bucket must be 3 to 63 of a-z 0-9 . - and start with a letter or digit, \
             got {value:?}"
        ))
    }
}
