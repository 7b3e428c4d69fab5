//! The socket for WireGuard's requests.

use super::report::{OverlayReport, OverlaySubject};
use crate::{
    DataplaneError, Repair, RepairKind,
    error::{failed, refused},
    netlink::{Batch, Refusal, Socket},
};
use netd_domain::IfName;

/// A generic netlink socket, and WireGuard's family number in this kernel.
#[derive(Debug)]
pub(super) struct WireguardSocket {
    pub socket: Socket,
    pub family: u16,
}

/// A request about a peer, and what it is for.
pub(super) struct Request<'a> {
    pub name: &'a IfName,
    pub key: [u8; 32],
    pub body: Vec<u8>,
    pub remove: bool,
}

impl WireguardSocket {
    /// Sends one request; what the kernel said if it refused it.
    pub(super) fn one(
        &mut self,
        body: &[u8],
        what: &str,
    ) -> Result<Result<(), Refusal>, DataplaneError> {
        let mut batch = Batch::new();
        batch.raw(self.family, libc::NLM_F_ACK as u16, body);
        let result = self.socket.batch(batch).map_err(failed(what))?.pop();
        Ok(result.unwrap_or(Ok(())))
    }

    /// Sends one request a peer, so a refused one does not stop the others.
    pub(super) fn send(
        &mut self,
        requests: &[Request<'_>],
        report: &mut OverlayReport,
    ) -> Result<(), DataplaneError> {
        const AT_ONCE: usize = 128;
        for part in requests.chunks(AT_ONCE) {
            let mut batch = Batch::new();
            for request in part {
                batch.raw(self.family, libc::NLM_F_ACK as u16, &request.body);
            }
            let results = self.socket.batch(batch).map_err(failed("setting peers"))?;
            for (request, result) in part.iter().zip(results) {
                let subject = OverlaySubject::Peer(request.name.clone(), request.key);
                let verb = if request.remove { "remove" } else { "set" };
                let detail = format!("{verb} {subject}");
                match result {
                    Ok(()) => report.repairs.push(Repair { kind: RepairKind::Peer, detail }),
                    Err(r) if request.remove && r.errno == libc::ENODEV => {}
                    Err(r) => report.refused.push((subject, refused(detail, &r))),
                }
            }
        }
        Ok(())
    }
}
