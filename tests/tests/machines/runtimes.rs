//! The runtimes that a release has itself: its containerd by CRI, and podman.

use anyhow::{Result, ensure};
use testbed::{
    Machine, image,
    machine::{Half, Size},
    package::Architecture,
    paths,
};

use super::{on_each, share_packages, step};

/// Debian's own configuration; the image of the sandbox is the only thing that differs.
const CONTAINERD: &str = "
    dpkg -i /share/netd.deb; start_netd
    sed -i '/grpc.v1.cri\"\\]/a sandbox_image = \"localhost/pause:1\"' /etc/containerd/config.toml
    systemctl restart containerd; containerd --version
    ctr -n k8s.io images import /share/images.tar; netd doctor";

/// README's hook file, with the package's path.
const PODMAN: &str = r#"
    mkdir -p /etc/containers/oci/hooks.d
    cat > /etc/containers/oci/hooks.d/netd.json <<'END'
{
  "version": "1.0.0",
  "hook": {
    "path": "/usr/bin/netd-hook",
    "args": ["netd-hook", "oci", "--network", "default"]
  },
  "when": { "annotations": { "^netd\\.io/network$": ".+" } },
  "stages": ["createRuntime", "poststop"]
}
END
    podman --version; podman import -c 'ENV PATH=/bin' /share/root.tar localhost/test:1"#;

const HELPERS: &str = "
    start() {
        name=$1; shift
        podman --hooks-dir /etc/containers/oci/hooks.d run -d --name $name --network none \
            --annotation netd.io/network=default \"$@\" >/dev/null
    }
    its_address() {
        podman exec $1 ip -o -4 address show eth0 | sed 's/.*inet //; s,/.*,,'
    }
    endpoints() { netd status | sed -n 's/^endpoints: *\\([0-9]*\\).*/\\1/p'; }
";

const LIFE: &str = "
    start one --annotation netd.io/ports=8080:80/tcp localhost/test:1 httpd -f -p 80 -h /etc
    start two localhost/test:1 sleep 1000
    one=$(its_address one); two=$(its_address two); echo \"$one $two\"
    podman exec two wget -qO- http://$one/passwd | grep root
    podman exec two wget -qO- http://10.0.2.15:8080/passwd | grep root
    systemctl restart netd; wait_ready; podman exec two wget -qO- http://$one/passwd | grep root
    # It comes back with a network, and with the same port.
    podman --hooks-dir /etc/containers/oci/hooks.d restart -t 1 one
    podman exec two wget -qO- http://10.0.2.15:8080/passwd | grep root
    [ $(endpoints) = 2 ]";

const END: &str = "
    podman kill -s KILL two; podman wait two || true; podman rm -f -t 1 one two
    for i in $(seq 40); do [ $(endpoints) = 0 ] && break; sleep 0.5; done
    netd endpoint list; [ $(endpoints) = 0 ]; ip -br link";

fn by_cri(machine: &mut Machine) -> Result<()> {
    let test = format!(
        "NETD_TEST_CRI=/run/containerd/containerd.sock NETD_TEST_PATIENCE=10 {} --nocapture \
         pods_of_the_machines_own_containerd
         netd endpoint list; netd status | grep -q '^endpoints: 0 '",
        paths::test_program("cri")?.display()
    );
    machine.mount_tree()?;
    let printed = step(machine, "pods by CRI", &test)?;
    ensure!(printed.contains("1 passed") && !printed.contains("left out"), "nothing was tried");
    Ok(())
}

#[test]
fn the_releases_own_runtimes_get_networks() -> Result<()> {
    on_each(Half::Long, Size::USUAL, |machine| {
        if machine.architecture() != Architecture::Amd64 {
            println!("skipped: the images are for this test bed's processor only");
            return Ok(());
        }
        share_packages(machine)?;
        std::fs::copy(image::tar()?, machine.share().join("images.tar"))?;
        std::fs::write(machine.share().join("root.tar"), image::root()?)?;
        step(machine, "containerd", CONTAINERD)?;
        by_cri(machine)?;
        step(machine, "podman", PODMAN)?;
        step(machine, "containers of podman", &format!("{HELPERS}{LIFE}"))?;
        step(machine, "their end", &format!("{HELPERS}{END}"))?;
        Ok(())
    })
}
