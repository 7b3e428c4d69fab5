//! Netlink messages as bytes: requests are collected in a [`Batch`], answers are split
//! into [`Received`] messages. Pure.

use std::io;

use netlink_packet_core::{NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;

/// Length of a netlink header, `NLMSG_HDRLEN`.
pub(super) const HEADER: usize = 16;
/// Attributes of an extended acknowledgement (uapi/linux/netlink.h).
const NLMSGERR_ATTR_MSG: u16 = 1;
const NLM_F_CAPPED: u16 = 0x100;
const NLM_F_ACK_TLVS: u16 = 0x200;

/// Why the kernel refused a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{}", io::Error::from_raw_os_error(*errno), detail(text))]
pub struct Refusal {
    /// Positive errno.
    pub errno: i32,
    /// The extended acknowledgement's text; empty if the kernel gave none.
    pub text: String,
}

fn detail(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(" ({text})") }
}

/// Requests that go out in one `sendmsg`.
#[derive(Debug, Default)]
pub struct Batch {
    pub(super) bytes: Vec<u8>,
    /// Offset of each message's header.
    pub(super) offsets: Vec<usize>,
    /// Whether each asks for an acknowledgement.
    pub(super) acked: Vec<bool>,
    /// All or nothing: a refusal of the first request is one of all.
    pub(super) whole: bool,
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty netfilter transaction: its first request has to open it, and the kernel
    /// carries out all of it or nothing.
    pub fn transaction() -> Self {
        Self { whole: true, ..Self::default() }
    }

    /// How many requests are in it.
    pub fn len(&self) -> usize {
        self.offsets.len()
    }

    /// Nothing to send.
    pub fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }

    /// The bytes that go out.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Adds an rtnetlink request. `flags` are added to `NLM_F_REQUEST | NLM_F_ACK`.
    pub fn route(&mut self, message: RouteNetlinkMessage, flags: u16) {
        let mut header = NetlinkHeader::default();
        header.flags = flags | (libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
        message.finalize();
        let start = self.bytes.len();
        self.bytes.resize(start + message.buffer_len().next_multiple_of(4), 0);
        message.serialize(&mut self.bytes[start..]);
        self.offsets.push(start);
        self.acked.push(true);
    }

    /// Asks for no acknowledgement of all requests but the last; the kernel still reports
    /// those that it refuses. An acknowledgement costs as much as a small request.
    pub(crate) fn quieten(&mut self) {
        let last = self.offsets.len().saturating_sub(1);
        for (offset, acked) in self.offsets.iter().zip(&mut self.acked).take(last) {
            let quiet = flags(&self.bytes[*offset..]) & !(libc::NLM_F_ACK as u16);
            self.bytes[offset + 6..offset + 8].copy_from_slice(&quiet.to_ne_bytes());
            *acked = false;
        }
    }

    /// Adds a request of type `kind` whose body is already encoded. `flags` are added
    /// to `NLM_F_REQUEST`; it is acknowledged only with `NLM_F_ACK` among them.
    pub fn raw(&mut self, kind: u16, flags: u16, body: &[u8]) {
        let start = self.bytes.len();
        let flags = flags | libc::NLM_F_REQUEST as u16;
        self.bytes.extend_from_slice(&((HEADER + body.len()) as u32).to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&flags.to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 8]);
        self.bytes.extend_from_slice(body);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        self.offsets.push(start);
        self.acked.push(flags & libc::NLM_F_ACK as u16 != 0);
    }
}

/// One message from the kernel.
#[derive(Debug, Clone)]
pub struct Received {
    /// Message type.
    pub kind: u16,
    /// Port of the socket that caused it; 0: the kernel itself did.
    pub port: u32,
    /// Namespace id of the sender as seen from the socket's namespace; `None`: the same.
    pub nsid: Option<i32>,
    /// The whole message with its header.
    pub bytes: Vec<u8>,
}

