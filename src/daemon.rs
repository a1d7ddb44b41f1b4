//! Boots the shards, binds the listeners, waits for a signal, drains.
