//! The executor: a future, polled whenever something it may wait for has happened.
//!
//! Envoy runs a filter in one thread and calls it back when a storage call completes, so there is
//! nothing to be woken: the exchange polls its task after each such callback.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

/// A future that is polled by hand.
pub struct Task<T>(Pin<Box<dyn Future<Output = T>>>);

impl<T> Task<T> {
    /// A task that has not run yet.
    pub fn new(future: impl Future<Output = T> + 'static) -> Self {
        Self(Box::pin(future))
    }

    /// Runs the future until it waits or ends. Not to be called again after it has ended.
    pub fn poll(&mut self) -> Poll<T> {
        self.0.as_mut().poll(&mut Context::from_waker(Waker::noop()))
    }
}
