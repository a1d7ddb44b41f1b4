//! A process that may not make a certain system call, as in many containers.

use std::os::unix::process::CommandExt;
use std::process::Command;

/// Has `call` answered with `errno` in the process that `command` starts.
pub fn forbid(command: &mut Command, call: i64, errno: i32) {
    install_in(command, filter(call, None, errno));
}

/// The same for calls whose first argument is `first` alone.
pub fn forbid_where(command: &mut Command, call: i64, first: u32, errno: i32) {
    install_in(command, filter(call, Some(first), errno));
}

fn install_in(command: &mut Command, filter: Vec<libc::sock_filter>) {
    // SAFETY: the closure runs in the child between fork and exec and makes two system calls; `filter` was
    // built before the fork and is owned by the closure, so nothing is allocated there.
    unsafe {
        command.pre_exec(move || install(&filter));
    }
}

/// A program that answers one system call with an error and allows everything else.
fn filter(call: i64, first: Option<u32>, errno: i32) -> Vec<libc::sock_filter> {
    let op = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let word = |at| op(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, at);
    let is = |value, otherwise| op(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, otherwise, value);
    // The number of the system call is the first word of what the filter sees, its arguments begin at byte 16.
    let mut program = vec![word(0), is(call as u32, if first.is_some() { 3 } else { 1 })];
    if let Some(first) = first {
        program.extend([word(16), is(first, 1)]);
    }
    program.extend([
        op(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | errno as u32),
        op(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ]);
    program
}

/// Binds this process to the filter, for good.
fn install(filter: &[libc::sock_filter]) -> std::io::Result<()> {
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
    // SAFETY: both calls read their arguments only. `program` points to `filter`, whose length it names, and
    // both live until the call has returned; the kernel copies the program.
    let done = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) == 0
    };
    done.then_some(()).ok_or_else(std::io::Error::last_os_error)
}
