//! The checksums that a client sends with an object, in headers or after the body.

use s3s::checksum::ChecksumHasher;
use s3s::dto::{Checksum, ChecksumAlgorithm};
use s3s::{S3Result, TrailingHeaders, s3_error};

/// The checksums in the headers of a write. The protocol's inputs of `PutObject` and `UploadPart` have the same fields
/// for them, and no type in common.
macro_rules! sent_checksums {
    ($input:ident) => {
        s3s::dto::Checksum {
            checksum_crc32: $input.checksum_crc32,
            checksum_crc32c: $input.checksum_crc32c,
            checksum_crc64nvme: $input.checksum_crc64nvme,
            checksum_sha1: $input.checksum_sha1,
            checksum_sha256: $input.checksum_sha256,
            ..Default::default()
        }
    };
}
pub(crate) use sent_checksums;

/// A hasher for every checksum that is sent, or announced to come after the body.
pub fn hasher_for(
    expected: &Checksum,
    algorithm: Option<&ChecksumAlgorithm>,
) -> S3Result<ChecksumHasher> {
    let mut hasher = ChecksumHasher {
        crc32: expected.checksum_crc32.as_ref().map(|_| Default::default()),
        crc32c: expected.checksum_crc32c.as_ref().map(|_| Default::default()),
        sha1: expected.checksum_sha1.as_ref().map(|_| Default::default()),
        sha256: expected.checksum_sha256.as_ref().map(|_| Default::default()),
        crc64nvme: expected.checksum_crc64nvme.as_ref().map(|_| Default::default()),
    };
    // Named without a value: the value comes after the body.
    match algorithm.map(ChecksumAlgorithm::as_str) {
        None => {}
        Some(ChecksumAlgorithm::CRC32) => hasher.crc32 = Some(Default::default()),
        Some(ChecksumAlgorithm::CRC32C) => hasher.crc32c = Some(Default::default()),
        Some(ChecksumAlgorithm::SHA1) => hasher.sha1 = Some(Default::default()),
        Some(ChecksumAlgorithm::SHA256) => hasher.sha256 = Some(Default::default()),
        Some(ChecksumAlgorithm::CRC64NVME) => hasher.crc64nvme = Some(Default::default()),
        Some(_) => return Err(s3_error!(NotImplemented, "this checksum algorithm")),
    }
    Ok(hasher)
}

/// Whether the content has all checksums that were sent.
///
/// # Errors
///
/// `BadDigest`, with the name of the one that differs.
pub fn check_checksums(
    computed: &Checksum,
    expected: Checksum,
    trailers: Option<TrailingHeaders>,
) -> S3Result<()> {
    let trailers = trailers.and_then(|trailers| trailers.take());
    let sent = |header: Option<String>, name: &str| {
        let trailer = || trailers.as_ref()?.get(name)?.to_str().ok();
        header.or_else(|| trailer().map(str::to_owned))
    };
    let pairs = [
        (&computed.checksum_crc32, expected.checksum_crc32, "x-amz-checksum-crc32"),
        (&computed.checksum_crc32c, expected.checksum_crc32c, "x-amz-checksum-crc32c"),
        (&computed.checksum_crc64nvme, expected.checksum_crc64nvme, "x-amz-checksum-crc64nvme"),
        (&computed.checksum_sha1, expected.checksum_sha1, "x-amz-checksum-sha1"),
        (&computed.checksum_sha256, expected.checksum_sha256, "x-amz-checksum-sha256"),
    ];
    for (computed, header, name) in pairs {
        let Some(expected) = sent(header, name) else {
            continue;
        };
        if computed.as_ref() != Some(&expected) {
            return Err(s3_error!(BadDigest, "{name} does not match the content"));
        }
    }
    Ok(())
}
