//! Each platform alone, the same cases on all, with a kernel of a few lines behind it: calls, orders, faults, threads and processes.
#![allow(missing_docs, unsafe_code, clippy::undocumented_unsafe_blocks)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test helpers outside #[test] functions")]

use std::os::fd::OwnedFd;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cofferdam_platform::notify::Notify;
use cofferdam_platform::ptrace::Ptrace;
use cofferdam_platform::*;
use cofferdam_shm::Window;

const CODE: u64 = 0x40_0000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    Notify,
    Ptrace,
}

/// A module a platform with a test a case.
macro_rules! on_each_platform {
    ($($case:ident),* $(,)?) => {
        mod on_notify {
            $(#[test] fn $case() { super::$case(super::Which::Notify) })*
        }
        mod on_ptrace {
            $(#[test] fn $case() { super::$case(super::Which::Ptrace) })*
        }
    };
}

on_each_platform! {
    a_call_is_answered_and_its_result_seen,
    a_fault_is_reported_and_a_window_page_mapped,
    fork_makes_a_second_process_and_calls_that_need_registers_trap,
    a_thread_runs_on_its_own_stack,
    an_order_that_nobody_gave_is_refused_though_the_stubs_own_text_makes_it,
    an_interrupt_stops_a_thread_that_makes_no_call,
    a_process_killed_from_outside_is_lost,
    a_call_passed_through_takes_effect,
    extended_state_can_be_read_and_set,
    a_parked_call_is_answered_by_another_thread,
    what_is_kept_for_a_process_is_given_back_when_nothing_is_left_of_it,
}

/// Says when it is dropped, and whether the memory of the thread is still there then.
struct Kept {
    tid: i32,
    events: Sender<String>,
}

impl Drop for Kept {
    fn drop(&mut self) {
        let mut byte = 0u8;
        let local = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
        let remote = libc::iovec { iov_base: CODE as *mut libc::c_void, iov_len: 1 };
        let there = unsafe { libc::process_vm_readv(self.tid, &local, 1, &remote, 1, 0) } == 1;
        let _ = self.events.send(format!("given back, memory there: {there}"));
    }
}

/// Runs `code` in one process; calls go to `on_call`.
struct Guest {
    code: Vec<u8>,
    start: Registers,
    host: Mutex<Option<Arc<dyn HostThread>>>,
    events: Mutex<Sender<String>>,
}

impl Guest {
    fn say(&self, s: String) {
        let _ = self.events.lock().unwrap().send(s);
    }
}

impl GuestThread for Guest {
    fn attach(&self, host: Arc<dyn HostThread>) {
        *self.host.lock().unwrap() = Some(host);
    }

    fn call(self: Arc<Self>, call: Call) -> Answer {
        match call.number {
            39 => Answer::Return(4242),
            // Interrupts the caller a little later.
            500 => {
                let host = self.host.lock().unwrap().clone().unwrap();
                std::thread::spawn(move || {
                    std::thread::sleep(Duration::from_millis(100));
                    host.interrupt();
                });
                Answer::Return(0)
            }
            // Kills the caller as somebody else would.
            501 => {
                let tid = self.host.lock().unwrap().clone().unwrap().tid();
                assert_eq!(unsafe { libc::kill(tid, libc::SIGKILL) }, 0);
                Answer::Park
            }
            // Ends the caller, and has something kept for it.
            504 => {
                let host = self.host.lock().unwrap().clone().unwrap();
                let (tid, events) = (host.tid(), self.events.lock().unwrap().clone());
                host.keep(Arc::new(Kept { tid, events }));
                // The kernel forgets it.
                *self.host.lock().unwrap() = None;
                host.kill();
                Answer::Park
            }
            158 => Answer::PassThrough,
            // Looked at in a trap.
            502 => Answer::ReturnThenTrap(5),
            503 => {
                let host = self.host.lock().unwrap().clone().unwrap();
                std::thread::spawn(move || {
                    std::thread::sleep(Duration::from_millis(50));
                    host.answer(Answer::Return(91));
                });
                Answer::Park
            }
            // "exit": reports its argument.
            60 => {
                self.say(format!("exit {}", call.args[0]));
                Answer::Exit
            }
            n => {
                self.say(format!("call {n}"));
                Answer::Return(-38)
            }
        }
    }

    fn trap(self: Arc<Self>, trap: Trap, frame: &mut dyn Frame) -> Answer {
        match trap {
            Trap::Start if self.code.is_empty() => Answer::Resume,
            Trap::Start => Answer::Orders(vec![Order::Map {
                address: CODE,
                len: 0x4000,
                prot: 7,
                pages: Pages::Anonymous,
                populate: false,
            }]),
            Trap::Ordered(r) if !self.code.is_empty() && frame.registers().rip == 0 => {
                assert_eq!(r, 0);
                let host = self.host.lock().unwrap().clone().unwrap();
                assert_eq!(host.write(CODE, &self.code), Ok(self.code.len()));
                frame.set_registers(&Registers { rip: CODE, rsp: CODE + 0x3000, ..self.start });
                Answer::Resume
            }
            Trap::Ordered(r) => {
                self.say(format!("ordered {r}"));
                Answer::Return(if r < 0 { r } else { 77 })
            }
            Trap::Call(c) if c.number == 57 => {
                let mut registers = frame.registers();
                registers.rax = 0;
                let guest = Arc::new(Guest {
                    code: Vec::new(),
                    start: registers,
                    host: Mutex::new(None),
                    events: Mutex::new(self.events.lock().unwrap().clone()),
                });
                Answer::Orders(vec![Order::Clone { guest, thread: false, share_memory: false, registers, fs: None }])
            }
            Trap::Call(c) if c.number == 56 => {
                let mut registers = frame.registers();
                registers.rax = 0;
                registers.rsp = c.args[1];
                let guest = Arc::new(Guest {
                    code: Vec::new(),
                    start: registers,
                    host: Mutex::new(None),
                    events: Mutex::new(self.events.lock().unwrap().clone()),
                });
                Answer::Orders(vec![Order::Clone { guest, thread: true, share_memory: true, registers, fs: None }])
            }
            Trap::Call(c) => Answer::Return(-i64::from(c.number)),
            Trap::Fault { signal, address, error, .. } => {
                self.say(format!("fault {signal} at {address:#x} error {error}"));
                Answer::Orders(vec![Order::Map {
                    address: address & !0xfff,
                    len: 0x1000,
                    prot: 3,
                    pages: Pages::Window { window: 1, offset: 0x5000, shared: true },
                    populate: false,
                }])
            }
            Trap::Interrupt if frame.registers().rax == 5 => {
                let mut state = frame.extended_state();
                self.say(format!("xmm0 {:?} of {}", &state[160..164], if state.len() >= 580 { "many" } else { "few" }));
                state[160..164].copy_from_slice(&[9, 0, 0, 0]);
                frame.set_extended_state(Some(&state));
                Answer::Resume
            }
            t => {
                self.say(format!("{t:?}"));
                Answer::Exit
            }
        }
    }

    fn lost(self: Arc<Self>, signal: i32) {
        self.say(format!("lost {signal}"));
    }
}

fn nothing(_: cofferdam_platform::After) {}

/// Runs the code in a sandbox process that is process 1 of a pid namespace, as a Sentry is: its stubs die with it.
/// The events up to `until`, and what the code left at offset 0x5001 of window 1.
fn run(which: Which, code: &[u8], until: &str) -> (Vec<String>, u8) {
    let mut pipe = [0; 2];
    let parent = unsafe {
        assert_eq!(libc::pipe(pipe.as_mut_ptr()), 0);
        // A helper thread's own namespace: unshare(CLONE_NEWPID) is for the children of the calling thread.
        let user = if libc::geteuid() == 0 { 0 } else { libc::CLONE_NEWUSER };
        assert_eq!(libc::unshare(libc::CLONE_NEWPID | user), 0, "{}", std::io::Error::last_os_error());
        libc::fork()
    };
    if parent == 0 {
        let (seen, byte) = run_here(which, code, until);
        let mut said = seen.join("\n").into_bytes();
        said.extend([b'\n', byte]);
        unsafe {
            libc::write(pipe[1], said.as_ptr().cast(), said.len());
            libc::_exit(0);
        }
    }
    let mut said = Vec::new();
    unsafe {
        libc::close(pipe[1]);
        let mut b = [0u8; 4096];
        loop {
            let n = libc::read(pipe[0], b.as_mut_ptr().cast(), b.len());
            if n <= 0 {
                break;
            }
            said.extend_from_slice(&b[..n as usize]);
        }
        libc::close(pipe[0]);
        libc::waitpid(parent, std::ptr::null_mut(), 0);
    }
    let byte = said.pop().expect("the sandbox process said something");
    let text = String::from_utf8(said).unwrap();
    (text.lines().map(str::to_owned).collect(), byte)
}

fn run_here(which: Which, code: &[u8], until: &str) -> (Vec<String>, u8) {
    let windows: Vec<Window> = (0..4).map(|_| Window::create("w", 1 << 30).unwrap()).collect();
    windows[1].write(0x5000, &[9]).unwrap();
    let fds: Vec<OwnedFd> = windows.iter().map(|w| w.fd().try_clone_to_owned().unwrap()).collect();
    let setup = Setup { windows: fds, starter_filter: vec![], oom_score_adj: None, after: nothing };
    let mut notify = None;
    let platform: Arc<dyn Platform> = match which {
        Which::Notify => notify.insert(Arc::new(Notify::start(setup).unwrap())).clone(),
        Which::Ptrace => Arc::new(Ptrace::start(setup).unwrap()),
    };
    assert!(platform.vdso().1 >= 4096);
    let (tx, rx) = channel();
    platform.new_process(Arc::new(Guest {
        code: code.to_vec(),
        start: Registers::default(),
        host: Mutex::new(None),
        events: Mutex::new(tx),
    }));
    let p = platform.clone();
    std::thread::spawn(move || p.run());
    let mut seen = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(20);
    while Instant::now() < deadline {
        if let Ok(e) = rx.recv_timeout(Duration::from_millis(200)) {
            let end = e == until;
            seen.push(e);
            if end {
                break;
            }
        }
    }
    if let Some(notify) = notify.filter(|_| until == "lost 9") {
        // What is gone no longer counts; what was ended for what it did counts out once.
        let running = || notify.running();
        while running() != 0 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        std::thread::sleep(Duration::from_millis(50));
        seen.push(format!("{} run", running()));
    }
    let mut b = [0];
    windows[1].read(0x5001, &mut b).unwrap();
    (seen, b[0])
}

fn asm(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}
const SYSCALL: &[u8] = &[0x0f, 0x05];
fn mov_eax(n: u32) -> Vec<u8> {
    [&[0xb8][..], &n.to_le_bytes()].concat()
}
/// exit(eax)
fn exit_with_eax() -> Vec<u8> {
    asm(&[&[0x89, 0xc7], &mov_eax(60), SYSCALL])
}

fn a_call_is_answered_and_its_result_seen(which: Which) {
    let code = asm(&[&mov_eax(39), SYSCALL, &exit_with_eax()]);
    assert_eq!(run(which, &code, "exit 4242").0, ["exit 4242"]);
}

fn a_fault_is_reported_and_a_window_page_mapped(which: Which) {
    // mov rbx, 0x10000000; movzx eax, byte [rbx]; mov byte [rbx+1], 3; exit(eax)
    let code =
        asm(&[&[0x48, 0xc7, 0xc3, 0, 0, 0, 0x10], &[0x0f, 0xb6, 0x03], &[0xc6, 0x43, 0x01, 3], &exit_with_eax()]);
    let (seen, w) = run(which, &code, "exit 9");
    assert_eq!(seen, ["fault 11 at 0x10000000 error 4", "ordered 0", "exit 9"], "{seen:?}");
    assert_eq!(w, 3);
}

fn fork_makes_a_second_process_and_calls_that_need_registers_trap(which: Which) {
    // fork; exit(eax): the child exits 0, the parent 77.
    let code = asm(&[&mov_eax(57), SYSCALL, &exit_with_eax()]);
    let (mut seen, _) = run(which, &code, "exit 77");
    seen.sort();
    assert!(seen.contains(&"exit 77".into()) && seen.contains(&"ordered 0".into()), "{seen:?}");
}

fn a_thread_runs_on_its_own_stack(which: Which) {
    // mov esi, CODE+0x2000; clone; test eax,eax; jnz parent; child: mov eax, esp; exit. parent: spin
    let code = asm(&[
        &[0xbe, 0, 0x20, 0x40, 0],
        &mov_eax(56),
        SYSCALL,
        &[0x85, 0xc0, 0x75, 0x0b],
        &[0x89, 0xe0],
        &exit_with_eax(),
        &[0xeb, 0xfe],
    ]);
    let (seen, _) = run(which, &code, &format!("exit {}", CODE + 0x2000));
    assert!(seen.contains(&format!("exit {}", CODE + 0x2000)), "{seen:?}");
}

fn an_order_that_nobody_gave_is_refused_though_the_stubs_own_text_makes_it(which: Which) {
    // Jump to the stub's own `syscall` of the order loop with mmap in the registers: find it by its bytes.
    let stub = std::fs::read(concat!(env!("OUT_DIR_STUB"))).unwrap();
    let at = stub.windows(5).position(|w| w == [0x0f, 0x05, 0x48, 0x85, 0xed]).unwrap() as u64;
    // rbp = 0, r13 = 1, r12 = somewhere readable, then `jmp`. After the call: cmp rax..., mov rsi, rax; edi=DONE; report.
    let target = 0x7d00_0000_0000u64 + 0x1000 + at;
    let code = asm(&[
        &[0x31, 0xed],                      // xor ebp, ebp
        &[0x41, 0xbd, 1, 0, 0, 0],          // mov r13d, 1
        &[0x49, 0xc7, 0xc4, 0, 0, 0x40, 0], // mov r12, CODE
        &mov_eax(9),
        &[0x48, 0xc7, 0xc7, 0, 0, 0, 0x20], // rdi = 0x20000000
        &[0xbe, 0, 0x10, 0, 0],             // esi = 4096
        &[0xba, 7, 0, 0, 0],                // edx = rwx
        &[0x41, 0xba, 0x11, 0, 0, 0],       // r10d = SHARED|FIXED
        &[0x41, 0xb8, 4, 0, 0, 0],          // r8d = window 0
        &[0x45, 0x31, 0xc9],                // r9d = 0
        &[0x48, 0xb8],
        &target.to_le_bytes(),
        &[0x50], // push rax... then restore eax
        &mov_eax(9),
        &[0xc3], // ret -> target
    ]);
    if which == Which::Ptrace {
        // A call like any other: the kernel answers it, and its report too. The host carries out neither.
        let (seen, _) = run(which, &code, "call 1879048193");
        assert_eq!(seen, ["call 1879048193"], "{seen:?}");
        return;
    }
    // The stub then reports DONE with a frame outside its slot: the process is ended, nothing was mapped.
    let (seen, _) = run(which, &code, "lost 9");
    assert_eq!(seen, ["lost 9", "0 run"], "{seen:?}");
}

fn an_interrupt_stops_a_thread_that_makes_no_call(which: Which) {
    let code = asm(&[&mov_eax(500), SYSCALL, &[0xeb, 0xfe]]);
    assert_eq!(run(which, &code, "Interrupt").0, ["Interrupt"]);
}

fn a_process_killed_from_outside_is_lost(which: Which) {
    let code = asm(&[&mov_eax(501), SYSCALL, &[0xeb, 0xfe]]);
    let (mut seen, _) = run(which, &code, "lost 9");
    if which == Which::Notify {
        assert_eq!(seen.pop().as_deref(), Some("0 run"));
    }
    assert_eq!(seen, ["lost 9"]);
}

fn a_call_passed_through_takes_effect(which: Which) {
    // arch_prctl(ARCH_SET_FS, CODE + 0x40); exit(fs:[0]), which is the word 55 there.
    let mut code = asm(&[
        &[0xbf, 0x02, 0x10, 0, 0],
        &[0xbe, 0x40, 0, 0x40, 0],
        &mov_eax(158),
        SYSCALL,
        &[0x64, 0x8b, 0x04, 0x25, 0, 0, 0, 0],
        &exit_with_eax(),
    ]);
    code.resize(0x40, 0x90);
    code.extend([55, 0, 0, 0]);
    assert_eq!(run(which, &code, "exit 55").0, ["exit 55"]);
}

fn extended_state_can_be_read_and_set(which: Which) {
    // mov ecx, 7; movd xmm0, ecx; call 502 (sets xmm0 to 9 in a trap); movd eax, xmm0; exit(eax)
    let code = asm(&[
        &[0xb9, 7, 0, 0, 0],
        &[0x66, 0x0f, 0x6e, 0xc1],
        &mov_eax(502),
        SYSCALL,
        &[0x66, 0x0f, 0x7e, 0xc0],
        &exit_with_eax(),
    ]);
    assert_eq!(run(which, &code, "exit 9").0, ["xmm0 [7, 0, 0, 0] of many", "exit 9"]);
}

fn a_parked_call_is_answered_by_another_thread(which: Which) {
    let code = asm(&[&mov_eax(503), SYSCALL, &exit_with_eax()]);
    assert_eq!(run(which, &code, "exit 91").0, ["exit 91"]);
}

fn what_is_kept_for_a_process_is_given_back_when_nothing_is_left_of_it(which: Which) {
    let code = asm(&[&mov_eax(504), SYSCALL, &[0xeb, 0xfe]]);
    let event = "given back, memory there: false";
    assert_eq!(run(which, &code, event).0, [event]);
}
