//! Lets the contenders take turns, and prints what each of them needed.

use std::{path::Path, time::Duration};

use anyhow::{Result, ensure};
use netd_domain::Driver;
use testbed::{Bed, Daemon, DaemonConfig, paths, wait};

use crate::{
    contender::{CHUNK, Contender, inside},
    floor::Floor,
    times::Times,
};

const AT_ONCE: usize = 8;

/// A netd of one driver, and the floor of the same wiring.
pub(crate) struct Node {
    pub contender: Contender,
    pub daemon: Daemon,
    floor: Option<Floor>,
}

impl Node {
    /// A netd of this build, beside the floor.
    pub(crate) fn start(bed: &Bed, driver: Driver) -> Result<Self> {
        let mut node = Self::start_build(bed, driver, "")?;
        let host = bed.host(&format!("floor-{}", driver_name(driver)))?;
        node.floor = Some(Floor::new(host, driver)?);
        Ok(node)
    }

    /// A netd of the build in `directory`.
    pub(crate) fn start_other(bed: &Bed, driver: Driver, directory: &Path) -> Result<Self> {
        paths::use_build(Some(directory));
        let node = Self::start_build(bed, driver, "other ");
        paths::use_build(None);
        node
    }

    fn start_build(bed: &Bed, driver: Driver, build: &str) -> Result<Self> {
        let word = driver_name(driver);
        let name = format!("{build}netd, {word}");
        let host = bed.host(&name.replace([' ', ','], "-"))?;
        // As the peer: one family, one network.
        let networks = format!(
            "[[network]]\nname = \"default\"\ndriver = \"{word}\"\n\
             [[network.pool]]\nsubnet = \"10.88.0.0/16\"\n"
        );
        let config = DaemonConfig { networks, ..DaemonConfig::quiet() };
        let daemon = Daemon::start(&host, &config)?;
        Ok(Self { contender: Contender::netd(&name, host)?, daemon, floor: None })
    }

    /// Attaches until `count` pods stay.
    pub(crate) fn fill(&mut self, count: usize) -> Result<()> {
        self.contender.fill(count)?;
        self.floor.as_mut().map_or(Ok(()), |floor| floor.fill(count))
    }

    fn settled(daemon: &Daemon) -> Result<()> {
        wait::until(Duration::from_secs(10), "removed links are gone", || {
            let detaching = daemon.status()?.detaching;
            ensure!(detaching == 0, "{detaching} are not");
            Ok(())
        })?;
        Ok(())
    }
}

fn print(pods: usize, at_once: usize, who: &str, row: &Row, inside: &str) {
    let Row { add, del, .. } = row;
    println!(
        "| {pods} | {at_once} | {who} | {:.2} / {:.2} | {:.0} | {:.2} / {:.2} | {:.0} | {inside} |",
        add.percentile(50),
        add.percentile(99),
        add.rate(),
        del.percentile(50),
        del.percentile(99),
        del.rate(),
    );
}

/// What was measured of one contender.
#[derive(Default)]
struct Row {
    add: Times,
    del: Times,
    floor: Times,
}

impl Row {
    fn extend(&mut self, [add, del]: [Times; 2]) {
        self.add.extend(add);
        self.del.extend(del);
    }
}

/// In turns, some pods each: the machine's moods pass over all of them alike.
fn measure(
    peers: &mut [Contender],
    nodes: &mut [Node],
    at_once: usize,
    rounds: usize,
) -> Result<[Vec<Row>; 2]> {
    let rows = |count: usize| (0..count).map(|_| Row::default()).collect::<Vec<_>>();
    let (mut theirs, mut ours) = (rows(peers.len()), rows(nodes.len()));
    for round in 0..rounds {
        // They take most of the run's time.
        if round % 2 == 0 {
            for (peer, row) in peers.iter_mut().zip(&mut theirs) {
                row.extend(peer.sample(at_once, || Ok(()))?);
            }
        }
        for (node, row) in nodes.iter_mut().zip(&mut ours) {
            let daemon = &node.daemon;
            row.extend(node.contender.sample(at_once, || Node::settled(daemon))?);
            if let (1, Some(floor)) = (at_once, &mut node.floor) {
                row.floor.extend(floor.sample()?);
            }
        }
    }
    Ok([theirs, ours])
}

pub(crate) fn compare(
    peers: &mut [Contender],
    nodes: &mut [Node],
    pods: usize,
    rounds: usize,
) -> Result<()> {
    for at_once in [1, AT_ONCE] {
        let [theirs, ours] = measure(peers, nodes, at_once, rounds)?;
        for (peer, row) in peers.iter().zip(&theirs) {
            print(pods, at_once, &peer.name, row, "");
        }
        for (node, row) in nodes.iter().zip(&ours) {
            print(pods, at_once, &node.contender.name, row, &inside_note(node, row, rounds));
            let slower: Vec<&Row> = match &node.floor {
                Some(_) => theirs.iter().chain(other_build(nodes, &ours, node)).collect(),
                None => Vec::new(),
            };
            if !slower.is_empty() {
                print_ratios(row, &slower);
            }
        }
    }
    Ok(())
}

/// What another build of netd needed with the same driver.
fn other_build<'a>(nodes: &[Node], rows: &'a [Row], of: &Node) -> Option<&'a Row> {
    let name = format!("other {}", of.contender.name);
    let index = nodes.iter().position(|node| node.contender.name == name)?;
    rows.get(index)
}

/// What the attach took inside netd, and beside the floor if that was measured.
fn inside_note(node: &Node, row: &Row, rounds: usize) -> String {
    let took = inside(&node.daemon, rounds * CHUNK).unwrap_or_default();
    let floor = row.floor.percentile(50);
    if floor > 0.0 {
        format!("{took:.2}, floor {floor:.2}: {:.1}x", took / floor)
    } else {
        format!("{took:.2}")
    }
}

fn print_ratios(row: &Row, slower: &[&Row]) {
    let ratios = |median: fn(&Row) -> f64| {
        let each = slower.iter().map(|other| format!("{:.2}x", median(other) / median(row)));
        each.collect::<Vec<_>>().join(", ")
    };
    let (add, del) = (ratios(|r| r.add.percentile(50)), ratios(|r| r.del.percentile(50)));
    println!("| | | *faster by* | **{add}** | | **{del}** | | |");
}

fn driver_name(driver: Driver) -> &'static str {
    if driver == Driver::Bridge { "bridge" } else { "routed" }
}
