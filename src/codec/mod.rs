//! Pure functions over bytes and text: no I/O, no state; every parser here is fuzzed.
