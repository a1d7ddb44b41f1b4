//! Keys whose value is one word out of a few.
//!
//! Invariant: the words that parse, the words that print and the words an error offers are one list.
//! Pure; runs wherever a configuration is read.

use crate::observe::log;

macro_rules! choice {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$doc])* $variant),+ }

        impl $name {
            /// Every word that the key takes.
            pub const WORDS: &[&str] = &[$($word),+];

            /// The word that stands for this value.
            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }

            /// The value that a word stands for.
            pub fn from_word(word: &str) -> Option<Self> {
                match word { $($word => Some(Self::$variant),)+ _ => None }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.word())
            }
        }
    };
}

choice!(
    /// When a write counts as done.
    Durability {
        /// After its bytes and its name are on disk.
        Sync = "sync",
        /// Once it is in the page cache; the disk follows every `sync_interval`.
        Cache = "cache",
    }
);

choice!(
    /// The form of the log.
    LogFormat {
        /// Lines for people.
        Text = "text",
        /// One JSON object per line.
        Json = "json",
    }
);

choice!(
    /// The least severe event that is logged.
    LogLevel {
        /// Only what failed.
        Error = "error",
        /// And what an operator should look at.
        Warn = "warn",
        /// And every change of state.
        Info = "info",
        /// And every exchange.
        Debug = "debug",
        /// And every step of one.
        Trace = "trace",
    }
);

choice!(
    /// A dialect whose objects other dialects may read.
    Share {
        /// Live log streams.
        Loom = "loom",
        /// Process output.
        Serpentine = "serpentine",
        /// Module events.
        Ion = "ion",
        /// Broker topics.
        Micro = "micro",
    }
);

choice!(
    /// What readers of a loom stream get when its producer vanishes.
    Interrupted {
        /// A regular end of the body.
        End = "end",
        /// A broken body, so that a client can tell.
        Abort = "abort",
    }
);

choice!(
    /// How vblob requests are authenticated.
    VblobAuth {
        /// Not at all.
        Disabled = "disabled",
        /// HTTP basic (RFC 7617).
        Basic = "basic",
        /// HTTP digest (RFC 7616).
        Digest = "digest",
        /// Signed as S3 requests are.
        S3 = "s3",
    }
);

choice!(
    /// Where blobs are kept.
    Driver {
        /// In this daemon's own segments.
        Segments = "segments",
        /// In the store that `[remote.s3]` names.
        S3 = "s3",
    }
);

choice!(
    /// What happens to process output that nobody reads fast enough.
    Output {
        /// The writer waits.
        Block = "block",
        /// It is kept on disk without limit but retention.
        Spool = "spool",
        /// The oldest bytes give way.
        DropOldest = "drop-oldest",
    }
);

choice!(
    /// How micro serves paths that no route claims.
    Handler {
        /// As `/{service}/{method}` calls.
        Rpc = "rpc",
        /// As requests passed on to the service.
        Proxy = "proxy",
    }
);

impl From<LogFormat> for log::Format {
    fn from(format: LogFormat) -> Self {
        match format {
            LogFormat::Text => Self::Text,
            LogFormat::Json => Self::Json,
        }
    }
}

impl From<LogLevel> for log::Level {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Error => Self::Error,
            LogLevel::Warn => Self::Warn,
            LogLevel::Info => Self::Info,
            LogLevel::Debug => Self::Debug,
            LogLevel::Trace => Self::Trace,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_leads_back_to_itself() {
        for word in LogLevel::WORDS {
            assert_eq!(LogLevel::from_word(word).map(LogLevel::word), Some(*word));
        }
        assert_eq!(Output::from_word("drop-oldest"), Some(Output::DropOldest));
        assert_eq!(Output::from_word("Block"), None);
    }
}
