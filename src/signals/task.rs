//! A background task that lives as long as its owner.

use std::future::Future;

use tokio::task::JoinHandle;

/// A spawned task that is aborted when this value is dropped.
#[derive(Debug)]
pub(super) struct OwnedTask(JoinHandle<()>);

impl OwnedTask {
    /// Starts `future` on the current runtime.
    pub(super) fn spawn(future: impl Future<Output = ()> + Send + 'static) -> OwnedTask {
        OwnedTask(tokio::spawn(future))
    }
}

impl Drop for OwnedTask {
    fn drop(&mut self) {
        self.0.abort();
    }
}
