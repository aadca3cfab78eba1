//! Telling the log of lost events: of the first at once, and then of how many there were, not for each.

use std::time::Duration;

/// How long the log is spared after it was told.
const SPARED: Duration = Duration::from_secs(60);

/// The events of an endpoint that are lost.
#[derive(Debug, Default)]
pub struct Losses {
    total: u64,
    untold: u64,
    /// When the log may be told again.
    next: Duration,
}

impl Losses {
    /// So many more are lost.
    pub fn add(&mut self, count: usize) {
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        self.total = self.total.saturating_add(count);
        self.untold = self.untold.saturating_add(count);
    }

    /// How many there were in all.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// How many there were since the log was told, if it is to be told now.
    pub fn take_untold(&mut self, now: Duration) -> Option<u64> {
        if self.untold == 0 || now < self.next {
            return None;
        }
        self.next = now.saturating_add(SPARED);
        Some(std::mem::take(&mut self.untold))
    }
}

#[cfg(test)]
mod tests {
    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn the_first_loss_is_told_at_once_and_what_follows_once_a_minute_with_its_number() {
        let mut losses = Losses::default();
        let seconds = Duration::from_secs;
        assert_eq!(losses.take_untold(seconds(5)), None);
        for (second, lost, told) in [
            (10, 1, Some(1)),
            (11, 2, None),
            (69, 3, None),
            (70, 0, Some(5)),
            (71, 0, None),
            (500, 0, None),
            (501, 4, Some(4)),
        ] {
            losses.add(lost);
            assert_eq!(losses.take_untold(seconds(second)), told, "after {second} s");
        }
        assert_eq!(losses.total(), 10);
    }
}
