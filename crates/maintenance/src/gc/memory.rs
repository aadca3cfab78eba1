//! What has been read of manifests, remembered from one run to the next: a manifest never changes under its digest.
//!
//! It is one object, `moorage/gc/manifests`: a line that names the format, a dictionary of digests, the manifests by their
//! places in it, and the SHA-256 of all that. All numbers have four bytes, the most significant first. One that is not
//! exactly that counts as none: then the manifests are read again.

use std::collections::HashMap;

use bytes::Bytes;
use moorage::oci::{Algorithm, Digest};
use moorage::store::{Objects, StoreError, layout};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use crate::manifests::{Manifest, Manifests};
use crate::snapshot::{DigestId, Snapshot};

const FORMAT: &[u8] = b"moorage manifests 1\n";

/// Remembered manifests that can't be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("it holds no manifests that this version remembers")]
pub struct MemoryError;

/// Adds what earlier runs remembered of the snapshot's manifests. One call.
///
/// # Errors
///
/// As the store fails.
pub async fn recall(
    objects: &impl Objects,
    snapshot: &mut Snapshot,
    manifests: &mut Manifests,
) -> Result<(), StoreError> {
    if let Some(bytes) = objects.read(&layout::manifest_memory()).await? {
        // Without it more is read, and nothing is wrong.
        let _ = decode(&bytes, snapshot, manifests);
    }
    Ok(())
}

/// Remembers the manifests of the snapshot, if there are new ones. One call.
///
/// # Errors
///
/// As the store fails.
pub async fn remember(
    objects: &impl Objects,
    snapshot: &Snapshot,
    manifests: &Manifests,
) -> Result<(), StoreError> {
    if !manifests.has_new() {
        return Ok(());
    }
    objects.write(&layout::manifest_memory(), encode(snapshot, manifests)).await
}

fn encode(snapshot: &Snapshot, manifests: &Manifests) -> Bytes {
    let mut dictionary = Dictionary::default();
    let mut body = Vec::new();
    let mut count = 0;
    for (digest, manifest) in manifests.iter() {
        if snapshot.digests.stored(digest).is_none() {
            continue;
        }
        count += 1;
        put(&mut body, dictionary.place(digest));
        put(&mut body, u32::from(manifest.is_index));
        // Counted from 1: 0 is none.
        put(&mut body, manifest.subject.map_or(0, |subject| dictionary.place(subject) + 1));
        put(&mut body, manifest.references.len() as u32);
        for reference in &manifest.references {
            put(&mut body, dictionary.place(*reference));
        }
    }
    let mut bytes = FORMAT.to_vec();
    put(&mut bytes, dictionary.digests.len() as u32);
    put(&mut bytes, count);
    for id in &dictionary.digests {
        let digest = snapshot.digest(*id);
        bytes.push(u8::from(digest.algorithm() == Algorithm::Sha512));
        bytes.extend(digest.hash());
    }
    bytes.append(&mut body);
    let sum = Sha256::digest(&bytes);
    bytes.extend(sum);
    bytes.into()
}

/// Digests, each once.
#[derive(Default)]
struct Dictionary {
    digests: Vec<DigestId>,
    places: HashMap<DigestId, u32>,
}

impl Dictionary {
    fn place(&mut self, digest: DigestId) -> u32 {
        *self.places.entry(digest).or_insert_with(|| {
            self.digests.push(digest);
            (self.digests.len() - 1) as u32
        })
    }
}

fn put(bytes: &mut Vec<u8>, number: u32) {
    bytes.extend(number.to_be_bytes());
}

fn decode(
    bytes: &[u8],
    snapshot: &mut Snapshot,
    manifests: &mut Manifests,
) -> Result<(), MemoryError> {
    let (body, sum) = bytes.split_last_chunk::<32>().ok_or(MemoryError)?;
    if Sha256::digest(body).as_slice() != sum {
        return Err(MemoryError);
    }
    let mut reader = Reader(body.strip_prefix(FORMAT).ok_or(MemoryError)?);
    let (digests, count) = (reader.number()?, reader.number()?);
    let mut dictionary = Vec::new();
    for _ in 0..digests {
        dictionary.push(reader.digest()?);
    }
    let at = |place: u32| dictionary.get(place as usize).ok_or(MemoryError);
    for _ in 0..count {
        let digest = at(reader.number()?)?;
        let is_index = reader.number()? != 0;
        let subject = reader.number()?.checked_sub(1).map(at).transpose()?;
        let count = reader.number()?;
        let references: Vec<_> =
            (0..count).map(|_| at(reader.number()?)).collect::<Result<_, _>>()?;
        // One whose content is gone is none of the snapshot's.
        let digest = snapshot.digests.get(digest);
        let digest = digest.filter(|digest| snapshot.digests.stored(*digest).is_some());
        if let Some(digest) = digest {
            let mut intern = |digest: &Digest| snapshot.digests.intern(digest);
            let subject = subject.map(&mut intern);
            let references = references.into_iter().map(intern).collect();
            manifests.insert(digest, Manifest { is_index, references, subject });
        }
    }
    Ok(())
}

