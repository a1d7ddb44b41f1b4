//! Raw bytes: files that appenders fill, and who gets which part of them.

pub mod run;
pub mod segment;
pub mod space;
