//! The keys that requests are signed with, from where Amazon's own tools take them.
//!
//! In this order: `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and `AWS_SESSION_TOKEN`; the profile `AWS_PROFILE` of
//! `~/.aws/credentials` and `~/.aws/config`, or its single sign-on; the web identity of a Kubernetes service account
//! (`AWS_WEB_IDENTITY_TOKEN_FILE`, `AWS_ROLE_ARN`); the role of a container; the role of the machine. The last is asked
//! for only where the store is Amazon's, and not for long: elsewhere nobody answers. Where there are no keys at all,
//! requests are not signed.
//!
//! The library's own chain goes on to the next place when one fails, and in the end to none. Here a place that is set up
//! and fails ends the search: signed with other keys, or with none, requests would be refused for no visible reason.
//!
//! `reqsign` is Apache OpenDAL's. Amazon's `aws-config` knows a few places more (`role_arn` in a profile), brings twice as
//! many crates, and needs a newer Rust than this workspace.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use reqsign_aws_v4::{
    AssumeRoleWithWebIdentityCredentialProvider, Credential, ECSCredentialProvider,
    EnvCredentialProvider, IMDSv2CredentialProvider, ProfileCredentialProvider, RequestSigner,
    SSOCredentialProvider,
};
use reqsign_core::{Context, HttpSend, ProvideCredential, ProvideCredentialDyn, Signer, StaticEnv};
use reqsign_file_read_tokio::TokioFileRead;
use reqsign_http_send_reqwest::ReqwestHttpSend;

use crate::Failure;

/// How long Amazon's token service may take.
const SERVICE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long it may take to connect to what hands out the role of a machine or container. It is on the machine, or
/// nowhere.
const LOCAL_CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// How long that may take to answer.
const LOCAL_TIMEOUT: Duration = Duration::from_secs(3);

/// Environment variables.
pub type Environment = HashMap<String, String>;

/// Whether requests are signed, and by whom.
#[derive(Debug, Clone)]
pub enum Signing {
    /// They are not.
    Off,
    /// By this signer, which gets new keys before the old ones expire.
    By(Arc<Signer<Credential>>),
}

/// The variables of this process. Those that are set but empty count as unset, as for Amazon's own tools.
pub fn environment() -> Environment {
    let text = |value: std::ffi::OsString| value.into_string().ok();
    let variables = std::env::vars_os();
    let variables = variables.filter_map(|(name, value)| Some((text(name)?, text(value)?)));
    variables.filter(|(_, value)| !value.is_empty()).collect()
}

/// How requests to a store at `authority` are signed. `client` is what Amazon's token service is asked over.
///
/// # Errors
///
/// Half a pair of keys, and a place for keys that is set up and has none.
pub async fn signing(
    environment: Environment,
    client: reqwest::ClientBuilder,
    authority: &str,
    region: &str,
) -> Result<Signing, Failure> {
    check_pair(&environment)?;
    let profile = environment.get("AWS_PROFILE").cloned();
    let context = context(environment, client)?;
    for (place, provider) in places() {
        match provider.provide_credential_dyn(&context).await {
            Ok(Some(keys)) => return Ok(Signing::By(signer(context, provider, keys, region))),
            Ok(None) => {}
            Err(error) => return Err(no_keys(place, &reason(&error))),
        }
    }
    if let Some(profile) = profile {
        let why = format!("there are none for AWS_PROFILE={profile}, or of a kind not known here");
        return Err(no_keys("the profile", &why));
    }
    let machine = IMDSv2CredentialProvider::new();
    // That it fails mostly means that the machine is none of Amazon's.
    if is_amazons(authority)
        && let Ok(Some(keys)) = machine.provide_credential(&context).await
    {
        return Ok(Signing::By(signer(context, Box::new(machine), keys, region)));
    }
    Ok(Signing::Off)
}

type Provider = Box<dyn ProvideCredentialDyn<Credential = Credential>>;

