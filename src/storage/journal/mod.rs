//! What recovery reads: one strictly sequential log of records per shard.

pub mod link;
pub mod record;
pub mod scan;
pub mod snapshot;
pub mod writer;
