//! When the calling thread gets a processor.

use std::io;

/// The kernel's `sched_param`.
#[repr(C)]
struct Parameters {
    priority: libc::c_int,
}

/// Puts the calling thread under the real-time policy SCHED_FIFO with the lowest of its priorities: before every ordinary
/// thread, behind every other real-time one. Threads and processes it starts are ordinary again.
///
/// # Errors
/// What the system says; without privileges mostly `PermissionDenied`.
pub fn real_time() -> io::Result<()> {
    let parameters = Parameters { priority: 1 };
    let policy = libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK;
    // SAFETY: 0 names the calling thread, and the kernel only reads `parameters`, which lives until the call returns. By its
    // number, since not every C library has more than an excuse for a function here.
    let result = unsafe {
        libc::syscall(
            libc::SYS_sched_setscheduler,
            0,
            policy,
            &raw const parameters,
        )
    };
    checked(result)
}

/// Gives the calling thread a nice value, -20 (most favoured) to 19.
///
/// # Errors
/// What the system says; without privileges a lower value is refused with `PermissionDenied`.
pub fn nice(value: i32) -> io::Result<()> {
    // SAFETY: takes and changes no memory of ours. 0 names the calling thread on Linux.
    checked(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, value) })
}

fn checked(result: impl Into<i64>) -> io::Result<()> {
    if result.into() == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_allowed_works_and_what_is_not_is_an_error() {
        // On a thread of its own, so that no other test runs under a policy it did not ask for.
        let thread = std::thread::spawn(|| {
            for result in [real_time(), nice(-5)] {
                if let Err(error) = result {
                    assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{error}");
                }
            }
            nice(5)
        });
        assert!(thread.join().is_ok_and(|result| result.is_ok()));
    }
}
