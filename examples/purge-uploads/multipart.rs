//! Multipart uploads that were begun for a blob's content, and neither completed nor aborted.
//!
//! Stores keep their parts, and charge for them, without listing them as objects.

use crate::run::{Purge, say};

/// Aborts the old ones. What fails is noted. A store that can't list them is passed over: it may have
/// none, or rid itself of them by a rule of its bucket's.
pub fn purge(run: &mut Purge) {
    let blobs = format!("{}blobs/", run.registry);
    let uploads = match run.store.uploads(&blobs) {
        Ok(uploads) => uploads,
        Err(fault) if fault.is_not_implemented() => {
            return say("multipart uploads are passed over: the store can't list them");
        }
        Err(fault) => return run.failed("multipart uploads", fault),
    };
    let (registry, cutoff) = (run.registry.clone(), run.cutoff);
    for upload in uploads.iter().filter(|upload| upload.initiated < cutoff) {
        let name = upload.key.strip_prefix(&registry).unwrap_or(&upload.key);
        if !run.dry_run
            && let Err(fault) = run.store.abort(upload)
        {
            run.failed(format!("multipart upload of {name}"), fault);
            continue;
        }
        run.aborted += 1;
        let done = if run.dry_run { "would abort" } else { "aborted" };
        say(format!("{done} the multipart upload of {name}, started {}", upload.initiated));
    }
}
