//! How the process begins and ends (System V ABI, AMD64 supplement, section 3.4.1).

use core::{
    arch::naked_asm,
    ffi::{CStr, c_char},
};

use syscalls::{Sysno, syscall};

/// What the kernel put on the stack: how many arguments, then they and a null, then the
/// variables and a null.
pub struct Process(*const usize);

impl Process {
    /// Whether there are more than the program's name.
    pub fn has_arguments(&self) -> bool {
        self.count() > 1
    }

    /// A variable of the environment.
    pub fn variable(&self, name: &str) -> Option<&'static [u8]> {
        let mut at = self.count() + 2;
        loop {
            // SAFETY: up to the null that ends the variables.
            let entry = unsafe { *self.0.add(at) } as *const c_char;
            if entry.is_null() {
                return None;
            }
            // SAFETY: the kernel ends each with a zero; they stay.
            let entry: &'static [u8] = unsafe { CStr::from_ptr(entry) }.to_bytes();
            if let Some([b'=', value @ ..]) = entry.strip_prefix(name.as_bytes()) {
                return Some(value);
            }
            at += 1;
        }
    }

    fn count(&self) -> usize {
        // SAFETY: the first word is there.
        unsafe { *self.0 }
    }
}

/// Where the kernel jumps to: the stack pointer is at the number of arguments, and a
/// function expects it on a multiple of 16.
#[unsafe(naked)]
#[unsafe(no_mangle)]
unsafe extern "C" fn _start() -> ! {
    naked_asm!("xor ebp, ebp", "mov rdi, rsp", "and rsp, -16", "call {begin}", "ud2", begin = sym begin)
}

extern "C" fn begin(stack: *const usize) -> ! {
    exit(crate::main(&Process(stack)))
}

/// Whoever reads stdout may be gone: that is an error to be reported, not to die of. The
/// signal stays pending; nothing is executed that would inherit the mask.
pub fn block_sigpipe() {
    const SIG_BLOCK: usize = 0;
    const SIGPIPE: u64 = 13;
    let mask: u64 = 1 << (SIGPIPE - 1);
    // SAFETY: it reads the mask of 8 bytes, and is to write no old one.
    let _ = unsafe {
        syscall!(Sysno::rt_sigprocmask, SIG_BLOCK, &raw const mask, 0, size_of_val(&mask))
    };
}

/// Ends the process. There is nothing to be flushed or dropped.
pub fn exit(status: i32) -> ! {
    // SAFETY: it does not return.
    let _ = unsafe { syscall!(Sysno::exit_group, status) };
    unreachable!()
}
