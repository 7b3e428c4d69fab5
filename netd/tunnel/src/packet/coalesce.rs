//! Puts segments that came in one batch together again, so that the kernel takes them as
//! one packet: the reverse of [`super::segment`], by the rules of the kernel's own GRO.
//! Payload stays where it is; only headers are made.
//!
//! What the kernel gets in one piece it never checks again, so a packet's checksum is
//! checked here before it joins or is joined.

use super::{
    HEADERS, PACKETS, Piece, be16, be32, checksum,
    ip::{self, Ip},
    put,
    vnet::{self, Gso, Vnet},
};

/// Flows of a batch that are looked through for one to join.
const WINDOW: usize = 16;
/// Bytes of the largest packet that the kernel takes.
const MOST: usize = 65_535;
/// Segments of UDP that it takes as one (UDP_MAX_SEGMENTS of older kernels).
const MAX_UDP: usize = 64;

const ACK: u8 = 0x10;
const PSH: u8 = 0x08;

/// One batch of packets on the way to the device.
#[derive(Debug)]
pub struct Coalescer {
    groups: Vec<Group>,
    used: usize,
    headers: Vec<u8>,
    /// Whether the kernel takes UDP in one piece.
    udp: bool,
}

/// Tells flows apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Flow {
    ends: (std::net::IpAddr, std::net::IpAddr),
    protocol: u8,
    /// Both ports as they stand in the packet; 0 if there are none.
    ports: u32,
}

/// A packet that may be part of a larger one.
#[derive(Debug, Clone, Copy)]
struct Part {
    upper: usize,
    /// Bytes of all headers.
    header: usize,
    payload: usize,
    sequence: u32,
    push: bool,
}

/// Packets that go to the kernel as one, in the order they came.
#[derive(Debug)]
struct Group {
    flow: Flow,
    first: Piece,
    ip: Ip,
    /// `None`: nothing joins it.
    part: Option<Part>,
    open: bool,
    checked: bool,
    push: bool,
    count: usize,
    length: usize,
    pieces: Vec<Piece>,
}

impl Coalescer {
    /// `udp`: the kernel takes segmented UDP (Linux 6.2).
    pub fn new(udp: bool) -> Self {
        Self { groups: vec![], used: 0, headers: Vnet::PLAIN.to_vec(), udp }
    }

    /// Forgets the batch.
    pub fn clear(&mut self) {
        self.used = 0;
        self.headers.truncate(vnet::SIZE);
    }

    /// Whether there is nothing in the batch.
    pub fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// Adds the packet `ip` was read from, which begins at `start` of the arena `packets`.
    pub fn push(&mut self, packets: &[u8], start: usize, ip: &Ip) {
        let piece = Piece { arena: PACKETS, start: start as u32, len: ip.length as u32 };
        let Some(packet) = packets.get(start..start + ip.length) else { return };
        let flow = Flow {
            ends: (ip.source, ip.destination),
            protocol: ip.protocol,
            ports: if fragment(packet, ip) { 0 } else { be32(packet, ip.header) },
        };
        let part = Part::new(packet, ip).filter(|_| self.udp || ip.protocol == ip::TCP);
        let from = self.used.saturating_sub(WINDOW);
        let recent = self.groups.get_mut(from..self.used).unwrap_or_default();
        if let Some(group) = recent.iter_mut().rev().find(|group| group.flow == flow) {
            if group.join(packets, packet, part) {
                return;
            }
            // What comes later must not get before this one.
            group.open = false;
        }
        self.begin(Group {
            flow,
            first: piece,
            ip: *ip,
            open: part.is_some_and(|part| !part.push),
            push: part.is_some_and(|part| part.push),
            part,
            checked: false,
            count: 1,
            length: ip.length,
            pieces: vec![],
        });
    }

    fn begin(&mut self, mut group: Group) {
        match self.groups.get_mut(self.used) {
            Some(old) => {
                group.pieces = std::mem::take(&mut old.pieces);
                group.pieces.clear();
                *old = group;
            }
            None => self.groups.push(group),
        }
        self.used += 1;
    }

