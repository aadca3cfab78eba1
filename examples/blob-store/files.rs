//! The S3 operations, on files. The crate `s3s` speaks the protocol: XML, signatures, errors.
//!
//! Object `k` of bucket `b` is the file `<root>/b/k`, and nothing else: no side files, so another
//! program may add, change and remove objects as files. What S3 promises holds all the same:
//!
//! - An object appears whole or not at all, after its checksums agreed. It is written below
//!   `<root>/.blob-store`, then renamed.
//! - Conditions (`If-Match`, `If-None-Match: *`) and the rename or the removal are one step.
//! - Keys are listed in byte order, and a folder that holds no object is not there.
//!
//! Metadata (a content type, say) is accepted and forgotten. What is not done answers
//! `NotImplemented`.

use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures::{StreamExt, stream};
use s3s::checksum::ChecksumHasher;
use s3s::dto::*;
use s3s::{S3, S3Error, S3ErrorCode, S3Request, S3Response, S3Result, TrailingHeaders, s3_error};
use sha2::{Digest, Sha256};

/// How much is read or written at a time. Smaller objects take one turn of a blocking thread.
const CHUNK: usize = 256 * 1024;

/// S3's minimum for every part of a multipart upload but the last.
const MIN_PART: u64 = 5 * 1024 * 1024;

const MAX_KEYS: i32 = 1000;

/// The buckets below one folder.
pub struct Files {
    tree: Arc<Tree>,
    /// Whether writes must announce their length, as some stores want it.
    requires_length: bool,
}

struct Tree {
    root: PathBuf,
    /// Where objects are written before they get their name. No bucket name starts with a dot.
    staging: PathBuf,
    uploads: PathBuf,
    /// With the counter, a name that no other start of a store on this folder gives.
    start: String,
    counter: AtomicU64,
    /// Held while names change: conditions and renames, and folders that come and go with them.
    names: Mutex<()>,
}

impl Files {
    pub fn open(root: &Path, requires_length: bool) -> io::Result<Self> {
        let private = root.join(".blob-store");
        let tree = Tree {
            root: root.to_owned(),
            staging: private.join("staging"),
            uploads: private.join("uploads"),
            start: unique_start(),
            counter: AtomicU64::new(0),
            names: Mutex::new(()),
        };
        fs::create_dir_all(&tree.staging)?;
        fs::create_dir_all(&tree.uploads)?;
        Ok(Self { tree: Arc::new(tree), requires_length })
    }

