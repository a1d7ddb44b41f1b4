//! Boots the shards, binds the listeners, waits for a signal, drains.

use std::process::ExitCode;

use crate::config::Config;

/// Serves until a signal ends it; `ready_fd` gets one JSON line once everything serves.
pub fn serve(config: Config, _ready_fd: Option<i32>) -> ExitCode {
    eprintln!("millpond serve: this build cannot serve {}", config.data_dir.display());
    ExitCode::FAILURE
}
