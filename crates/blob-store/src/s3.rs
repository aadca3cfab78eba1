//! The S3 operations, on files. The crate `s3s` speaks the protocol: XML, signatures, errors.
//!
//! Object `k` of bucket `b` is the file `<root>/b/k`, and nothing else: no side files, so another
//! program may add, change and remove objects as files. One that changes a file of more than 256 KiB has
//! to put another in its place, and not to write in it: a copy of such an object is a hard link. What S3
//! promises holds all the same:
//!
//! - An object appears whole or not at all, after its checksums agreed. It is written below
//!   `<root>/.blob-store`, then renamed.
//! - Conditions (`If-Match`, `If-None-Match: *`) and the rename or the removal are one step.
//! - Keys are listed in byte order, and a folder that holds no object is not there.
//!
//! Metadata (a content type, say) is accepted and forgotten. What is not done answers
//! `NotImplemented`.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use s3s::dto::*;
use s3s::{S3, S3Request, S3Response, S3Result, s3_error};

use crate::body::{Incoming, joined};
use crate::checksums::sent_checksums;
use crate::listing::Query;
use crate::multipart::is_after;
use crate::object::{Content, read_stream, slice, whole};
use crate::tree::{Conditions, Tree, internal, signed};

const MAX_KEYS: i32 = 1000;

/// The buckets below one folder.
pub struct Files {
    tree: Arc<Tree>,
    /// Whether writes must announce their length, as some stores want it.
    requires_length: bool,
}

impl Files {
    /// The buckets below `root`.
    pub fn open(root: &Path, requires_length: bool) -> io::Result<Self> {
        Ok(Self { tree: Arc::new(Tree::open(root)?), requires_length })
    }

    /// Runs file work off the threads that serve the sockets.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Tree) -> S3Result<T> + Send + 'static,
    ) -> S3Result<T> {
        let tree = Arc::clone(&self.tree);
        joined(tokio::task::spawn_blocking(move || work(&tree))).await
    }
}

#[async_trait::async_trait]
impl S3 for Files {
    async fn head_bucket(
        &self,
        request: S3Request<HeadBucketInput>,
    ) -> S3Result<S3Response<HeadBucketOutput>> {
        self.run(move |tree| tree.bucket(&request.input.bucket).map(drop)).await?;
        Ok(S3Response::new(HeadBucketOutput::default()))
    }

    async fn head_object(
        &self,
        request: S3Request<HeadObjectInput>,
    ) -> S3Result<S3Response<HeadObjectOutput>> {
        let HeadObjectInput {
            bucket,
            key,
            range: None,
            if_match: None,
            if_none_match: None,
            if_modified_since: None,
            if_unmodified_since: None,
            ..
        } = request.input
        else {
            return Err(s3_error!(NotImplemented, "conditional or partial HEAD"));
        };
        let object = self.run(move |tree| tree.find(&bucket, &key)).await?;
        Ok(S3Response::new(HeadObjectOutput {
            content_length: Some(signed(object.length)),
            content_type: Some(content_type()),
            accept_ranges: Some("bytes".to_owned()),
            last_modified: Some(object.modified.into()),
            e_tag: Some(ETag::Strong(object.etag)),
            ..Default::default()
        }))
    }

    async fn get_object(
        &self,
        request: S3Request<GetObjectInput>,
    ) -> S3Result<S3Response<GetObjectOutput>> {
        let GetObjectInput {
            bucket,
            key,
            range,
            part_number: None,
            if_match: None,
            if_none_match: None,
            if_modified_since: None,
            if_unmodified_since: None,
            ..
        } = request.input
        else {
            return Err(s3_error!(NotImplemented, "conditional GET"));
        };
        let object = self.run(move |tree| tree.find(&bucket, &key)).await?;
        let (wanted, content_range) = match range {
            None => (0..object.length, None),
            Some(range) => {
                let wanted = range.check(object.length)?;
                // Of an empty object there is no last byte either.
                if wanted.is_empty() {
                    return Err(s3_error!(InvalidRange));
                }
                let text = format!("bytes {}-{}/{}", wanted.start, wanted.end - 1, object.length);
                (wanted, Some(text))
            }
        };
        Ok(S3Response::new(GetObjectOutput {
            content_length: Some(signed(wanted.end - wanted.start)),
            content_range,
            content_type: Some(content_type()),
            accept_ranges: Some("bytes".to_owned()),
            last_modified: Some(object.modified.into()),
            e_tag: Some(ETag::Strong(object.etag)),
            body: Some(match object.content {
                Content::Read(bytes) => whole(slice(&bytes, &wanted)),
                Content::Open(file) => read_stream(file, wanted),
            }),
            ..Default::default()
        }))
    }

