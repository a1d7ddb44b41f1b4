//! Files and addresses; has never heard of a socket.
