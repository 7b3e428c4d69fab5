//! `vxlan`: one device a family of pods, its entries made by hand.

use super::{Backend, LocalPlan, PeerPlan, PeerProblem, reach};
use crate::{Family, Lease, LeaseAttrs, Local, flannel::value::VxlanData};
use netd_domain::{
    IfName, Mac,
    overlay::{DeviceKind, Hop, OverlayDevice, OverlayObject, VxlanDevice},
};

/// Outer Ethernet aside: IPv4 20, UDP 8, VXLAN 8, inner Ethernet 14 (RFC 7348).
const OVERHEAD_V4: u32 = 50;
/// With IPv6's 40. flannel takes 50 here, too, and loses its largest packets.
const OVERHEAD_V6: u32 = 70;

#[derive(Debug)]
pub(super) struct Vxlan {
    pub vni: u32,
    pub port: u16,
    pub gbp: bool,
    pub learning: bool,
    pub direct_routing: bool,
    pub mtu: Option<u32>,
}

impl Vxlan {
    fn name(&self, pods: Family) -> Result<IfName, PeerProblem> {
        reach::device(match pods {
            Family::V4 => format!("flannel.{}", self.vni),
            Family::V6 => format!("flannel-v6.{}", self.vni),
        })
    }

    fn device(&self, local: &Local, pods: Family) -> Result<OverlayDevice, PeerProblem> {
        let outer = reach::outer(local, pods)?;
        let overhead = if outer == Family::V4 { OVERHEAD_V4 } else { OVERHEAD_V6 };
        let under = self.mtu.unwrap_or(local.underlay.mtu);
        let kind = DeviceKind::Vxlan(VxlanDevice {
            vni: self.vni,
            port: self.port,
            mac: own_mac(local, pods),
            local: reach::source(local, outer)?,
            underlay: local.underlay.device.clone(),
            gbp: self.gbp,
            learning: self.learning,
        });
        Ok(OverlayDevice {
            name: self.name(pods)?,
            mtu: reach::inner_mtu(under, overhead, pods)?,
            addresses: reach::addresses(local, std::iter::once(pods)),
            kind,
        })
    }

    /// Every device: of pods whose packets go over the same family, one.
    fn devices(&self, local: &Local) -> Result<Vec<OverlayDevice>, PeerProblem> {
        let mut devices: Vec<OverlayDevice> = vec![];
        for pods in local.cluster.families() {
            if carrier(local, pods) == pods {
                devices.push(self.device(local, pods)?);
            } else if let Some(shared) = devices.first_mut() {
                reach::inner_mtu(shared.mtu, 0, pods)?;
                shared.addresses.extend(reach::addresses(local, std::iter::once(pods)));
            }
        }
        Ok(devices)
    }

    /// What a lease says of a family, if it is of this VXLAN.
    fn data(&self, lease: &Lease, pods: Family) -> Result<VxlanData, PeerProblem> {
        let data = VxlanData::read(&lease.attrs, pods)?;
        match data.vni {
            Some(vni) if u32::from(vni) != self.vni & 0xffff => {
                let problem = format!("{vni} is not the cluster's VNI, {}", self.vni);
                Err(PeerProblem::new(field(pods, "VNI"), problem))
            }
            _ => Ok(data),
        }
    }
}

fn field(pods: Family, name: &str) -> &'static str {
    match (pods, name) {
        (Family::V4, "VNI") => "BackendData.VNI",
        (Family::V4, _) => "BackendData.VtepMAC",
        (Family::V6, "VNI") => "BackendV6Data.VNI",
        (Family::V6, _) => "BackendV6Data.VtepMAC",
    }
}

/// The family whose device carries pods of this one. The kernel has one device for a VNI
/// and a family of outer packets: on an underlay of one family IPv4's carries all.
fn carrier(local: &Local, pods: Family) -> Family {
    let both = local.cluster.families().count() == Family::ALL.len();
    match Family::ALL.map(|family| reach::outer(local, family)) {
        [Ok(v4), Ok(v6)] if both && v4 == v6 => Family::V4,
        _ => pods,
    }
}

fn own_mac(local: &Local, pods: Family) -> Mac {
    match carrier(local, pods) {
        Family::V4 => local.identity.vtep_v4,
        Family::V6 => local.identity.vtep_v6,
    }
}

impl Backend for Vxlan {
    fn announce(&self, local: &Local) -> LeaseAttrs {
        let mut attrs =
            LeaseAttrs { backend_type: Some("vxlan".to_owned()), ..LeaseAttrs::default() };
        for pods in local.cluster.families() {
            let data = Some(VxlanData::json(self.vni, own_mac(local, pods)).into());
            match pods {
                Family::V4 => attrs.data_v4 = data,
                Family::V6 => attrs.data_v6 = data,
            }
            match reach::outer(local, pods) {
                Ok(Family::V4) => attrs.public_v4 = local.public_v4,
                Ok(Family::V6) => attrs.public_v6 = local.public_v6,
                Err(_) => {}
            }
        }
        attrs
    }

    fn local(&self, local: &Local) -> Result<LocalPlan, PeerProblem> {
        let devices = self.devices(local)?;
        let mtu = devices.iter().map(|d| d.mtu).min().unwrap_or(local.underlay.mtu);
        let objects = reach::blackholes(local).collect();
        Ok(LocalPlan { devices, objects, mtu, ..LocalPlan::default() })
    }

    fn peer(&self, local: &Local, lease: &Lease) -> Result<PeerPlan, PeerProblem> {
        let mut objects = vec![];
        if !reach::is_of(lease, "vxlan")? {
            return Ok(PeerPlan::default());
        }
        for (pods, subnet) in reach::subnets(local, lease) {
            let data = self.data(lease, pods)?;
            if data.mac == own_mac(local, pods) {
                let problem = format!("{} is this node's own", data.mac);
                return Err(PeerProblem::new(field(pods, "VtepMAC"), problem));
            }
            let outer = reach::outer(local, pods)?;
            let remote = reach::remote(local, lease, outer)?;
            if self.direct_routing && outer == pods && local.underlay.reaches(remote) {
                objects.push(reach::direct(local, subnet, remote));
                continue;
            }
            let device = self.name(carrier(local, pods))?;
            let (mac, ip) = (data.mac, subnet.network());
            objects.push(OverlayObject::Neighbour { device: device.clone(), ip, mac });
            objects.push(OverlayObject::Fdb { device: device.clone(), mac, remote });
            let hop = Hop::Via { gateway: ip, device, onlink: true };
            objects.push(reach::route(subnet, hop));
        }
        Ok(PeerPlan { objects, ..PeerPlan::default() })
    }
}