    async fn put_object(
        &self,
        request: S3Request<PutObjectInput>,
    ) -> S3Result<S3Response<PutObjectOutput>> {
        let input = request.input;
        if input.content_md5.is_some() {
            return Err(s3_error!(NotImplemented, "Content-MD5"));
        }
        if self.requires_length && input.content_length.is_none() {
            return Err(s3_error!(MissingContentLength));
        }
        let conditions = Conditions::new(input.if_match, input.if_none_match)?;
        let expected = sent_checksums!(input);
        let (bucket, key) = (input.bucket, input.key);
        let incoming = Incoming {
            body: input.body,
            expected,
            algorithm: input.checksum_algorithm,
            trailers: request.trailing_headers,
        };
        let publish = move |tree: &Tree, staged| tree.publish(staged, &bucket, &key, &conditions);
        let (etag, computed) = incoming.store(&self.tree, publish).await?;
        Ok(S3Response::new(PutObjectOutput {
            e_tag: Some(ETag::Strong(etag)),
            checksum_crc32: computed.checksum_crc32,
            checksum_crc32c: computed.checksum_crc32c,
            checksum_crc64nvme: computed.checksum_crc64nvme,
            checksum_sha1: computed.checksum_sha1,
            checksum_sha256: computed.checksum_sha256,
            ..Default::default()
        }))
    }

    async fn copy_object(
        &self,
        request: S3Request<CopyObjectInput>,
    ) -> S3Result<S3Response<CopyObjectOutput>> {
        let CopyObjectInput {
            bucket,
            key,
            copy_source,
            copy_source_if_match: None,
            copy_source_if_none_match: None,
            copy_source_if_modified_since: None,
            copy_source_if_unmodified_since: None,
            ..
        } = request.input
        else {
            return Err(s3_error!(NotImplemented, "conditional copy"));
        };
        let (from_bucket, from_key) = source(copy_source)?;
        let etag =
            self.run(move |tree| tree.copy((&from_bucket, &from_key), (&bucket, &key))).await?;
        Ok(S3Response::new(CopyObjectOutput {
            copy_object_result: Some(CopyObjectResult {
                e_tag: Some(ETag::Strong(etag)),
                last_modified: Some(SystemTime::now().into()),
                ..Default::default()
            }),
            ..Default::default()
        }))
    }

    async fn delete_object(
        &self,
        request: S3Request<DeleteObjectInput>,
    ) -> S3Result<S3Response<DeleteObjectOutput>> {
        let DeleteObjectInput { bucket, key, if_match, .. } = request.input;
        let conditions = Conditions::new(if_match, None)?;
        self.run(move |tree| tree.remove(&bucket, &key, &conditions)).await?;
        Ok(S3Response::new(DeleteObjectOutput::default()))
    }

