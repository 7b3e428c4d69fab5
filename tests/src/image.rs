//! The images that pods run, made here: no registry can be reached from a test.
//!
//! One layer with a static busybox, two names for it: `localhost/pause:1` sleeps,
//! `localhost/test:1` is whatever command the test gives it.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{self, Command},
    sync::{Mutex, PoisonError},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType, Header};

use crate::paths;

/// What the sandbox container runs.
pub const PAUSE: &str = "localhost/pause:1";
/// What the other containers run.
pub(crate) const TEST: &str = "localhost/test:1";

const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Links to busybox in /bin.
const APPLETS: [&str; 17] = [
    "sh",
    "sleep",
    "cat",
    "echo",
    "ls",
    "hostname",
    "ip",
    "nc",
    "ping",
    "ping6",
    "wget",
    "httpd",
    "nslookup",
    "true",
    "false",
    "traceroute",
    "id",
];

/// An OCI layout as a tar, for `ctr images import`; made once.
pub fn tar() -> Result<PathBuf> {
    let path = paths::root().join(".testbed/images.tar");
    let busybox = paths::fetched("busybox")?.join("bin/busybox");
    if path.exists() {
        return Ok(path);
    }
    // Tests run side by side: each writes its own and the last rename wins.
    let unfinished =
        path.with_extension(format!("{}.{:?}", process::id(), std::thread::current().id()));
    fs::write(&unfinished, layout(&busybox)?)?;
    fs::rename(&unfinished, &path)?;
    Ok(path)
}

/// What deploy/kubernetes calls netd's image.
const NETD: &str = concat!("localhost/netd:", env!("CARGO_PKG_VERSION"));

/// netd's own image, of the programs as built, by what `make image` calls; made once a build.
pub(crate) fn netd() -> Result<PathBuf> {
    static MAKING: Mutex<()> = Mutex::new(());
    let _one = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
    let out = paths::root().join(".testbed/netd-image.tar");
    let script = paths::root().join("deploy/image.sh");
    let mut newest = Some(script.metadata()?.modified()?);
    for name in ["netd", "netd-tunnel", "netd-hook", "netd-cni"] {
        newest = newest.max(Some(paths::built(name)?.metadata()?.modified()?));
    }
    if fs::metadata(&out).and_then(|made| made.modified()).ok() > newest {
        return Ok(out);
    }
    let netd = paths::built("netd")?;
    let mut command = Command::new(script);
    command.arg(netd.parent().context("no directory")?).arg(&out).arg(NETD);
    let output = command.output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(out)
}

/// The layer alone, as `docker import` takes it.
pub fn root() -> Result<Vec<u8>> {
    layer(&paths::fetched("busybox")?.join("bin/busybox"))
}

fn layout(busybox: &Path) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    let layer = layer(busybox)?;
    let layer = archive.blob(LAYER, layer)?;
    let pause = archive.image(PAUSE, &layer, &["/bin/sleep", "2147483647"])?;
    let test = archive.image(TEST, &layer, &["/bin/sh"])?;
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [pause, test]});
    archive.file("index.json", index.to_string().as_bytes())?;
    archive.file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    archive.finish()
}

fn layer(busybox: &Path) -> Result<Vec<u8>> {
    let program = fs::read(busybox).with_context(|| busybox.display().to_string())?;
    let mut archive = Archive::default();
    for directory in ["bin", "etc", "proc", "sys", "dev", "tmp", "www"] {
        archive.entry(directory, EntryType::Directory, 0o755, &[])?;
    }
    archive.entry("bin/busybox", EntryType::Regular, 0o755, &program)?;
    for applet in APPLETS {
        archive.link(&format!("bin/{applet}"), "busybox")?;
    }
    archive.entry("etc/passwd", EntryType::Regular, 0o644, b"root:x:0:0:root:/:/bin/sh\n")?;
    archive.finish()
}

/// A tar whose bytes depend on its contents only.
struct Archive(Builder<Vec<u8>>);

impl Default for Archive {
    fn default() -> Self {
        Self(Builder::new(Vec::new()))
    }
}

impl Archive {
    fn entry(&mut self, path: &str, kind: EntryType, mode: u32, data: &[u8]) -> Result<()> {
        let mut header = header(kind, mode, data.len());
        Ok(self.0.append_data(&mut header, path, data)?)
    }

    fn file(&mut self, path: &str, data: &[u8]) -> Result<()> {
        self.entry(path, EntryType::Regular, 0o644, data)
    }

    fn link(&mut self, path: &str, target: &str) -> Result<()> {
        Ok(self.0.append_link(&mut header(EntryType::Symlink, 0o777, 0), path, target)?)
    }

    /// Adds a blob and answers its descriptor.
    fn blob(&mut self, media_type: &str, data: Vec<u8>) -> Result<Value> {
        let digest = sha256(&data);
        self.file(&format!("blobs/sha256/{digest}"), &data)?;
        Ok(
            json!({"mediaType": media_type, "digest": format!("sha256:{digest}"), "size": data.len()}),
        )
    }

    /// Adds an image with one uncompressed layer and answers its entry in the index.
    fn image(&mut self, name: &str, layer: &Value, entrypoint: &[&str]) -> Result<Value> {
        let config = json!({
            "architecture": "amd64", "os": "linux",
            "config": {"Entrypoint": entrypoint, "Env": ["PATH=/bin"], "WorkingDir": "/"},
            "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
        });
        let config = self.blob(CONFIG, config.to_string().into_bytes())?;
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer],
        });
        let mut entry = self.blob(MANIFEST, manifest.to_string().into_bytes())?;
        let tag = name.rsplit_once(':').map_or("", |(_, tag)| tag);
        entry["annotations"] = json!({
            "io.containerd.image.name": name, "org.opencontainers.image.ref.name": tag,
        });
        entry["platform"] = json!({"architecture": "amd64", "os": "linux"});
        Ok(entry)
    }

    fn finish(self) -> Result<Vec<u8>> {
        let mut bytes = self.0.into_inner()?;
        bytes.flush()?;
        Ok(bytes)
    }
}

fn header(kind: EntryType, mode: u32, size: usize) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size as u64);
    header.set_mtime(0);
    header
}

fn sha256(data: &[u8]) -> String {
    Sha256::digest(data).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_is_filed_under_its_digest() {
        let mut archive = Archive::default();
        let descriptor = archive.blob(LAYER, b"hello".to_vec()).unwrap();
        let digest = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
        assert_eq!(descriptor["digest"], format!("sha256:{digest}"));
        let bytes = archive.finish().unwrap();
        let mut archive = tar::Archive::new(bytes.as_slice());
        let entry = archive.entries().unwrap().next().unwrap().unwrap();
        assert_eq!(entry.path().unwrap().to_str(), Some(format!("blobs/sha256/{digest}").as_str()));
    }
}
