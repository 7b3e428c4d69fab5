//! Which of the overlay's backends this kernel can do. It is read, not tried: trying loads the
//! module, and that of ipip puts a device `tunl0` into every network namespace.

use std::{fs, path::Path};

use nix::sys::utsname::uname;

/// What a backend needs of the kernel.
pub(crate) struct BackendModule {
    pub(crate) name: &'static str,
    module: &'static str,
    /// What does not work without it.
    pub(crate) breaks: &'static str,
    /// The kernel's build option.
    pub(crate) option: &'static str,
}

pub(crate) const BACKENDS: [BackendModule; 3] = [
    BackendModule {
        name: "vxlan devices",
        module: "vxlan",
        breaks: "the backend vxlan",
        option: "CONFIG_VXLAN",
    },
    BackendModule {
        name: "WireGuard devices",
        module: "wireguard",
        breaks: "nothing: for the backend wireguard netd-tunnel does it, with more processor time",
        option: "CONFIG_WIREGUARD",
    },
    BackendModule {
        name: "ipip devices",
        module: "ipip",
        breaks: "the backend ipip",
        option: "CONFIG_NET_IPIP",
    },
];

impl BackendModule {
    /// Whether the kernel has it, loaded or to be loaded; `None`: the kernel's modules are not
    /// to be seen from here, as in a container.
    pub(crate) fn is_there(&self) -> Option<bool> {
        let release = uname().ok()?;
        let modules = Path::new("/lib/modules").join(release.release());
        is_there(self.module, Path::new("/"), &modules)
    }
}

/// `root`: where `sys` and `proc` are.
fn is_there(module: &str, root: &Path, modules: &Path) -> Option<bool> {
    if root.join("sys/module").join(module).exists() {
        return Some(true);
    }
    // A kernel without modules has no such file.
    if !root.join("proc/modules").exists() {
        return Some(false);
    }
    let lists = ["modules.dep", "modules.builtin"].map(|list| read(&modules.join(list)));
    let [Some(loadable), Some(built_in)] = lists else { return None };
    let names = |list: &str| list.lines().any(|line| is_of(line, module));
    Some(names(&loadable) || names(&built_in))
}

fn read(path: &Path) -> Option<String> {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).ok()
}

/// Whether a line of `modules.dep` or `modules.builtin` is a module's own:
/// `kernel/net/ipv4/ipip.ko.xz: kernel/net/ipv4/ip_tunnel.ko.xz`.
fn is_of(line: &str, module: &str) -> bool {
    let path = line.split(':').next().unwrap_or_default();
    let file = path.rsplit('/').next().unwrap_or_default();
    file.split_once(".ko").is_some_and(|(name, _)| name == module)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_is_loaded_built_in_to_be_loaded_absent_or_unknown() -> std::io::Result<()> {
        let root = tempfile::tempdir()?;
        let (root, modules) = (root.path(), root.path().join("lib"));
        fs::create_dir_all(root.join("sys/module/vxlan"))?;
        let all = || ["vxlan", "ipip", "wireguard"].map(|name| is_there(name, root, &modules));
        assert_eq!(all(), [Some(true), Some(false), Some(false)]);
        fs::create_dir_all(root.join("proc"))?;
        fs::write(root.join("proc/modules"), "")?;
        assert_eq!(all(), [Some(true), None, None]);
        fs::create_dir_all(&modules)?;
        let dep = "kernel/net/ipv4/ipip.ko.xz: kernel/net/wireguard/ip_tunnel.ko.xz\n";
        fs::write(modules.join("modules.dep"), dep)?;
        fs::write(modules.join("modules.builtin"), "kernel/net/mywireguard.ko\n")?;
        assert_eq!(all(), [Some(true), Some(true), Some(false)]);
        Ok(())
    }
}
