//! What a loop waits for: work that may be under way, and a time that may be set.

use std::{
    future::Future,
    pin::Pin,
    time::{SystemTime, UNIX_EPOCH},
};

use tokio::time::{Instant, sleep_until};

use super::diff::Now;

/// Work that is done when the future is.
pub type Doing<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// The result of what is under way; never, if nothing is.
pub async fn finished<T>(doing: &mut Option<Doing<T>>) -> T {
    match doing {
        Some(doing) => doing.await,
        None => std::future::pending().await,
    }
}

/// Waits until then; for ever, if no time is set.
pub async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// The time.
pub fn now() -> Now {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    Now { mono: Instant::now().into_std(), unix }
}
