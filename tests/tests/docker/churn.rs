//! Containers come and go while netd, the plugin and dockerd are killed in between.

use std::collections::HashMap;

use anyhow::{Result, ensure};

use super::{
    order::{remove_left, remove_network},
    stack::Stack,
};

/// 102 containers of each dockerd.
const ROUNDS: usize = 17;
const AT_ONCE: usize = 6;

pub(crate) fn kills(stack: &mut Stack) -> Result<()> {
    stack.share("shared", "default", &["10.88.0.0/16", "fd00:88::/64"])?;
    for round in 0..ROUNDS {
        let flags = ["run", "-d", "--network", "shared", "test:1", "/bin/sleep", "1000"];
        let starts = (0..AT_ONCE).map(|_| {
            let mut command = stack.docker.command(&flags)?;
            Ok(command
                .stdout(std::process::Stdio::null())
                .stderr(std::process::Stdio::null())
                .spawn()?)
        });
        let starts = starts.collect::<Result<Vec<_>>>()?;
        match round % 3 {
            0 => {
                stack.netd.kill9()?;
                stack.netd.respawn()?;
            }
            1 => {
                stack.plugin.service.kill9()?;
                stack.plugin.respawn()?;
            }
            _ => {
                stack.docker.kill9()?;
                stack.docker.restart()?;
            }
        }
        for mut start in starts {
            // It may have failed: what counts is what is left.
            start.wait()?;
        }
        stack.netd.wait_ready()?;
        no_address_twice(stack)?;
        if round % 2 == 1 {
            remove_left(stack)?;
        }
    }
    remove_left(stack)?;
    remove_network(stack, "shared")
}

/// As the kernel has it, in every sandbox.
fn no_address_twice(stack: &Stack) -> Result<()> {
    let mut owners: HashMap<String, String> = HashMap::new();
    for id in stack.docker.run(&["ps", "-q"])?.split_whitespace() {
        let Ok(net) = stack.docker.namespace(id) else { continue };
        let Ok(shown) = net.sh("ip -o address show scope global") else { continue };
        for address in shown.lines().filter_map(|line| line.split_whitespace().nth(3)) {
            let other = owners.insert(address.to_owned(), id.to_owned());
            ensure!(other.is_none(), "{address} is {id}'s and {other:?}'s");
        }
    }
    Ok(())
}
