//! Upload sessions: finding them, telling the abandoned ones, removing those.

use std::collections::BTreeMap;

use jiff::Timestamp;
use thiserror::Error;

use crate::run::{Purge, say};
use crate::s3::{Depth, Fault, Object, Store};

/// The object of a session that tells when it began, as text (RFC 3339).
const STARTED_AT: &str = "startedat";

/// Removes the abandoned sessions of all repositories.
///
/// Repositories nest, so every folder of a name is listed once. What repositories hold is passed over,
/// but for their uploads.
///
/// # Errors
///
/// If there is no telling what repositories there are. What fails later is noted, and the purge goes
/// on with the next session.
pub fn purge(run: &mut Purge) -> Result<(), Fault> {
    let root = format!("{}repositories/", run.registry);
    let mut pending = run.store.list(&root, Depth::Folder)?.folders;
    pending.reverse();
    while let Some(folder) = pending.pop() {
        let path = folder.strip_prefix(&root).unwrap_or_default().trim_end_matches('/');
        match path.rsplit_once('/') {
            Some((repository, "_uploads")) => purge_repository(run, repository, &folder),
            _ if is_part_of_repository(path) => {}
            _ => match run.store.list(&folder, Depth::Folder) {
                Ok(listing) => pending.extend(listing.folders.into_iter().rev()),
                Err(fault) => run.failed(path, fault),
            },
        }
    }
    Ok(())
}

/// Whether a folder belongs to a repository rather than to a name: no part of a name begins with `_`.
fn is_part_of_repository(path: &str) -> bool {
    path.rsplit('/').next().is_some_and(|name| name.starts_with('_'))
}

fn purge_repository(run: &mut Purge, repository: &str, folder: &str) {
    let objects = match run.store.list(folder, Depth::All) {
        Ok(listing) => listing.objects,
        Err(fault) => return run.failed(repository, fault),
    };
    for (uuid, session) in sessions(folder, objects) {
        run.sessions += 1;
        match purge_session(run, &session) {
            Ok(Some(started)) => {
                run.removed += 1;
                let done = if run.dry_run { "would remove" } else { "removed" };
                say(format!("{done} {repository} {uuid}, started {started}"));
            }
            Ok(None) => {}
            Err(error) => run.failed(format!("{repository} {uuid}"), error),
        }
    }
}

/// Why a session stays that perhaps should go.
#[derive(Debug, Error)]
enum SessionError {
    #[error(transparent)]
    Store(#[from] Fault),
    #[error("startedat holds no time: {0:?}")]
    StartedAt(String),
}

/// Removes a session if it is abandoned, and then tells since when it was there.
fn purge_session(run: &Purge, session: &Session) -> Result<Option<String>, SessionError> {
    if !session.is_idle_since(run.cutoff) {
        return Ok(None);
    }
    let started = match &session.started_at {
        None => "at an unknown time".to_owned(),
        Some(key) => match run.store.content(key)? {
            Some(content) => match started(&content)? {
                time if time < run.cutoff => time.to_string(),
                _ => return Ok(None),
            },
            // Whoever closed or cancelled it in the meantime removes the rest.
            None => return Ok(None),
        },
    };
    if !run.dry_run {
        remove(&run.store, session)?;
    }
    Ok(Some(started))
}

fn started(content: &[u8]) -> Result<Timestamp, SessionError> {
    let text = String::from_utf8_lossy(content);
    text.trim().parse().map_err(|_| SessionError::StartedAt(text.into_owned()))
}

/// Removes `startedat` last: whatever breaks off, the session can still be found by it.
fn remove(store: &Store, session: &Session) -> Result<(), Fault> {
    for key in session.others.iter().chain(&session.started_at) {
        store.remove(key)?;
    }
    Ok(())
}

/// The objects of an upload session.
#[derive(Debug, Default, PartialEq, Eq)]
struct Session {
    /// The key of `startedat`, if there is such an object.
    started_at: Option<String>,
    /// The keys of all others.
    others: Vec<String>,
    /// When the newest of them all was written.
    touched: Option<Timestamp>,
}

impl Session {
    fn add(&mut self, object: Object, name: &str) {
        self.touched = self.touched.max(Some(object.last_modified));
        if name == STARTED_AT {
            self.started_at = Some(object.key);
        } else {
            self.others.push(object.key);
        }
    }

    /// Whether nothing was written to it from then on: a slow upload is still an upload.
    fn is_idle_since(&self, cutoff: Timestamp) -> bool {
        self.touched.is_some_and(|touched| touched < cutoff)
    }
}

/// The objects of an `_uploads` folder by their session's UUID.
fn sessions(folder: &str, objects: Vec<Object>) -> BTreeMap<String, Session> {
    let mut sessions: BTreeMap<String, Session> = BTreeMap::new();
    for object in objects {
        let path = object.key.strip_prefix(folder).and_then(|rest| rest.split_once('/'));
        if let Some((uuid, name)) = path.map(|(uuid, name)| (uuid.to_owned(), name.to_owned())) {
            sessions.entry(uuid).or_default().add(object, &name);
        }
    }
    sessions
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(key: &str, last_modified: &str) -> Object {
        Object { key: key.to_owned(), last_modified: time(last_modified) }
    }

    fn time(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    #[test]
    fn objects_are_told_apart_by_session() {
        let found = sessions(
            "r/_uploads/",
            vec![
                object("r/_uploads/1/chunks/startedat", "2026-03-01T00:00:00Z"),
                object("r/_uploads/1/startedat", "2026-01-01T00:00:00Z"),
                object("r/_uploads/2/data", "2026-02-01T00:00:00Z"),
                object("r/_uploads/stray", "2026-02-01T00:00:00Z"),
            ],
        );
        let first = Session {
            started_at: Some("r/_uploads/1/startedat".to_owned()),
            others: vec!["r/_uploads/1/chunks/startedat".to_owned()],
            touched: Some(time("2026-03-01T00:00:00Z")),
        };
        let second = Session {
            started_at: None,
            others: vec!["r/_uploads/2/data".to_owned()],
            touched: Some(time("2026-02-01T00:00:00Z")),
        };
        let expected = [("1".to_owned(), first), ("2".to_owned(), second)];
        assert_eq!(found, BTreeMap::from(expected));
    }

    #[test]
    fn a_session_is_as_idle_as_its_newest_object() {
        let mut session = Session::default();
        let cutoff = time("2026-02-01T00:00:00Z");
        for (last_modified, idle) in [
            ("2026-01-01T00:00:00Z", true),
            ("2026-01-31T23:59:59.999Z", true),
            ("2026-02-01T00:00:00Z", false),
            ("2026-01-15T00:00:00Z", false),
        ] {
            session.add(object("k", last_modified), "k");
            assert_eq!(session.is_idle_since(cutoff), idle, "{last_modified}");
        }
    }

    #[test]
    fn a_start_is_a_time_of_rfc_3339() {
        let ten = time("2026-11-24T10:00:00Z");
        for (content, expected) in [
            ("2026-11-24T10:00:00Z", Some(ten)),
            ("2026-11-24T10:00:00Z\n", Some(ten)),
            ("2026-11-24T12:00:00.0+02:00", Some(ten)),
            ("2026-11-24", None),
            ("yesterday", None),
            ("", None),
            ("\u{0}", None),
        ] {
            assert_eq!(started(content.as_bytes()).ok(), expected, "{content:?}");
        }
        assert!(started(b"\xff").is_err());
    }
}
