//! A body on its way into a file that has no name yet.
//!
//! What has come is hashed and written by a blocking thread while more comes. No thread waits for a client: however
//! many of them send slowly, the others are served.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use s3s::checksum::ChecksumHasher;
use s3s::dto::{Checksum, ChecksumAlgorithm, StreamingBlob};
use s3s::{S3Error, S3ErrorCode, S3Result, TrailingHeaders};
use tokio::task::{JoinHandle, spawn_blocking};

use crate::checksums::{check_checksums, hasher_for};
use crate::object::CHUNK;
use crate::tree::{Staged, Tree, internal};

/// What a client sends as an object or a part.
pub struct Incoming {
    pub body: Option<StreamingBlob>,
    /// The checksums that came before the body.
    pub expected: Checksum,
    /// The algorithm of one that comes after it.
    pub algorithm: Option<ChecksumAlgorithm>,
    pub trailers: Option<TrailingHeaders>,
}

impl Incoming {
    /// Writes the body to a staged file and has `publish` name it, if its checksums are those that were sent. Gives
    /// what `publish` gives, and the checksums.
    ///
    /// # Errors
    ///
    /// `IncompleteBody` where the client went away, `BadDigest`, those of the file system, and those of `publish`.
    pub async fn store<T: Send + 'static>(
        self,
        tree: &Arc<Tree>,
        publish: impl FnOnce(&Tree, Staged) -> S3Result<T> + Send + 'static,
    ) -> S3Result<(T, Checksum)> {
        let Self { body, expected, algorithm, trailers } = self;
        let hasher = Box::new(hasher_for(&expected, algorithm.as_ref())?);
        let mut written = Writing::Done(Written { staged: None, hasher });
        let mut pieces = Vec::new();
        let mut length = 0;
        if let Some(mut body) = body {
            while let Some(piece) = body.next().await {
                // The client went away, or sent less than it announced.
                let piece = piece
                    .map_err(|error| S3Error::with_source(S3ErrorCode::IncompleteBody, error))?;
                length += piece.len();
                pieces.push(piece);
                if length >= CHUNK {
                    let full = std::mem::take(&mut pieces);
                    length = 0;
                    let (before, tree) = (written.wait().await?, Arc::clone(tree));
                    written = Writing::Going(spawn_blocking(move || before.append(&tree, &full)));
                }
            }
        }
        let (before, tree) = (written.wait().await?, Arc::clone(tree));
        // Of a small object all is done in one turn of a thread.
        let publishing = spawn_blocking(move || {
            let (staged, hasher) = before.append(&tree, &pieces)?;
            let computed = hasher.finalize();
            check_checksums(&computed, expected, trailers)?;
            Ok((publish(&tree, staged)?, computed))
        });
        joined(publishing).await
    }
}

/// What there is of a body, and its hashes.
struct Written {
    /// `None` before the first turn of a thread.
    staged: Option<Staged>,
    hasher: Box<ChecksumHasher>,
}

impl Written {
    /// Hashes and writes the next pieces. Blocks.
    fn append(mut self, tree: &Tree, pieces: &[Bytes]) -> S3Result<(Staged, Box<ChecksumHasher>)> {
        pieces.iter().for_each(|piece| self.hasher.update(piece));
        let staged = match self.staged {
            Some(staged) => staged,
            None => tree.new_staged().map_err(internal)?,
        };
        Ok((staged.append(pieces).map_err(internal)?, self.hasher))
    }
}

/// Writing that may still be going on.
enum Writing {
    Done(Written),
    Going(JoinHandle<S3Result<(Staged, Box<ChecksumHasher>)>>),
}

impl Writing {
    async fn wait(self) -> S3Result<Written> {
        match self {
            Self::Done(written) => Ok(written),
            Self::Going(writing) => {
                let (staged, hasher) = joined(writing).await?;
                Ok(Written { staged: Some(staged), hasher })
            }
        }
    }
}

/// What a blocking thread gives.
pub async fn joined<T>(work: JoinHandle<S3Result<T>>) -> S3Result<T> {
    work.await.map_err(|error| internal(io::Error::other(error)))?
}

#[cfg(test)]
mod tests {
    use std::fs;

    use futures::stream;

    use super::*;

    fn incoming(pieces: Vec<io::Result<Bytes>>, sha256: Option<&str>) -> Incoming {
        let expected =
            Checksum { checksum_sha256: sha256.map(str::to_owned), ..Default::default() };
        let body = Some(StreamingBlob::wrap(stream::iter(pieces)));
        Incoming { body, expected, algorithm: None, trailers: None }
    }

    fn tree() -> (tempfile::TempDir, Arc<Tree>) {
        let folder = tempfile::tempdir().expect("a folder");
        let tree = Arc::new(Tree::open(folder.path()).expect("a tree"));
        (folder, tree)
    }

    async fn stored(tree: &Arc<Tree>, incoming: Incoming) -> S3Result<(Vec<u8>, Checksum)> {
        incoming.store(tree, |_, staged| fs::read(&staged.path).map_err(internal)).await
    }

    #[tokio::test]
    async fn a_body_is_written_in_its_order_however_it_comes() {
        let (_folder, tree) = tree();
        for sizes in
            [vec![], vec![0], vec![1], vec![0, CHUNK, 0, 1], vec![CHUNK - 1; 5], vec![700; 2000]]
        {
            let pieces: Vec<Vec<u8>> =
                sizes.iter().enumerate().map(|(number, size)| vec![number as u8; *size]).collect();
            let sent = pieces.iter().cloned().map(|piece| Ok(piece.into())).collect();
            let (content, _) = stored(&tree, incoming(sent, None)).await.expect("stored");
            assert!(content == pieces.concat(), "{sizes:?}");
        }
    }

    #[tokio::test]
    async fn what_lacks_its_end_or_its_checksum_is_not_published_and_leaves_nothing() {
        // Of nothing at all.
        let checksum = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
        let (folder, tree) = tree();
        for size in [1, 3 * CHUNK] {
            let whole = || vec![Ok(Bytes::from(vec![1; CHUNK])), Ok(Bytes::from(vec![1; size]))];
            let mut broken = whole();
            broken.push(Err(io::ErrorKind::UnexpectedEof.into()));
            for (incoming, code) in [
                (incoming(broken, None), S3ErrorCode::IncompleteBody),
                (incoming(whole(), Some(checksum)), S3ErrorCode::BadDigest),
            ] {
                let error = stored(&tree, incoming).await.expect_err("refused");
                assert_eq!(*error.code(), code, "{size}");
            }
        }
        let (content, computed) =
            stored(&tree, incoming(vec![], Some(checksum))).await.expect("stored");
        assert_eq!((content.len(), computed.checksum_sha256.as_deref()), (0, Some(checksum)));
        // The thread that writes may end after the client is answered.
        let staging = folder.path().join(".blob-store/staging");
        while fs::read_dir(&staging).expect("a folder").count() > 0 {
            tokio::task::yield_now().await;
        }
    }
}
