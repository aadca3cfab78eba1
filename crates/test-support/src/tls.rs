//! A certificate authority of a test's own, and Envoy with a certificate by it.
//!
//! `openssl` makes the certificates: the tests need it for tokens as well, and a crate would be one more.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tokio::process::Command;

use crate::envoy::Bootstrap;
use crate::process::run;

/// A name by which nobody finds the registry, except through a [`proxy`](crate::proxy).
pub const NAME: &str = "registry.test";

/// Longer than any test.
const DAYS: &str = "2";

const NEW_KEY: &[&str] = &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];

/// An authority with one certificate, for a registry on this machine. Its files go when this is dropped.
pub struct Authority {
    folder: TempDir,
}

impl Authority {
    /// Makes the authority and the certificate, for `localhost`, 127.0.0.1 and [`NAME`].
    pub async fn new() -> Self {
        let authority = Self { folder: TempDir::new().expect("a temporary folder") };
        fs::create_dir(authority.certs_dir()).expect("a folder");
        let own = "[req]\ndistinguished_name = name\nx509_extensions = authority\n[name]\n\
                   [authority]\nbasicConstraints = critical, CA:true\nkeyUsage = critical, keyCertSign\n\
                   subjectKeyIdentifier = hash\n";
        let server = format!("subjectAltName = DNS:localhost, DNS:{NAME}, IP:127.0.0.1\n");
        fs::write(authority.file("authority.conf"), own).expect("a file");
        fs::write(authority.file("server.conf"), server).expect("a file");
        authority
            .openssl(
                "req -x509 -config authority.conf -subj /CN=tests -days",
                &[&[DAYS], NEW_KEY, &["-keyout", "authority.key", "-out", "trusted/ca.crt"]],
            )
            .await;
        authority
            .openssl(
                "req -new -config authority.conf -subj /CN=localhost",
                &[NEW_KEY, &["-keyout", "server.key", "-out", "server.csr"]],
            )
            .await;
        authority
            .openssl(
                "x509 -req -in server.csr -CA trusted/ca.crt -CAkey authority.key -CAcreateserial",
                &[&["-extfile", "server.conf", "-days", DAYS, "-out", "server.crt"]],
            )
            .await;
        authority
    }

    /// The authority's own certificate, in PEM, which clients have to trust.
    pub fn certificate(&self) -> PathBuf {
        self.certs_dir().join("ca.crt")
    }

    /// A folder that has that certificate alone (`man 5 containers-certs.d`).
    pub fn certs_dir(&self) -> PathBuf {
        self.file("trusted")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    async fn openssl(&self, words: &str, more: &[&[&str]]) {
        let mut command = Command::new("openssl");
        command.args(words.split(' ')).args(more.concat()).current_dir(self.folder.path());
        run(&mut command).await;
    }
}

impl Bootstrap {
    /// Has Envoy take TLS and nothing else, with the certificate of an authority.
    pub fn with_tls(self, authority: &Authority) -> Self {
        let filters =
            "        - filters:\n            - name: envoy.filters.network.http_connection_manager";
        let rest = filters.replacen("- filters:", "  filters:", 1);
        let file = |name| authority.file(name);
        self.with(
            filters,
            &format!("{}{rest}", transport_socket(&file("server.crt"), &file("server.key"))),
        )
    }

    /// Has Envoy write a line to its log for each request: `request: `, the method, the path and the status.
    pub fn logging_requests(self) -> Self {
        let prefix = "                stat_prefix: registry\n";
        let access_log = r#"                access_log:
                  - name: envoy.access_loggers.stderr
                    typed_config:
                      "@type": type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StderrAccessLog
                      log_format:
                        text_format_source:
                          inline_string: "request: %REQ(:METHOD)% %REQ(:PATH)% %RESPONSE_CODE%\n"
"#;
        self.with(prefix, &format!("{prefix}{access_log}"))
    }
}

fn transport_socket(certificate: &Path, key: &Path) -> String {
    let (certificate, key) = (certificate.display(), key.display());
    format!(
        r#"        - transport_socket:
            name: envoy.transport_sockets.tls
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
              common_tls_context:
                alpn_protocols: [h2, http/1.1]
                tls_certificates:
                  - certificate_chain: {{ filename: "{certificate}" }}
                    private_key: {{ filename: "{key}" }}
"#
    )
}
