//! The way to the store: [`Http`] by a client of its own, which signs (AWS Signature Version 4) and repeats.
//!
//! In the filter Envoy does both.

use std::cell::Cell;
use std::error::Error;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::uri::{PathAndQuery, Scheme};
use http::{Method, StatusCode, Uri};
use moorage::store::{Http, HttpError, HttpRequest, HttpResponse, Repeat, Timeout};
use reqwest::{Certificate, redirect};
use sha2::{Digest as _, Sha256};

use crate::Failure;
use crate::credentials::{Signing, reason};

/// How often a request is sent that may be repeated.
const ATTEMPTS: u32 = 3;

/// How long is waited before a request is repeated, on average; twice as long each time. Those that failed together
/// don't come back together.
const PAUSE: Duration = Duration::from_millis(250);

/// A client of one store.
#[derive(Debug, Clone)]
pub struct SignedHttp {
    client: reqwest::Client,
    scheme: Scheme,
    signing: Signing,
    store_time: Cell<Option<SystemTime>>,
}

/// What every client is made of: none can be made before TLS has its cryptography, even if it has no use for it.
pub fn plain_client_builder() -> reqwest::ClientBuilder {
    // Fails only if another provider is there already, which does as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
}

/// How clients of stores are made. They trust the certificate authorities that this machine trusts, and these.
pub fn client_builder(authorities: &[Certificate]) -> reqwest::ClientBuilder {
    plain_client_builder()
        // A signature is for one host and path.
        .redirect(redirect::Policy::none())
        .connect_timeout(Duration::from_secs(5))
        .tls_certs_merge(authorities.iter().cloned())
}

impl SignedHttp {
    /// A client that signs nothing yet, made of [`client_builder`].
    ///
    /// # Errors
    ///
    /// If the machine's certificates can't be read.
    pub fn new(scheme: Scheme, client: reqwest::ClientBuilder) -> Result<Self, Failure> {
        let client = client
            .build()
            .map_err(|error| Failure::Failed(format!("no HTTP client could be made: {error}")))?;
        Ok(Self { client, scheme, signing: Signing::Off, store_time: Cell::new(None) })
    }

    /// The same, but for how it signs.
    pub fn with_signing(self, signing: Signing) -> Self {
        Self { signing, ..self }
    }

    /// Whether requests are signed.
    pub fn is_signing(&self) -> bool {
        matches!(self.signing, Signing::By(_))
    }

    /// What the store's clock showed when it last answered, in whole seconds; `None` if it has not told. By it, objects
    /// have their times.
    pub fn store_time(&self) -> Option<SystemTime> {
        self.store_time.get()
    }

    /// The request as it goes over the wire, signed.
    async fn signed(&self, request: &HttpRequest) -> Result<reqwest::Request, HttpError> {
        let nonsense = |_| HttpError::Nonsense;
        let path: PathAndQuery = request.path.parse().map_err(|_| HttpError::Nonsense)?;
        let url = Uri::builder()
            .scheme(self.scheme.clone())
            .authority(request.authority.as_str())
            .path_and_query(path)
            .build()
            .map_err(nonsense)?;
        let mut builder = http::Request::builder().method(request.method.clone()).uri(url);
        for (name, value) in &request.headers {
            builder = builder.header(*name, value);
        }
        let hash = base16ct::lower::encode_string(&Sha256::digest(&request.body));
        builder = builder.header("x-amz-content-sha256", hash);
        let (mut head, body) = builder.body(request.body.clone()).map_err(nonsense)?.into_parts();
        if let Signing::By(signer) = &self.signing {
            signer.sign(&mut head, None).await.map_err(|error| {
                HttpError::Unreachable(format!("no valid signature: {}", reason(&error)))
            })?;
        }
        let signed = http::Request::from_parts(head, body);
        let mut signed = reqwest::Request::try_from(signed).map_err(|_| HttpError::Nonsense)?;
        *signed.timeout_mut() = Some(time_for(request.timeout));
        Ok(signed)
    }

    async fn send_once(&self, request: &HttpRequest) -> Result<HttpResponse, HttpError> {
        let response = self.client.execute(self.signed(request).await?).await;
        let response = match response {
            Ok(response) => response,
            Err(error) if error.is_timeout() && !error.is_connect() => return Ok(timed_out()),
            Err(error) => return Err(unreachable(&error)),
        };
        let status = response.status();
        let date = response.headers().get("date").and_then(|date| date.to_str().ok());
        if let Some(time) = date.and_then(|date| httpdate::parse_http_date(date).ok()) {
            self.store_time.set(Some(time));
        }
        let version = response.headers().get("etag").and_then(|etag| etag.to_str().ok());
        let version = version.filter(|_| request.wants_version).map(str::to_owned);
        match response.bytes().await {
            Ok(body) => Ok(HttpResponse { status, version, body }),
            Err(error) if error.is_timeout() => Ok(timed_out()),
            Err(_) if request.method == Method::HEAD => {
                Ok(HttpResponse { status, version, body: Bytes::new() })
            }
            Err(error) => Err(unreachable(&error)),
        }
    }
}

impl Http for SignedHttp {
    async fn send(&self, request: &HttpRequest, repeat: Repeat) -> Result<HttpResponse, HttpError> {
        let attempts = if repeat == Repeat::WhenItFails { ATTEMPTS } else { 1 };
        let mut pause = PAUSE;
        for _ in 1..attempts {
            match self.send_once(request).await {
                Ok(response) if !is_worth_another_try(response.status) => return Ok(response),
                Ok(_) | Err(HttpError::Unreachable(_)) => {}
                Err(error) => return Err(error),
            }
            tokio::time::sleep(pause.mul_f64(0.5 + fastrand::f64())).await;
            pause *= 2;
        }
        self.send_once(request).await
    }
}

