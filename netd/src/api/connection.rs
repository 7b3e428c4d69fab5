//! The bytes of a client's connection, between its socket and the HTTP/2 library.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;

use super::{authority::Rewriter, outbox::Outbox, peer::Peer, socket::Socket};

/// A client's connection, with its bytes mended on the way in and held back on the way out.
#[derive(Debug)]
pub struct Connection {
    socket: Socket,
    peer: Option<Peer>,
    rewriter: Rewriter,
    /// Rewritten, not read yet; and how much of it is.
    ready: Vec<u8>,
    taken: usize,
    outbox: Outbox,
}

impl Connection {
    /// A connection that has just come; `peer`: who is at its other end, if that is known.
    pub fn new(socket: Socket, peer: Option<Peer>) -> Self {
        let (rewriter, ready, outbox) = (Rewriter::new(), Vec::new(), Outbox::default());
        Self { socket, peer, rewriter, ready, taken: 0, outbox }
    }

    /// Reads on until there is something; `false`: it is over.
    fn fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        const CHUNK: usize = 8192;
        while self.taken == self.ready.len() {
            let mut bytes = [0; CHUNK];
            let read = ready!(self.socket.poll_read(cx, &mut bytes))?;
            if !self.outbox.is_new() {
                self.outbox.open();
            }
            if read == 0 {
                return Poll::Ready(Ok(false));
            }
            self.ready.clear();
            self.taken = 0;
            self.rewriter.feed(&bytes[..read], &mut self.ready);
        }
        Poll::Ready(Ok(true))
    }

    /// What is held back until the answer, or goes with it; else writes what was.
    fn send_held<'a>(
        &mut self,
        cx: &mut Context<'_>,
        parts: impl Iterator<Item = &'a [u8]>,
    ) -> Poll<io::Result<Option<usize>>> {
        if self.outbox.is_new() {
            // After an error, the next read sees the end.
            let read = self.fill(cx).map_ok(|more| more && self.rewriter.has_asked());
            self.outbox.begin(matches!(read, Poll::Ready(Ok(true))));
        }
        if let Some(taken) = self.outbox.take(parts) {
            return Poll::Ready(Ok(Some(taken)));
        }
        ready!(self.drain(cx))?;
        Poll::Ready(Ok(None))
    }

    fn drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.outbox.due().is_empty() {
            let due = [io::IoSlice::new(self.outbox.due())];
            let written = ready!(self.socket.poll_write(cx, &due))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.outbox.wrote(written);
        }
        Poll::Ready(Ok(()))
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
        if let Some(taken) = ready!(self.send_held(cx, std::iter::once(bytes)))? {
            return Poll::Ready(Ok(taken));
        }
        self.socket.poll_write(cx, &[io::IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let Some(taken) = ready!(self.send_held(cx, slices.iter().map(|slice| &**slice)))? {
            return Poll::Ready(Ok(taken));
        }
        self.socket.poll_write(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.drain(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.outbox.open();
        ready!(self.drain(cx))?;
        Poll::Ready(self.socket.shutdown())
    }
}

impl Connected for Connection {
    type ConnectInfo = Option<Peer>;

    fn connect_info(&self) -> Option<Peer> {
        self.peer
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::{
        future::poll_fn,
        io::{Read as _, Write as _},
        os::unix::net::UnixStream,
    };

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    /// END_HEADERS; with END_STREAM it is a whole request.
    const HEADERS: [u8; 10] = [0, 0, 1, 1, 4, 0, 0, 0, 1, 0x88];
    const REQUEST: [u8; 10] = [0, 0, 1, 1, 5, 0, 0, 0, 1, 0x82];

    fn preface() -> Vec<u8> {
        [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), &SETTINGS].concat()
    }

    /// A client that has sent `first`, and our side of its connection.
    fn client(first: &[u8]) -> (Connection, UnixStream) {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        theirs.write_all(first).unwrap();
        (Connection::new(Socket::new(ours).unwrap(), None), theirs)
    }

    fn received(theirs: &mut UnixStream) -> Vec<u8> {
        let mut bytes = vec![0; 100];
        let read = theirs.read(&mut bytes).unwrap_or(0);
        bytes.truncate(read);
        bytes
    }

    #[tokio::test]
    async fn a_client_that_has_asked_gets_everything_with_its_answer() {
        let (mut ours, mut theirs) = client(&[preface(), REQUEST.to_vec()].concat());
        ours.write_all(&SETTINGS).await.unwrap();
        ours.flush().await.unwrap();
        assert_eq!(received(&mut theirs), b"");
        let mut bytes = vec![0; preface().len() + REQUEST.len()];
        ours.read_exact(&mut bytes).await.unwrap();
        assert_eq!(bytes, [preface(), REQUEST.to_vec()].concat());
        ours.write_all(&HEADERS).await.unwrap();
        ours.flush().await.unwrap();
        assert_eq!(received(&mut theirs), [SETTINGS.as_slice(), &HEADERS].concat());
        ours.write_all(&SETTINGS).await.unwrap();
        assert_eq!(received(&mut theirs), SETTINGS);
    }

    #[tokio::test]
    async fn a_client_that_waits_for_settings_gets_them() {
        for first in [&[][..], &preface()] {
            let (mut ours, mut theirs) = client(first);
            ours.write_all(&SETTINGS).await.unwrap();
            ours.flush().await.unwrap();
            assert_eq!(received(&mut theirs), SETTINGS);
        }
    }

    #[tokio::test]
    async fn a_client_that_says_more_or_goes_waits_no_longer() {
        for more in [&SETTINGS[..], &[]] {
            let (mut ours, mut theirs) = client(&[preface(), REQUEST.to_vec()].concat());
            ours.write_all(&SETTINGS).await.unwrap();
            theirs.write_all(more).unwrap();
            if more.is_empty() {
                theirs.shutdown(std::net::Shutdown::Write).unwrap();
            }
            let asked = preface().len() + REQUEST.len();
            let mut bytes = vec![0; asked];
            ours.read_exact(&mut bytes).await.unwrap();
            assert_eq!(ours.read(&mut bytes).await.unwrap(), more.len());
            poll_fn(|cx| Pin::new(&mut ours).poll_flush(cx)).await.unwrap();
            assert_eq!(received(&mut theirs), SETTINGS);
        }
    }
}
