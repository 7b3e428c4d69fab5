//! How the executable is linked: without libc and its start, and without a page that is
//! written once and then protected: it relocates nothing.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var_os("CARGO_FEATURE_BARE").is_some() {
        for flag in ["-nostartfiles", "-nostdlib", "-static", "-Wl,-z,norelro"] {
            println!("cargo::rustc-link-arg-bin=netd-cni={flag}");
        }
    }
}
