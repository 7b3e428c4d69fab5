//! A thread that does nothing but serve the API.
//!
//! A call is a chain of short steps, each of which waits for the one before. On one thread
//! they follow each other at once; among several, each step would first have to wake a
//! worker. Other work of netd, such as comparing ten thousand peers, does not delay calls.
//! In return a call must not block this thread: what waits for the kernel's locks or for a
//! disk runs on other threads, and long lists are made with pauses.

use tokio::{runtime::Builder, sync::oneshot};

use super::error::ServeError;

/// Runs the future that `serve` returns on a new thread, until it ends.
///
/// # Errors
/// The future's error, or [`ServeError::Grpc`] if the thread can't be started.
pub(super) async fn run<F>(serve: impl FnOnce() -> F + Send + 'static) -> Result<(), ServeError>
where
    F: Future<Output = Result<(), ServeError>> + Send + 'static,
{
    let failed = |what: &str| ServeError::Grpc(format!("its thread: {what}"));
    let (ended, end) = oneshot::channel();
    let body = move || {
        let runtime = Builder::new_current_thread().enable_all().build();
        let served = match runtime {
            // Spawned, because waking a task needs no system call and waking `block_on` does.
            Ok(runtime) => runtime.block_on(async { tokio::spawn(serve()).await }),
            Err(e) => Ok(Err(failed(&e.to_string()))),
        };
        let served = served.unwrap_or_else(|e| Err(failed(&e.to_string())));
        // Fails when netd is ending and no longer waits for this thread.
        let _ = ended.send(served);
    };
    let thread = std::thread::Builder::new().name("netd-api".to_owned()).spawn(body);
    thread.map_err(|e| failed(&e.to_string()))?;
    end.await.map_err(|_| failed("it has panicked"))?
}
