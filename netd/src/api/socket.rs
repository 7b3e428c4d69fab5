//! A Unix socket whose room to write is asked about only when there is none.
//!
//! tokio's own sockets always wait for both, data and room. A client that reads its answer
//! makes room, and that would wake us, once a call, to learn what nobody asked.

use std::{
    io::{self, IoSlice, Read as _, Write as _},
    net::Shutdown,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::net::{UnixListener, UnixStream},
    },
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{Interest, unix::AsyncFd};
use tokio_stream::Stream;

/// A connection's socket.
#[derive(Debug)]
pub struct Socket {
    /// There, but in the middle of [`Socket::wait_for_both`].
    stream: Option<AsyncFd<UnixStream>>,
    /// Whether it is waited for room, too.
    both: bool,
    /// Never read from: what a client sends first is mostly there with the connection,
    /// and no event has said so yet.
    fresh: bool,
}

impl Socket {
    /// Of a connection that has just come.
    ///
    /// # Errors
    /// The system's.
    pub fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        let stream = Some(watched(stream, Interest::READABLE)?);
        Ok(Self { stream, both: false, fresh: true })
    }

    /// The socket itself.
    ///
    /// # Errors
    /// An earlier one has ended it.
    pub fn get_ref(&self) -> io::Result<&UnixStream> {
        self.watched().map(AsyncFd::get_ref)
    }

    fn watched(&self) -> io::Result<&AsyncFd<UnixStream>> {
        self.stream.as_ref().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Reads what is there.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, bytes: &mut [u8]) -> Poll<io::Result<usize>> {
        if std::mem::take(&mut self.fresh) {
            match self.get_ref()?.read(bytes) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => return Poll::Ready(other),
            }
        }
        let stream = self.watched()?;
        loop {
            let mut ready = ready!(stream.poll_read_ready(cx))?;
            match ready.get_inner().read(bytes) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Ok(some) => {
                    // Less than there was room for: there is no more, and no need to ask.
                    if (1..bytes.len()).contains(&some) {
                        ready.clear_ready();
                    }
                    return Poll::Ready(Ok(some));
                }
                Err(e) => return Poll::Ready(Err(e)),
            }
        }
    }

    /// Writes as much as there is room for.
    pub fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        loop {
            match self.get_ref()?.write_vectored(parts) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    self.wait_for_both(cx)?;
                    ready!(self.watched()?.poll_write_ready(cx))?.clear_ready();
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => return Poll::Ready(other),
            }
        }
    }

    /// Ends what we send.
    ///
    /// # Errors
    /// The system's; none if the client has gone before.
    pub fn shutdown(&self) -> io::Result<()> {
        match self.get_ref()?.shutdown(Shutdown::Write) {
            Err(e) if e.kind() != io::ErrorKind::NotConnected => Err(e),
            _ => Ok(()),
        }
    }

    fn wait_for_both(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.both {
            return Ok(());
        }
        let stream = self.stream.take().ok_or(io::ErrorKind::NotConnected)?;
        let both = Interest::READABLE | Interest::WRITABLE;
        let stream = self.stream.insert(watched(stream.into_inner(), both)?);
        self.both = true;
        // Whoever waited for data goes on waiting.
        let _ = stream.poll_read_ready(cx)?;
        Ok(())
    }
}

fn watched<T: AsRawFd + Into<OwnedFd>>(socket: T, interest: Interest) -> io::Result<AsyncFd<T>> {
    // SAFETY: std's sockets hold one descriptor open as long as they live.
    unsafe { AsyncFd::register_with_interest(socket, interest) }.map_err(io::Error::from)
}

/// The connections that come in.
#[derive(Debug)]
pub struct Incoming(AsyncFd<UnixListener>);

impl Incoming {
    /// Of a socket that does not block.
    ///
    /// # Errors
    /// The system's.
    pub fn new(listener: UnixListener) -> io::Result<Self> {
        watched(listener, Interest::READABLE).map(Self)
    }
}

impl Stream for Incoming {
    type Item = io::Result<Socket>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let mut ready = ready!(self.0.poll_read_ready(cx))?;
            match ready.get_inner().accept() {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
                Err(e) => return Poll::Ready(Some(Err(e))),
                Ok((stream, _)) => return Poll::Ready(Some(Socket::new(stream))),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::{future::poll_fn, time::Duration};

    use super::*;

    /// More than the socket's buffer holds.
    const MUCH: usize = 4 << 20;

    fn pair() -> (Socket, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Socket::new(ours).unwrap(), theirs)
    }

    #[tokio::test]
    async fn more_than_there_is_room_for_is_written_as_the_client_reads() {
        let (mut ours, mut theirs) = pair();
        let (full, wait) = std::sync::mpsc::channel();
        let reader = std::thread::spawn(move || {
            wait.recv().unwrap();
            let mut all = Vec::new();
            theirs.read_to_end(&mut all).unwrap();
            all
        });
        let sent: Vec<u8> = (0..MUCH).map(|n| n as u8).collect();
        let mut rest = sent.as_slice();
        while !rest.is_empty() {
            let write = poll_fn(|cx| {
                let written = ours.poll_write(cx, &[IoSlice::new(rest)]);
                if written.is_pending() {
                    let _ = full.send(());
                }
                written
            });
            let n = write.await.unwrap();
            rest = &rest[n..];
        }
        assert!(ours.both, "it had to wait");
        ours.shutdown().unwrap();
        assert_eq!(reader.join().unwrap(), sent);
    }

    #[tokio::test]
    async fn data_is_heard_of_before_during_and_after_a_wait_for_room() {
        let (mut ours, mut theirs) = pair();
        let mut bytes = [0; 8];
        theirs.write_all(b"before").unwrap();
        assert_eq!(poll_fn(|cx| ours.poll_read(cx, &mut bytes)).await.unwrap(), 6);
        let junk = vec![0; MUCH];
        // Fills the buffer and then waits for both.
        let both = poll_fn(|cx| {
            let read = ours.poll_read(cx, &mut bytes);
            assert!(read.is_pending());
            while ours.poll_write(cx, &[IoSlice::new(&junk)]).is_ready() {}
            theirs.write_all(b"during").unwrap();
            Poll::Ready(())
        });
        both.await;
        let heard = poll_fn(|cx| ours.poll_read(cx, &mut bytes));
        let heard = tokio::time::timeout(Duration::from_secs(5), heard).await.unwrap();
        assert_eq!((heard.unwrap(), &bytes[..6]), (6, b"during".as_slice()));
        drop(theirs);
        let end = poll_fn(|cx| ours.poll_read(cx, &mut bytes));
        // Its end, or a reset as there was something left to read.
        let end = tokio::time::timeout(Duration::from_secs(5), end).await.unwrap();
        assert!(end.is_err() || end.is_ok_and(|n| n == 0));
        assert!(ours.shutdown().is_ok());
    }
}
