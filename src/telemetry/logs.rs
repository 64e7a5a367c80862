//! Logs: to standard error, for people or as JSON lines; and to a collector, where one takes them.

use tracing_subscriber::{EnvFilter, Layer, Registry, layer::SubscriberExt, util::SubscriberInitExt};

use super::otlp::Tap;
use crate::config::{Log, LogFormat};

/// Of the AWS SDK only what is wrong: with every fetch it tells which credentials it looked for and did not need. Who wants
/// more names these modules in the filter.
const QUIET: &str = "aws_config=error,aws_runtime=error,aws_credential_types=error";

/// Starts logging. `RUST_LOG` wins over the configuration, as it does everywhere. A second call changes nothing.
pub fn init(log: &Log) {
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new(format!("{QUIET},{}", log.level)));
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines: Box<dyn Layer<_> + Send + Sync> = match log.format {
        LogFormat::Json => Box::new(lines.json()),
        LogFormat::Text => {
            let colours = std::io::IsTerminal::is_terminal(&std::io::stderr())
                && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
            Box::new(lines.with_ansi(colours))
        }
    };
    let started = Registry::default().with(lines).with(Tap).with(filter).try_init();
    // Only a test that starts the program twice in one process gets here; the first subscriber stays.
    if let Err(error) = started {
        tracing::debug!(%error, "logging was started before");
    }
}
