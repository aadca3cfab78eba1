//! Listing a large part of a bucket by many listings at a time.
//!
//! S3 gives a thousand keys a call, one page after the other. So a range of keys that has more than a page is cut into
//! several, which are listed beside each other: between the folders that it has, or where the folders are digests by their
//! first digit. A small bucket is listed by a call or two.

use std::collections::VecDeque;

use futures::stream::{FuturesUnordered, StreamExt};
use moorage::store::layout::Key;
use moorage::store::{ListRequest, Listed, Objects, Page, Start, StoreError, parse_time};

use crate::time::{Seconds, seconds};

/// An object, as it was listed.
#[derive(Debug)]
pub struct ListedObject<'a> {
    /// Its key, relative to the registry's prefix.
    pub key: &'a Key,
    /// Its size in bytes.
    pub size: u64,
    /// When it was last written, by the store's clock.
    pub modified: Seconds,
}

/// Some keys that follow each other.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Range {
    /// What they begin with.
    prefix: Key,
    /// They come after the prefix with this behind it.
    after: String,
    /// And before the prefix with this behind it.
    until: Option<String>,
}

impl Range {
    fn of(prefix: Key) -> Self {
        Self { prefix, after: String::new(), until: None }
    }

    /// The part of a key behind the prefix.
    fn within<'k>(&self, key: &'k Key) -> &'k str {
        key.as_str().strip_prefix(self.prefix.as_str()).unwrap_or_default()
    }

    fn has(&self, key: &Key) -> bool {
        self.until.as_deref().is_none_or(|until| self.within(key) < until)
    }

    fn start(&self) -> Start<'_> {
        if self.after.is_empty() { Start::First } else { Start::After(&self.after) }
    }

    /// The range in pieces that end, and begin, where each of these texts stands. They are in order.
    fn cut(&self, at: impl IntoIterator<Item = String>) -> Vec<Self> {
        let mut pieces = Vec::new();
        let mut after = self.after.clone();
        for text in at {
            let is_inside = text > after && self.until.as_ref().is_none_or(|until| text < *until);
            if is_inside {
                let until = Some(text.clone());
                pieces.push(Self { prefix: self.prefix.clone(), after, until });
                after = text;
            }
        }
        pieces.push(Self { after, ..self.clone() });
        pieces
    }
}

/// Lists every object whose key begins with `prefix`, `parallel` listings at a time, and calls `each` for it; in no order.
///
/// # Errors
///
/// As the store fails, and if it does not say when an object was written.
pub async fn list_all(
    objects: &impl Objects,
    prefix: Key,
    parallel: usize,
    mut each: impl FnMut(ListedObject<'_>) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut waiting = VecDeque::from([Range::of(prefix)]);
    let mut under_way = FuturesUnordered::new();
    loop {
        while under_way.len() < parallel
            && let Some(range) = waiting.pop_front()
        {
            // With enough to do, to cut it would only cost calls.
            let may_cut = waiting.len() < parallel;
            under_way.push(list_range(objects, range, may_cut, parallel));
        }
        let Some(listed) = under_way.next().await else {
            return Ok(());
        };
        let (range, page, rest) = listed?;
        waiting.extend(rest);
        for ((key, modified), size) in page.keys.iter().zip(&page.modified).zip(&page.sizes) {
            if range.has(key) {
                let modified = seconds(parse_time(key, modified)?);
                each(ListedObject { key, size: *size, modified })?;
            }
        }
    }
}

/// The first page of a range, and what is left of it.
async fn list_range(
    objects: &impl Objects,
    range: Range,
    may_cut: bool,
    parallel: usize,
) -> Result<(Range, Page, Vec<Range>), StoreError> {
    let request = ListRequest::new(&range.prefix, Listed::Objects);
    let mut page = objects.list(request.from(range.start())).await?;
    // Keys that no registry writes are passed over, even where there are pages of nothing else.
    while let Some(cursor) = page.next.clone().filter(|_| page.keys.is_empty()) {
        page = objects.list(request.from(Start::At(&cursor))).await?;
    }
    let last = page.keys.last().map(|key| range.within(key).to_owned());
    let Some(last) = last.filter(|_| page.next.is_some()) else {
        return Ok((range, page, Vec::new()));
    };
    if range.until.as_ref().is_some_and(|until| last >= *until) {
        return Ok((range, page, Vec::new()));
    }
    let rest = Range { after: last, ..range.clone() };
    let rest = if may_cut { cut(objects, rest, parallel).await? } else { vec![rest] };
    Ok((range, page, rest))
}

/// A range in pieces.
async fn cut(
    objects: &impl Objects,
    range: Range,
    parallel: usize,
) -> Result<Vec<Range>, StoreError> {
    let prefix = range.prefix.as_str();
    if prefix.ends_with("/sha256/") || prefix.ends_with("/sha512/") {
        return Ok(range.cut("0123456789abcdef".chars().map(String::from)));
    }
    let request = ListRequest::new(&range.prefix, Listed::Folders).from(range.start());
    let page = objects.list(request).await?;
    let folders = page.keys.iter().filter(|key| key.as_str().ends_with('/') && range.has(key));
    let folders: Vec<&str> = folders.map(|key| range.within(key)).collect();
    if let [only] = folders.as_slice()
        && range.after.starts_with(only)
        && page.next.is_none()
    {
        return Ok(descend(&range, only));
    }
    let at_a_time = folders.len().div_ceil(parallel).max(1);
    Ok(range.cut(folders.into_iter().step_by(at_a_time).map(str::to_owned)))
}

/// The range in the one folder that is left of it, and what may come behind that.
fn descend(range: &Range, folder: &str) -> Vec<Range> {
    let inside = |text: &String| text.strip_prefix(folder).map(str::to_owned);
    let Some(prefix) = Key::listed(&format!("{}{folder}", range.prefix.as_str())) else {
        return vec![range.clone()];
    };
    let until = range.until.as_ref().and_then(inside);
    let within = Range { prefix, after: inside(&range.after).unwrap_or_default(), until };
    // The last of the characters that keys are made of: behind the folder.
    let behind = Range { after: format!("{folder}~"), ..range.clone() };
    match within.until {
        Some(_) => vec![within],
        None => vec![within, behind],
    }
}
