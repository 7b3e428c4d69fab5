//! Links that an earlier version of netd made.

use std::collections::HashSet;

use netlink_packet_route::link::InfoKind;

use super::teardown::of_kind;
use crate::{
    DataplaneError,
    error::{failed, refused},
    exec::context::Context,
    netlink::{
        Batch, Refusal,
        link::{self, LinkId, LinkSettings},
        link_group::ENDPOINT_GROUP,
    },
};
use netd_domain::IfName;

/// Requests in one message: as many answers fit into the socket's default buffer.
const REQUESTS: usize = 128;

/// Puts the host's sides of known endpoints that are in no link group into the one by which
/// the firewall knows them. Until then it does not check their packets.
pub(crate) fn mark(kernel: &mut Context, known: &HashSet<IfName>) -> Result<(), DataplaneError> {
    let what = "marking the links of endpoints";
    let ours = |name: &str| name.parse::<IfName>().is_ok_and(|name| known.contains(&name));
    let links = of_kind(kernel, InfoKind::Veth)?;
    let unmarked: Vec<u32> =
        links.iter().filter(|l| l.group == 0 && ours(&l.name)).map(|l| l.index).collect();
    let settings = LinkSettings { group: Some(ENDPOINT_GROUP), ..LinkSettings::default() };
    for some in unmarked.chunks(REQUESTS) {
        let mut batch = Batch::new();
        for index in some {
            batch.route(link::change(LinkId::Index(*index), &settings), 0);
        }
        let results = kernel.socket.batch(batch).map_err(failed(what))?;
        let refusals = results.into_iter().filter_map(Result::err);
        // A pod that ended meanwhile took its link with it.
        if let Some(refusal) = refusals.into_iter().find(|r: &Refusal| r.errno != libc::ENODEV) {
            return Err(refused(what, &refusal));
        }
    }
    Ok(())
}
