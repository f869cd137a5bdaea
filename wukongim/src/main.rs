//! The binary: command line, configuration, and the composition of a node.

mod config;
mod run;
mod secrets;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use config::{Given, Settings};

/// The configuration or the data directory cannot be used: retrying will not help (sysexits' EX_CONFIG).
const EXIT_CONFIG: u8 = 78;

#[derive(Parser, Debug)]
#[command(
    name = "wukongim",
    version,
    about = "An instant-messaging server that WuKongIM v2 clients and back-ends can switch to",
    after_help = "Without a command the server runs in the foreground.\nEvery configuration key is also a variable: cluster.nodeId is WK_CLUSTER_NODEID."
)]
struct Cli {
    /// Configuration file (v2's wk.yaml).
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Start with defaults if the configuration file does not exist.
    #[arg(short = 'i', long = "ignoreMissingConfig")]
    ignore_missing_config: bool,
    /// debug or release.
    #[arg(long, global = true)]
    mode: Option<String>,
    /// Unknown configuration keys are errors.
    #[arg(long = "strict-config", global = true)]
    strict: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Look at the configuration without starting.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Print the version.
    Version,
}

#[derive(Subcommand, Debug)]
enum ConfigCommand {
    /// Say what is wrong with it; exit code 0 if it can be used, 78 if not.
    Check,
    /// Print every key that was given, where, and what it does; secrets are hidden.
    Print,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match &cli.command {
        Some(Command::Version) => {
            println!("wukongim {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        Some(Command::Config(command)) => report(config_command(&cli, command)),
        None => report(serve(&cli)),
    }
}

fn serve(cli: &Cli) -> Result<ExitCode, Failure> {
    let (given, settings) = load(cli)?;
    run::run(&given, settings)
}

fn config_command(cli: &Cli, command: &ConfigCommand) -> Result<ExitCode, Failure> {
    let (given, settings) = load(cli)?;
    for line in run::notices(&given, &settings) {
        eprintln!("{line}");
    }
    if matches!(command, ConfigCommand::Print) {
        for (key, entry) in given.iter() {
            let secret = ["token", "secret", "password", "users"]
                .iter()
                .any(|s| key.name.to_lowercase().ends_with(s));
            let value = if secret {
                "(hidden)"
            } else {
                entry.value.as_str()
            };
            println!("{} = {value}    # {}", key.name, entry.source);
        }
    } else {
        println!("the configuration can be used");
    }
    Ok(ExitCode::SUCCESS)
}

fn load(cli: &Cli) -> Result<(Given, Settings), Failure> {
    let missing_is_fine = cli.ignore_missing_config;
    let file = cli
        .config
        .as_deref()
        .filter(|path| !missing_is_fine || path.exists());
    let mut given = Given::load(file, std::env::vars()).map_err(Failure::config)?;
    if let Some(mode) = &cli.mode {
        given.set_flag("mode", "--mode", mode);
    }
    if cli.strict
        && let Some(warning) = given.warnings.first()
    {
        return Err(Failure {
            message: warning.clone(),
            code: EXIT_CONFIG,
        });
    }
    let settings = Settings::new(&given).map_err(Failure::config)?;
    Ok((given, settings))
}

/// Why the process ends, and with which code.
#[derive(Debug)]
pub struct Failure {
    message: String,
    code: u8,
}

impl Failure {
    fn config(error: impl std::fmt::Display) -> Self {
        Self {
            message: error.to_string(),
            code: EXIT_CONFIG,
        }
    }

    fn runtime(error: impl std::fmt::Display) -> Self {
        Self {
            message: error.to_string(),
            code: 1,
        }
    }
}

fn report(result: Result<ExitCode, Failure>) -> ExitCode {
    result.unwrap_or_else(|failure| {
        eprintln!("wukongim: {}", failure.message);
        ExitCode::from(failure.code)
    })
}
