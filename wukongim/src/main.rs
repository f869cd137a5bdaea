//! The binary: command line, configuration, and the composition of a node.

mod bench;
mod chat;
mod config;
mod descriptors;
mod fill;
mod http_client;
mod run;
mod secrets;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use config::{Given, Settings};

/// Messages are allocated by one thread and freed by another all the time; glibc's arenas pay for that with locks and long consolidations.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The configuration or the data directory cannot be used: retrying will not help (sysexits' EX_CONFIG).
const EXIT_CONFIG: u8 = 78;

/// `cluster.startTimeout` passed: retrying may help (sysexits' EX_TEMPFAIL).
const EXIT_NOT_READY: u8 = 75;

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
    /// Chat in the terminal.
    Chat(chat::Args),
    /// Measure a server, or a node started for it; exit code 1 if its books do not balance.
    Bench(bench::Args),
    /// Fill an offline data directory with messages.
    Fill(fill::Args),
    /// Print the version.
    Version,
}

#[derive(Subcommand, Debug)]
enum ConfigCommand {
    /// Say what is wrong with it; exit code 0 if it can be used, 78 if not.
    Check,
    /// Print every key that was given, and where; secrets are hidden.
    Print,
    /// Print the table of all keys: what docs/configuration.md is made of.
    Keys,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match &cli.command {
        Some(Command::Version) => {
            println!("wukongim {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        Some(Command::Config(command)) => report(config_command(&cli, command)),
        Some(Command::Chat(args)) => report(tool(chat::run(args.clone()))),
        Some(Command::Fill(args)) => report(tool(fill::run(args.clone()))),
        Some(Command::Bench(args)) => report(tool(bench::run(args.clone()))),
        None => report(serve(&cli)),
    }
}

fn serve(cli: &Cli) -> Result<ExitCode, Failure> {
    let (given, settings) = load(cli)?;
    run::run(&given, settings)
}

/// Runs one of the tools beside the server.
fn tool(run: impl Future<Output = anyhow::Result<ExitCode>>) -> Result<ExitCode, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::runtime)?;
    let result = runtime.block_on(run);
    // Not waiting for a thread that reads the terminal.
    runtime.shutdown_background();
    result.map_err(|e| Failure::runtime(format!("{e:#}")))
}

fn config_command(cli: &Cli, command: &ConfigCommand) -> Result<ExitCode, Failure> {
    if matches!(command, ConfigCommand::Keys) {
        print!("{}", config::table());
        return Ok(ExitCode::SUCCESS);
    }
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
    given.check_mode();
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
        // Nobody may be reading; the code still tells.
        let _ = writeln!(std::io::stderr(), "wukongim: {}", failure.message);
        ExitCode::from(failure.code)
    })
}
