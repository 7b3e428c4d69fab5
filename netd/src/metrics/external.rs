//! Counters that etcd's client, the kernel and netd-tunnel keep, read at each scrape.

use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder},
    metrics::{MetricType, counter::ConstCounter},
};

use netd_store::etcd::{RequestMetrics, Rpc};

/// Traffic of one device of the overlay since the device was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DeviceTraffic {
    /// The device.
    pub device: String,
    /// Bytes received and sent.
    pub bytes: [u64; 2],
    /// Packets received and sent.
    pub packets: [u64; 2],
}

/// Packets that netd-tunnel dropped since it was started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TunnelLosses {
    /// The tunnel's device.
    pub device: String,
    /// Received from unknown senders, with addresses that are not the peer's, or malformed;
    /// to be sent, but no peer has the destination. Received and sent.
    pub refused: [u64; 2],
    /// Dropped by the kernel. Received and sent.
    pub dropped: [u64; 2],
}

/// The sources of these counters.
#[derive(Debug, Default)]
pub struct ExternalCounters {
    etcd: OnceLock<Arc<RequestMetrics>>,
    devices: Mutex<(String, Vec<DeviceTraffic>)>,
    tunnels: Mutex<Vec<TunnelLosses>>,
}

impl ExternalCounters {
    /// Shows the counters of etcd's client. Only the first call has an effect.
    pub(crate) fn watch_etcd(&self, meters: Arc<RequestMetrics>) {
        // There is one client of etcd per process.
        let _ = self.etcd.set(meters);
    }

    /// Sets what the kernel counted on the overlay's devices, which `backend` made.
    pub(crate) fn set_devices(&self, backend: &str, traffic: Vec<DeviceTraffic>) {
        *self.devices.lock() = (backend.to_owned(), traffic);
    }

    /// Sets what netd-tunnel counted.
    pub(crate) fn set_tunnels(&self, losses: Vec<TunnelLosses>) {
        *self.tunnels.lock() = losses;
    }
}

/// Gives [`ExternalCounters`] to the registry.
#[derive(Debug)]
pub(super) struct Collected(pub Arc<ExternalCounters>);

impl Collector for Collected {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        if let Some(meters) = self.0.etcd.get() {
            requests(&mut encoder, meters)?;
        }
        traffic(&mut encoder, &self.0.devices.lock())?;
        losses(&mut encoder, &self.0.tunnels.lock())
    }
}

fn requests(encoder: &mut DescriptorEncoder<'_>, meters: &RequestMetrics) -> std::fmt::Result {
    type Read = fn(&netd_store::etcd::RpcStats) -> f64;
    let shown: [(&str, &str, Read); 3] = [
        ("etcd_requests", "Requests to etcd, by kind", |r| r.count as f64),
        ("etcd_requests_failed", "Requests that etcd did not answer, or refused", |r| {
            r.failed as f64
        }),
        ("etcd_request_seconds", "Time that requests to etcd took together", |r| {
            r.total.as_secs_f64()
        }),
    ];
    for (name, help, read) in shown {
        let family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        each(
            family,
            Rpc::ALL.iter().map(|rpc| (vec![("kind", rpc.name())], read(&meters.read(*rpc)))),
        )?;
    }
    Ok(())
}

fn traffic(
    encoder: &mut DescriptorEncoder<'_>,
    (backend, devices): &(String, Vec<DeviceTraffic>),
) -> std::fmt::Result {
    type Read = fn(&DeviceTraffic) -> [u64; 2];
    let shown: [(&str, &str, Read); 2] = [
        ("overlay_bytes", "Bytes through the overlay's devices", |d| d.bytes),
        ("overlay_packets", "Packets through the overlay's devices", |d| d.packets),
    ];
    for (name, help, read) in shown {
        let family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        let rows = devices.iter().flat_map(|device| {
            let ways = ["received", "sent"].into_iter().zip(read(device));
            ways.map(move |(direction, value)| {
                let labels = vec![
                    ("backend", backend.as_str()),
                    ("device", device.device.as_str()),
                    ("direction", direction),
                ];
                (labels, value as f64)
            })
        });
        each(family, rows)?;
    }
    Ok(())
}

fn losses(encoder: &mut DescriptorEncoder<'_>, tunnels: &[TunnelLosses]) -> std::fmt::Result {
    let help = "Packets that netd-tunnel did not pass on: refused (from strangers, with \
                others' addresses, garbage) or dropped (the system did not take them)";
    let name = "tunnel_packets_lost";
    let family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    let rows = tunnels.iter().flat_map(|tunnel| {
        let [refused, dropped] = [tunnel.refused, tunnel.dropped];
        let counts = [
            ("refused", "received", refused[0]),
            ("refused", "sent", refused[1]),
            ("dropped", "received", dropped[0]),
            ("dropped", "sent", dropped[1]),
        ];
        counts.map(|(reason, direction, value)| {
            let device = ("device", tunnel.device.as_str());
            (vec![device, ("direction", direction), ("reason", reason)], value as f64)
        })
    });
    each(family, rows)
}

fn each<'a>(
    mut family: MetricEncoder<'_>,
    rows: impl Iterator<Item = (Vec<(&'a str, &'a str)>, f64)>,
) -> std::fmt::Result {
    for (labels, value) in rows {
        let one = family.encode_family(&labels)?;
        ConstCounter::new(value).encode(one)?;
    }
    Ok(())
}
