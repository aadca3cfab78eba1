//! The claim of a run to be the only one: an object that it writes anew as long as it lives.
//!
//! Of two that begin at once each may see the other, and then neither goes on; never do both. That is for order's sake: what
//! keeps writers safe is each run's own marker, and would be if there were several.

use std::str::FromStr;
use std::time::Duration;

use moorage::store::layout::{self, Key};
use moorage::store::{ListRequest, Listed, Objects, pages, parse_time};

use futures::TryStreamExt as _;

use super::GcError;
use crate::time::{Seconds, seconds};

/// How long a claim counts after it was last written.
pub const LIFETIME: Duration = Duration::from_secs(10 * 60);

/// The name of a run: letters, digits and hyphens, as it stands in keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunId(String);

impl RunId {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RunId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        match (1..=64).contains(&text.len()) && text.bytes().all(is_allowed) {
            true => Ok(Self(text.to_owned())),
            false => Err("a run's name consists of letters, digits and hyphens".to_owned()),
        }
    }
}

/// Writes the claim of a run.
pub async fn write(objects: &impl Objects, run: &RunId) -> Result<(), GcError> {
    let text =
        format!("The run {} is at work while this is written again and again.\n", run.as_str());
    Ok(objects.write(&layout::claim(run.as_str()), text.into()).await?)
}

/// Looks who else claims to be the only one, and takes over from those who died. Gives the time by the store's clock at which
/// this run's claim was written.
pub async fn check(objects: &impl Objects, run: &RunId) -> Result<Seconds, GcError> {
    let claims = list(objects).await?;
    let own = layout::claim(run.as_str());
    let written = claims.iter().find(|(key, _)| *key == own).map(|(_, written)| *written);
    let now = written.ok_or(GcError::StaleListing)?;
    for (key, written) in claims.iter().filter(|(key, _)| *key != own) {
        let age = u64::from(now.saturating_sub(*written));
        if age < LIFETIME.as_secs() {
            let run = key.as_str().rsplit('/').next().unwrap_or_default().to_owned();
            return Err(GcError::UnderWay { run, seconds: age });
        }
    }
    for (key, _) in claims.iter().filter(|(key, _)| *key != own) {
        objects.remove(key).await?;
    }
    Ok(now)
}

async fn list(objects: &impl Objects) -> Result<Vec<(Key, Seconds)>, GcError> {
    let folder = layout::claims();
    let mut claims = Vec::new();
    let mut pages = std::pin::pin!(pages(objects, ListRequest::new(&folder, Listed::Objects)));
    while let Some(page) = pages.try_next().await? {
        for (key, modified) in page.keys.into_iter().zip(page.modified) {
            // Not an object by which some tools show a folder.
            if !key.as_str().ends_with('/') {
                let modified = seconds(parse_time(&key, &modified)?);
                claims.push((key, modified));
            }
        }
    }
    Ok(claims)
}