    /// Makes the headers. Then [`Self::writes`] has what is to be written.
    pub fn finish(&mut self, packets: &[u8]) {
        for group in self.groups.get_mut(..self.used).unwrap_or_default() {
            group.finish(packets, &mut self.headers);
        }
    }

    /// The arena of the headers.
    pub fn headers(&self) -> &[u8] {
        &self.headers
    }

    /// What is to be written: how many packets it is, their bytes, and the pieces, headers
    /// for the device included.
    pub fn writes(&self) -> impl Iterator<Item = (usize, usize, &[Piece])> {
        let groups = self.groups.get(..self.used).unwrap_or_default();
        groups.iter().map(|group| (group.count, group.bytes(), group.pieces.as_slice()))
    }
}

fn fragment(packet: &[u8], ip: &Ip) -> bool {
    ip.source.is_ipv4() && be16(packet, 6) & 0x3fff != 0
}

impl Part {
    /// `None`: the packet goes alone.
    fn new(packet: &[u8], ip: &Ip) -> Option<Self> {
        if fragment(packet, ip) || (ip.source.is_ipv4() && ip.header != 20) {
            return None;
        }
        let upper = ip.header;
        match ip.protocol {
            ip::TCP => {
                let header = upper + usize::from(packet.get(upper + 12)? >> 4) * 4;
                let flags = *packet.get(upper + 13)?;
                let payload = packet.len().checked_sub(header)?;
                let plain = flags & !PSH == ACK && packet.get(upper + 12)? & 0xf == 0;
                (plain && header >= upper + 20 && payload > 0).then_some(Self {
                    upper,
                    header,
                    payload,
                    sequence: be32(packet, upper + 4),
                    push: flags & PSH != 0,
                })
            }
            ip::UDP => {
                let header = upper + 8;
                let payload = packet.len().checked_sub(header)?;
                let whole = usize::from(be16(packet, upper + 4)) == payload + 8;
                let summed = be16(packet, upper + 6) != 0;
                (whole && summed && payload > 0).then_some(Self {
                    upper,
                    header,
                    payload,
                    sequence: 0,
                    push: false,
                })
            }
            _ => None,
        }
    }
}

impl Group {
    fn bytes(&self) -> usize {
        // Each segment had the headers.
        let header = self.part.map_or(0, |part| part.header);
        self.length + (self.count - 1) * header
    }

    /// Takes the packet if it goes on where this group ends.
    fn join(&mut self, packets: &[u8], packet: &[u8], next: Option<Part>) -> bool {
        let (Some(first), Some(next), true) = (self.part, next, self.open) else { return false };
        let head = self.first.of(&[packets, &[]]);
        let tcp = self.ip.protocol == ip::TCP;
        let room = if tcp { usize::MAX } else { MAX_UDP };
        let alike = next.header == first.header
            && next.payload <= first.payload
            && self.length + next.payload <= MOST
            && self.count < room
            && same_ip(head, packet, self.count, first.upper == 20)
            && (!tcp || self.same_tcp(head, packet, first, next));
        if !alike {
            return false;
        }
        if !self.checked {
            self.checked = checksum_holds(head, &self.ip, first.upper);
            self.open = self.checked;
        }
        if !self.checked || !checksum_holds(packet, &self.ip, first.upper) {
            return false;
        }
        let offset = packet.as_ptr().addr() - packets.as_ptr().addr();
        self.pieces.push(Piece {
            arena: PACKETS,
            start: (offset + next.header) as u32,
            len: next.payload as u32,
        });
        self.count += 1;
        self.length += next.payload;
        self.push |= next.push;
        self.open = !next.push && next.payload == first.payload;
        true
    }

    fn same_tcp(&self, head: &[u8], packet: &[u8], first: Part, next: Part) -> bool {
        let so_far = self.length - first.header;
        let at = first.upper;
        // Acknowledgement; window; urgent pointer and options.
        next.sequence == first.sequence.wrapping_add(so_far as u32)
            && same::<4>(head, packet, at + 8)
            && same::<2>(head, packet, at + 14)
            && head.get(at + 18..first.header) == packet.get(at + 18..first.header)
    }

