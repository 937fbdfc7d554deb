//! The half of adoption that runs in the zygote: forks it into a box.
//!
//! Not a module of this crate: `build.rs` makes a shared object of this file, without
//! libc, which the zygote's interpreter loads. It must never run code of the interpreter
//! between an order and the last step of the lock-down, and nothing of a user's is read
//! before that.
//!
//! An order takes three processes. `C` shares the zygote's memory and enters the box's
//! namespaces; it is not in the box's pid namespace, so nobody there can name it. `E`,
//! its child, is, and forks: that is where the zygote's memory is copied. `C` and `E`
//! end at once, so that the copy, `D`, is left to the box's init, and becomes its
//! program. The zygote waits meanwhile (`CLONE_VFORK`).
//!
//! What must hold, and where it does:
//!
//! 1. A box is entered only while nobody but its init has ever run there: the server
//!    hands a box's entrance over once, before its first program.
//! 2. The zygote gets descriptors and numbers, never anything of a user's. It runs no
//!    code of the interpreter after its first order; it has one thread, and no
//!    descriptors but its socket: the interpreter's side checks that before.
//! 3. `D` attaches itself to the cgroup, first of all: were `C` or `E` in it, the kernel
//!    could kill the zygote, whose memory they share, for what a box used.
//! 4. `D` says that it is there last, and only when init is its parent: before, init's
//!    wait would know nobody of that number.
//! 5. Whatever fails before that ends `D` and closes its socket, upon which init starts
//!    the program itself.
#![no_std]
#![no_main]

#[path = "adopt/disguise.rs"]
mod disguise;
#[path = "adopt/message.rs"]
mod message;
mod steps;

use core::mem::{MaybeUninit, size_of};
use core::ptr::{addr_of_mut, null};

use message::{MOST_FDS, receive, say};
use steps::{Lent, Op, WORDS, call};

#[cfg(not(target_arch = "x86_64"))]
compile_error!("adopt_enter and adopt_resume are written for x86_64 alone");

// x86_64.
const SYS_WRITE: usize = 1;
const SYS_CLOSE: usize = 3;
const SYS_SIGPROCMASK: usize = 14;
const SYS_SCHED_YIELD: usize = 24;
const SYS_NANOSLEEP: usize = 35;
const SYS_WAIT4: usize = 61;
const SYS_FCNTL: usize = 72;
const SYS_GETPPID: usize = 110;
const SYS_PRCTL: usize = 157;
const SYS_EXIT_GROUP: usize = 231;
const SYS_UNSHARE: usize = 272;
const SYS_DUP3: usize = 292;
const SYS_SETNS: usize = 308;
const SYS_CLOSE_RANGE: usize = 436;

const EINTR: i32 = 4;
const EPROTO: i32 = 71;
const F_GETFD: usize = 1;
const PR_SET_DUMPABLE: usize = 4;
const CLONE_VM: usize = 0x100;
const CLONE_VFORK: usize = 0x4000;
const SIGCHLD: usize = 17;
const SIG_BLOCK: usize = 0;
const SIG_SETMASK: usize = 2;

/// Most steps of an order.
const MOST_OPS: usize = 128;
/// Largest message of the server or of init, in bytes.
const MESSAGE: usize = 64 * 1024;
/// Longest filter, in instructions of eight bytes.
const FILTER: usize = 4096;
/// How long `D` waits for its parent's end: 50 looks at once, then 5000 of 200 us.
const LOOKS: usize = 5050;

/// An object of the interpreter, which is only passed on.
pub enum Object {}

