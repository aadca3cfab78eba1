//! What Envoy is started with: a bootstrap that is made of settings, or one in a file.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use moorage_bootstrap::Settings;
use serde_json::Value;

use crate::Failure;

/// A bootstrap, and how Envoy gets it.
#[derive(Debug)]
pub enum Bootstrap {
    /// Text, in JSON. It may hold keys, and Envoy needs it once, so it gets it by a pipe and it is written nowhere.
    Made(String),
    /// A file that somebody else has written.
    File(PathBuf),
}

impl Bootstrap {
    /// What settings make.
    ///
    /// # Errors
    ///
    /// None that settings can cause: what they make is YAML.
    pub fn of(settings: &Settings) -> Result<Self, Failure> {
        let read = serde_saphyr::from_str::<Value>(&settings.bootstrap());
        let bootstrap = read.map_err(|error| {
            Failure::Failed(format!(
                "the settings make no YAML, which should never happen: {error}"
            ))
        })?;
        Ok(Self::Made(bootstrap.to_string()))
    }

    /// Starts an Envoy with it. All that ends Envoy's life, a bootstrap that it refuses too, is the child's to tell.
    ///
    /// # Errors
    ///
    /// If it can't be started.
    pub fn give_to(self, command: &mut Command) -> std::io::Result<Child> {
        command.arg("--config-path").arg(self.path());
        let Self::Made(text) = self else { return command.stdin(Stdio::null()).spawn() };
        let mut child = command.stdin(Stdio::piped()).spawn()?;
        if let Some(mut input) = child.stdin.take() {
            // A pipe holds 64 KiB, and Envoy takes its time. It may end before it has read all.
            std::thread::spawn(move || {
                let _ = input.write_all(text.as_bytes());
            });
        }
        Ok(child)
    }

    /// The path that Envoy is told. A file whose name has no ending is JSON to Envoy, and of all in `/dev`, it
    /// takes what is in `/dev/fd`.
    fn path(&self) -> &Path {
        match self {
            Self::Made(_) => Path::new("/dev/fd/0"),
            Self::File(path) => path,
        }
    }
}

/// Reads a bootstrap from a file, and gives it with the address of Envoy's admin page in it.
///
/// # Errors
///
/// If it can't be read, or names no admin page: Envoy could not be drained.
pub fn read(path: PathBuf) -> Result<(Bootstrap, SocketAddr), Failure> {
    let failed = |what: String| Failure::Failed(format!("{}: {what}", path.display()));
    let text = std::fs::read_to_string(&path)
        .map_err(|error| failed(format!("can't be read: {error}")))?;
    let bootstrap: Value =
        serde_saphyr::from_str(&text).map_err(|error| failed(format!("is no YAML: {error}")))?;
    let admin = admin_of(&bootstrap).ok_or_else(|| {
        failed(
            "has no `admin` with an IP address and a port, by which Envoy is drained; add \
             `admin: { address: { socket_address: { address: 127.0.0.1, port_value: 9901 } } }`"
                .to_owned(),
        )
    })?;
    Ok((Bootstrap::File(path), admin))
}

fn admin_of(bootstrap: &Value) -> Option<SocketAddr> {
    let address = &bootstrap["admin"]["address"]["socket_address"];
    let ip: IpAddr = address["address"].as_str()?.parse().ok()?;
    let port = u16::try_from(address["port_value"].as_u64()?).ok().filter(|port| *port != 0)?;
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_admin_page_is_found_where_envoy_has_it() {
        for (text, expected) in [
            (
                "admin: { address: { socket_address: { address: 127.0.0.1, port_value: 9901 } } }",
                Some("127.0.0.1:9901"),
            ),
            (
                r#"{"admin":{"address":{"socket_address":{"address":"::1","port_value":1}}}}"#,
                Some("[::1]:1"),
            ),
            ("admin: { address: { socket_address: { address: 127.0.0.1, port_value: 0 } } }", None),
            ("admin: { address: { pipe: { path: /run/admin } } }", None),
            ("static_resources: {}", None),
            ("[]", None),
        ] {
            let bootstrap: Value = serde_saphyr::from_str(text).expect("YAML");
            let expected = expected.map(|address| address.parse().expect("an address"));
            assert_eq!(admin_of(&bootstrap), expected, "{text}");
        }
    }
}
