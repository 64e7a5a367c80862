//! The command line: one file a subcommand.

mod admin_client;
mod check;
mod completions;
mod config;
mod decisions;
mod demo;
mod explain;
mod init;
mod key;
mod notice;
mod overrides;
mod plan;
mod prices;
mod replay;
mod report;
mod run;
mod schema;
mod simulate;
mod status;
mod table;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Sends every inference request where it costs least within its latency objective.
#[derive(Debug, Parser)]
#[command(name = "tradewind", version, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write a commented configuration to start from.
    Init(init::Args),
    /// Serve.
    Run(run::Args),
    /// Show the whole product on this machine, with nothing to set up.
    Demo(demo::Args),
    /// Say all that is wrong with a configuration.
    Check(check::Args),
    /// What every backend's node costs, on demand and spot, who says so, and how old that is.
    Prices(prices::Args),
    /// Print the JSON Schema of the configuration, for editors.
    Schema(schema::Args),
    /// What a month costs, and from which traffic on autoscaling, spot, a second cloud or managed endpoints pay.
    Plan(plan::Args),
    /// What the configured policy would have paid on recorded traffic and prices, beside others and the best in hindsight.
    Simulate(simulate::Args),
    /// What was spent, saved and moved, from the journal.
    Report(report::Args),
    /// Make every journaled decision again, and say which come out differently.
    Replay(replay::Args),
    /// What is going on, and why.
    Status(status::Args),
    /// Why a route's traffic goes where it goes.
    Explain(explain::Args),
    /// What was decided and why, and what else happened; `--follow` what comes.
    Decisions(decisions::Args),
    /// Drain, pin, cap or freeze for a while; list and end overrides.
    Override(overrides::Args),
    /// Say that nodes of a backend go away.
    Notice(notice::Args),
    /// What configuration is in force, and what a reload would change.
    Config(config::Args),
    /// A script that completes commands and options in a shell.
    Completions(completions::CompletionsArgs),
    /// The manual page.
    Man(completions::ManArgs),
    /// Make an API key for a tenant.
    Key(key::Args),
}

/// Why a command did not do what it was asked to; decides the exit code.
#[derive(Debug)]
pub enum Failure {
    /// The input was wrong: 1.
    Input(String),
    /// The service could not be reached: 3.
    Unreachable(String),
}

impl Cli {
    /// Does what the command line asks for. Results go to standard output, everything else to standard error.
    pub async fn run(self) -> ExitCode {
        let done = match self.command {
            Command::Init(args) => init::run(args).await,
            Command::Run(args) => run::run(args).await,
            Command::Demo(args) => demo::run(args).await,
            Command::Check(args) => check::run(args).await,
            Command::Prices(args) => prices::run(args).await,
            Command::Schema(args) => schema::run(args).await,
            Command::Plan(args) => plan::run(args).await,
            Command::Simulate(args) => simulate::run(args).await,
            Command::Report(args) => report::run(args).await,
            Command::Replay(args) => replay::run(args).await,
            Command::Status(args) => status::run(args).await,
            Command::Explain(args) => explain::run(args).await,
            Command::Override(args) => overrides::run(args).await,
            Command::Decisions(args) => decisions::run(args).await,
            Command::Notice(args) => notice::run(args).await,
            Command::Config(args) => config::run(args).await,
            Command::Completions(args) => completions::completions(args).await,
            Command::Man(args) => completions::man(args).await,
            Command::Key(args) => key::run(args).await,
        };
        match done {
            Ok(()) => ExitCode::SUCCESS,
            Err(Failure::Input(message)) => {
                eprintln!("{message}");
                ExitCode::from(1)
            }
            Err(Failure::Unreachable(message)) => {
                eprintln!("{message}");
                ExitCode::from(3)
            }
        }
    }
}
