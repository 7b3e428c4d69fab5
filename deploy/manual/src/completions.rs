//! Completion scripts, each where its shell looks for it below /usr/share.

use std::{fs, io, path::Path};

use clap::Command;
use clap_complete::Shell;

pub(crate) fn write(program: &Command, dir: &Path) -> io::Result<()> {
    let name = program.get_name();
    let files = [
        (Shell::Bash, format!("bash-completion/completions/{name}")),
        (Shell::Zsh, format!("zsh/site-functions/_{name}")),
        (Shell::Fish, format!("fish/vendor_completions.d/{name}.fish")),
    ];
    for (shell, file) in files {
        let mut script = vec![];
        clap_complete::generate(shell, &mut program.clone(), name, &mut script);
        let path = dir.join(file);
        path.parent().map_or(Ok(()), fs::create_dir_all)?;
        fs::write(path, script)?;
    }
    Ok(())
}
