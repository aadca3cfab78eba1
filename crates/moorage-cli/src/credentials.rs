//! The keys that requests are signed with, from wherever Amazon's own tools take them.
//!
//! In this order: `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and `AWS_SESSION_TOKEN`; the profile `AWS_PROFILE` of
//! `~/.aws/credentials` and `~/.aws/config`; the web identity of a Kubernetes service account
//! (`AWS_WEB_IDENTITY_TOKEN_FILE`, `AWS_ROLE_ARN`); the role of a container; the role of the machine. The last is asked
//! for only where the store is Amazon's: elsewhere nobody answers, and to wait for that would cost seconds. Where there
//! are no keys at all, requests are not signed.

use std::sync::Arc;
use std::time::Duration;

use reqsign_aws_v4::{Credential, DefaultCredentialProvider, RequestSigner};
use reqsign_core::{Context, OsEnv, ProvideCredential, Signer};
use reqsign_file_read_tokio::TokioFileRead;
use reqsign_http_send_reqwest::ReqwestHttpSend;

use crate::Failure;

/// How long it may take to find the keys.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Whether requests are signed, and by whom.
#[derive(Debug, Clone)]
pub enum Signing {
    /// They are not.
    Off,
    /// By this signer, which gets new keys before the old ones expire.
    By(Arc<Signer<Credential>>),
}

/// How requests to a store at `authority` are signed.
///
/// # Errors
///
/// Half a pair of keys, and a place for keys that is named but has none.
pub async fn signing(
    client: &reqwest::Client,
    authority: &str,
    region: &str,
) -> Result<Signing, Failure> {
    check_pair(|name| std::env::var(name).ok())?;
    let context = Context::new()
        .with_file_read(TokioFileRead)
        .with_http_send(ReqwestHttpSend::new(client.clone()))
        .with_env(OsEnv);
    let provider = || {
        let builder = DefaultCredentialProvider::builder();
        match is_amazons(authority) {
            true => builder.build(),
            false => builder.no_imds().build(),
        }
    };
    let found = tokio::time::timeout(TIMEOUT, provider().provide_credential(&context)).await;
    let found = match found {
        Ok(found) => found.map_err(|error| Failure::Failed(no_keys(error)))?,
        Err(_) => return Err(Failure::Failed(no_keys("it took too long"))),
    };
    if found.is_none() {
        return Ok(Signing::Off);
    }
    let signer = Signer::new(context, provider(), RequestSigner::new("s3", region));
    Ok(Signing::By(Arc::new(signer)))
}

fn no_keys(why: impl std::fmt::Display) -> String {
    format!(
        "the keys to sign requests with could not be had: {why}; set AWS_ACCESS_KEY_ID and \
         AWS_SECRET_ACCESS_KEY, or --no-sign-request for a store that needs none"
    )
}

/// Variables that are set but empty count as unset, as for Amazon's own tools.
fn check_pair(variable: impl Fn(&str) -> Option<String>) -> Result<(), Failure> {
    let is_set = |name| variable(name).is_some_and(|value| !value.is_empty());
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
    use super::*;

    #[test]
    fn keys_come_in_pairs() {
        let (id, secret) = (("AWS_ACCESS_KEY_ID", "k"), ("AWS_SECRET_ACCESS_KEY", "s"));
        for (environment, is_right) in [
            (&[id, secret][..], true),
            (&[], true),
            (&[("AWS_SESSION_TOKEN", "t")], true),
            (&[("AWS_ACCESS_KEY_ID", ""), ("AWS_SECRET_ACCESS_KEY", "")], true),
            (&[id], false),
            (&[secret], false),
            (&[id, ("AWS_SECRET_ACCESS_KEY", "")], false),
        ] {
            let variable = |name: &str| {
                let found = environment.iter().find(|(key, _)| *key == name);
                found.map(|(_, value)| (*value).to_owned())
            };
            assert_eq!(check_pair(variable).is_ok(), is_right, "{environment:?}");
        }
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
