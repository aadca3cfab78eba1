//! Multipart uploads: a folder each, with the parts as files and the name of the object that they are for.

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use s3s::dto::{CompletedPart, ETag, MultipartUpload, Timestamp};
use s3s::{S3Result, s3_error};

use crate::object::{Content, Object, copy_range, etag_of};
use crate::tree::{Conditions, Staged, Tree, internal, is_absent};

/// S3's minimum for every part of a multipart upload but the last, in bytes.
const MIN_PART: u64 = 5 * 1024 * 1024;

impl Tree {
    pub fn create_upload(&self, bucket: &str, key: &str) -> S3Result<String> {
        self.path(bucket, key)?;
        let id = self.unique_name();
        let folder = self.uploads.join(&id);
        fs::create_dir(&folder)
            .and_then(|()| fs::write(folder.join("object"), format!("{bucket}/{key}")))
            .map_err(internal)?;
        Ok(id)
    }

    /// The uploads for keys that begin with `prefix`, by key and then by id.
    pub fn list_uploads(&self, bucket: &str, prefix: &str) -> S3Result<Vec<MultipartUpload>> {
        self.bucket(bucket)?;
        let mut uploads = Vec::new();
        for id in self.folders.entries(&self.uploads).map_err(internal)?.iter() {
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
    pub fn upload(&self, bucket: &str, key: &str, id: &str) -> S3Result<PathBuf> {
        let well_formed = id.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
        let folder = self.uploads.join(id);
        match fs::read_to_string(folder.join("object")) {
            Ok(object) if well_formed && object == format!("{bucket}/{key}") => Ok(folder),
            Err(error) if well_formed && !is_absent(&error) => Err(internal(error)),
            _ => Err(s3_error!(NoSuchUpload)),
        }
    }

    pub fn add_part(
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

    pub fn complete_upload(
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

/// Whether an upload comes after the one that the markers name. Without an id they name all of a key.
pub fn is_after(upload: &MultipartUpload, (key, id): &(String, Option<String>)) -> bool {
    match (upload.key.as_ref(), id) {
        (Some(of), Some(id)) if of == key => upload.upload_id.as_ref() > Some(id),
        (of, _) => of > Some(key),
    }
}
