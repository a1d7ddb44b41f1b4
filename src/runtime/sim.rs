//! The seeded doubles: virtual shards, a virtual clock, a disk that forgets.
