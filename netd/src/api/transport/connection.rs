//! A client's connection, with its bytes corrected on their way to the HTTP/2 library.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Sleep, sleep};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::UnixStream,
};
use tonic::transport::server::Connected;

use super::{
    admission::Place,
    authority_fix::{PREFACE, Rewriter},
    peer_cred::Peer,
};

/// Bytes read at once.
const CHUNK: usize = 8192;

/// In which a client has to begin: later on, HTTP/2's pings find out whether it is there.
const PREFACE_TIMEOUT: Duration = Duration::from_secs(10);

/// A client's connection.
#[derive(Debug)]
pub(crate) struct Connection {
    /// Before the stream: it has to be dropped first.
    place: Place,
    stream: UnixStream,
    /// Bytes of HTTP/2's preface that are still to come, and until when.
    preface: Option<(usize, Pin<Box<Sleep>>)>,
    peer: Option<Peer>,
    rewriter: Rewriter,
    /// Rewritten, not read yet; and how much of it is.
    ready: Vec<u8>,
    taken: usize,
}

impl Connection {
    /// A connection that has just come; `peer`: who is at its other end, if that is known.
    pub(crate) fn new(stream: UnixStream, peer: Option<Peer>, place: Place) -> Self {
        Self {
            place,
            stream,
            preface: Some((PREFACE, Box::pin(sleep(PREFACE_TIMEOUT)))),
            peer,
            rewriter: Rewriter::new(),
            ready: Vec::new(),
            taken: 0,
        }
    }

    /// An error if the client has not begun in time.
    fn check_preface(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let Some((_, deadline)) = &mut self.preface else { return Ok(()) };
        match deadline.as_mut().poll(cx) {
            Poll::Ready(()) => {
                Err(io::Error::new(io::ErrorKind::TimedOut, "no HTTP/2 preface came"))
            }
            Poll::Pending => Ok(()),
        }
    }

    /// So many bytes came.
    fn count_preface(&mut self, bytes: usize) {
        self.preface = match self.preface.take() {
            Some((left, deadline)) if left > bytes => Some((left - bytes, deadline)),
            _ => None,
        };
    }

    /// Reads on until there is something; `false`: it is over.
    fn fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        while self.taken == self.ready.len() {
            self.check_preface(cx)?;
            let mut bytes = [0; CHUNK];
            let mut read = ReadBuf::new(&mut bytes);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut read))?;
            if read.filled().is_empty() {
                return Poll::Ready(Ok(false));
            }
            self.place.heard();
            self.count_preface(read.filled().len());
            self.ready.clear();
            self.taken = 0;
            self.rewriter.feed(read.filled(), &mut self.ready);
        }
        Poll::Ready(Ok(true))
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !ready!(this.fill(cx))? {
            return Poll::Ready(Ok(()));
        }
        let rest = &this.ready[this.taken..];
        let now = rest.len().min(buf.remaining());
        buf.put_slice(&rest[..now]);
        this.taken += now;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Connected for Connection {
    type ConnectInfo = Option<Peer>;

    fn connect_info(&self) -> Option<Peer> {
        self.peer
    }
}
