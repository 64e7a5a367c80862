//! `tradewind completions` and `tradewind man`: the command line for shells and for readers, made from its definition.

use std::path::{Path, PathBuf};

use clap::CommandFactory;

use super::{Cli, Failure, table};

/// Print a script that completes commands and options in a shell
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "For bash: tradewind completions bash > /etc/bash_completion.d/tradewind\n\
                        For zsh:  tradewind completions zsh > \"${fpath[1]}/_tradewind\"\n\
                        For fish: tradewind completions fish > ~/.config/fish/completions/tradewind.fish")]
pub(super) struct CompletionsArgs {
    /// The shell
    shell: clap_complete::Shell,
}

/// Prints the script.
///
/// # Errors
/// None; the signature is that of every command.
pub(super) async fn completions(args: CompletionsArgs) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "tradewind", &mut script);
    table::print(&String::from_utf8_lossy(&script));
    Ok(())
}

/// Print the manual page (roff), or write one for every command
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "To read it: tradewind man | man -l -\n\
                        To install: tradewind man --dir /usr/local/share/man/man1")]
pub(super) struct ManArgs {
    /// Write tradewind.1 and a page for every command into this directory
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Prints or writes the pages.
///
/// # Errors
/// When they cannot be written.
pub(super) async fn man(args: ManArgs) -> Result<(), Failure> {
    let mut command = Cli::command();
    command.build();
    let Some(dir) = args.dir else {
        table::print(&page(command)?);
        return Ok(());
    };
    let count = write(&dir, command)?;
    println!("{}: {count} pages written", dir.display());
    Ok(())
}

/// Writes the page of a command and of all below it; says how many.
fn write(dir: &Path, command: clap::Command) -> Result<usize, Failure> {
    let below: Vec<clap::Command> =
        command.get_subcommands().filter(|below| below.get_name() != "help").cloned().collect();
    let name = command.get_display_name().unwrap_or(command.get_name()).to_owned();
    let path = dir.join(format!("{name}.1"));
    std::fs::write(&path, page(command)?).map_err(|error| {
        Failure::Input(format!(
            "{} cannot be written: {error}; is {} a directory?",
            path.display(),
            dir.display()
        ))
    })?;
    below.into_iter().try_fold(1, |count, command| Ok(count + write(dir, command)?))
}

fn page(command: clap::Command) -> Result<String, Failure> {
    let mut roff = Vec::new();
    clap_mangen::Man::new(command)
        .render(&mut roff)
        .map_err(|error| Failure::Input(format!("the page cannot be made: {error}")))?;
    Ok(String::from_utf8_lossy(&roff).into_owned())
}
