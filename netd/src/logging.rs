//! Sets up the log: the journal with fields, JSON lines, or plain text.

use std::{
    io::{IsTerminal, stderr},
    os::fd::AsFd,
};

use tracing_subscriber::{
    EnvFilter, Layer, Registry, layer::SubscriberExt, util::SubscriberInitExt,
};

use crate::config::{Log, LogFormat};

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LogError {
    /// `log.format = "journald"` on a machine without a journal.
    #[error(
        "log.format is \"journald\", but the journal can't be reached: {0}; use \"text\" or \"json\""
    )]
    Journal(std::io::Error),
    /// The filter can't be parsed.
    #[error("log.filter: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// Logging was set up before in this process.
    #[error("logging is already set up")]
    Twice,
}

/// The format after `auto` is decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sink {
    Journal,
    Json,
    Text,
}

/// Sets up logging for the whole process.
///
/// # Errors
/// The journal was asked for and can't be reached, or logging is set up already.
pub(crate) fn init(log: &Log) -> Result<(), LogError> {
    let stream = std::env::var("JOURNAL_STREAM").ok();
    let layer: Box<dyn Layer<Registry> + Send + Sync> = match sink(log.format, stream.as_deref()) {
        Sink::Journal => match journal() {
            Ok(layer) => layer,
            // Standard error leads to the journal too, only without fields.
            Err(_) if log.format == LogFormat::Auto => text(),
            Err(e) => return Err(LogError::Journal(e)),
        },
        Sink::Json => Box::new(
            tracing_subscriber::fmt::layer().json().flatten_event(true).with_writer(stderr),
        ),
        Sink::Text => text(),
    };
    let filter = EnvFilter::try_new(&log.filter)?;
    let subscriber = Registry::default().with(layer.with_filter(filter));
    subscriber.try_init().map_err(|_| LogError::Twice)
}

fn journal() -> std::io::Result<Box<dyn Layer<Registry> + Send + Sync>> {
    let layer = tracing_journald::layer()?;
    let named = layer.with_field_prefix(Some("NETD".to_owned()));
    Ok(Box::new(named.with_syslog_identifier("netd".to_owned())))
}

fn text() -> Box<dyn Layer<Registry> + Send + Sync> {
    let ansi = stderr().is_terminal();
    Box::new(tracing_subscriber::fmt::layer().with_ansi(ansi).with_writer(stderr))
}

fn sink(format: LogFormat, journal_stream: Option<&str>) -> Sink {
    match format {
        LogFormat::Journald => Sink::Journal,
        LogFormat::Json => Sink::Json,
        LogFormat::Text => Sink::Text,
        LogFormat::Auto => {
            let ours = nix::sys::stat::fstat(stderr().as_fd()).ok();
            let ours = ours.map(|s| (s.st_dev, s.st_ino));
            if is_journal(journal_stream, ours) { Sink::Journal } else { Sink::Text }
        }
    }
}

/// Whether `JOURNAL_STREAM` (`device:inode`, systemd.exec(5)) is the file that
/// standard error is. The variable alone is inherited by children whose standard
/// error is something else.
fn is_journal(stream: Option<&str>, stderr: Option<(u64, u64)>) -> bool {
    let parsed = stream.and_then(|s| s.split_once(':'));
    let parsed = parsed.and_then(|(dev, ino)| Some((dev.parse().ok()?, ino.parse().ok()?)));
    parsed.is_some() && parsed == stderr
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_matching_stream_is_the_journal() {
        assert!(is_journal(Some("8:42"), Some((8, 42))));
        for stream in [None, Some("8:43"), Some("9:42"), Some(""), Some("x:y"), Some("8")] {
            assert!(!is_journal(stream, Some((8, 42))), "{stream:?}");
        }
        assert!(!is_journal(Some("8:42"), None));
    }

    #[test]
    fn an_explicit_format_is_taken_as_it_is() {
        assert_eq!(sink(LogFormat::Journald, None), Sink::Journal);
        assert_eq!(sink(LogFormat::Json, Some("8:42")), Sink::Json);
        assert_eq!(sink(LogFormat::Text, Some("8:42")), Sink::Text);
        assert_eq!(sink(LogFormat::Auto, None), Sink::Text);
    }
}
