//! Links and tags: answered from memory for their time, and for pulls beyond it while the store can't be reached
//! (RFC 5861, section 4, "stale-if-error").
//!
//! What is answered beyond its time never reaches a writer: what a write relies on is asked for by [`Objects::read`], which
//! gives the store's error. Nor does it undo a write through this proxy that the store has acknowledged: those are counted
//! apart from those that may have failed, since an outage makes every write fail, and what is known is what remains then.

use std::time::Duration;

use bytes::Bytes;

use super::entries::{Entry, KnownLink};
use super::{CacheEnvironment, CacheEvent, CacheKind, Cached};
use crate::store::fault::StoreError;
use crate::store::layout::{self, Key, Kind};
use crate::store::objects::Objects;

/// A read of a link or a tag.
pub(super) struct LinkRead<'a> {
    key: &'a Key,
    kind: CacheKind,
    shard: u8,
    /// How long it is answered from memory without asking.
    ttl: Duration,
    /// Whether it may be answered with what is older, rather than with an error of the store.
    may_be_stale: bool,
}

impl<O: Objects, S: CacheEnvironment> Cached<O, S> {
    /// The read of `key`, if anything is kept of such an object.
    pub(super) fn link_read<'a>(&self, key: &'a Key, may_be_stale: bool) -> Option<LinkRead<'a>> {
        let ttl = match key.kind() {
            Kind::BlobLink(..) | Kind::ManifestLink(..) => self.settings.link_ttl,
            Kind::Tag(..) => self.settings.tag_ttl,
            Kind::Content(_) | Kind::Referrer(..) | Kind::Other(_) => return None,
        };
        if self.settings.max_bytes == 0 || (ttl.is_zero() && !self.keeps_stale()) {
            return None;
        }
        let kind = CacheKind::of(key.kind())?;
        let shard = layout::shard(key.kind().repository()?);
        Some(LinkRead { key, kind, shard, ttl, may_be_stale: may_be_stale && self.keeps_stale() })
    }

    /// Whether what is known may be answered with while the store can't be reached.
    fn keeps_stale(&self) -> bool {
        !self.settings.stale_if_error.is_zero()
    }

    /// Reads a link or a tag, from memory if it may be.
    pub(super) async fn read_link(&self, read: &LinkRead<'_>) -> Result<Option<Bytes>, StoreError> {
        // Before the read: what a write makes of it meanwhile must not be taken for newer.
        let writes = self.environment.write_epoch(read.shard);
        if let Some(value) = self.fresh(read, writes) {
            self.environment.count(CacheEvent::Hit(read.kind));
            return Ok(value);
        }
        Box::pin(self.read_missed(read, writes)).await
    }

    /// Reads what is not known, or not known to be so still.
    async fn read_missed(
        &self,
        read: &LinkRead<'_>,
        writes: u64,
    ) -> Result<Option<Bytes>, StoreError> {
        let is_away = read.may_be_stale && self.outage.is_known();
        let known = if is_away { self.stale(read) } else { None };
        // Held until the store has answered: nobody else asks meanwhile who could do without.
        let mut probe = None;
        if let Some(value) = known {
            probe = self.outage.probe(|| self.environment.now());
            if probe.is_none() {
                self.environment.count(CacheEvent::Stale(read.kind));
                return Ok(Some(value));
            }
        }
        self.environment.count(CacheEvent::Miss(read.kind));
        let result = if read.ttl.is_zero() {
            // Whoever asks shall see what the store has now, so nobody is given what another asked for earlier.
            self.ask(read, writes).await
        } else {
            let flight = (read.key.clone(), writes);
            self.links.share(&flight, async || self.ask(read, writes).await).await
        };
        drop(probe);
        match result {
            Err(error) if read.may_be_stale && error.is_outage() => {
                let value = self.stale(read).ok_or(error)?;
                self.environment.count(CacheEvent::Stale(read.kind));
                Ok(Some(value))
            }
            result => result,
        }
    }

    /// Asks the store, and keeps what it says.
    async fn ask(&self, read: &LinkRead<'_>, writes: u64) -> Result<Option<Bytes>, StoreError> {
        let keeps_stale = self.keeps_stale();
        let number = self.asked.get().wrapping_add(1);
        self.asked.set(number);
        let asked_at = self.environment.now();
        let acknowledged =
            if keeps_stale { self.environment.acknowledged_epoch(read.shard) } else { 0 };
        let answers = self.outage.answers();
        let result = self.bucket.read(read.key).await;
        if keeps_stale {
            self.outage.note(&result, answers, self.environment.now());
        }
        let value = result?;
        // What was read before that counts for less than what will be read after it.
        let had_doubts = self.settle_doubts();
        let is_kept = match &value {
            Some(_) => !had_doubts,
            None => !had_doubts && !self.settings.negative_ttl.min(read.ttl).is_zero(),
        };
        let link = KnownLink { value: value.clone(), writes, acknowledged, asked_at, number };
        match is_kept {
            true if self.is_known_later(read.key.kind(), number) => {}
            true => self.keep(read.key.kind(), Entry::Link(link)),
            false => self.entries.borrow_mut().remove(read.key.kind()),
        }
        Ok(value)
    }

    /// Forgets what is known of a link or a tag, unless it is what the store says now.
    pub(super) fn forget_unless(&self, key: &Key, value: Option<&Bytes>) {
        let mut entries = self.entries.borrow_mut();
        if let Some(Entry::Link(link)) = entries.get(key.kind())
            && link.value.as_ref() != value
        {
            entries.remove(key.kind());
        }
    }

    /// Whether what is known was asked for after the read of that number.
    fn is_known_later(&self, kind: &Kind, number: u64) -> bool {
        let mut entries = self.entries.borrow_mut();
        matches!(entries.get(kind), Some(Entry::Link(link)) if link.number > number)
    }

    /// What is known, if it counts without asking.
    fn fresh(&self, read: &LinkRead<'_>, writes: u64) -> Option<Option<Bytes>> {
        let now = self.environment.now();
        let mut entries = self.entries.borrow_mut();
        let Entry::Link(link) = entries.get(read.key.kind())? else {
            return None;
        };
        let ttl = match link.value {
            Some(_) => read.ttl,
            None => self.settings.negative_ttl.min(read.ttl),
        };
        let is_fresh = link.writes == writes && link.age(now).is_some_and(|age| age < ttl);
        is_fresh.then(|| link.value.clone())
    }

    /// What is known, if it may be answered with while the store can't be reached. That something is not there is never.
    fn stale(&self, read: &LinkRead<'_>) -> Option<Bytes> {
        let now = self.environment.now();
        let mut entries = self.entries.borrow_mut();
        let Entry::Link(link) = entries.get(read.key.kind())? else {
            return None;
        };
        let counts = link.age(now).is_some_and(|age| age <= self.settings.stale_if_error)
            && link.acknowledged == self.environment.acknowledged_epoch(read.shard);
        if counts { link.value.clone() } else { None }
    }
}