    /// Runs file work off the threads that serve the sockets.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Tree) -> S3Result<T> + Send + 'static,
    ) -> S3Result<T> {
        let tree = Arc::clone(&self.tree);
        tokio::task::spawn_blocking(move || work(&tree))
            .await
            .map_err(|error| internal(io::Error::other(error)))?
    }

    /// Writes a body to a staged file, checking its checksums.
    async fn stage(
        &self,
        body: Option<StreamingBlob>,
        expected: Checksum,
        algorithm: Option<&ChecksumAlgorithm>,
        trailers: Option<TrailingHeaders>,
    ) -> S3Result<(Staged, Checksum)> {
        let mut staged = self.run(|tree| tree.new_staged().map_err(internal)).await?;
        let mut hasher = hasher_for(&expected, algorithm)?;
        let mut pending = Vec::new();
        if let Some(mut body) = body {
            while let Some(bytes) = body.next().await {
                // The client went away, or sent less than it announced.
                let bytes = bytes
                    .map_err(|error| S3Error::with_source(S3ErrorCode::IncompleteBody, error))?;
                hasher.update(&bytes);
                pending.extend_from_slice(&bytes);
                if pending.len() >= CHUNK {
                    let full = std::mem::take(&mut pending);
                    staged = self.run(move |_| staged.append(&full)).await?;
                }
            }
        }
        staged = self.run(move |_| staged.append(&pending)).await?;
        let computed = hasher.finalize();
        check_checksums(&computed, expected, trailers)?;
        Ok((staged, computed))
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
        let object = self.run(move |tree| tree.open(&bucket, &key)).await?;
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
        let object = self.run(move |tree| tree.open(&bucket, &key)).await?;
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
        let expected = Checksum {
            checksum_crc32: input.checksum_crc32,
            checksum_crc32c: input.checksum_crc32c,
            checksum_crc64nvme: input.checksum_crc64nvme,
            checksum_sha1: input.checksum_sha1,
            checksum_sha256: input.checksum_sha256,
            ..Default::default()
        };
        let (staged, computed) = self
            .stage(
                input.body,
                expected,
                input.checksum_algorithm.as_ref(),
                request.trailing_headers,
            )
            .await?;
        let (bucket, key) = (input.bucket, input.key);
        let etag = self.run(move |tree| tree.publish(staged, &bucket, &key, &conditions)).await?;
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
        let etag = self
            .run(move |tree| {
                let staged = tree.stage_copy(&from_bucket, &from_key, None)?;
                tree.publish(staged, &bucket, &key, &Conditions::default())
            })
            .await?;
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
                let mut deleted = Vec::new();
                for object in delete.objects {
                    tree.remove(&bucket, &object.key, &Conditions::default())?;
                    deleted.push(DeletedObject { key: Some(object.key), ..Default::default() });
                }
                Ok(deleted)
            })
            .await?;
        Ok(S3Response::new(DeleteObjectsOutput {
            deleted: (!quiet).then_some(deleted),
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
        let expected = Checksum {
            checksum_crc32: input.checksum_crc32,
            checksum_crc32c: input.checksum_crc32c,
            checksum_crc64nvme: input.checksum_crc64nvme,
            checksum_sha1: input.checksum_sha1,
            checksum_sha256: input.checksum_sha256,
            ..Default::default()
        };
        let (staged, _) = self
            .stage(
                input.body,
                expected,
                input.checksum_algorithm.as_ref(),
                request.trailing_headers,
            )
            .await?;
        let (bucket, key, id, number) =
            (input.bucket, input.key, input.upload_id, input.part_number);
        let etag = self.run(move |tree| tree.add_part(staged, &bucket, &key, &id, number)).await?;
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

impl Tree {
    fn bucket(&self, bucket: &str) -> S3Result<PathBuf> {
        let folder = self.root.join(bucket);
        if folder.is_dir() { Ok(folder) } else { Err(s3_error!(NoSuchBucket)) }
    }

    /// The file of an object. A key names one below its bucket, whatever a client puts in it.
    fn path(&self, bucket: &str, key: &str) -> S3Result<PathBuf> {
        let plain = |part: &str| !matches!(part, "" | "." | "..") && !part.contains('\0');
        if key.split('/').all(plain) {
            Ok(self.bucket(bucket)?.join(key))
        } else {
            Err(s3_error!(InvalidArgument, "a key with an empty or dot part"))
        }
    }

    fn open(&self, bucket: &str, key: &str) -> S3Result<Object> {
        match Object::open(&self.path(bucket, key)?) {
            Ok(Some(object)) => Ok(object),
            Ok(None) => Err(s3_error!(NoSuchKey)),
            Err(error) => Err(internal(error)),
        }
    }

    fn unique_name(&self) -> String {
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        format!("{}-{number}", self.start)
    }

    fn new_staged(&self) -> io::Result<Staged> {
        let path = self.staging.join(self.unique_name());
        let file = File::create_new(&path)?;
        Ok(Staged { path, file })
    }

    fn stage_copy(
        &self,
        bucket: &str,
        key: &str,
        range: Option<s3s::dto::Range>,
    ) -> S3Result<Staged> {
        let object = self.open(bucket, key)?;
        let wanted = match range {
            None => 0..object.length,
            Some(range) => range.check(object.length)?,
        };
        let mut staged = self.new_staged().map_err(internal)?;
        match object.content {
            Content::Read(bytes) => staged.file.write_all(&slice(&bytes, &wanted)),
            Content::Open(file) => copy_range(file, &wanted, &mut staged.file),
        }
        .map_err(internal)?;
        Ok(staged)
    }

    /// Gives a staged file its name, if the conditions hold for what has that name now.
    fn publish(
        &self,
        staged: Staged,
        bucket: &str,
        key: &str,
        conditions: &Conditions,
    ) -> S3Result<String> {
        let path = self.path(bucket, key)?;
        let _held = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        conditions.check(&path)?;
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(internal)?;
        }
        fs::rename(&staged.path, &path).map_err(internal)?;
        etag_of(&path).map_err(internal)
    }

    /// Removes an object. One that isn't there is no error, unless it should have some entity tag.
    fn remove(&self, bucket: &str, key: &str, conditions: &Conditions) -> S3Result<()> {
        let bucket_folder = self.bucket(bucket)?;
        let path = self.path(bucket, key)?;
        let _held = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        conditions.check(&path)?;
        match fs::remove_file(&path) {
            Ok(()) => {}
            Err(error) if is_absent(&error) || path.is_dir() => return Ok(()),
            Err(error) => return Err(internal(error)),
        }
        // Folders exist for their objects only. The first that isn't empty ends this.
        let above = path.ancestors().skip(1);
        for folder in above.take_while(|folder| *folder != bucket_folder) {
            if fs::remove_dir(folder).is_err() {
                break;
            }
        }
        Ok(())
    }

    fn list(&self, bucket: &str, query: &Query) -> S3Result<Page> {
        let bucket = self.bucket(bucket)?;
        let mut page = Page::default();
        // No key outside the prefix's own folder can match.
        let start = query.prefix.rfind('/').map_or("", |at| &query.prefix[..=at]);
        let mut parts = start.split_terminator('/');
        let inside = parts.all(|part| !matches!(part, "" | "." | ".."));
        if inside && query.limit > 0 {
            list_folder(&bucket.join(start), start, query, &mut page).map_err(internal)?;
        }
        Ok(page)
    }

    fn create_upload(&self, bucket: &str, key: &str) -> S3Result<String> {
        self.path(bucket, key)?;
        let id = self.unique_name();
        let folder = self.uploads.join(&id);
        fs::create_dir(&folder)
            .and_then(|()| fs::write(folder.join("object"), format!("{bucket}/{key}")))
            .map_err(internal)?;
        Ok(id)
    }

    /// The uploads for keys that begin with `prefix`, by key and then by id.
    fn list_uploads(&self, bucket: &str, prefix: &str) -> S3Result<Vec<MultipartUpload>> {
        self.bucket(bucket)?;
        let mut uploads = Vec::new();
        for id in sorted_entries(&self.uploads).map_err(internal)? {
            let id = id.trim_end_matches('/');
            let file = self.uploads.join(id).join("object");
            // Completed or aborted since the folder was read: then it isn't listed.
            let Ok((object, metadata)) = fs::read_to_string(&file).and_then(|object| {
                let metadata = fs::metadata(&file)?;
                Ok((object, metadata))
            }) else {
                continue;
            };
            let key = object.strip_prefix(bucket).and_then(|rest| rest.strip_prefix('/'));
            let Some(key) = key.filter(|key| key.starts_with(prefix)) else {
                continue;
            };
            uploads.push(MultipartUpload {
                key: Some(key.to_owned()),
                upload_id: Some(id.to_owned()),
                initiated: metadata.modified().ok().map(Timestamp::from),
                ..Default::default()
            });
        }
        uploads.sort_by(|one, next| one.key.cmp(&next.key));
        Ok(uploads)
    }

    /// The folder of an upload, which must be for this very object.
    fn upload(&self, bucket: &str, key: &str, id: &str) -> S3Result<PathBuf> {
        let well_formed = id.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
        let folder = self.uploads.join(id);
        match fs::read_to_string(folder.join("object")) {
            Ok(object) if well_formed && object == format!("{bucket}/{key}") => Ok(folder),
            Err(error) if well_formed && !is_absent(&error) => Err(internal(error)),
            _ => Err(s3_error!(NoSuchUpload)),
        }
    }

    fn add_part(
        &self,
        staged: Staged,
        bucket: &str,
        key: &str,
        id: &str,
        number: i32,
    ) -> S3Result<String> {
        if !(1..=10_000).contains(&number) {
            return Err(s3_error!(InvalidArgument, "a part number is 1 to 10000"));
        }
        let path = self.upload(bucket, key, id)?.join(number.to_string());
        fs::rename(&staged.path, &path).map_err(internal)?;
        etag_of(&path).map_err(internal)
    }

    fn complete_upload(
        &self,
        bucket: &str,
        key: &str,
        id: &str,
        parts: &[CompletedPart],
        conditions: &Conditions,
    ) -> S3Result<String> {
        let folder = self.upload(bucket, key, id)?;
        let mut staged = self.new_staged().map_err(internal)?;
        if parts.is_empty() {
            return Err(s3_error!(MalformedXML));
        }
        if !parts.is_sorted_by(|one, next| one.part_number < next.part_number) {
            return Err(s3_error!(InvalidPartOrder));
        }
        for (index, part) in parts.iter().enumerate() {
            let number = part.part_number.ok_or_else(|| s3_error!(MalformedXML))?;
            let path = folder.join(number.to_string());
            let object =
                Object::open(&path).map_err(internal)?.ok_or_else(|| s3_error!(InvalidPart))?;
            if part.e_tag.as_ref().map(ETag::value) != Some(object.etag.as_str()) {
                return Err(s3_error!(InvalidPart));
            }
            if object.length < MIN_PART && index + 1 < parts.len() {
                return Err(s3_error!(EntityTooSmall));
            }
            // The parts stay until the object is there: a failed close may be tried again.
            match object.content {
                Content::Read(bytes) => staged.file.write_all(&bytes),
                Content::Open(file) => copy_range(file, &(0..object.length), &mut staged.file),
            }
            .map_err(internal)?;
        }
        let etag = self.publish(staged, bucket, key, conditions)?;
        fs::remove_dir_all(folder).map_err(internal)?;
        Ok(etag)
    }
}

/// A file on its way to become an object. Dropped without a name, it is gone.
struct Staged {
    path: PathBuf,
    file: File,
}

impl Staged {
    fn append(mut self, bytes: &[u8]) -> S3Result<Self> {
        self.file.write_all(bytes).map_err(internal)?;
        Ok(self)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // After the rename there is nothing of this name, and that is fine.
        let _ = fs::remove_file(&self.path);
    }
}

/// What must hold for the object that has the name now.
#[derive(Default)]
struct Conditions {
    if_match: Option<ETagCondition>,
    must_be_new: bool,
}

impl Conditions {
    fn new(
        if_match: Option<ETagCondition>,
        if_none_match: Option<ETagCondition>,
    ) -> S3Result<Self> {
        // S3 itself knows no other for a write.
        if if_none_match.as_ref().is_some_and(|value| !value.is_any()) {
            return Err(s3_error!(NotImplemented, "If-None-Match other than *"));
        }
        Ok(Self { if_match, must_be_new: if_none_match.is_some() })
    }

    fn check(&self, path: &Path) -> S3Result<()> {
        if self.must_be_new && path.is_file() {
            return Err(s3_error!(PreconditionFailed));
        }
        let Some(condition) = &self.if_match else {
            return Ok(());
        };
        let etag = match etag_of(path) {
            Ok(etag) => ETag::Strong(etag),
            // As AWS answers: a 404, not a 412.
            Err(error) if is_absent(&error) => return Err(s3_error!(NoSuchKey)),
            Err(error) => return Err(internal(error)),
        };
        match condition.as_etag() {
            Some(expected) if !etag.strong_cmp(expected) => Err(s3_error!(PreconditionFailed)),
            _ => Ok(()),
        }
    }
}

struct Object {
    length: u64,
    modified: SystemTime,
    etag: String,
    content: Content,
}

enum Content {
    /// A small object, read when its entity tag was made.
    Read(Bytes),
    Open(File),
}

impl Object {
    /// `None` where there is no such file. A folder is no object.
    fn open(path: &Path) -> io::Result<Option<Self>> {
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

fn etag_of(path: &Path) -> io::Result<String> {
    Object::open(path)?.map(|object| object.etag).ok_or_else(|| ErrorKind::NotFound.into())
}

/// Small objects, the links among them, are told apart by content, as in S3: two of the same length
/// may be written within one tick of the file system's clock.
fn etag_of_small(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest[..16].iter().map(|byte| format!("{byte:02x}")).collect()
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

struct Query {
    prefix: String,
    /// Entries up to this one, itself included, were on earlier pages.
    after: String,
    /// Whether everything below a folder is one entry.
    by_folder: bool,
    limit: usize,
}

impl Query {
    /// Whether all keys of a folder were on earlier pages.
    fn has_passed_folder(&self, folder: &str) -> bool {
        if self.by_folder && folder == self.after {
            return true;
        }
        folder < self.after.as_str() && !self.after.starts_with(folder)
    }
}

#[derive(Default)]
struct Page {
    objects: Vec<s3s::dto::Object>,
    folders: Vec<String>,
    last: String,
    truncated: bool,
}

impl Page {
    /// Whether there was room for one more entry.
    fn has_room(&mut self, query: &Query) -> bool {
        self.truncated = self.objects.len() + self.folders.len() >= query.limit;
        !self.truncated
    }
}

/// Adds what lies below `folder`, whose keys all start with `base`, in the order of the keys.
fn list_folder(folder: &Path, base: &str, query: &Query, page: &mut Page) -> io::Result<()> {
    for name in sorted_entries(folder)? {
        if page.truncated {
            break;
        }
        let key = format!("{base}{name}");
        let path = folder.join(&name);
        if name.ends_with('/') {
            let is_past = query.has_passed_folder(&key);
            let may_match = key.starts_with(&query.prefix) || query.prefix.starts_with(&key);
            if is_past || !may_match {
                continue;
            }
            if !(query.by_folder && key.starts_with(&query.prefix)) {
                list_folder(&path, &key, query, page)?;
            } else if holds_key_after(&path, &key, &query.after)? && page.has_room(query) {
                page.last.clone_from(&key);
                page.folders.push(key);
            }
        } else if key > query.after && key.starts_with(&query.prefix) {
            // Removed since the folder was read: then it isn't listed.
            let Ok(metadata) = fs::metadata(&path) else {
                continue;
            };
            if page.has_room(query) {
                page.last.clone_from(&key);
                page.objects.push(s3s::dto::Object {
                    key: Some(key),
                    size: Some(signed(metadata.len())),
                    last_modified: metadata.modified().ok().map(Timestamp::from),
                    ..Default::default()
                });
            }
        }
    }
    Ok(())
}

/// Whether an upload comes after the one that the markers name. Without an id they name all of a key.
fn is_after(upload: &MultipartUpload, (key, id): &(String, Option<String>)) -> bool {
    match (upload.key.as_ref(), id) {
        (Some(of), Some(id)) if of == key => upload.upload_id.as_ref() > Some(id),
        (of, _) => of > Some(key),
    }
}

fn holds_key_after(folder: &Path, base: &str, after: &str) -> io::Result<bool> {
    let query =
        Query { prefix: base.to_owned(), after: after.to_owned(), by_folder: false, limit: 1 };
    let mut page = Page::default();
    list_folder(folder, base, &query, &mut page)?;
    Ok(!page.objects.is_empty())
}

/// The names in a folder as parts of keys, folders with their slash: sorted like this, a walk
/// meets the keys in byte order. Names that are no text can't be keys.
fn sorted_entries(folder: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if is_absent(&error) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry?;
        let Ok(mut name) = entry.file_name().into_string() else {
            continue;
        };
        let kind = entry.file_type()?;
        // A link counts as what it leads to.
        if kind.is_dir() || (kind.is_symlink() && entry.path().is_dir()) {
            name.push('/');
        }
        names.push(name);
    }
    names.sort_unstable();
    Ok(names)
}

fn copy_range(mut from: File, wanted: &Range<u64>, to: &mut File) -> io::Result<()> {
    from.seek(SeekFrom::Start(wanted.start))?;
    let length = wanted.end - wanted.start;
    if io::copy(&mut from.take(length), to)? == length {
        Ok(())
    } else {
        Err(ErrorKind::UnexpectedEof.into())
    }
}

fn slice(bytes: &Bytes, wanted: &Range<u64>) -> Bytes {
    bytes.slice(wanted.start as usize..wanted.end as usize)
}

fn whole(bytes: Bytes) -> StreamingBlob {
    StreamingBlob::wrap(stream::iter([Ok::<_, io::Error>(bytes)]))
}

/// Reads a file piece by piece, as fast as the client takes them.
fn read_stream(file: File, wanted: Range<u64>) -> StreamingBlob {
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
    use std::os::unix::fs::FileExt;

    let length = (rest.end - rest.start).min(CHUNK as u64);
    let mut bytes = vec![0; length as usize];
    file.read_exact_at(&mut bytes, rest.start)?;
    Ok((file, (bytes.into(), rest.start + length..rest.end)))
}

fn hasher_for(
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

fn check_checksums(
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

fn source(source: CopySource) -> S3Result<(String, String)> {
    match source {
        CopySource::Bucket { bucket, key, version_id: None } => Ok((bucket.into(), key.into())),
        _ => Err(s3_error!(NotImplemented, "this kind of copy source")),
    }
}

/// Whether an error says that there is no such file, not that it can't be had.
fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::InvalidFilename
    )
}

fn internal(error: io::Error) -> S3Error {
    eprintln!("blob-store: {error}");
    s3_error!(error, InternalError)
}

fn unique_start() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let nanoseconds = now.map_or(0, |elapsed| elapsed.as_nanos());
    format!("{:x}-{nanoseconds:x}", std::process::id())
}

fn content_type() -> String {
    "binary/octet-stream".to_owned()
}

fn signed(length: u64) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}