fn is_worth_another_try(status: StatusCode) -> bool {
    let is_final = matches!(status, StatusCode::NOT_IMPLEMENTED | StatusCode::GATEWAY_TIMEOUT);
    status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error() && !is_final
}

fn unreachable(error: &reqwest::Error) -> HttpError {
    HttpError::Unreachable(root_cause(error).to_string())
}

/// What an error comes from in the end: what comes before only says that a request failed, and with which URL.
pub fn root_cause<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause
}

/// As a proxy reports it.
fn timed_out() -> HttpResponse {
    HttpResponse { status: StatusCode::GATEWAY_TIMEOUT, version: None, body: Bytes::new() }
}

fn time_for(timeout: Timeout) -> Duration {
    match timeout {
        Timeout::Ordinary => Duration::from_secs(60),
        Timeout::Copy => Duration::from_secs(300),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use reqsign_aws_v4::{RequestSigner, StaticCredentialProvider};
    use reqsign_core::hash::{hex_hmac_sha256, hex_sha256, hmac_sha256};
    use reqsign_core::{Context, Signer};

    use super::*;

    fn request(path: &str) -> HttpRequest {
        HttpRequest {
            method: Method::GET,
            authority: "s3.example:9000".to_owned(),
            path: path.to_owned(),
            headers: vec![("range", "bytes=0-9".to_owned())],
            body: Bytes::new(),
            wants_version: false,
            timeout: Timeout::Ordinary,
        }
    }

    /// The signature of a canonical request, as Amazon's documentation puts it together.
    fn signature(secret: &str, region: &str, date: &str, canonical: &str) -> String {
        let day = &date[..8];
        let mut key = format!("AWS4{secret}").into_bytes();
        for part in [day, region, "s3", "aws4_request"] {
            key = hmac_sha256(&key, part.as_bytes());
        }
        let hash = hex_sha256(canonical.as_bytes());
        let text = format!("AWS4-HMAC-SHA256\n{date}\n{day}/{region}/s3/aws4_request\n{hash}");
        hex_hmac_sha256(&key, text.as_bytes())
    }

    const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    /// The example "GET object" of Amazon's "Signature Calculations for the Authorization Header".
    #[test]
    fn the_tests_sign_as_documented() {
        let canonical = format!(
            "GET\n/test.txt\n\nhost:examplebucket.s3.amazonaws.com\nrange:bytes=0-9\n\
             x-amz-content-sha256:{EMPTY}\nx-amz-date:20130524T000000Z\n\n\
             host;range;x-amz-content-sha256;x-amz-date\n{EMPTY}"
        );
        let secret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
        assert_eq!(
            signature(secret, "us-east-1", "20130524T000000Z", &canonical),
            "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
        );
    }

    #[tokio::test]
    async fn a_request_is_signed_as_it_is_sent() {
        let keys = StaticCredentialProvider::new("key", "secret");
        let signer = Signer::new(Context::new(), keys, RequestSigner::new("s3", "eu-central-1"));
        let http = SignedHttp::new(Scheme::HTTPS, client_builder(&[])).expect("a client");
        let http = http.with_signing(Signing::By(Arc::new(signer)));
        let path = "/registry/?prefix=a%2Fb%20c&list-type=2";
        let signed = http.signed(&request(path)).await.expect("a request");
        assert_eq!(signed.url().as_str(), format!("https://s3.example:9000{path}"));
        let authorization = signed.headers()["authorization"].to_str().expect("text");
        let start = "AWS4-HMAC-SHA256 Credential=key/";
        assert!(authorization.starts_with(start), "{authorization}");
        assert!(authorization.contains("/eu-central-1/s3/aws4_request"), "{authorization}");
        let headers = "SignedHeaders=host;range;x-amz-content-sha256;x-amz-date";
        assert!(authorization.contains(headers), "{authorization}");
        assert_eq!(signed.headers()["x-amz-content-sha256"], EMPTY);
        let date = signed.headers()["x-amz-date"].to_str().expect("text");
        // The query in the order of its names, and encoded once.
        let canonical = format!(
            "GET\n/registry/\nlist-type=2&prefix=a%2Fb%20c\nhost:s3.example:9000\nrange:bytes=0-9\n\
             x-amz-content-sha256:{EMPTY}\nx-amz-date:{date}\n\n\
             host;range;x-amz-content-sha256;x-amz-date\n{EMPTY}"
        );
        let expected = signature("secret", "eu-central-1", date, &canonical);
        let (_, found) = authorization.rsplit_once("Signature=").expect("a signature");
        assert_eq!(found, expected);
    }

    #[tokio::test]
    async fn without_keys_nothing_is_signed() {
        let http = SignedHttp::new(Scheme::HTTP, client_builder(&[])).expect("a client");
        let sent = http.signed(&request("/registry/k")).await.expect("a request");
        assert!(!sent.headers().contains_key("authorization"));
        assert_eq!(sent.url().as_str(), "http://s3.example:9000/registry/k");
    }

    #[test]
    fn only_what_may_pass_is_tried_again() {
        for (status, expected) in [
            (200, false),
            (404, false),
            (403, false),
            (429, true),
            (500, true),
            (501, false),
            (503, true),
            (504, false),
        ] {
            let status = StatusCode::from_u16(status).expect("a status");
            assert_eq!(is_worth_another_try(status), expected, "{status}");
        }
    }
}
