//! Where something listens, and where something is reached.

use std::net::{IpAddr, SocketAddr};

use http::Uri;
use serde::{Deserialize, Deserializer, Serialize, de::Error};

/// An address to listen at: an IP address and a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address(pub SocketAddr);

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let address = text.parse().map_err(|_| {
            D::Error::custom("must be an IP address and a port, such as 0.0.0.0:5000 or [::]:5000")
        })?;
        Ok(Self(address))
    }
}

/// A server: an `http` or `https` URL with no path, no query and no credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Whether it is reached by TLS.
    pub tls: bool,
    /// Its name or IP address; an IPv6 address without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The `Host` of requests to it: with the port, unless that is the scheme's.
    pub authority: String,
}

/// How Envoy finds the addresses of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Discovery {
    /// It is an address.
    #[serde(rename = "STATIC")]
    Static,
    /// A new one for each connection.
    #[serde(rename = "LOGICAL_DNS")]
    LogicalDns,
    /// All that it stands for.
    #[serde(rename = "STRICT_DNS")]
    StrictDns,
}

impl Endpoint {
    /// Reads a URL and gives what follows the server's name as well.
    ///
    /// # Errors
    ///
    /// What is wrong with it, in words that follow the setting's name.
    pub fn parse_with_path(text: &str) -> Result<(Self, String), String> {
        const SHAPE: &str = "must be a URL such as https://s3.example.org";
        let uri: Uri = text.parse().map_err(|_| SHAPE.to_owned())?;
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(SHAPE.to_owned()),
        };
        let authority = uri.authority().ok_or(SHAPE)?;
        if authority.as_str().contains('@') {
            return Err(
                "must not have a user or a password in it: credentials are the environment's"
                    .into(),
            );
        }
        let scheme_port = if tls { 443 } else { 80 };
        let host = authority.host();
        if host.is_empty() {
            return Err(SHAPE.to_owned());
        }
        let port = match authority.as_str().strip_prefix(host).unwrap_or_default() {
            "" => scheme_port,
            port => match port.trim_start_matches(':').parse() {
                Ok(port) if port != 0 => port,
                _ => return Err("has a port that is none".to_owned()),
            },
        };
        let named = if port == scheme_port { host.to_owned() } else { format!("{host}:{port}") };
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let path = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str).to_owned();
        Ok((Self { tls, host, port, authority: named }, path))
    }

    /// Reads a URL that has no path.
    ///
    /// # Errors
    ///
    /// As [`Endpoint::parse_with_path`], and for a path.
    pub fn parse(text: &str) -> Result<Self, String> {
        match Self::parse_with_path(text)? {
            (endpoint, path) if path == "/" => Ok(endpoint),
            _ => Err("must have no path, only the server".to_owned()),
        }
    }

    /// Whether its host is an IP address, not a name.
    pub fn is_ip(&self) -> bool {
        is_ip(&self.host)
    }

    /// How Envoy finds it: by a name that may stand for many servers, or as it is.
    pub fn discovery(&self) -> Discovery {
        if self.is_ip() { Discovery::Static } else { Discovery::LogicalDns }
    }
}

/// Whether a host is an IP address, not a name.
pub fn is_ip(host: &str) -> bool {
    host.parse::<IpAddr>().is_ok()
}

impl<'de> Deserialize<'de> for Endpoint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_tells_host_port_and_authority() {
        for (text, tls, host, port, authority) in [
            ("https://s3.example.org", true, "s3.example.org", 443, "s3.example.org"),
            ("https://s3.example.org:443/", true, "s3.example.org", 443, "s3.example.org"),
            ("http://10.0.0.1:9000", false, "10.0.0.1", 9000, "10.0.0.1:9000"),
            ("http://[::1]:9000", false, "::1", 9000, "[::1]:9000"),
            ("http://[::1]", false, "::1", 80, "[::1]"),
        ] {
            let expected = Endpoint { tls, host: host.into(), port, authority: authority.into() };
            assert_eq!(Endpoint::parse(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_server_is_refused() {
        for text in [
            "",
            "s3.example.org",
            "ftp://s3.example.org",
            "https://",
            "https://s3.example.org/bucket",
            "https://s3.example.org?x",
            "https://key:secret@s3.example.org",
            "https://s3.example.org:0",
            "https://s3.example.org:99999",
        ] {
            assert!(Endpoint::parse(text).is_err(), "{text}");
        }
    }
}