/// Reads from the front of some bytes.
struct Reader<'b>(&'b [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], MemoryError> {
        let (first, rest) = self.0.split_first_chunk::<N>().ok_or(MemoryError)?;
        self.0 = rest;
        Ok(*first)
    }

    fn number(&mut self) -> Result<u32, MemoryError> {
        Ok(u32::from_be_bytes(self.take()?))
    }

    fn digest(&mut self) -> Result<Digest, MemoryError> {
        match self.take::<1>()? {
            [0] => Ok(Digest::from_hash(Algorithm::Sha256, &self.take::<32>()?)),
            [1] => Ok(Digest::from_hash(Algorithm::Sha512, &self.take::<64>()?)),
            _ => Err(MemoryError),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::{Loader, Snapshot};
    use crate::{listing::ListedObject, snapshot::Digests};

    fn digest(text: &str) -> Digest {
        let algorithm = if text.len() > 5 { Algorithm::Sha512 } else { Algorithm::Sha256 };
        Digest::of(algorithm, text.as_bytes())
    }

    /// A snapshot of contents.
    fn snapshot(contents: &[&str]) -> Snapshot {
        let mut loader = Loader::new(Digests::default(), 0);
        for text in contents {
            let key = layout::content(&digest(text));
            loader.add(&ListedObject { key: &key, size: 1, modified: 0 });
        }
        loader.into_snapshot()
    }

    fn remembered() -> Bytes {
        let mut snapshot = snapshot(&["index", "image", "gone"]);
        let mut manifests = Manifests::default();
        let mut add = |name: &str, is_index, references: &[&str], subject: Option<&str>| {
            let mut intern = |text: &str| snapshot.digests.intern(&digest(text));
            let manifest = Manifest {
                is_index,
                references: references.iter().map(|text| intern(text)).collect(),
                subject: subject.map(&mut intern),
            };
            let id = intern(name);
            manifests.insert(id, manifest);
        };
        add("index", true, &["image"], Some("a subject"));
        add("image", false, &["layer", "a long name"], None);
        add("gone", false, &[], None);
        add("never there", false, &["layer"], None);
        encode(&snapshot, &manifests)
    }

    #[test]
    fn manifests_are_remembered_whose_content_is_there() {
        let bytes = remembered();
        let mut snapshot = snapshot(&["layer", "image", "index"]);
        let mut manifests = Manifests::default();
        decode(&bytes, &mut snapshot, &mut manifests).expect("manifests");
        let id = |text: &str| snapshot.digests.get(&digest(text)).expect("a number");
        let index = manifests.get(id("index")).expect("an index");
        assert_eq!((index.is_index, index.subject), (true, Some(id("a subject"))));
        assert_eq!(*index.references, [id("image")]);
        let image = manifests.get(id("image")).expect("an image");
        assert_eq!((image.is_index, image.subject), (false, None));
        assert_eq!(*image.references, [id("layer"), id("a long name")]);
        assert_eq!(manifests.iter().count(), 2);
    }

    #[test]
    fn what_is_damaged_is_not_remembered() {
        let bytes = remembered();
        let forget = |bytes: &[u8]| {
            let mut manifests = Manifests::default();
            let result = decode(bytes, &mut snapshot(&["index", "image"]), &mut manifests);
            assert_eq!((result, manifests.iter().count()), (Err(MemoryError), 0));
        };
        for at in 0..bytes.len() {
            let mut damaged = bytes.to_vec();
            damaged[at] ^= 1;
            forget(&damaged);
        }
        forget(&bytes[1..]);
        forget(b"");
    }
}