/// What is called of the interpreter and of its C library: functions and objects, each
/// by its address. Laid out as `zygote.py` fills it.
#[repr(C)]
pub struct Interpreter {
    /// `_Fork`: forks without handlers, and knows the new thread's number.
    fork: extern "C" fn() -> i32,
    /// `PyOS_BeforeFork`.
    before: extern "C" fn(),
    /// `PyOS_AfterFork_Child`.
    after: extern "C" fn(),
    /// `PyObject_CallObject`.
    call: extern "C" fn(*mut Object, *mut Object) -> *mut Object,
    /// `PyEval_EvalCode`.
    evaluate: extern "C" fn(*mut Object, *mut Object, *mut Object) -> *mut Object,
    /// `PyErr_ExceptionMatches`.
    matches: extern "C" fn(*mut Object) -> i32,
    /// `PyErr_PrintEx`.
    print: extern "C" fn(i32),
    /// `PyErr_Fetch`.
    fetch: extern "C" fn(*mut *mut Object, *mut *mut Object, *mut *mut Object),
    /// `PyErr_NormalizeException`.
    normalize: extern "C" fn(*mut *mut Object, *mut *mut Object, *mut *mut Object),
    /// `PyList_Append`.
    append: extern "C" fn(*mut Object, *mut Object) -> i32,
    /// `Py_LeaveRecursiveCall`.
    leave: extern "C" fn(),
    /// The class `SystemExit`.
    exits: *mut Object,
    /// The class `KeyboardInterrupt`.
    interrupts: *mut Object,
    /// What returns a program's code: only in the program.
    prepare: *mut Object,
    /// The names of `__main__`.
    names: *mut Object,
    /// A list, for the exception that ended the program.
    caught: *mut Object,
    /// What ends the process after a program that ended, exited, raised, or was
    /// interrupted.
    ends: [*mut Object; 4],
    /// The command line that the process was started with.
    line: *mut u8,
    /// How long that is in bytes, with a zero after each word; 0 where it is not known.
    line_length: usize,
}

/// What came with a command.
#[repr(C)]
pub struct Handed {
    /// The command's text, in bytes; 0 where there is none.
    length: usize,
    text: *const u8,
}

/// An order: into which box, and what to make of the program.
struct Order {
    /// For each namespace its kind (`CLONE_NEW*`), in the order in which they are entered.
    kinds: [u32; 8],
    namespaces: usize,
    /// The cgroup files that the program writes itself to.
    tasks: usize,
    ops: [Op; MOST_OPS],
    steps: usize,
    /// Namespaces, rule set, socket, cgroup files.
    fds: [i32; MOST_FDS],
    given: usize,
}

#[repr(C, align(64))]
struct Stack([u8; 64 * 1024]);

/// All that the zygote keeps. It has one thread, and `C` and `E` run while it waits.
///
/// Aligned, so that it shares no page with the object's data: the kernel shows no command
/// line that lies in pages of a file.
#[repr(align(4096))]
struct State {
    order: Order,
    filter: [u8; FILTER * 8],
    filter_size: usize,
    message: [u8; MESSAGE],
    /// The zygote's stack while it waits, on which `D` goes on.
    waiting: usize,
    /// Why the order failed.
    error: i32,
    of_c: Stack,
    of_e: Stack,
    interpreter: Option<&'static Interpreter>,
}

static mut STATE: MaybeUninit<State> = MaybeUninit::zeroed();

fn state() -> &'static mut State {
    // SAFETY: zeros are a state: numbers, an empty order whose steps are the first kind,
    // no interpreter. One thread, in which no two of these are used at once.
    unsafe { &mut *addr_of_mut!(STATE).cast::<State>() }
}

core::arch::global_asm!(
    // adopt_enter(place: *mut usize, flags, stack_top, function, argument) -> isize
    //
    // Clones. The parent goes on with the child's number, or an errno below zero; the
    // child calls the function on its own stack. `place` gets the parent's stack, on
    // which a copy of this process may go on by adopt_resume: there this returns 0.
    ".globl adopt_enter",
    ".hidden adopt_enter",
    "adopt_enter:",
    "push rbx",
    "push rbp",
    "push r12",
    "push r13",
    "push r14",
    "push r15",
    "mov [rdi], rsp",
    "mov r12, r8",
    "mov r13, rcx",
    "mov rdi, rsi",
    "mov rsi, rdx",
    "xor edx, edx",
    "xor r10d, r10d",
    "xor r8d, r8d",
    "mov eax, 56",
    "syscall",
    "test rax, rax",
    "jz 2f",
    "3:",
    "pop r15",
    "pop r14",
    "pop r13",
    "pop r12",
    "pop rbp",
    "pop rbx",
    "ret",
    "2:",
    "xor ebp, ebp",
    "mov rdi, r12",
    "call r13",
    "ud2",
    // adopt_resume(stack: usize) -> !
    ".globl adopt_resume",
    ".hidden adopt_resume",
    "adopt_resume:",
    "mov rsp, rdi",
    "xor eax, eax",
    "jmp 3b",
);

