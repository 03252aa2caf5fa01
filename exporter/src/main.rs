//! The `netsonde` command.

mod cli;
mod discovery;
mod docs;
mod events;
mod http;
mod node;
mod outlets;
mod parts;
mod reload;
mod run;
mod scrape;
mod selfmetrics;
mod status;
mod supervisor;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    netsonde_probes::os::heap::share();
    let cli = cli::Cli::parse();
    cli::log(&cli);
    match cli::dispatch(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("netsonde: {:#}", failure.error);
            ExitCode::from(failure.code)
        }
    }
}
