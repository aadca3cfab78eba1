//! Telling the log of what keeps an endpoint from getting its events: when that begins and when it ends, and not too often.

use std::time::Duration;

use crate::filter::host::CallError;

/// How long the log is spared after it was told of a trouble: an endpoint may have another with each request.
const SPARED: Duration = Duration::from_secs(10);

/// What keeps an endpoint from getting its events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// Envoy does not send the request.
    NotSent(CallError),
    /// There is no answer, or none in time.
    NoAnswer,
    /// The answer is this status.
    Status(u16),
}

/// What the log was told of an endpoint.
#[derive(Debug, Default)]
pub struct Troubles {
    /// The last one since the endpoint took anything.
    told: Option<Trouble>,
    /// When the log may be told of another.
    next: Duration,
}

impl Troubles {
    /// There is this one now; whether the log is to be told.
    pub fn begin(&mut self, now: Duration, trouble: Trouble) -> bool {
        let is_news = self.told != Some(trouble) && now >= self.next;
        if is_news {
            self.told = Some(trouble);
            self.next = now.saturating_add(SPARED);
        }
        is_news
    }

    /// There is none any more; whether the log is to be told.
    pub fn end(&mut self) -> bool {
        self.told.take().is_some()
    }
}

#[cfg(test)]
mod tests {
    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn the_log_is_told_when_a_trouble_begins_and_ends_and_not_with_each_request() {
        let mut troubles = Troubles::default();
        assert!(!troubles.end());
        for (second, trouble, is_told) in [
            (5, Trouble::NoAnswer, true),
            (6, Trouble::NoAnswer, false),
            (7, Trouble::Status(500), false),
            (15, Trouble::Status(500), true),
            (100, Trouble::Status(500), false),
            (101, Trouble::NotSent(CallError::Refused), true),
        ] {
            let now = Duration::from_secs(second);
            assert_eq!(troubles.begin(now, trouble), is_told, "{trouble:?} after {second} s");
        }
        assert!(troubles.end() && !troubles.end());
        // One that comes and goes all the time is told of now and then, and so is its end.
        let told = (0..1_000).filter(|tenths| {
            let now = Duration::from_secs(200) + Duration::from_millis(100 * tenths);
            let begins = troubles.begin(now, Trouble::Status(400));
            assert_eq!(troubles.end(), begins);
            begins
        });
        assert_eq!(told.count(), 10);
    }
}
