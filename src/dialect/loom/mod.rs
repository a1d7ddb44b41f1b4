//! Loom: live log streams over HTTP.