unsafe extern "C" {
    fn adopt_enter(
        place: *mut usize,
        flags: usize,
        stack: *mut u8,
        function: extern "C" fn(usize) -> !,
        argument: usize,
    ) -> isize;
    fn adopt_resume(stack: usize) -> !;
}

/// Runs the interpreter's side, and then the program, without a frame below it: called
/// by the interpreter itself where it looks for the loader of `__main__`. Never returns.
#[unsafe(no_mangle)]
pub extern "C" fn begin(_: *mut Object, _: *mut Object) -> *mut Object {
    let Some(interpreter) = state().interpreter else {
        exit(1);
    };
    let nothing = null::<Object>().cast_mut();
    let code = (interpreter.call)(interpreter.prepare, nothing);
    if code.is_null() {
        (interpreter.print)(1);
        exit(1);
    }
    // This very call counts, which it does not for a program of the interpreter's own.
    (interpreter.leave)();
    let names = interpreter.names;
    let result = (interpreter.evaluate)(code, names, names);
    let end = if !result.is_null() {
        0
    } else if (interpreter.matches)(interpreter.exits) != 0 {
        let (mut kind, mut value, mut traceback) = (nothing, nothing, nothing);
        (interpreter.fetch)(&mut kind, &mut value, &mut traceback);
        (interpreter.normalize)(&mut kind, &mut value, &mut traceback);
        (interpreter.append)(interpreter.caught, value);
        1
    } else {
        let interrupted = (interpreter.matches)(interpreter.interrupts) != 0;
        (interpreter.print)(1);
        if interrupted { 3 } else { 2 }
    };
    (interpreter.call)(interpreter.ends[end], nothing);
    // An end that did not end: it raised.
    (interpreter.print)(1);
    exit(1)
}

/// Says what `begin` and `serve` call.
#[unsafe(no_mangle)]
pub extern "C" fn know(interpreter: &'static Interpreter) {
    state().interpreter = Some(interpreter);
}

/// Says whether this process has one thread: 1 if so.
#[unsafe(no_mangle)]
pub extern "C" fn is_alone() -> i32 {
    // Unshares nothing, and fails if there is anybody to part from.
    const CLONE_THREAD: usize = 0x10000;
    raw(SYS_UNSHARE, [CLONE_THREAD, 0, 0, 0, 0, 0])
        .is_ok()
        .into()
}

/// Serves orders from `socket`. Returns only in a program, with the socket that leads
/// to its init; ends the process when the server is gone.
#[unsafe(no_mangle)]
pub extern "C" fn serve(socket: i32) -> i32 {
    let state = state();
    let Some(interpreter) = state.interpreter else {
        exit(1);
    };
    // Nobody of the same uid may look into what becomes a box's program.
    quiet(SYS_PRCTL, [PR_SET_DUMPABLE, 0, 0, 0, 0, 0]);
    signals(SIG_BLOCK, u64::MAX);
    let (length, _) = receive(socket, &mut state.filter, &mut state.order.fds);
    if length == 0 || length % 8 != 0 || length > state.filter.len() {
        exit(1);
    }
    state.filter_size = length;
    // Once: from now on this process runs no code of the interpreter's.
    (interpreter.before)();
    loop {
        let (length, given) = receive(socket, &mut state.message, &mut state.order.fds);
        if length == 0 {
            exit(0);
        }
        state.order.given = given;
        state.error = match read_order(&state.message[..length], &mut state.order) {
            Some(()) => 0,
            None => EPROTO,
        };
        if state.error == 0 {
            let top = top_of(&mut state.of_c);
            let flags = CLONE_VM | CLONE_VFORK | SIGCHLD;
            // SAFETY: the stack is of this call alone, and `c` never returns.
            let child = unsafe { adopt_enter(addr_of_mut!(state.waiting), flags, top, c, 0) };
            if child == 0 {
                return become_program(interpreter);
            }
            wait_for(child);
        }
        for fd in &state.order.fds[..given] {
            quiet(SYS_CLOSE, [*fd as usize, 0, 0, 0, 0, 0]);
        }
    }
}

fn top_of(stack: &mut Stack) -> *mut u8 {
    // SAFETY: one past the end of the array. The call in adopt_enter needs it aligned.
    unsafe { stack.0.as_mut_ptr().add(stack.0.len()) }
}

