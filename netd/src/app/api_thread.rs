//! The thread that serves the API, and nothing else.
//!
//! A call is a chain of short steps, each of which waits for the one before: on one thread
//! they follow each other at once, where among several the next worker would have to be
//! woken first. And what else netd does, ten thousand peers to compare, say, holds no call
//! up. So calls must not hold each other up: what waits for the kernel's locks or for a disk
//! is done on threads of its own, and long lists are made with pauses.

use tokio::{runtime::Builder, sync::oneshot};

use super::error::ServeError;

/// Runs what `serve` makes on the thread, until it ends.
///
/// # Errors
/// Its own; [`ServeError::Grpc`] if there can be no thread.
pub async fn run<F>(serve: impl FnOnce() -> F + Send + 'static) -> Result<(), ServeError>
where
    F: Future<Output = Result<(), ServeError>> + Send + 'static,
{
    let failed = |what: &str| ServeError::Grpc(format!("its thread: {what}"));
    let (ended, end) = oneshot::channel();
    let body = move || {
        let runtime = Builder::new_current_thread().enable_all().build();
        let served = match runtime {
            // Spawned: to wake what is blocked on takes a system call, to wake a task none.
            Ok(runtime) => runtime.block_on(async { tokio::spawn(serve()).await }),
            Err(e) => Ok(Err(failed(&e.to_string()))),
        };
        let served = served.unwrap_or_else(|e| Err(failed(&e.to_string())));
        // Nobody waits any more when netd is ending anyway.
        let _ = ended.send(served);
    };
    let thread = std::thread::Builder::new().name("netd-api".to_owned()).spawn(body);
    thread.map_err(|e| failed(&e.to_string()))?;
    end.await.map_err(|_| failed("it has died"))?
}