    async fn delete_objects(
        &self,
        request: S3Request<DeleteObjectsInput>,
    ) -> S3Result<S3Response<DeleteObjectsOutput>> {
        let DeleteObjectsInput { bucket, delete, .. } = request.input;
        let quiet = delete.quiet.unwrap_or(false);
        let deleted = self
            .run(move |tree| {
                let (mut deleted, mut errors) = (Vec::new(), Vec::new());
                tree.bucket(&bucket)?;
                for ObjectIdentifier { key, e_tag, .. } in delete.objects {
                    let condition = e_tag.map(ETagCondition::ETag);
                    let removed = Conditions::new(condition, None)
                        .and_then(|conditions| tree.remove(&bucket, &key, &conditions));
                    match removed {
                        Ok(()) => {
                            deleted.push(DeletedObject { key: Some(key), ..Default::default() });
                        }
                        Err(error) => errors.push(s3s::dto::Error {
                            key: Some(key),
                            code: Some(error.code().as_str().to_owned()),
                            message: error.message().map(str::to_owned),
                            ..Default::default()
                        }),
                    }
                }
                Ok((deleted, errors))
            })
            .await?;
        let (deleted, errors) = deleted;
        Ok(S3Response::new(DeleteObjectsOutput {
            deleted: (!quiet).then_some(deleted),
            errors: Some(errors),
            ..Default::default()
        }))
    }

    async fn list_objects_v2(
        &self,
        request: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        let input = request.input;
        if input.encoding_type.is_some() {
            return Err(s3_error!(NotImplemented, "encoding-type"));
        }
        if input.delimiter.as_ref().is_some_and(|text| text != "/") {
            return Err(s3_error!(NotImplemented, "a delimiter other than /"));
        }
        let max_keys = input.max_keys.unwrap_or(MAX_KEYS).clamp(0, MAX_KEYS);
        let bucket = input.bucket.clone();
        // The token is the last entry of the page before, which nobody but us needs to know.
        let after = input.continuation_token.clone();
        let query = Query {
            prefix: input.prefix.clone().unwrap_or_default(),
            after: after.or(input.start_after.clone()).unwrap_or_default(),
            by_folder: input.delimiter.is_some(),
            limit: usize::try_from(max_keys).unwrap_or_default(),
        };
        let page = self.run(move |tree| tree.list(&bucket, &query)).await?;

        let count = page.objects.len() + page.folders.len();
        let folder = |prefix| CommonPrefix { prefix: Some(prefix) };
        Ok(S3Response::new(ListObjectsV2Output {
            name: Some(input.bucket),
            prefix: input.prefix,
            delimiter: input.delimiter,
            start_after: input.start_after,
            continuation_token: input.continuation_token,
            max_keys: Some(max_keys),
            key_count: i32::try_from(count).ok(),
            is_truncated: Some(page.truncated),
            next_continuation_token: page.truncated.then_some(page.last),
            contents: Some(page.objects),
            common_prefixes: Some(page.folders.into_iter().map(folder).collect()),
            ..Default::default()
        }))
    }

    async fn create_multipart_upload(
        &self,
        request: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        let CreateMultipartUploadInput { bucket, key, .. } = request.input;
        let (for_bucket, for_key) = (bucket.clone(), key.clone());
        let upload_id = self.run(move |tree| tree.create_upload(&for_bucket, &for_key)).await?;
        Ok(S3Response::new(CreateMultipartUploadOutput {
            bucket: Some(bucket),
            key: Some(key),
            upload_id: Some(upload_id),
            ..Default::default()
        }))
    }

    async fn list_multipart_uploads(
        &self,
        request: S3Request<ListMultipartUploadsInput>,
    ) -> S3Result<S3Response<ListMultipartUploadsOutput>> {
        let input = request.input;
        if input.encoding_type.is_some() || input.delimiter.is_some() {
            return Err(s3_error!(NotImplemented, "encoding-type or delimiter"));
        }
        let bucket = input.bucket.clone();
        let prefix = input.prefix.clone().unwrap_or_default();
        let markers = input.key_marker.clone().map(|key| (key, input.upload_id_marker.clone()));
        let mut uploads = self.run(move |tree| tree.list_uploads(&bucket, &prefix)).await?;
        uploads.retain(|upload| markers.as_ref().is_none_or(|markers| is_after(upload, markers)));
        let max_uploads = input.max_uploads.unwrap_or(MAX_KEYS).clamp(1, MAX_KEYS);
        let limit = usize::try_from(max_uploads).unwrap_or_default();
        let is_truncated = uploads.len() > limit;
        uploads.truncate(limit);
        let last = uploads.last().filter(|_| is_truncated);
        Ok(S3Response::new(ListMultipartUploadsOutput {
            bucket: Some(input.bucket),
            prefix: input.prefix,
            key_marker: input.key_marker,
            upload_id_marker: input.upload_id_marker,
            max_uploads: Some(max_uploads),
            is_truncated: Some(is_truncated),
            next_key_marker: last.and_then(|upload| upload.key.clone()),
            next_upload_id_marker: last.and_then(|upload| upload.upload_id.clone()),
            uploads: Some(uploads),
            ..Default::default()
        }))
    }

