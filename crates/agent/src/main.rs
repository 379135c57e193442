//! The program: flags, logs, the agent, a signal, an exit code.

use std::{io::Write as _, process::ExitCode};

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand, ValueEnum};
use moorline_agent::{
    App, Config, RawConfig, RawJoin,
    join::{self, Join, StartError},
};
use moorline_process::{logs, signals};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Wrong flags or files; what clap exits with as well.
const MISCONFIGURED: u8 = 2;

/// Moorline's agent: ties this cluster to its management cluster. Dials out; opens no port but for probes, and for the
/// services that its flags name.
#[derive(Debug, Parser)]
#[command(name = "moorline-agent", version, after_help = EXAMPLES)]
#[command(args_conflicts_with_subcommands = true)]
struct Flags {
    #[command(subcommand)]
    command: Option<Command>,

    #[command(flatten)]
    agent: RawConfig,

    /// Shape of log lines: text or json
    #[arg(long, value_name = "FORMAT", env = "MOORLINE_LOG_FORMAT", default_value = "text")]
    log_format: logs::Format,

    /// What is logged: a level, or directives such as info,moorline_agent=debug
    #[arg(long, value_name = "FILTER", env = "MOORLINE_LOG", default_value = logs::DEFAULT_FILTER)]
    log: String,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Get the certificate of this cluster's agent by a join token (`moorline token create`), and end
    Join(Box<RawJoin>),
    /// Look at everything that the agent needs, with its own flags, and say what is wrong and what to do. Ends with 1
    /// when something fails
    Doctor(Box<DoctorArgs>),
}

#[derive(Debug, Args)]
struct DoctorArgs {
    #[command(flatten)]
    agent: RawConfig,

    /// How the findings are printed [default: as text]
    #[arg(long, short, value_name = "FORMAT")]
    output: Option<Output>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Json,
    Yaml,
}

const EXAMPLES: &str = "\
Examples:
  Join with a token of `moorline token create`, then run:
    moorline-agent join --token-file ./token --cert-dir ./certs && moorline-agent --cert-dir ./certs
  In a pod, with the files of `moorline cluster add` mounted under /certs:
    moorline-agent --management-cluster-addr hub.example.com:9449
  On a workstation, for the cluster of a kubeconfig:
    moorline-agent --management-cluster-addr hub.example.com --cert-dir ./certs --kubeconfig ~/.kube/config --context kind

  With a log store of the management cluster for the programs of this one:
    moorline-agent --management-cluster-addr hub.example.com --http-service logs=:9200

HTTPS_PROXY and NO_PROXY are honoured for the way to a management cluster on another machine.
Where a flag may be repeated, its variable holds one value a line.";

fn main() -> ExitCode {
    let flags = Flags::parse();
    let joining = match flags.command {
        None => None,
        Some(Command::Join(raw)) => Some(raw),
        Some(Command::Doctor(args)) => {
            return match doctor(&args) {
                Ok(code) => code,
                Err(error) => fail(1, &format!("{error:#}")),
            };
        }
    };
    if let Err(error) = logs::init(flags.log_format, &flags.log) {
        return fail(MISCONFIGURED, &error.to_string());
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(1, &format!("cannot start the runtime: {error}")),
    };
    match joining {
        Some(raw) => runtime.block_on(join(&raw)),
        None => runtime.block_on(start(&flags.agent)),
    }
}

async fn start(raw: &RawConfig) -> ExitCode {
    let identity = match join::at_start(raw).await {
        Ok(identity) => identity,
        Err(StartError::Config(error)) => return misconfigured(&error),
        Err(StartError::Join(error)) => return fail(1, &told(&error)),
    };
    let config = match Config::starting_with(raw, identity) {
        Ok(config) => config,
        Err(error) => return misconfigured(&error),
    };
    match run(config).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(1, &format!("{error:#}")),
    }
}

fn doctor(args: &DoctorArgs) -> anyhow::Result<ExitCode> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the runtime")?;
    let report = runtime.block_on(moorline_agent::doctor::examine(&args.agent));
    let text = match args.output {
        None => report.to_string(),
        Some(Output::Json) => serde_json::to_string_pretty(&report).context("cannot write JSON")? + "\n",
        Some(Output::Yaml) => serde_saphyr::to_string(&report).context("cannot write YAML")?,
    };
    std::io::stdout().write_all(text.as_bytes()).context("cannot write to standard output")?;
    Ok(if report.failed() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

async fn run(config: Config) -> anyhow::Result<()> {
    let terminated = signals::terminated().context("cannot wait for signals")?;
    App::build(config)?.run(terminated).await?;
    Ok(())
}

async fn join(raw: &RawJoin) -> ExitCode {
    let join = match Join::from_raw(raw) {
        Ok(join) => join,
        Err(error) => return misconfigured(&error),
    };
    match join.run().await {
        Ok(joined) => {
            say(&joined.to_string());
            ExitCode::SUCCESS
        }
        Err(error) => fail(1, &told(&error)),
    }
}

fn told(error: &join::JoinError) -> String {
    let remedy = error.remedy();
    if remedy.is_empty() { error.to_string() } else { format!("{error}\n{remedy}") }
}

fn misconfigured(error: &moorline_agent::ConfigError) -> ExitCode {
    fail(MISCONFIGURED, &format!("the configuration cannot be used:\n{error}"))
}

#[expect(clippy::print_stdout, reason = "what the command is for, and what to do next")]
fn say(text: &str) {
    println!("{text}");
}

#[expect(clippy::print_stderr, reason = "the program's last words, which must show whatever the log filter is")]
fn fail(code: u8, message: &str) -> ExitCode {
    eprintln!("moorline-agent: {message}");
    ExitCode::from(code)
}
