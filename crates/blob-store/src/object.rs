//! One object: a file, its entity tag, and its bytes on their way to a client.

use std::fs::{File, Metadata};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::time::SystemTime;

use bytes::Bytes;
use futures::stream;
use s3s::dto::StreamingBlob;
use sha2::{Digest, Sha256};

use crate::tree::is_absent;

/// How much is read or written at a time. Smaller objects take one turn of a blocking thread.
pub const CHUNK: usize = 256 * 1024;

/// An object that was found.
pub struct Object {
    pub length: u64,
    pub modified: SystemTime,
    pub etag: String,
    pub content: Content,
}

/// An object's bytes.
pub enum Content {
    /// A small object, read when its entity tag was made.
    Read(Bytes),
    Open(File),
}

impl Object {
    /// `None` where there is no such file. A folder is no object.
    pub fn open(path: &Path) -> io::Result<Option<Self>> {
        let mut file = match File::open(path) {
            Ok(file) => file,
            Err(error) if is_absent(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Ok(None);
        }
        let modified = metadata.modified()?;
        if metadata.len() > CHUNK as u64 {
            return Ok(Some(Self {
                length: metadata.len(),
                modified,
                etag: etag_of_large(&metadata),
                content: Content::Open(file),
            }));
        }
        let mut bytes = Vec::with_capacity(CHUNK.min(metadata.len() as usize + 1));
        file.read_to_end(&mut bytes)?;
        Ok(Some(Self {
            length: bytes.len() as u64,
            modified,
            etag: etag_of_small(&bytes),
            content: Content::Read(bytes.into()),
        }))
    }
}

/// The entity tag of the object in this file.
pub fn etag_of(path: &Path) -> io::Result<String> {
    Object::open(path)?.map(|object| object.etag).ok_or_else(|| ErrorKind::NotFound.into())
}

/// Small objects, the links among them, are told apart by content, as in S3: two of the same length
/// may be written within one tick of the file system's clock.
fn etag_of_small(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    base16ct::lower::encode_string(&digest[..16])
}

/// Hashing a large object for its entity tag would read it twice. This one changes with every write,
/// by whichever program.
fn etag_of_large(metadata: &Metadata) -> String {
    format!(
        "{:x}-{:x}-{:x}{:08x}",
        metadata.ino(),
        metadata.len(),
        metadata.mtime(),
        metadata.mtime_nsec()
    )
}

/// Copies a part of a file, which must have all of it.
pub fn copy_range(mut from: File, wanted: &Range<u64>, to: &mut File) -> io::Result<()> {
    from.seek(SeekFrom::Start(wanted.start))?;
    let length = wanted.end - wanted.start;
    if io::copy(&mut from.take(length), to)? == length {
        Ok(())
    } else {
        Err(ErrorKind::UnexpectedEof.into())
    }
}

/// A part of an object that was read.
pub fn slice(bytes: &Bytes, wanted: &Range<u64>) -> Bytes {
    bytes.slice(wanted.start as usize..wanted.end as usize)
}

/// A body of these bytes.
pub fn whole(bytes: Bytes) -> StreamingBlob {
    StreamingBlob::wrap(stream::iter([Ok::<_, io::Error>(bytes)]))
}

/// Reads a part of a file piece by piece, as fast as the client takes them.
pub fn read_stream(file: File, wanted: Range<u64>) -> StreamingBlob {
    StreamingBlob::wrap(stream::try_unfold((file, wanted), |(file, rest)| async move {
        if rest.is_empty() {
            return Ok(None);
        }
        let (file, bytes) = tokio::task::spawn_blocking(move || read_piece(file, &rest))
            .await
            .map_err(io::Error::other)??;
        Ok::<_, io::Error>(Some((bytes.0, (file, bytes.1))))
    }))
}

fn read_piece(file: File, rest: &Range<u64>) -> io::Result<(File, (Bytes, Range<u64>))> {
    let length = (rest.end - rest.start).min(CHUNK as u64);
    let mut bytes = vec![0; length as usize];
    file.read_exact_at(&mut bytes, rest.start)?;
    Ok((file, (bytes.into(), rest.start + length..rest.end)))
}
