//! `cofferdam-stub`: the stub starter and the process that a container's code runs in.
//!
//! No libc, no heap, one page or two of text at an address no container maps. The starter is born from the Sentry before
//! that confines itself; it makes one child, the template, and from then on only reaps stub processes and reports them.
//! The template installs the filter that sends every system call to the Sentry, and then only does what the Sentry
//! orders: make copies of itself. Copies become container processes.
//!
//! What runs when a thread traps (a signal: a call that needs registers, a fault, an interrupt): `handler` reports by a
//! call that no kernel has, gets back how many orders lie in its slot, runs them (each arrives at the Sentry and is let
//! through only if it is what was ordered), reports the result, and so on until told to return from the signal.
#![no_std]
#![no_main]

use core::arch::{asm, global_asm};

#[allow(dead_code)]
#[path = "../src/layout.rs"]
mod layout;
use layout::*;

global_asm!(
    r#"
    .globl _start
_start:
    mov rdi, rsp
    and rsp, -16
    call {main}
    ud2

    // A signal handler: rdi signal, rsi siginfo, rdx ucontext, on the slot's signal stack.
    .globl handler
handler:
    mov r15, rdx
    mov r14, rsp
    and r14, -{slot}
    mov eax, {report}
    syscall
    // rax: how many orders to run, 0 to return from the signal.
2:  test rax, rax
    jz 9f
    mov r13, rax
    mov r12, r14
3:  mov rax, [r12]
    mov rdi, [r12 + 8]
    mov rsi, [r12 + 16]
    mov rdx, [r12 + 24]
    mov r10, [r12 + 32]
    mov r8,  [r12 + 40]
    mov r9,  [r12 + 48]
    mov rbp, [r12 + 56]
    syscall
    test rbp, rbp
    jnz 6f
4:  cmp rax, -4095
    jae 5f
    add r12, {order}
    dec r13
    jnz 3b
5:  mov rsi, rax
    mov edi, {done}
    mov rdx, r15
    mov eax, {report}
    syscall
    jmp 2b
    // After a clone: rbp is the child's slot, its lowest bit set if the child must map it first.
6:  test rax, rax
    jnz 4b
7:  mov r14, rbp
    test r14, {mark_gs}
    jz 71f
    and r14, -8
    wrgsbase r14
71: mov r14, rbp
    and r14, -8
    test rbp, {mark_maps}
    jz 8f
    // mmap(group, GROUP * SLOT, RW, MAP_SHARED | MAP_FIXED, SLOTS_FD, offset); rdx is still the order's: PROT_READ |
    // PROT_WRITE and, in the half that no kernel looks at, the child's word of recognition.
    mov rdi, r14
    mov esi, {group}
    mov r10d, 0x11
    mov r8d, {slots_fd}
    mov r9, {slots}
    neg r9
    add r9, r14
    mov eax, 9
    syscall
8:  test rbp, {mark_group}
    jz 81f
    // setpgid(0, 0), and the word of recognition and the slot again, which no kernel looks at.
    xor edi, edi
    xor esi, esi
    mov r10, r14
    xor r8d, r8d
    xor r9d, r9d
    mov eax, 109
    syscall
81: lea rsp, [r14 + {slot} - 64]
    lea r15, [r14 + {context}]
    mov edi, {start}
    mov rsi, rdx
    mov rdx, r15
    mov eax, {report}
    syscall
    jmp 2b
    // rt_sigreturn
9:  mov rsp, r15
    mov eax, 15
    syscall
    ud2

    // The short way of a call, come to from a patched call site: rax number, rcx address of the site's syscall
    // instruction, everything else as at the call. Leaves as the syscall instruction does: result in rax, rcx behind it.
    // Touches no stack. The Sentry knows the labels: an interrupt may find the thread anywhere in here.
    .globl short
short:
    mov gs:[{short_site}], rcx
    cmp dword ptr gs:[{short_watched}], 0
    je 6f
    mov gs:[{short_call}], rax
    mov gs:[{short_call} + 8], rdi
    mov gs:[{short_call} + 16], rsi
    mov gs:[{short_call} + 24], rdx
    mov gs:[{short_call} + 32], r10
    mov gs:[{short_call} + 40], r8
    mov gs:[{short_call} + 48], r9
    mov dword ptr gs:[{short_state}], {posted}
    .globl short_posted
short_posted:
    mov r11d, {looks}
2:  pause
    cmp dword ptr gs:[{short_state}], {posted}
    jne 3f
    dec r11d
    jnz 2b
    // Nobody takes it: take it back, and go the long way.
    mov eax, {posted}
    xor r11d, r11d
    lock cmpxchg dword ptr gs:[{short_state}], r11d
    jne 3f
    // Whoever watches has no processor: no further call waits for that.
    mov dword ptr gs:[{short_watched}], 0
    mov rax, gs:[{short_call}]
6:  jmp rcx
3:  mov r11d, {looks} * 4
4:  cmp dword ptr gs:[{short_state}], {taken}
    ja 5f
    pause
    dec r11d
    jnz 4b
    jmp 51f
5:  cmp dword ptr gs:[{short_state}], {done_state}
    je short_done
    cmp dword ptr gs:[{short_state}], {long_state}
    jne 51f
    mov rax, gs:[{short_call}]
    mov dword ptr gs:[{short_state}], 0
    jmp rcx
    // It takes long: sleep in the Sentry's hands until it is done.
51: mov eax, {report}
    mov edi, {asleep}
    syscall
    mov rcx, gs:[{short_site}]
    mov rdi, gs:[{short_call} + 8]
    jmp 3b
    .globl short_done
short_done:
    mov rax, gs:[{short_result}]
    add rcx, 2
    mov dword ptr gs:[{short_state}], 0
    .globl short_last
short_last:
    jmp rcx
    .globl short_end
short_end:

    // The template starts as a child does: rdi is its slot, already mapped.
    .globl template_start
template_start:
    mov r14, rdi
    jmp 81b
"#,
    main = sym main,
    report = const REPORT,
    slot = const SLOT,
    order = const ORDER,
    done = const DONE,
    start = const START,
    context = const START_CONTEXT,
    group = const GROUP * SLOT,
    slots_fd = const SLOTS_FD,
    slots = const SLOTS,
    mark_maps = const MARK_MAPS,
    mark_gs = const MARK_GS,
    mark_group = const MARK_GROUP,
    short_site = const SHORT_SITE,
    short_watched = const SHORT_WATCHED,
    short_call = const SHORT_CALL,
    short_state = const SHORT_STATE,
    short_result = const SHORT_RESULT,
    posted = const SHORT_POSTED,
    taken = const SHORT_TAKEN,
    done_state = const SHORT_DONE,
    long_state = const SHORT_LONG,
    looks = const SHORT_LOOKS,
    asleep = const ASLEEP,
);

