//! The commands, one file each. Each takes what was typed and a printer, and ends in a result or a [`Failure`].

mod auth;
mod ca;
mod cluster;
mod completion;
mod credential;
mod describe;
mod doctor;
mod enrolment;
mod guardian;
mod kubeconfig;
mod login;
mod migrate;
mod programs;
mod quickstart;
mod rbac;
mod status;
mod store;
mod token;
mod user;
mod version;
mod view;

use crate::{
    args::{AgentCommand, Cli, Command},
    failure::Failure,
    printer::Printer,
};

/// Runs what was typed.
pub(crate) async fn run(cli: Cli, printer: &mut Printer<'_>) -> Result<(), Failure> {
    match cli.command {
        Command::Auth(command) => auth::run(command, printer).await,
        Command::Ca(command) => ca::run(command, printer).await,
        Command::Cluster(command) => cluster::run(command, printer).await,
        Command::Credential(args) => credential::run(&args, printer).await,
        Command::Login(args) => login::run(&args, printer).await,
        Command::Kubeconfig(args) => kubeconfig::run(&args, printer).await,
        Command::Doctor(args) => doctor::run(&args, printer).await,
        Command::Status(args) => status::run(&args, printer).await,
        Command::Store(command) => store::run(command, printer).await,
        Command::Completion { shell } => completion::run(shell, printer),
        Command::Token(command) => token::run(command, printer).await,
        Command::User(command) => user::run(command, printer).await,
        Command::Version(args) => version::run(&args, printer).await,
        Command::Quickstart(args) => quickstart::run(&args, printer).await,
        Command::Server(args) => programs::server(*args).await,
        Command::Agent(args) => match args.command {
            Some(AgentCommand::Join(args)) => programs::join(&args, printer).await,
            Some(AgentCommand::Rbac(args)) => rbac::run(*args, printer),
            Some(AgentCommand::Doctor(args)) => programs::agent_doctor(&args, printer).await,
            None => programs::agent(*args).await,
        },
    }
}