    async fn upload_part(
        &self,
        request: S3Request<UploadPartInput>,
    ) -> S3Result<S3Response<UploadPartOutput>> {
        let input = request.input;
        if input.content_md5.is_some() {
            return Err(s3_error!(NotImplemented, "Content-MD5"));
        }
        let expected = sent_checksums!(input);
        let (bucket, key, id, number) =
            (input.bucket, input.key, input.upload_id, input.part_number);
        let incoming = Incoming {
            body: input.body,
            expected,
            algorithm: input.checksum_algorithm,
            trailers: request.trailing_headers,
        };
        let add = move |tree: &Tree, staged| tree.add_part(staged, &bucket, &key, &id, number);
        let (etag, _) = incoming.store(&self.tree, add).await?;
        Ok(S3Response::new(UploadPartOutput {
            e_tag: Some(ETag::Strong(etag)),
            ..Default::default()
        }))
    }

    async fn upload_part_copy(
        &self,
        request: S3Request<UploadPartCopyInput>,
    ) -> S3Result<S3Response<UploadPartCopyOutput>> {
        let UploadPartCopyInput {
            bucket,
            key,
            upload_id,
            part_number,
            copy_source,
            copy_source_range,
            copy_source_if_match: None,
            copy_source_if_none_match: None,
            copy_source_if_modified_since: None,
            copy_source_if_unmodified_since: None,
            ..
        } = request.input
        else {
            return Err(s3_error!(NotImplemented, "conditional copy"));
        };
        let (from_bucket, from_key) = source(copy_source)?;
        let range = copy_source_range
            .map(|text| s3s::dto::Range::parse(&text))
            .transpose()
            .map_err(|error| s3_error!(error, InvalidArgument))?;
        let etag = self
            .run(move |tree| {
                let staged = tree.stage_copy(&from_bucket, &from_key, range)?;
                tree.add_part(staged, &bucket, &key, &upload_id, part_number)
            })
            .await?;
        Ok(S3Response::new(UploadPartCopyOutput {
            copy_part_result: Some(CopyPartResult {
                e_tag: Some(ETag::Strong(etag)),
                last_modified: Some(SystemTime::now().into()),
                ..Default::default()
            }),
            ..Default::default()
        }))
    }

    async fn complete_multipart_upload(
        &self,
        request: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        let input = request.input;
        let conditions = Conditions::new(input.if_match, input.if_none_match)?;
        let parts = input.multipart_upload.and_then(|upload| upload.parts);
        let (bucket, key, id) = (input.bucket.clone(), input.key.clone(), input.upload_id);
        let etag = self
            .run(move |tree| {
                tree.complete_upload(&bucket, &key, &id, &parts.unwrap_or_default(), &conditions)
            })
            .await?;
        Ok(S3Response::new(CompleteMultipartUploadOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            e_tag: Some(ETag::Strong(etag)),
            ..Default::default()
        }))
    }

    async fn abort_multipart_upload(
        &self,
        request: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        let input = request.input;
        self.run(move |tree| {
            let folder = tree.upload(&input.bucket, &input.key, &input.upload_id)?;
            fs::remove_dir_all(folder).map_err(internal)
        })
        .await?;
        Ok(S3Response::new(AbortMultipartUploadOutput::default()))
    }
}

fn source(source: CopySource) -> S3Result<(String, String)> {
    match source {
        CopySource::Bucket { bucket, key, version_id: None } => Ok((bucket.into(), key.into())),
        _ => Err(s3_error!(NotImplemented, "this kind of copy source")),
    }
}

fn content_type() -> String {
    "binary/octet-stream".to_owned()
}