unsafe extern "C" {
    fn handler();
    fn template_start(slot: u64) -> !;
    fn short();
    fn short_posted();
    fn short_done();
    fn short_last();
    fn short_end();
}

// SAFETY of every use: the callers pass arguments that the call takes.
unsafe fn sys(n: u64, a: u64, b: u64, c: u64, d: u64, e: u64, f: u64) -> i64 {
    let r: i64;
    // SAFETY: a raw system call; memory it may touch is named by the caller.
    unsafe {
        asm!("syscall", inlateout("rax") n as i64 => r, in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e,
             in("r9") f, lateout("rcx") _, lateout("r11") _);
    }
    r
}

fn fail(code: u64) -> ! {
    loop {
        // SAFETY: exit_group(code) touches no memory.
        unsafe { sys(231, code, 0, 0, 0, 0, 0) };
    }
}

fn boot(offset: u64) -> *mut u64 {
    (SLOTS + offset) as *mut u64
}

#[repr(C)]
struct SigAction {
    handler: u64,
    flags: u64,
    restorer: u64,
    mask: u64,
}

#[repr(C)]
struct SigStack {
    sp: u64,
    flags: u64,
    size: u64,
}

#[repr(C)]
struct Filter {
    len: u16,
    pad: [u16; 3],
    at: u64,
}

