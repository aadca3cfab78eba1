//! The command line.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use lexopt::prelude::*;

use crate::Failure;

const USAGE: &str = "usage: synthetic-bucket --objects N [--seed N] \
                     [--listen ADDR:PORT] [--bucket NAME] [--latency MILLISECONDS] | --write DIR";

/// The most objects. Ten times as many as the largest measurement needs.
const MOST_OBJECTS: u64 = 10_000_000;

/// What to make, and what to do with it.
#[derive(Debug)]
pub struct Options {
    /// At least so many objects.
    pub objects: u64,
    /// What is made follows from it.
    pub seed: u64,
    /// Where it is served.
    pub listen: SocketAddr,
    /// The bucket's name.
    pub bucket: String,
    /// How long each answer waits.
    pub latency: Duration,
    /// The folder that is written instead.
    pub write: Option<PathBuf>,
}

impl Options {
    /// Reads the arguments, without the program's name.
    ///
    /// # Errors
    ///
    /// What is wrong with them, in one line.
    pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, Failure> {
        let mut objects = None;
        let mut options = Self {
            objects: 0,
            seed: 1,
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            bucket: "registry".to_owned(),
            latency: Duration::ZERO,
            write: None,
        };
        let mut parser = lexopt::Parser::from_args(arguments);
        while let Some(argument) = parser.next().map_err(wrong)? {
            let Long(name) = argument else {
                return Err(wrong(argument.unexpected()));
            };
            match name.to_owned().as_str() {
                "objects" => objects = Some(value(&mut parser)?),
                "seed" => options.seed = value(&mut parser)?,
                "listen" => options.listen = value(&mut parser)?,
                "bucket" => options.bucket = value(&mut parser)?,
                "latency" => options.latency = Duration::from_millis(value(&mut parser)?),
                "write" => options.write = Some(PathBuf::from(parser.value().map_err(wrong)?)),
                unknown => return Err(format!("unknown argument \"--{unknown}\"; {USAGE}")),
            }
        }
        options.objects = objects.ok_or_else(|| format!("--objects is missing; {USAGE}"))?;
        if options.objects > MOST_OBJECTS {
            return Err(format!("--objects must be {MOST_OBJECTS} at most"));
        }
        Ok(options)
    }
}

fn value<T: FromStr<Err: Into<Box<dyn std::error::Error + Send + Sync>>>>(
    parser: &mut lexopt::Parser,
) -> Result<T, Failure> {
    parser.value().and_then(|value| value.parse()).map_err(wrong)
}

fn wrong(error: lexopt::Error) -> Failure {
    format!("{error}; {USAGE}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, Failure> {
        Options::parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn objects_are_needed_and_the_rest_has_defaults() {
        let options = parse("--objects 10").expect("valid");
        assert_eq!((options.objects, options.seed, options.write), (10, 1, None));
        assert_eq!(options.listen.to_string(), "127.0.0.1:0");
        let options = parse("--objects 10 --seed 2 --latency 20 --write d").expect("valid");
        assert_eq!((options.seed, options.latency), (2, Duration::from_millis(20)));
        assert_eq!(options.write, Some(PathBuf::from("d")));
        for line in
            ["", "--objects", "--objects many", "--objects 10000001", "--objects 1 --more", "1"]
        {
            let refused = parse(line).expect_err(line);
            assert!(!refused.contains('\n'), "{refused}");
        }
    }
}
