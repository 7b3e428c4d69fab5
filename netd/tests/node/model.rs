//! Random sequences of requests, failures and kills against a model.

use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

use netd::node::{SandboxInfo, now_boot};
use netd_domain::{EndpointKey, PortMapping, Protocol};

use super::{
    audit::audit,
    bed::{Bed, Process, key, pause, spec},
    space::Space,
};

const SANDBOXES: u64 = 6;
const STEPS: u32 = 80;

/// xorshift64: a failure's seed is in its message.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

struct World {
    bed: Bed,
    netd: Option<Process>,
    pods: Vec<Space>,
    dice: Dice,
    /// What has to be there or not; a request that failed leaves it open.
    known: BTreeMap<EndpointKey, bool>,
}

impl World {
    fn netd(&self) -> &Process {
        self.netd.as_ref().unwrap()
    }

    fn pick(&mut self) -> (EndpointKey, usize) {
        let n = self.dice.below(SANDBOXES);
        let ifname = ["eth0", "eth0", "eth1"][self.dice.below(3) as usize];
        (key(&format!("s{n}"), ifname), n as usize)
    }

    fn attach(&mut self) -> netd_domain::AttachSpec {
        let (key, n) = self.pick();
        let network = ["default", "small"][self.dice.below(2) as usize];
        let mut spec = spec(&key, &self.pods[n], network);
        if self.dice.below(3) == 0 {
            spec.port_mappings.push(PortMapping {
                host_port: 8000 + self.dice.below(3) as u16,
                container_port: 80,
                protocol: Protocol::Tcp,
                host_ip: None,
            });
        }
        if self.dice.below(4) == 0 && network == "default" {
            let ip = format!("10.88.0.{}", 10 + self.dice.below(3));
            spec.addresses.push(ip.parse().unwrap());
        }
        spec
    }

    fn step(&mut self) {
        match self.dice.below(12) {
            0..=4 => {
                let spec = self.attach();
                let key = spec.key.clone();
                match self.netd().attach(spec) {
                    Ok(_) => drop(self.known.insert(key, true)),
                    // Refused for good reason; but it may have been there already.
                    Err(_) => drop(self.known.remove(&key)),
                }
            }
            5..=7 => {
                let (key, _) = self.pick();
                match self.netd().detach(&key) {
                    Ok(_) => drop(self.known.insert(key, false)),
                    Err(_) => drop(self.known.remove(&key)),
                }
            }
            8 => {
                let (good, bad) = (self.dice.below(3) as i64, self.dice.below(3) as i64);
                self.bed.faults.after(good, bad);
            }
            9 => {
                let (key, _) = self.pick();
                let labels = [("n".to_owned(), self.dice.below(9).to_string())].into();
                let (id, annotations) = (key.sandbox, Default::default());
                let info = SandboxInfo { id, pod: None, labels, annotations };
                // It may not be there.
                let _ = self.netd().run(self.netd().node.annotate(info));
            }
            10 => self.kill_at_work(),
            _ => {
                // A sandbox ends and another one of its name begins.
                let n = self.dice.below(SANDBOXES) as usize;
                self.pods[n] = Space::new();
                self.known.retain(|key, _| key.sandbox.as_str() != format!("s{n}"));
            }
        }
    }

    /// Kills netd while requests are running: any of them may have succeeded.
    fn kill_at_work(&mut self) {
        for _ in 0..3 {
            let spec = self.attach();
            self.known.remove(&spec.key);
            let node = self.netd().node.clone();
            self.netd().spawn(async move { node.attach(spec).await.map(drop) });
            let (key, _) = self.pick();
            self.known.retain(|k, _| k.sandbox != key.sandbox);
            let node = self.netd().node.clone();
            let work = async move { node.detach(key.sandbox, None, now_boot()).await.map(drop) };
            self.netd().spawn(work);
        }
        pause(Duration::from_micros(self.dice.below(4000)));
        self.bed.faults.none();
        self.netd = None;
        self.netd = Some(self.bed.start());
    }

    fn finish(mut self) {
        self.bed.faults.none();
        // What lost its namespace is garbage: nobody lists it.
        self.netd = None;
        self.bed.grace = "100ms";
        self.netd = Some(self.bed.start());
        let alive: HashSet<_> = self.pods.iter().map(|pod| pod.open().id()).collect();
        let all = |netd: &Process| {
            let page = netd.run(netd.node.page(None, 500, &Default::default())).unwrap();
            page.endpoints.into_iter().map(|(e, _)| e).collect::<Vec<_>>()
        };
        self.netd().until("what has no namespace is collected", |_| {
            all(self.netd()).iter().all(|e| e.netns.is_some_and(|own| alive.contains(&own)))
        });
        let endpoints = audit(&self.bed, self.netd());
        for (key, there) in &self.known {
            assert_eq!(endpoints.iter().any(|e| e.key == *key), *there, "{key}");
        }
        for endpoint in &endpoints {
            self.netd().run(self.netd().node.check(&endpoint.key, None, None)).unwrap();
            self.netd().detach(&endpoint.key).unwrap();
        }
        assert!(audit(&self.bed, self.netd()).is_empty());
    }
}

#[test]
fn whatever_happens_memory_store_and_kernel_agree_in_the_end() {
    let seeds = std::env::var("NETD_TEST_SEEDS").map_or(8, |n| n.parse().unwrap());
    for seed in 1..=seeds {
        println!("seed {seed}");
        let bed = Bed::new();
        let netd = Some(bed.start());
        let pods = (0..SANDBOXES).map(|_| Space::new()).collect();
        let dice = Dice(0x9e37_79b9_7f4a_7c15u64.rotate_left(seed));
        let mut world = World { bed, netd, pods, dice, known: BTreeMap::new() };
        for _ in 0..STEPS {
            world.step();
        }
        world.finish();
    }
}