extern "C" fn main(stack: *const u64) -> ! {
    // SAFETY: the process has one thread; all addresses are the ones the layout gives, mapped before they are used.
    unsafe {
        // mmap the template's group of slots.
        let at = sys(9, SLOTS, GROUP * SLOT, 3, 0x11, SLOTS_FD as u64, 0);
        if at != SLOTS as i64 {
            fail(101);
        }
        // The auxiliary vector lies behind argv and the environment: find the vDSO.
        let mut p = stack.add(1 + stack.read() as usize + 1);
        while p.read() != 0 {
            p = p.add(1);
        }
        p = p.add(1);
        while p.read() != 0 {
            if p.read() == 33 {
                boot(BOOT_VDSO).write_volatile(p.add(1).read());
            }
            p = p.add(2);
        }
        // A process that others of our user may read: the Sentry copies from and to container memory.
        sys(157, 4, 1, 0, 0, 0, 0);
        // No capability: a namespace's root gets them all at exec, and the Sentry, which has none, may not look into a
        // process that has more than itself. Securebits first, so that nothing gives them back.
        sys(157, 28, 0xef, 0, 0, 0, 0);
        let header = [0x2008_0522u32, 0];
        let none = [0u32; 6];
        if sys(126, (&raw const header) as u64, (&raw const none) as u64, 0, 0, 0, 0) != 0 {
            fail(110);
        }
        // no_new_privs
        if sys(157, 38, 1, 0, 0, 0, 0) != 0 {
            fail(102);
        }
        let action = SigAction { handler: handler as *const () as u64, flags: 0x1c00_0004, restorer: handler as *const () as u64, mask: !0 };
        for signal in [4u64, 5, 7, 8, 11, 31, INTERRUPT as u64] {
            if sys(13, signal, &raw const action as u64, 0, 8, 0, 0) != 0 {
                fail(103);
            }
        }
        let mode = boot(BOOT_MODE).read_volatile();
        // clone(SIGCHLD): the template.
        let template = sys(56, 17, 0, 0, 0, 0, 0);
        if template < 0 {
            fail(104);
        }
        if template == 0 {
            template_main(mode);
        }
        let labels = [short as *const (), short_posted as _, short_done as _, short_last as _, short_end as _];
        for (i, label) in labels.into_iter().enumerate() {
            boot(BOOT_SHORT + 8 * i as u64).write_volatile(label as u64);
        }
        boot(BOOT_TEMPLATE).write_volatile(template as u64);
        sys(3, SLOTS_FD as u64, 0, 0, 0, 0, 0);
        let mut fd = WINDOW_FD;
        while fd < WINDOW_FD + WINDOWS {
            sys(3, fd as u64, 0, 0, 0, 0, 0);
            fd += 1;
        }
        let len = boot(BOOT_STARTER_FILTER).read_volatile();
        if len != 0 {
            let filter = Filter { len: len as u16, pad: [0; 3], at: SLOTS + BOOT_STARTER_FILTER + 8 };
            if sys(317, 1, 0, &raw const filter as u64, 0, 0, 0) != 0 {
                fail(105);
            }
        }
        boot(BOOT_CONFINED).write_volatile(1);
        starter_loop()
    }
}

/// Reaps stub processes for ever, and tells the Sentry.
// SAFETY: called once, by main.
unsafe fn starter_loop() -> ! {
    loop {
        let mut message = [0i32; 2];
        // SAFETY: wait4 writes the status into `message`; write reads it.
        unsafe {
            let pid = sys(61, !0, (&raw mut message[1]) as u64, 0x4000_0000, 0, 0, 0);
            if pid == -10 {
                fail(0);
            }
            if pid <= 0 {
                continue;
            }
            message[0] = pid as i32;
            if sys(1, PIPE_FD as u64, (&raw const message) as u64, 8, 0, 0, 0) == -32 {
                fail(0);
            }
        }
    }
}

/// The template: filter, listener, first report; under ptrace it only sleeps until it is traced.
// SAFETY: called once, in the template, by main.
unsafe fn template_main(mode: u64) -> ! {
    // SAFETY: as in main.
    unsafe {
        sys(3, PIPE_FD as u64, 0, 0, 0, 0, 0);
        // setpgid: a group of its own, that its children are found in.
        if sys(109, 0, 0, 0, 0, 0, 0) != 0 {
            fail(112);
        }
        let stack = SigStack { sp: SLOTS + STACK, flags: 0, size: STACK_LEN };
        if sys(131, &raw const stack as u64, 0, 0, 0, 0, 0) != 0 {
            fail(106);
        }
        // madvise(MADV_DONTFORK): a child must not see its parent's slots.
        if sys(28, SLOTS, GROUP * SLOT, 10, 0, 0, 0) != 0 {
            fail(107);
        }
        if mode == 1 {
            // Children start with this mask, on a signal stack that is not theirs yet: an interrupt must wait for the
            // end of their first orders, as it does in a handler. The return from there clears the mask.
            let all = !0u64;
            if sys(14, 0, &raw const all as u64, 0, 8, 0, 0) != 0 {
                fail(111);
            }
            let filter =
                Filter { len: boot(BOOT_STUB_FILTER).read_volatile() as u16, pad: [0; 3], at: SLOTS + BOOT_STUB_FILTER + 8 };
            // seccomp(SET_MODE_FILTER, NEW_LISTENER | WAIT_KILLABLE_RECV)
            let mut fd = sys(317, 1, 0x28, &raw const filter as u64, 0, 0, 0);
            if fd == -22 {
                fd = sys(317, 1, 8, &raw const filter as u64, 0, 0, 0);
            }
            boot(BOOT_LISTENER).write_volatile(if fd < 0 { fd as u64 } else { fd as u64 + 1 });
            if fd < 0 {
                fail(108);
            }
        } else {
            boot(BOOT_LISTENER).write_volatile(1);
            // Wait to be traced: asleep in pause(2), which the tracer finds it in and takes over from there.
            loop {
                sys(34, 0, 0, 0, 0, 0, 0);
            }
        }
        template_start(SLOTS)
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    fail(109)
}
