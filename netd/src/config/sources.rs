//! Combines flags and environment with the file: flags and environment win.

use std::{path::PathBuf, time::Duration};

use toml::{Table, Value};

use super::{
    Config, Gc, Log, MIN_GRACE,
    duration::{duration, duration_text},
    networks, overlay,
    section::{Problems, Section},
    values::{self, LogFormat, named, text},
};
use netd_domain::Invalid;

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// A value that a flag or the environment gives.
#[derive(Debug, Clone)]
pub struct Override {
    /// The key: `gc.grace`.
    pub path: &'static str,
    /// For errors: `--gc-grace or NETD_GC_GRACE`.
    pub origin: String,
    /// The value, as it would be between quotes in the file.
    pub value: String,
}

/// Everything that a configuration is made from.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The file's path, for errors.
    pub file: PathBuf,
    /// The file's text; empty if there is no file.
    pub text: String,
    /// Replace what the file says.
    pub overrides: Vec<Override>,
    /// This machine's name: the default of `node`.
    pub hostname: String,
}

impl Sources {
    /// Combines the sources and checks every key.
    ///
    /// # Errors
    /// All wrong keys of all sources, each with its path.
    pub fn config(self) -> Result<Config, Invalid> {
        let mut table = self.table()?;
        for given in &self.overrides {
            put(&mut table, given.path, &given.value);
        }
        let named = self.overrides.iter().map(|o| (o.path.to_owned(), o.origin.clone()));
        let report = Problems::new(named.collect());
        let config = read(Section::root(table, &report), &report, &self.hostname);
        report.into_result()?;
        config.ok_or_else(|| Invalid::field("node", "no name"))
    }

    fn table(&self) -> Result<Table, Invalid> {
        self.text.parse::<Table>().map_err(|e| {
            let before = e.span().and_then(|span| self.text.get(..span.start)).unwrap_or("");
            let line = before.matches('\n').count() + 1;
            Invalid::field(format!("{}:{line}", self.file.display()), e.message().trim())
        })
    }
}

/// Sets `a.b` to a string. If the file has something other than a table at `a`, it is left
/// as it is; reading it will report the error.
fn put(table: &mut Table, path: &str, value: &str) {
    let value = Value::String(value.to_owned());
    match path.split_once('.') {
        None => {
            table.insert(path.to_owned(), value);
        }
        Some((parent, key)) => {
            let inner = table.entry(parent).or_insert_with(|| Value::Table(Table::new()));
            if let Value::Table(inner) = inner {
                inner.insert(key.to_owned(), value);
            }
        }
    }
}

/// `None` only if an error was reported.
fn read(mut root: Section<'_>, report: &Problems, hostname: &str) -> Option<Config> {
    let node = node(&mut root, hostname);
    let run_dir = root.get("run_dir", values::path).unwrap_or_else(|| "/run/netd".into());
    let socket = root.get("socket", values::grpc_socket);
    let socket = socket.unwrap_or_else(|| run_dir.join("netd.sock"));
    let socket_group = root.get("socket_group", values::socket_group);
    let state_dir = root.get("state_dir", values::path).unwrap_or_else(|| "/var/lib/netd".into());
    let metrics_listen = root.get("metrics_listen", values::listen);
    let metrics_listen =
        metrics_listen.unwrap_or(Some(std::net::SocketAddr::from(([127, 0, 0, 1], 9479))));
    let log = log(root.section("log"));
    let gc = gc(root.section("gc"));
    let host_local_dir = root.get("host_local_dir", values::path_or_off);
    let host_local_dir = host_local_dir.unwrap_or_else(|| Some("/var/lib/cni/networks".into()));
    let tombstone_ttl = tombstone_ttl(&mut root, gc.unsafe_short_grace);
    let (hostport_mark, kube_proxy_mark) = marks(&mut root);
    let underlay = root.get("underlay", named);
    let kernel_hints = root.get("kernel_hints", values::auto_or_boolean).flatten();
    let overlay = overlay::read(&mut root, &run_dir);
    let networks = networks::read(&mut root, report, overlay.as_ref().map(|o| &o.network));
    root.finish();
    Some(Config {
        node: node?,
        socket,
        socket_group,
        state_dir,
        run_dir,
        metrics_listen,
        log,
        gc,
        host_local_dir,
        tombstone_ttl,
        hostport_mark,
        kube_proxy_mark,
        underlay,
        kernel_hints,
        overlay,
        networks,
    })
}

/// The configured name, or the machine's name in lower case, which kubelet uses.
fn node(root: &mut Section<'_>, hostname: &str) -> Option<String> {
    if root.has("node") {
        return root.get("node", |v| values::node_name(&text(v)?));
    }
    root.get("node", text);
    let found = values::node_name(&hostname.to_lowercase());
    found.map_err(|e| root.bad("node", format!("the machine's name {e}; set node"))).ok()
}

fn log(mut s: Section<'_>) -> Log {
    let format = s.get("format", values::log_format).unwrap_or(LogFormat::Auto);
    let filter = s.get("filter", values::log_filter).unwrap_or_else(|| "info".to_owned());
    s.finish();
    Log { format, filter }
}

fn gc(mut s: Section<'_>) -> Gc {
    let short = s.get("unsafe_short_grace", values::boolean).unwrap_or(false);
    let grace = s.get("grace", |v| late_enough(duration(v, Duration::ZERO..=7 * DAY)?, short));
    let interval = s.get("interval", |v| duration(v, Duration::from_secs(1)..=HOUR));
    s.finish();
    Gc {
        grace: grace.unwrap_or(Duration::from_secs(300)),
        interval: interval.unwrap_or(Duration::from_secs(60)),
        unsafe_short_grace: short,
    }
}

fn late_enough(given: Duration, short_allowed: bool) -> Result<Duration, String> {
    if given >= MIN_GRACE || short_allowed {
        return Ok(given);
    }
    let (given, least) = (duration_text(given), duration_text(MIN_GRACE));
    Err(format!(
        "{given} is less than {least}, the time kubelet gives a pod to come up; \
         a test may set gc.unsafe_short_grace = true"
    ))
}

fn tombstone_ttl(root: &mut Section<'_>, short: bool) -> Duration {
    let given =
        root.get("tombstone_ttl", |v| late_enough(duration(v, Duration::ZERO..=7 * DAY)?, short));
    given.unwrap_or(Duration::from_secs(600))
}

fn marks(root: &mut Section<'_>) -> (u32, u32) {
    let ours = root.get("hostport_mark", values::mark).unwrap_or(0x2000);
    let theirs = root.get("kube_proxy_mark", values::mark).unwrap_or(0x4000);
    if ours == theirs {
        root.bad("hostport_mark", format!("{ours:#x} is kube_proxy_mark too; choose another bit"));
    }
    (ours, theirs)
}
