//! What systemd would let a program do, from its unit.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};

/// Arguments of setpriv(1), before the program's, that leave it exactly the capabilities of
/// `CapabilityBoundingSet=` in a unit of `deploy/systemd`, as `NoNewPrivileges=` and no
/// `AmbientCapabilities=` do.
pub fn setpriv(unit: &str) -> Result<Vec<String>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/systemd").join(unit);
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key));
    ensure!(value("AmbientCapabilities=") == Some(""), "{unit} has ambient capabilities");
    ensure!(value("NoNewPrivileges=") == Some("yes"), "{unit} may gain privileges");
    let set = value("CapabilityBoundingSet=").with_context(|| format!("{unit}: no set"))?;
    let names = set.split_whitespace().map(|name| {
        let bare = name.strip_prefix("CAP_").with_context(|| format!("{unit}: {name}"))?;
        Ok(format!("+{}", bare.to_lowercase()))
    });
    let names: Vec<String> = names.collect::<Result<_>>()?;
    let bounding = format!("--bounding-set=-all,{}", names.join(","));
    let fixed = ["--no-new-privs", "--inh-caps=-all", "--ambient-caps=-all"].map(str::to_owned);
    Ok(fixed.into_iter().chain([bounding, "--".to_owned()]).collect())
}
