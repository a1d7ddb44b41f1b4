//! Raw bytes: files that appenders fill, and who gets which part of them.

pub mod segment;
