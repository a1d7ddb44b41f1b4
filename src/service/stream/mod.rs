//! Growing bytes with live readers.
