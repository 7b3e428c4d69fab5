//! Manual pages: one of each program and of each subcommand, in section 8.

use std::{fs, io, io::Write, path::Path};

use clap::Command;
use clap_mangen::{
    Man,
    roff::{Roff, bold, roman},
};

/// What the parser does not know of a program: exit codes, files, related pages.
struct Extra {
    program: &'static str,
    exit: &'static [(&'static str, &'static str)],
    files: &'static [(&'static str, &'static str)],
    see_also: &'static str,
}

const EXTRAS: [Extra; 3] = [
    Extra {
        program: "netd",
        exit: &[
            ("0", "The command did what it was asked for."),
            ("1", "It failed; the reason is on standard error."),
            ("2", "The command line is wrong."),
            (
                "3",
                "status: netd is not ready. doctor: it found problems. route get: the kernel \
                 does something else than netd wants.",
            ),
        ],
        files: &[
            ("/etc/netd/netd.toml", "The configuration. Every key is optional."),
            (
                "/etc/default/netd",
                "NETD_* variables of the service, for what the file does not say.",
            ),
            (
                "/run/netd/netd.sock",
                "The gRPC API netd.v1: root, and the group that socket_group names.",
            ),
            (
                "/var/lib/netd",
                "The networks, and what is known of the cluster. Lasts over reboots.",
            ),
            (
                "/run/netd/endpoints.journal",
                "The endpoints and their addresses. Void after a reboot.",
            ),
            ("/run/flannel/subnet.env", "The node's lease, for Docker and others."),
        ],
        see_also: "netd-hook(8), netd-tunnel(8), nft(8), ip(8)",
    },
    Extra {
        program: "netd-hook",
        exit: &[
            ("0", "Done."),
            (
                "1",
                "It failed. As a CNI plugin it prints the error that the CNI specification asks for on standard output.",
            ),
            ("2", "The command line is wrong."),
        ],
        files: &[
            ("/opt/cni/bin/netd-hook", "The CNI plugin, put there by install."),
            ("/etc/cni/net.d/10-netd.conflist", "The CNI configuration, put there by install."),
            ("/run/docker/plugins/netd.sock", "Where dockerd finds the network driver."),
        ],
        see_also: "netd(8)",
    },
    Extra {
        program: "netd-tunnel",
        exit: &[
            ("0", "It was asked to end."),
            ("1", "It failed; the reason is on standard error."),
        ],
        files: &[
            ("/run/netd/tunnel.sock", "Where netd calls."),
            (
                "/run/netd/tunnel.state",
                "What it needs for coming back after a crash; holds private keys.",
            ),
            ("/etc/default/netd-tunnel", "NETD_TUNNEL_* variables of the service."),
        ],
        see_also: "netd(8)",
    },
];

/// Writes the page of `program` and those of all its subcommands into `dir`.
pub(crate) fn write(program: Command, dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    // `help` has a subcommand for each subcommand, and says what the pages say.
    let mut program = without_own_name(program).disable_help_subcommand(true);
    // Gives every subcommand its whole name, the flags that it inherits, and the version.
    program.build();
    let extra = EXTRAS.iter().find(|extra| extra.program == program.get_name());
    write_with_subcommands(&program, extra, dir)
}

/// The page's line NAME puts the name before the description; some have it there already.
fn without_own_name(program: Command) -> Command {
    let about = program.get_about().map(ToString::to_string).unwrap_or_default();
    let own = format!("{}: ", program.get_name());
    match about.strip_prefix(&own).map(str::to_owned) {
        Some(rest) => program.about(rest),
        None => program,
    }
}

fn write_with_subcommands(command: &Command, extra: Option<&Extra>, dir: &Path) -> io::Result<()> {
    let name = command.get_display_name().unwrap_or(command.get_name()).to_owned();
    let mut page = vec![];
    let man = Man::new(command.clone())
        .title(name.to_uppercase())
        .section("8")
        .source(concat!("netd ", env!("CARGO_PKG_VERSION")))
        .manual("netd");
    man.render(&mut page)?;
    if let Some(extra) = extra {
        extra.render(&mut page)?;
    }
    fs::write(dir.join(format!("{name}.8")), page)?;
    for subcommand in command.get_subcommands() {
        if !subcommand.is_hide_set() {
            write_with_subcommands(subcommand, None, dir)?;
        }
    }
    Ok(())
}

impl Extra {
    fn render(&self, page: &mut dyn Write) -> io::Result<()> {
        let mut roff = Roff::new();
        for (title, entries) in [("EXIT STATUS", self.exit), ("FILES", self.files)] {
            roff.control("SH", [title]);
            for (term, text) in entries {
                roff.control("TP", []);
                roff.text([bold(*term)]);
                roff.text([roman(*text)]);
            }
        }
        roff.control("SH", ["SEE ALSO"]);
        roff.text([roman(self.see_also)]);
        roff.to_writer(page)
    }
}
