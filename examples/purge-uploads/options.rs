//! The command line and the environment.

use std::ffi::OsString;
use std::time::Duration;

use jiff::Timestamp;
use rusty_s3::{Bucket, Credentials, UrlStyle};
use url::Url;

const USAGE: &str = "usage: purge-uploads --older-than AGE [--dry-run] [--endpoint URL] \
                     [--bucket NAME] [--prefix FOLDER] [--region NAME] \
                     [--addressing path|virtual-host]";

/// What is wrong with the command line, as the one line the user sees.
type Problem = String;

/// What to purge, and how to reach it.
#[derive(Debug)]
pub struct Options {
    /// The bucket.
    pub bucket: Bucket,
    /// The keys that requests are signed with; without, they are not signed.
    pub credentials: Option<Credentials>,
    /// What the keys of the registry begin with: empty, or a folder with its slash.
    pub prefix: String,
    /// What happened before this is old.
    pub cutoff: Timestamp,
    /// Whether to tell only what would be removed.
    pub dry_run: bool,
}

impl Options {
    /// Reads the arguments, without the program's name, and the environment.
    pub fn read(
        arguments: impl IntoIterator<Item = OsString>,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, Problem> {
        let mut endpoint = "http://127.0.0.1:5002".to_owned();
        let mut bucket = "registry".to_owned();
        let mut prefix = String::new();
        let mut region = "us-east-1".to_owned();
        let mut style = UrlStyle::Path;
        let mut age = None;
        let mut dry_run = false;

        let mut arguments = arguments.into_iter();
        while let Some(flag) = arguments.next() {
            let flag = flag.to_string_lossy().into_owned();
            let mut value = || text(&flag, arguments.next());
            match flag.as_str() {
                "--endpoint" => endpoint = value()?,
                "--bucket" => bucket = value()?,
                "--prefix" => prefix = value()?,
                "--region" => region = value()?,
                "--addressing" => style = parse_addressing(&value()?)?,
                "--older-than" => age = Some(parse_age(&value()?)?),
                "--dry-run" => dry_run = true,
                _ => return Err(format!("unknown argument {flag:?}; {USAGE}")),
            }
        }

        let age = age.ok_or_else(|| format!("--older-than is missing; {USAGE}"))?;
        Ok(Self {
            bucket: address(&endpoint, style, bucket, region)?,
            credentials: credentials(environment)?,
            prefix: parse_prefix(&prefix),
            cutoff: Timestamp::now()
                .checked_sub(age)
                .map_err(|_| "--older-than reaches back before the calendar".to_owned())?,
            dry_run,
        })
    }
}

fn text(flag: &str, value: Option<OsString>) -> Result<String, Problem> {
    let value = value.ok_or_else(|| format!("{flag} needs a value; {USAGE}"))?;
    value.into_string().map_err(|value| format!("{flag} must be UTF-8, got {value:?}"))
}

fn parse_age(value: &str) -> Result<Duration, Problem> {
    humantime::parse_duration(value).map_err(|error| {
        format!("--older-than must be an age like 24h or 7days, got {value:?}: {error}")
    })
}

fn parse_addressing(value: &str) -> Result<UrlStyle, Problem> {
    match value {
        "path" => Ok(UrlStyle::Path),
        "virtual-host" => Ok(UrlStyle::VirtualHost),
        _ => Err(format!("--addressing must be path or virtual-host, got {value:?}")),
    }
}

/// The same rule as for the filter's `store.prefix`: slashes around it don't matter.
fn parse_prefix(value: &str) -> String {
    match value.trim_matches('/') {
        "" => String::new(),
        folder => format!("{folder}/"),
    }
}

fn address(
    endpoint: &str,
    style: UrlStyle,
    bucket: String,
    region: String,
) -> Result<Bucket, Problem> {
    let wrong =
        || format!("--endpoint must be an http or https URL without a path, got {endpoint:?}");
    let url: Url = endpoint.parse().map_err(|_| wrong())?;
    if !matches!(url.scheme(), "http" | "https")
        || url.path() != "/"
        || url.query().is_some()
        || url.fragment().is_some()
    {
        return Err(wrong());
    }
    Bucket::new(url, style, bucket, region)
        .map_err(|error| format!("--endpoint and --bucket make no address: {error}"))
}

/// Variables that are set but empty count as unset, as for Amazon's own tools.
fn credentials(
    environment: impl Fn(&str) -> Option<String>,
) -> Result<Option<Credentials>, Problem> {
    let variable = |name| environment(name).filter(|value| !value.is_empty());
    match (variable("AWS_ACCESS_KEY_ID"), variable("AWS_SECRET_ACCESS_KEY")) {
        (Some(key), Some(secret)) => Ok(Some(match variable("AWS_SESSION_TOKEN") {
            Some(token) => Credentials::new_with_token(key, secret, token),
            None => Credentials::new(key, secret),
        })),
        (None, None) => Ok(None),
        _ => Err("AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY go together".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str, environment: &[(&str, &str)]) -> Result<Options, Problem> {
        let variable = |name: &str| {
            let found = environment.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        Options::read(line.split_whitespace().map(OsString::from), variable)
    }

    #[test]
    fn defaults_are_those_of_the_local_store() {
        let options = read("--older-than 24h", &[]).expect("valid options");
        assert_eq!(options.bucket.object_url("a/b").as_str(), "http://127.0.0.1:5002/registry/a/b");
        assert_eq!(options.bucket.region(), "us-east-1");
        assert_eq!(options.prefix, "");
        assert!(options.credentials.is_none() && !options.dry_run);
    }

    #[test]
    fn a_bucket_is_addressed_as_asked_for() {
        for (line, url, prefix) in [
            ("--bucket b --prefix /x/y/", "https://s3.example/b/k", "x/y/"),
            ("--bucket b --prefix x --addressing path", "https://s3.example/b/k", "x/"),
            ("--bucket b --addressing virtual-host", "https://b.s3.example/k", ""),
        ] {
            let line = format!("--older-than 1h --endpoint https://s3.example {line}");
            let options = read(&line, &[]).expect("valid options");
            assert_eq!(options.bucket.object_url("k").as_str(), url, "{line}");
            assert_eq!(options.prefix, prefix, "{line}");
        }
    }

    #[test]
    fn the_cutoff_lies_the_age_back() {
        let before = Timestamp::now();
        let options = read("--older-than 7days", &[]).expect("valid options");
        let week = Duration::from_secs(7 * 24 * 60 * 60);
        assert!(options.cutoff >= before - week);
        assert!(options.cutoff <= Timestamp::now() - week);
    }

    #[test]
    fn keys_come_from_the_environment() {
        let (id, secret) = (("AWS_ACCESS_KEY_ID", "k"), ("AWS_SECRET_ACCESS_KEY", "s"));
        let token = ("AWS_SESSION_TOKEN", "t");
        for (environment, expected) in [
            (&[id, secret][..], Some(("k", "s", None))),
            (&[id, secret, token], Some(("k", "s", Some("t")))),
            (&[token], None),
            (&[("AWS_ACCESS_KEY_ID", ""), ("AWS_SECRET_ACCESS_KEY", "")], None),
        ] {
            let options = read("--older-than 1h", environment).expect("valid options");
            let keys = options.credentials.as_ref();
            let found = keys.map(|keys| (keys.key(), keys.secret(), keys.token()));
            assert_eq!(found, expected, "{environment:?}");
        }
        assert!(read("--older-than 1h", &[id]).is_err());
        assert!(read("--older-than 1h", &[secret]).is_err());
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (line, named) in [
            ("", "--older-than"),
            ("--older-than", "--older-than"),
            ("--older-than soon", "soon"),
            ("--older-than 24", "--older-than"),
            ("--older-than 99999years", "--older-than"),
            ("--older-than 1h --endpoint ftp://a", "ftp://a"),
            ("--older-than 1h --endpoint http://a/b", "http://a/b"),
            ("--older-than 1h --endpoint 127.0.0.1:5002", "127.0.0.1:5002"),
            ("--older-than 1h --addressing dns", "dns"),
            ("--older-than 1h --now", "--now"),
            ("--older-than 1h registry", "registry"),
        ] {
            let problem = read(line, &[]).expect_err(line);
            assert!(problem.contains(named), "{line}: {problem}");
            assert_eq!(problem.lines().count(), 1, "{line}: {problem}");
        }
    }
}
