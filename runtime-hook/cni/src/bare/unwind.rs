//! What the compiled `alloc` refers to for unwinding. A panic ends the process here, so
//! nothing is ever unwound and none of it is called.

/// Would say what a frame has to clean up.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() -> ! {
    super::start::exit(101)
}

/// Would go on unwinding.
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Resume() -> ! {
    super::start::exit(101)
}