impl Received {
    /// What follows the header.
    pub fn body(&self) -> &[u8] {
        self.bytes.get(HEADER..).unwrap_or_default()
    }

    /// Decodes an rtnetlink message; `None`: netlink-packet-route can't read it.
    pub fn route(&self) -> Option<RouteNetlinkMessage> {
        match NetlinkMessage::<RouteNetlinkMessage>::deserialize(&self.bytes).ok()?.payload {
            NetlinkPayload::InnerMessage(inner) => Some(inner),
            _ => None,
        }
    }
}

pub(super) fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes.get(at..at + N).and_then(|b| b.try_into().ok()).unwrap_or([0; N])
}

pub(super) fn flags(bytes: &[u8]) -> u16 {
    u16::from_ne_bytes(field(bytes, 6))
}

pub(super) fn sequence(bytes: &[u8]) -> u32 {
    u32::from_ne_bytes(field(bytes, 8))
}

pub(crate) fn cut(mut rest: &[u8], nsid: Option<i32>) -> Vec<Received> {
    let mut all = Vec::new();
    while rest.len() >= HEADER {
        let length = u32::from_ne_bytes(field(rest, 0)) as usize;
        let Some(bytes) = rest.get(..length).filter(|b| b.len() >= HEADER) else { break };
        all.push(Received {
            kind: u16::from_ne_bytes(field(bytes, 4)),
            port: u32::from_ne_bytes(field(bytes, 12)),
            nsid,
            bytes: bytes.to_vec(),
        });
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    all
}

/// Reads an acknowledgement: errno, and the text of an extended one.
pub(crate) fn outcome(bytes: &[u8]) -> Result<(), Refusal> {
    // The least number has no opposite.
    let errno = i32::from_ne_bytes(field(bytes, HEADER)).checked_neg().unwrap_or(libc::EIO);
    if errno == 0 {
        return Ok(());
    }
    let mut text = String::new();
    if flags(bytes) & NLM_F_ACK_TLVS != 0 {
        // After errno comes the request's header, with its body unless capped.
        let request = u32::from_ne_bytes(field(bytes, HEADER + 4)) as usize;
        let echoed = if flags(bytes) & NLM_F_CAPPED != 0 { HEADER } else { request };
        let mut rest = bytes.get(HEADER + 4 + echoed.next_multiple_of(4)..).unwrap_or_default();
        while rest.len() >= 4 {
            let length = u16::from_ne_bytes(field(rest, 0)) as usize;
            let kind = u16::from_ne_bytes(field(rest, 2));
            let Some(value) = rest.get(4..length) else { break };
            if kind == NLMSGERR_ATTR_MSG {
                text = String::from_utf8_lossy(value).trim_end_matches('\0').to_owned();
            }
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
    }
    Err(Refusal { errno, text })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(errno: i32) -> Vec<u8> {
        let mut bytes = vec![0; HEADER];
        bytes.extend_from_slice(&errno.to_ne_bytes());
        bytes
    }

    #[test]
    fn whatever_errno_an_answer_has_it_is_read() {
        assert_eq!(outcome(&answer(0)), Ok(()));
        let errno = |n| outcome(&answer(n)).map_err(|refusal| refusal.errno);
        assert_eq!(errno(-libc::ENODEV), Err(libc::ENODEV));
        assert_eq!(errno(i32::MIN), Err(libc::EIO));
    }

    #[test]
    fn a_datagram_is_cut_up_to_the_first_message_that_does_not_fit() {
        let mut bytes = 16u32.to_ne_bytes().to_vec();
        bytes.resize(HEADER, 7);
        let one = bytes.clone();
        bytes.extend_from_slice(&[0xff; HEADER]);
        let all = cut(&bytes, Some(3));
        assert_eq!(all.len(), 1);
        assert_eq!((&all[0].bytes, all[0].nsid), (&one, Some(3)));
        assert!(cut(&[0; HEADER], None).is_empty());
    }
}
