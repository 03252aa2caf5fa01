//! The command line: what can be asked of `netsonde`, and with which exit code it ends.

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand, ValueEnum};
use netsonde_config::{Config, LoadError};
use netsonde_probes::os::Host;

use crate::events::schema;
use crate::events::watch::{self, Watch};
use crate::http::Web;
use crate::reload::Served;
use crate::scrape::Format;
use crate::{docs, parts, run};

const EXIT_CODES: &str = "\
Exit codes:
  0  all is well
  1  the configuration is wrong; the report says what, where and what is near
  2  the command line is wrong
  3  cannot start or cannot go on (a port in use, a file that cannot be read)";

/// Tells which pod loses packets and why, who resets connections, where the kernel is slow, which queue is full.
#[derive(Debug, Parser)]
#[command(name = "netsonde", bin_name = "netsonde", version, after_help = EXIT_CODES)]
pub struct Cli {
    /// How much to log to stderr: error, warn, info, debug or trace; or a filter like `netsonde=debug`.
    #[arg(long, global = true, default_value = "info", env = "NETSONDE_LOG", value_name = "LEVEL")]
    log: String,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the agent: find every network namespace, read it, serve /metrics.
    Run {
        /// The configuration file. Without it every key has its default.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Where to serve, in place of the configuration's `listen`.
        #[arg(long, value_name = "ADDRESS:PORT")]
        listen: Option<std::net::SocketAddr>,
        /// TLS and credentials of the server, in place of the configuration's `web_config`.
        #[arg(long = "web.config.file", value_name = "FILE")]
        web_config: Option<PathBuf>,
    },
    /// Check a configuration file and print every problem in it.
    Check {
        /// The file.
        file: PathBuf,
        /// A web configuration file to check too, with the files that it names.
        #[arg(long = "web.config.file", value_name = "FILE")]
        web_config: Option<PathBuf>,
    },
    /// Print the JSON Schema of the configuration file, or of events.
    Schema {
        /// The schema of events.
        #[arg(long)]
        events: bool,
    },
    /// Print events of a running agent.
    Events(Watch),
    /// Print each probe: whether it runs on this kernel, and if not, why.
    Probes {
        /// How to print.
        #[arg(long, value_enum, default_value = "text")]
        output: Output,
    },
    /// Print one page of metrics and end; nothing is served.
    Scrape {
        /// The configuration file.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// The exposition format.
        #[arg(long, value_enum, default_value = "openmetrics")]
        format: Format,
        /// Leave out the agent's metrics about itself, which differ each time.
        #[arg(long)]
        no_self: bool,
    },
    /// Print a page of the reference, as Markdown.
    Docs {
        /// Which page.
        #[arg(value_enum)]
        page: DocsPage,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Output {
    /// A table for people.
    Text,
    /// JSON, with metrics and events.
    Json,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum DocsPage {
    /// Every metric, with labels, meaning and source.
    Metrics,
    /// Every event.
    Events,
    /// Every key of the configuration file.
    Config,
    /// A configuration file with every key and its default.
    Example,
    /// The operator's page of every probe: how to read it, what it needs, what it costs.
    Guides,
    /// The capabilities that the agent and each probe need, as YAML.
    Rights,
}

/// Why the command ends, and with which code.
#[derive(Debug)]
pub struct Failure {
    pub code: u8,
    pub error: anyhow::Error,
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self { code: 3, error }
    }
}

impl From<LoadError> for Failure {
    fn from(error: LoadError) -> Self {
        let code = if matches!(error, LoadError::Read { .. }) { 3 } else { 1 };
        // Its text names the cause already; as a source it would be said twice.
        Self { code, error: anyhow::Error::msg(error.to_string()) }
    }
}

/// Logs go to stderr; stdout is for what was asked.
pub fn log(cli: &Cli) {
    let filter = tracing_subscriber::EnvFilter::try_new(&cli.log)
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
}

pub fn dispatch(command: Command) -> Result<(), Failure> {
    match command {
        Command::Run { config, listen, web_config } => {
            run::run(config.as_deref(), Served { listen, web_config })
        }
        Command::Check { file, web_config } => check(&file, web_config.as_deref()),
        Command::Schema { events } => {
            let catalogue = parts::catalogue(&offline()?);
            let schema = if events {
                schema::schema(&catalogue)
            } else {
                netsonde_config::schema(&parts::known(&catalogue))
            };
            Ok(print(&format!("{schema:#}\n"))?)
        }
        Command::Events(wanted) => Ok(watch::run(&wanted)?),
        Command::Probes { output } => Ok(print(&docs::probes::report(output)?)?),
        Command::Scrape { config, format, no_self } => {
            Ok(print(&run::scrape_once(config.as_deref(), format, !no_self)?)?)
        }
        Command::Docs { page } => {
            let catalogue = parts::catalogue(&offline()?);
            let known = parts::known(&catalogue);
            let text = match page {
                DocsPage::Metrics => docs::metrics::page(&catalogue),
                DocsPage::Events => docs::events::page(&catalogue),
                DocsPage::Config => netsonde_config::reference(&known),
                DocsPage::Guides => {
                    catalogue.probes().map(|probe| probe.guide.trim_end()).collect::<Vec<_>>().join("\n\n")
                        + "\n"
                }
                DocsPage::Example => netsonde_config::example(&known),
                DocsPage::Rights => docs::rights::page(&catalogue),
            };
            Ok(print(&text)?)
        }
    }
}

fn check(file: &Path, web_config: Option<&Path>) -> Result<(), Failure> {
    let known = parts::known(&parts::catalogue(&offline()?));
    let Config { probes, .. } = netsonde_config::load(file, &known)?;
    print(&format!("{}: good, {} probes\n", file.display(), probes.len()))?;
    if let Some(path) = web_config {
        Web::load(Some(path)).map_err(|why| Failure { code: 1, error: anyhow::anyhow!(why) })?;
        print(&format!("{}: good\n", path.display()))?;
    }
    Ok(())
}

/// The catalogue needs a machine to start probes on; these commands start none.
fn offline() -> Result<Host, Failure> {
    let (host, _) = Host::new(netsonde_probes::os::Paths::default()).map_err(anyhow::Error::from)?;
    Ok(host)
}

/// Prints to stdout. A reader that went away (`| head`) is no error.
fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}
