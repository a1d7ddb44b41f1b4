//! What the main thread tells running shards: to drain, to stop at once, to take a new configuration.
//!
//! The main thread stores and wakes; each shard looks once per turn, one relaxed load when nothing changed.
//! Invariant: stages only move forward.

use crate::config::Config;
use crate::runtime::park::Unpark;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

/// How far the daemon is on its way out.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum Phase {
    /// Serving.
    Run,
    /// No new work; what is under way finishes.
    Drain,
    /// What is under way is cut.
    Stop,
}

/// Shared by the main thread and all shards.
pub struct Control {
    phase: AtomicU8,
    generation: AtomicU64,
    #[allow(
        clippy::disallowed_types,
        reason = "taken by the main thread at SIGHUP and by each shard once after it"
    )]
    config: std::sync::Mutex<Arc<Config>>,
}

impl Control {
    /// A running daemon with `config`.
    pub fn new(config: Arc<Config>) -> Arc<Self> {
        Arc::new(Control {
            phase: AtomicU8::new(Phase::Run as u8),
            generation: AtomicU64::new(0),
            config: config.into(),
        })
    }

    /// Where the daemon is.
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Run,
            1 => Phase::Drain,
            _ => Phase::Stop,
        }
    }

    /// Moves forward to `phase` and wakes everyone.
    pub fn advance(&self, phase: Phase, shards: &[Arc<Unpark>]) {
        self.phase.fetch_max(phase as u8, Ordering::Release);
        shards.iter().for_each(|shard| shard.nudge());
    }

    /// Gives every shard a new configuration.
    pub fn reconfigure(&self, config: Arc<Config>, shards: &[Arc<Unpark>]) {
        *self.config.lock().expect("nothing panics under this lock") = config;
        self.generation.fetch_add(1, Ordering::Release);
        shards.iter().for_each(|shard| shard.nudge());
    }

    /// How often the configuration was replaced.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The configuration in force.
    pub fn config(&self) -> Arc<Config> {
        self.config.lock().expect("nothing panics under this lock").clone()
    }
}