    fn finish(&mut self, packets: &[u8], headers: &mut Vec<u8>) {
        let (Some(part), true) = (self.part, self.count > 1) else {
            let plain = Piece { arena: HEADERS, start: 0, len: vnet::SIZE as u32 };
            self.pieces.clear();
            self.pieces.extend([plain, self.first]);
            return;
        };
        let packet = self.first.of(&[packets, &[]]);
        let start = headers.len();
        let tcp = self.ip.protocol == ip::TCP;
        let v4 = self.ip.source.is_ipv4();
        let vnet = Vnet {
            needs_checksum: true,
            gso: match (tcp, v4) {
                (true, true) => Gso::TcpV4,
                (true, false) => Gso::TcpV6,
                (false, _) => Gso::Udp,
            },
            header: part.header as u16,
            segment: part.payload as u16,
            checksum_start: part.upper as u16,
            checksum_offset: if tcp { 16 } else { 6 },
        };
        headers.extend(vnet.bytes());
        headers.extend(packet.get(..part.header).unwrap_or_default());
        let made = headers.get_mut(start + vnet::SIZE..).unwrap_or_default();
        self.fix(made, part, vnet.checksum_offset.into());
        let len = (vnet::SIZE + part.header) as u32;
        let header = Piece { arena: HEADERS, start: start as u32, len };
        let payload = Piece {
            arena: PACKETS,
            start: self.first.start + part.header as u32,
            len: part.payload as u32,
        };
        self.pieces.splice(..0, [header, payload]);
    }

    /// Makes the first packet's header that of them all.
    fn fix(&self, made: &mut [u8], part: Part, checksum_offset: usize) {
        let upper = (self.length - part.upper) as u16;
        let addresses = if self.ip.source.is_ipv4() {
            put(made, 2, &(self.length as u16).to_be_bytes());
            put(made, 10, &[0, 0]);
            let sum = checksum::sum(made.get(..part.upper).unwrap_or_default());
            put(made, 10, &checksum::finish(sum).to_ne_bytes());
            12..20
        } else {
            put(made, 4, &upper.to_be_bytes());
            8..40
        };
        if self.ip.protocol == ip::UDP {
            put(made, part.upper + 4, &upper.to_be_bytes());
        } else if let Some(flags) = made.get_mut(part.upper + 13) {
            *flags |= if self.push { PSH } else { 0 };
        }
        let addresses = made.get(addresses).unwrap_or_default();
        let sum = checksum::pseudo(addresses, self.ip.protocol, upper);
        put(made, part.upper + checksum_offset, &checksum::fold(sum).to_ne_bytes());
    }
}

/// Whether `packet`, `count` packets after `head`, has the same IP header but for what
/// must differ. The identification counts up, or nobody looks at it (DF; RFC 6864, 4).
fn same_ip(head: &[u8], packet: &[u8], count: usize, v4: bool) -> bool {
    if !v4 {
        return same::<4>(head, packet, 0) && same::<34>(head, packet, 6);
    }
    let dont_fragment = be16(packet, 6) & 0x4000 != 0;
    let counts_up = be16(packet, 4) == be16(head, 4).wrapping_add(count as u16);
    same::<2>(head, packet, 0)
        && same::<4>(head, packet, 6)
        && same::<8>(head, packet, 12)
        && (dont_fragment || counts_up)
}

/// Whether `N` bytes from `at` on are the same. Of a length that the compiler knows:
/// this is asked several times of each packet.
fn same<const N: usize>(a: &[u8], b: &[u8], at: usize) -> bool {
    let part = |bytes: &[u8]| bytes.get(at..).and_then(|rest| rest.first_chunk::<N>().copied());
    part(a) == part(b)
}

fn checksum_holds(packet: &[u8], ip: &Ip, upper: usize) -> bool {
    let addresses = if ip.source.is_ipv4() { 12..20 } else { 8..40 };
    let addresses = packet.get(addresses).unwrap_or_default();
    let rest = packet.get(upper..).unwrap_or_default();
    let sum = checksum::pseudo(addresses, ip.protocol, rest.len() as u16) + checksum::sum(rest);
    let ip_holds = !ip.source.is_ipv4()
        || checksum::fold(checksum::sum(packet.get(..upper).unwrap_or_default())) == 0xffff;
    ip_holds && checksum::fold(sum) == 0xffff
}
