//! A certificate authority of a test's own, and Envoy with a certificate by it.
//!
//! `openssl` makes the certificates: the tests need it for tokens as well, and a crate would be one more.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tokio::process::Command;

use crate::envoy::Bootstrap;
use crate::process::{output, run};

/// A name by which nobody finds the registry, except through a [`proxy`](crate::proxy).
pub const NAME: &str = "registry.test";

/// Longer than any test.
const DAYS: &str = "2";

const NEW_KEY: &[&str] = &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];

/// A client's certificate and its key. Its files go when this is dropped.
pub struct ClientCertificate {
    folder: TempDir,
}

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

    /// Makes a certificate for a client of this name, a URI.
    pub async fn certify_client(&self, uri: &str) -> ClientCertificate {
        let folder = TempDir::new().expect("a temporary folder");
        let file = |name: &str| folder.path().join(name).display().to_string();
        let (key, request, certificate) = (file("key"), file("request"), file("certificate"));
        fs::write(file("conf"), format!("subjectAltName = URI:{uri}\n")).expect("a file");
        let files = ["-keyout", &key, "-out", &request];
        self.openssl("req -new -config authority.conf -subj /CN=client", &[NEW_KEY, &files]).await;
        let files = ["-in", &request, "-extfile", &file("conf"), "-out", &certificate];
        let signing = "x509 -req -CA trusted/ca.crt -CAkey authority.key -CAcreateserial -days 2";
        self.openssl(signing, &[&files]).await;
        ClientCertificate { folder }
    }

    /// Sends `GET` over TLS with a certificate, or without, and gives the status; 0 if there is no answer.
    pub async fn get(
        &self,
        server: SocketAddr,
        path: &str,
        certificate: Option<&ClientCertificate>,
    ) -> u16 {
        let input = TempDir::new().expect("a temporary folder");
        let file = input.path().join("request");
        let request = format!("GET {path} HTTP/1.1\r\nhost: {NAME}\r\nconnection: close\r\n\r\n");
        fs::write(&file, request).expect("a file");
        let mut command = Command::new("openssl");
        command
            .args(["s_client", "-quiet", "-verify_return_error", "-connect", &server.to_string()])
            .arg("-CAfile")
            .arg(self.certificate())
            .stdin(fs::File::open(&file).expect("the file is there"));
        if let Some(certificate) = certificate {
            command.arg("-cert").arg(certificate.folder.path().join("certificate"));
            command.arg("-key").arg(certificate.folder.path().join("key"));
        }
        let answer = String::from_utf8_lossy(&output(&mut command).await.stdout).into_owned();
        answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default()
    }

    /// The authority's own certificate, in PEM, which clients have to trust.
    pub fn certificate(&self) -> PathBuf {
        self.certs_dir().join("ca.crt")
    }

    /// A folder that has that certificate alone (`man 5 containers-certs.d`).
    pub fn certs_dir(&self) -> PathBuf {
        self.file("trusted")
    }

    /// The registry's certificate, in PEM.
    pub fn server_certificate(&self) -> PathBuf {
        self.file("server.crt")
    }

    /// Its key, in PEM.
    pub fn server_key(&self) -> PathBuf {
        self.file("server.key")
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

    /// Has Envoy verify the certificates that clients have by an authority; they need none.
    pub fn verifying_clients(self, authority: &Authority) -> Self {
        let certificates = "                tls_certificates:\n";
        let trusted = authority.certificate();
        let validation = format!(
            "                validation_context: {{ trusted_ca: {{ filename: \"{}\" }} }}\n",
            trusted.display()
        );
        self.with(certificates, &format!("{validation}{certificates}"))
    }

    /// Has Envoy write a line to its log for each request: `request: `, the method, the path and the status.
    pub fn logging_requests(self) -> Self {
        self.with_access_log(
            r#"{ text_format_source: { inline_string: "request: %REQ(:METHOD)% %REQ(:PATH)% %RESPONSE_CODE%\n" } }"#,
        )
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
