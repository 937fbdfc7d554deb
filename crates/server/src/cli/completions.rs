//! `completions`: what a shell needs to complete our command lines, out of
//! the definition that parses them.

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use super::{Cli, Failure};
use crate::exit_code::Exit;
use crate::output;

const AFTER_HELP: &str = "\
To have them in every new shell:
  bash        codex-server completions bash > ~/.local/share/bash-completion/completions/codex-server
  zsh         codex-server completions zsh > ~/.zfunc/_codex-server   (with ~/.zfunc in fpath before compinit)
  fish        codex-server completions fish > ~/.config/fish/completions/codex-server.fish
  powershell  codex-server completions powershell >> $PROFILE
  elvish      codex-server completions elvish >> ~/.config/elvish/rc.elv
Make them anew after an upgrade.";

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

pub(super) fn completions(args: &CompletionsArgs) -> Result<Exit, Failure> {
    output::bytes(&script(args.shell))?;
    Ok(Exit::Success)
}

fn script(shell: Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "codex-server", &mut script);
    match (shell, String::from_utf8(script)) {
        // The hyphen of our own name: the script enters a command by one
        // spelling and looks for its flags under the other.
        (Shell::Bash, Ok(text)) => text
            .replace("codex__subcmd__server", "codex__server")
            .into_bytes(),
        (_, Ok(text)) => text.into_bytes(),
        (_, Err(bytes)) => bytes.into_bytes(),
    }
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;

    #[test]
    fn every_shell_learns_every_command_and_flag() {
        let shells = Shell::value_variants();
        assert_eq!(shells.len(), 5);
        for shell in shells {
            let script = String::from_utf8(script(*shell)).unwrap();
            for command in Cli::command().get_subcommands() {
                assert!(script.contains(command.get_name()), "{shell}: {command}");
            }
            for flag in ["max-timeout", "idle-shutdown", "no-out"] {
                assert!(script.contains(flag), "{shell}: {flag}");
            }
        }
    }
}
