//! Traffic between all pods while something happens to the nodes.

use std::net::IpAddr;

use anyhow::{Result, ensure};

use crate::{
    hook::Sandbox,
    net::{flow::Flow, probe},
};

/// Numbered packets from each pod to each other one, of each family.
#[derive(Debug)]
pub struct AllPairs {
    flows: Vec<(String, Flow)>,
    rate: u32,
}

/// What became of them.
#[derive(Debug, Clone, Copy)]
pub struct Outcome {
    /// Packets sent, over all pairs.
    pub sent: u64,
    /// How many of them did not arrive.
    pub lost: u64,
}

impl AllPairs {
    /// `rate` packets a second from each to each; every way is tried first.
    pub fn start(pods: &[&Sandbox], rate: u32) -> Result<Self> {
        let mut flows = Vec::new();
        for (number, from) in pods.iter().enumerate() {
            for to in pods.iter().filter(|to| to.id != from.id) {
                for ip in &to.ips {
                    // Neighbours are found before the first packet counts.
                    probe::ping(&from.net, *ip)?;
                    let port = 9000 + u16::try_from(number)?;
                    let flow = Flow::start(&from.net, &to.net, *ip, port, rate)?;
                    flows.push((format!("{} to {ip}", first(from)), flow));
                }
            }
        }
        Ok(Self { flows, rate })
    }

    /// Ends it and counts; an error if it was too slow to say anything.
    pub fn finish(self) -> Result<Outcome> {
        let mut outcome = Outcome { sent: 0, lost: 0 };
        for (way, flow) in self.flows {
            let count = flow.finish()?;
            ensure!(count.rate > f64::from(self.rate) * 0.8, "{way}: too slow: {count:?}");
            let lost = count.sent.saturating_sub(count.received);
            if lost > 0 {
                println!("{way}: {lost} of {} lost", count.sent);
            }
            outcome.sent += count.sent;
            outcome.lost += lost;
        }
        Ok(outcome)
    }

    /// As [`Self::finish`]; says how many there were, and that none was lost.
    pub fn finish_without_loss(self, during: &str) -> Result<()> {
        let outcome = self.finish()?;
        println!("{during}: {} of {} packets lost", outcome.lost, outcome.sent);
        ensure!(outcome.sent > 1000, "{during}: too few to say anything: {outcome:?}");
        ensure!(outcome.lost == 0, "{during}: lost {} of {}", outcome.lost, outcome.sent);
        Ok(())
    }
}

fn first(pod: &Sandbox) -> String {
    pod.ips.first().map(IpAddr::to_string).unwrap_or_default()
}