fn wait_for(child: isize) {
    if child < 0 {
        return;
    }
    // __WALL, so that it does not matter with which signal it ends.
    const WALL: usize = 0x4000_0000;
    let args = [child as usize, 0, WALL, 0, 0, 0];
    // SAFETY: nothing is written.
    while unsafe { call(SYS_WAIT4, args) } == Err(EINTR) {}
}

/// In `C`: enters the box, and has `E` fork there.
extern "C" fn c(_: usize) -> ! {
    let state = state();
    for at in 0..state.order.namespaces {
        let (fd, kind) = (state.order.fds[at] as usize, state.order.kinds[at] as usize);
        // SAFETY: takes numbers.
        if let Err(errno) = unsafe { call(SYS_SETNS, [fd, kind, 0, 0, 0, 0]) } {
            state.error = errno;
            exit(1);
        }
    }
    let mut unused = 0;
    let top = top_of(&mut state.of_e);
    let flags = CLONE_VM | CLONE_VFORK | SIGCHLD;
    // SAFETY: as in `serve`.
    let child = unsafe { adopt_enter(addr_of_mut!(unused), flags, top, e, 0) };
    if child < 0 {
        state.error = -child as i32;
    }
    wait_for(child);
    exit(0)
}

/// In `E`: forks the zygote's memory.
extern "C" fn e(_: usize) -> ! {
    let state = state();
    let forked = state.interpreter.map_or(-1, |of| (of.fork)());
    if forked == 0 {
        // SAFETY: this is a copy, whose stack of `serve` nobody has touched since.
        unsafe { adopt_resume(state.waiting) }
    }
    if forked < 0 {
        state.error = EPROTO;
    }
    exit(0)
}

/// In `D`: gives up all rights, then tells init that it is there.
fn become_program(interpreter: &Interpreter) -> i32 {
    let state = state();
    let order = &state.order;
    let rules = order.fds[order.namespaces];
    let socket = order.fds[order.namespaces + 1];
    let tasks = order.namespaces + 2;
    for fd in &order.fds[tasks..tasks + order.tasks] {
        let zero = b"0".as_ptr() as usize;
        // SAFETY: the kernel reads one byte.
        fail_on(socket, unsafe {
            call(SYS_WRITE, [*fd as usize, zero, 1, 0, 0, 0])
        });
    }
    keep_two(socket, rules);
    let lent = Lent {
        rules,
        filter: state.filter.as_ptr(),
        instructions: (state.filter_size / 8) as u16,
    };
    for op in &order.ops[..order.steps] {
        // SAFETY: `lent` has the filter that the server sent.
        let done = unsafe { steps::carry_out(*op, &lent) };
        fail_on(socket, done.map(|()| 0));
    }
    quiet(SYS_CLOSE, [rules as usize, 0, 0, 0, 0, 0]);
    (interpreter.after)();
    signals(SIG_SETMASK, 0);
    socket
}

/// Tells init that the program is there, once init is its parent, and waits for the
/// command. Its descriptors take the places of standard input, output and error, and
/// of `channel` if there are four.
///
/// Called when all that can be done without the command is done.
#[unsafe(no_mangle)]
pub extern "C" fn arrive(socket: i32, channel: i32, handed: &mut Handed) -> i32 {
    let state = state();
    for look in 0.. {
        // SAFETY: takes nothing.
        if unsafe { call(SYS_GETPPID, [0; 6]) } == Ok(1) {
            break;
        }
        if look > LOOKS {
            exit(125);
        }
        if look < 50 {
            quiet(SYS_SCHED_YIELD, [0; 6]);
        } else {
            let pause = [0i64, 200_000];
            quiet(SYS_NANOSLEEP, [pause.as_ptr() as usize, 0, 0, 0, 0, 0]);
        }
    }
    // Like any program of the box, for those of the same user.
    fail_on(socket, raw(SYS_PRCTL, [PR_SET_DUMPABLE, 1, 0, 0, 0, 0]));
    say(socket, 0);
    let (length, given) = receive(socket, &mut state.message, &mut state.order.fds);
    if length == 0 || !(3..=4).contains(&given) {
        // The box was given up.
        exit(0);
    }
    let places = [0, 1, 2, channel];
    for (fd, place) in state.order.fds[..given].iter().zip(places) {
        fail_on(
            socket,
            raw(SYS_DUP3, [*fd as usize, place as usize, 0, 0, 0, 0]),
        );
    }
    for fd in &state.order.fds[..given] {
        if !places[..given].contains(fd) {
            quiet(SYS_CLOSE, [*fd as usize, 0, 0, 0, 0, 0]);
        }
    }
    quiet(SYS_CLOSE, [socket as usize, 0, 0, 0, 0, 0]);
    if let Some(interpreter) = state.interpreter {
        let line = (interpreter.line, interpreter.line_length);
        disguise::disguise(&state.message[..length], line);
    }
    *handed = Handed {
        length,
        text: state.message.as_ptr(),
    };
    0
}