/// Where keys may be that somebody set up, in the order in which it is looked there.
fn places() -> [(&'static str, Provider); 5] {
    [
        ("the environment", Box::new(EnvCredentialProvider::new())),
        ("the profile files", Box::new(ProfileCredentialProvider::default())),
        ("the profile's single sign-on", Box::new(SSOCredentialProvider::default())),
        ("the web identity", Box::new(AssumeRoleWithWebIdentityCredentialProvider::default())),
        ("the container's role", Box::new(ECSCredentialProvider::new())),
    ]
}

fn context(environment: Environment, client: reqwest::ClientBuilder) -> Result<Context, Failure> {
    let no_client = |error| Failure::Failed(format!("no HTTP client could be made: {error}"));
    let local = reqwest::Client::builder()
        .no_proxy()
        .connect_timeout(LOCAL_CONNECT_TIMEOUT)
        .timeout(LOCAL_TIMEOUT);
    let clients = KeyClients {
        service: ReqwestHttpSend::new(client.timeout(SERVICE_TIMEOUT).build().map_err(no_client)?),
        local: ReqwestHttpSend::new(local.build().map_err(no_client)?),
    };
    // Not the home that the system knows for the user: who empties the environment wants nothing from it.
    let home_dir = environment.get("HOME").map(PathBuf::from);
    let environment = StaticEnv { home_dir, envs: environment };
    let context = Context::new().with_file_read(TokioFileRead).with_http_send(clients);
    Ok(context.with_env(environment))
}

/// What hands out keys is asked over these.
#[derive(Debug)]
struct KeyClients {
    /// Amazon's services.
    service: ReqwestHttpSend,
    /// What is on the machine itself, or is reached by it alone: never over a proxy.
    local: ReqwestHttpSend,
}

impl HttpSend for KeyClients {
    async fn http_send(
        &self,
        request: http::Request<Bytes>,
    ) -> reqsign_core::Result<http::Response<Bytes>> {
        // Amazon's services are asked over TLS alone, and nothing local is.
        match request.uri().scheme_str() {
            Some("http") => self.local.http_send(request).await,
            _ => self.service.http_send(request).await,
        }
    }
}

fn signer(
    context: Context,
    provider: Provider,
    keys: Credential,
    region: &str,
) -> Arc<Signer<Credential>> {
    let found = Found { first: Mutex::new(Some(keys)), provider };
    Arc::new(Signer::new(context, found, RequestSigner::new("s3", region)))
}

/// The place where keys were found, with those: the first who asks gets them, and only later ones new ones.
#[derive(Debug)]
struct Found {
    first: Mutex<Option<Credential>>,
    provider: Provider,
}

impl ProvideCredential for Found {
    type Credential = Credential;

    async fn provide_credential(
        &self,
        context: &Context,
    ) -> reqsign_core::Result<Option<Credential>> {
        let first = self.first.lock().unwrap_or_else(PoisonError::into_inner).take();
        match first {
            Some(keys) => Ok(Some(keys)),
            None => self.provider.provide_credential_dyn(context).await,
        }
    }
}

fn no_keys(place: &str, why: &str) -> Failure {
    Failure::Failed(format!(
        "no keys to sign requests with from {place}: {why}; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY instead, or \
         --no-sign-request for a store that needs none"
    ))
}

/// What went wrong with keys or a signature, in one line.
pub fn reason(error: &reqsign_core::Error) -> String {
    let mut text = error.to_string();
    for context in error.context() {
        text.push_str(&format!(", {context}"));
    }
    if let Some(cause) = std::error::Error::source(error) {
        text.push_str(&format!(": {}", crate::signed_http::root_cause(cause)));
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn check_pair(environment: &Environment) -> Result<(), Failure> {
    let is_set = |name| environment.contains_key(name);
    if is_set("AWS_ACCESS_KEY_ID") == is_set("AWS_SECRET_ACCESS_KEY") {
        return Ok(());
    }
    let problem =
        "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY go together, and only one of them is set";
    Err(Failure::Usage(problem.to_owned()))
}

fn is_amazons(authority: &str) -> bool {
    let host = authority.split(':').next().unwrap_or_default();
    host.ends_with(".amazonaws.com") || host.ends_with(".amazonaws.com.cn")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::signed_http;

    fn environment(variables: &[(&str, &str)]) -> Environment {
        variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    async fn look(variables: &[(&str, &str)]) -> Result<Signing, Failure> {
        let client = signed_http::client_builder(&[]);
        signing(environment(variables), client, "store.example", "us-east-1").await
    }

    /// The header by which a request is signed.
    async fn authorization(signing: Signing) -> Option<String> {
        let Signing::By(signer) = signing else { return None };
        let request = http::Request::get("https://store.example/b/k").body(()).expect("a request");
        let (mut head, ()) = request.into_parts();
        signer.sign(&mut head, None).await.expect("a signature");
        Some(head.headers["authorization"].to_str().expect("text").to_owned())
    }

    #[tokio::test]
    async fn keys_come_in_pairs() {
        let (id, secret) = (("AWS_ACCESS_KEY_ID", "k"), ("AWS_SECRET_ACCESS_KEY", "s"));
        let token = ("AWS_SESSION_TOKEN", "t");
        for (variables, signs) in [
            (&[id, secret][..], true),
            (&[id, secret, token], true),
            (&[token], false),
            (&[], false),
        ] {
            let signing = look(variables).await.expect("no fault");
            let authorization = authorization(signing).await;
            assert_eq!(authorization.is_some(), signs, "{variables:?}");
            let is_by_key = |text: &String| text.contains("Credential=k/");
            assert!(authorization.as_ref().is_none_or(is_by_key), "{authorization:?}");
            let has_token = |text: &String| text.contains("x-amz-security-token");
            assert_eq!(
                authorization.is_some_and(|text| has_token(&text)),
                variables.len() == 3,
                "{variables:?}"
            );
        }
        for half in [id, secret] {
            let failure = look(&[half]).await.expect_err("half a pair");
            assert!(matches!(failure, Failure::Usage(_)), "{failure}");
        }
    }

    #[tokio::test]
    async fn keys_come_from_the_profile_that_is_asked_for() {
        let home = tempfile::tempdir().expect("a folder");
        fs::create_dir(home.path().join(".aws")).expect("a folder");
        let files = "[default]\naws_access_key_id = d\naws_secret_access_key = s\n\
                     [other]\naws_access_key_id = o\naws_secret_access_key = s\n";
        fs::write(home.path().join(".aws/credentials"), files).expect("a file");
        let home = ("HOME", home.path().to_str().expect("text"));
        for (variables, key) in [(&[home][..], "d"), (&[home, ("AWS_PROFILE", "other")], "o")] {
            let signing = look(variables).await.expect("no fault");
            let authorization = authorization(signing).await.expect("a signature");
            assert!(authorization.contains(&format!("Credential={key}/")), "{authorization}");
        }
        let failure = look(&[home, ("AWS_PROFILE", "third")]).await.expect_err("no such profile");
        assert!(failure.to_string().contains("AWS_PROFILE=third"), "{failure}");
    }

    #[tokio::test]
    async fn a_place_that_is_set_up_and_fails_is_named() {
        let role = ("AWS_ROLE_ARN", "arn:aws:iam::1:role/r");
        let token = ("AWS_WEB_IDENTITY_TOKEN_FILE", "/nowhere/token");
        let failure = look(&[role, token]).await.expect_err("no such file");
        let told = failure.to_string();
        assert!(told.contains("the web identity: ") && told.contains("/nowhere/token"), "{told}");
        assert_eq!(told.lines().count(), 1, "{told}");
    }

    #[test]
    fn only_amazons_stores_are_worth_asking_the_machine_for_its_role() {
        for (authority, expected) in [
            ("s3.eu-central-1.amazonaws.com", true),
            ("s3.eu-central-1.amazonaws.com:443", true),
            ("s3.cn-north-1.amazonaws.com.cn", true),
            ("127.0.0.1:5002", false),
            ("amazonaws.com.example.org", false),
        ] {
            assert_eq!(is_amazons(authority), expected, "{authority}");
        }
    }
}
