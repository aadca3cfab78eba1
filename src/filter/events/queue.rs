//! The events that wait for an endpoint: in their order, and not too many.

use std::collections::VecDeque;

use bytes::Bytes;

/// The most events that wait for an endpoint in a worker. An event has about a kilobyte: this is a burst of some thousand
/// pushes, or an endpoint that is away for a while.
pub const EVENTS_MAX: usize = 4_096;

/// The most bytes of events that wait for an endpoint in a worker: with all eight endpoints 32 MiB, of the 1 GiB that the VM
/// has.
pub const BYTES_MAX: usize = 4 * 1024 * 1024;

/// The most events of a request to an endpoint.
pub const BATCH_EVENTS: usize = 100;

/// The most bytes of events of a request to an endpoint. What receives events may take no large bodies.
pub const BATCH_BYTES: usize = 256 * 1024;

/// The events that wait for an endpoint, as they will be sent.
#[derive(Debug, Default)]
pub struct Queue {
    events: VecDeque<Bytes>,
    bytes: usize,
}

impl Queue {
    /// Puts an event at the end; `false` if there is no room for it, or if it is larger than any request may be.
    pub fn push(&mut self, event: Bytes) -> bool {
        let bytes = self.bytes.saturating_add(event.len());
        let has_room = self.events.len() < EVENTS_MAX && bytes <= BYTES_MAX;
        if !has_room || event.len() > BATCH_BYTES {
            return false;
        }
        self.bytes = bytes;
        self.events.push_back(event);
        true
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// The oldest ones, as many as go into one request.
    pub fn batch(&self) -> impl Iterator<Item = &Bytes> {
        let mut bytes = 0;
        self.events.iter().take(BATCH_EVENTS).take_while(move |event| {
            bytes += event.len();
            bytes <= BATCH_BYTES
        })
    }

    /// Whether there are more than go into one request, or just as many.
    pub fn has_whole_batch(&self) -> bool {
        self.events.len() >= BATCH_EVENTS || self.bytes >= BATCH_BYTES
    }

    /// Takes the oldest ones out, so many.
    pub fn remove(&mut self, count: usize) {
        let removed = self.events.drain(..count.min(self.events.len()));
        self.bytes -= removed.map(|event| event.len()).sum::<usize>();
        if self.events.is_empty() {
            // What a burst took is given back.
            self.events.shrink_to(BATCH_EVENTS);
        }
    }
}

#[cfg(test)]
mod tests {
    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    fn event(size: usize) -> Bytes {
        vec![b'x'; size].into()
    }

    #[test]
    fn no_more_waits_than_there_is_room_for_and_the_newest_is_refused() {
        // So many of this size, and how many of them are taken.
        for (size, taken) in [
            (1, EVENTS_MAX),
            (1_024, BYTES_MAX / 1_024),
            (BATCH_BYTES, BYTES_MAX / BATCH_BYTES),
            (BATCH_BYTES + 1, 0),
        ] {
            let mut queue = Queue::default();
            for number in 0..EVENTS_MAX + 10 {
                assert_eq!(queue.push(event(size)), number < taken, "{number} of {size} bytes");
            }
            assert_eq!(queue.len(), taken);
            if taken > 0 {
                queue.remove(1);
                assert!(queue.push(event(size)) && !queue.push(event(size)));
            }
            queue.remove(usize::MAX);
            assert_eq!((queue.len(), queue.bytes), (0, 0));
            assert!(queue.push(event(1)));
        }
    }

    #[test]
    fn a_batch_is_what_goes_into_one_request_and_the_oldest_come_first() {
        for (sizes, batch, is_whole) in [
            (vec![], 0, false),
            (vec![10; 3], 3, false),
            (vec![10; BATCH_EVENTS - 1], BATCH_EVENTS - 1, false),
            (vec![10; BATCH_EVENTS], BATCH_EVENTS, true),
            (vec![10; BATCH_EVENTS + 1], BATCH_EVENTS, true),
            (vec![BATCH_BYTES], 1, true),
            (vec![BATCH_BYTES, 1], 1, true),
            (vec![BATCH_BYTES / 2, BATCH_BYTES / 2, 1], 2, true),
            (vec![BATCH_BYTES - 1, 2], 1, true),
        ] {
            let mut queue = Queue::default();
            assert!(sizes.iter().all(|size| queue.push(event(*size))));
            let found: Vec<_> = queue.batch().map(Bytes::len).collect();
            assert_eq!(found, sizes[..batch]);
            assert_eq!(queue.has_whole_batch(), is_whole, "{} events", sizes.len());
        }
    }
}