/// Returns how many descriptors below `most` are open.
#[unsafe(no_mangle)]
pub extern "C" fn descriptors(most: i32) -> i32 {
    (0..most)
        .filter(|fd| raw(SYS_FCNTL, [*fd as usize, F_GETFD, 0, 0, 0, 0]).is_ok())
        .count() as i32
}

/// Closes all descriptors from 3 on but these two.
fn keep_two(one: i32, other: i32) {
    let (low, high) = if one < other {
        (one, other)
    } else {
        (other, one)
    };
    let close = |from: i32, to: i32| {
        if from <= to {
            let args = [from as usize, to as usize, 0, 0, 0, 0];
            fail_on(one, raw(SYS_CLOSE_RANGE, args));
        }
    };
    close(3, low - 1);
    close(low + 1, high - 1);
    let args = [high as usize + 1, u32::MAX as usize, 0, 0, 0, 0];
    fail_on(one, raw(SYS_CLOSE_RANGE, args));
}

/// Tells init why there is no program, and ends.
fn fail_on(socket: i32, done: Result<usize, i32>) {
    if let Err(errno) = done {
        say(socket, errno);
        exit(126);
    }
}

fn raw(number: usize, args: [usize; 6]) -> Result<usize, i32> {
    // SAFETY: every caller passes numbers, or memory that the kernel only reads and
    // that lives as long as the call.
    unsafe { call(number, args) }
}

/// Makes a call whose failure changes nothing.
fn quiet(number: usize, args: [usize; 6]) {
    let _ = raw(number, args);
}

fn signals(how: usize, set: u64) {
    let set = [set];
    let args = [how, set.as_ptr() as usize, 0, size_of::<u64>(), 0, 0];
    if raw(SYS_SIGPROCMASK, args).is_err() {
        exit(1);
    }
}

fn exit(code: i32) -> ! {
    loop {
        quiet(SYS_EXIT_GROUP, [code as usize, 0, 0, 0, 0, 0]);
    }
}

/// Reads an order: how many namespaces, cgroup files and steps; the kinds; the steps.
fn read_order(bytes: &[u8], order: &mut Order) -> Option<()> {
    let mut words = bytes.chunks_exact(8).map(|chunk| {
        let mut word = [0; 8];
        word.copy_from_slice(chunk);
        u64::from_le_bytes(word)
    });
    order.namespaces = words.next()? as usize;
    order.tasks = words.next()? as usize;
    order.steps = words.next()? as usize;
    let sizes = order.namespaces <= order.kinds.len()
        && order.tasks <= MOST_FDS
        && order.steps <= MOST_OPS
        && order.given == order.namespaces + 2 + order.tasks;
    if !sizes {
        return None;
    }
    for at in 0..order.namespaces {
        order.kinds[at] = words.next()? as u32;
    }
    for at in 0..order.steps {
        let mut op = [0; WORDS];
        for word in &mut op {
            *word = words.next()?;
        }
        order.ops[at] = Op::of(op)?;
    }
    words.next().is_none().then_some(())
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    exit(127)
}

/// What the standard library's own code names, for panics that unwind. None does here.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

/// What the compiler calls to move memory.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    // SAFETY: the caller's promise, as of the C function of this name.
    unsafe {
        core::arch::asm!("rep movsb", inout("rcx") count => _, inout("rdi") to => _, inout("rsi") from => _, options(nostack, preserves_flags));
    }
    to
}

/// What the compiler calls to fill memory.
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, value: i32, count: usize) -> *mut u8 {
    // SAFETY: as above.
    unsafe {
        core::arch::asm!("rep stosb", inout("rcx") count => _, inout("rdi") to => _, in("al") value as u8, options(nostack, preserves_flags));
    }
    to
}
